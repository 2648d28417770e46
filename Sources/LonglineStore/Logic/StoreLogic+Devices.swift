import LonglineWire

/// Cursors, connects and revocations.
extension StoreLogic {
    func advance(_ key: DeviceKey, to cursors: [ChannelPosition]) throws -> CursorRecord {
        guard let device = try moved(key, to: cursors) else { return CursorRecord(version: 0, cursors: [:]) }
        return try StoreRules.record(of: device, tables)
    }

    func move(_ key: DeviceKey, to cursors: [ChannelPosition]) throws { _ = try moved(key, to: cursors) }

    /// Moves a device's cursors; nil when nothing is known of it, nor to be known.
    private func moved(_ key: DeviceKey, to cursors: [ChannelPosition]) throws -> DeviceRecord? {
        if cursors.isEmpty, try tables.device(key) == nil { return nil }
        var device = try tables.device(key) ?? seenDevice(key, now: clock())
        var changed = false
        for cursor in cursors where try advance(device, to: cursor) { changed = true }
        if changed {
            device.cursorVersion += 1
            // A device that only receives says nothing else for as long as its session lasts.
            device.seen = max(device.seen, clock())
            try tables.update(device)
        }
        return device
    }

    /// - Returns: whether the cursor moved. It stays when the epoch isn't the channel's, the offset is beyond the log or not
    ///   above the stored one, or the user has no part in the channel (so a device has no more cursors than channels).
    private func advance(_ device: DeviceRecord, to cursor: ChannelPosition) throws -> Bool {
        let position = cursor.position
        guard let channel = try tables.channel(ChannelKey(tenant: device.key.tenant, channel: cursor.channel)),
            position.epoch == channel.epoch, position.offset <= channel.head, position.offset > 0
        else { return false }
        switch cursor.channel {
        case .user(let owner): guard owner == device.key.user else { return false }
        case .room: guard try tables.stint(of: device.key.user, in: channel) != nil else { return false }
        case .all: break
        }
        if let stored = try tables.cursor(of: device, in: channel), stored.epoch == position.epoch,
            stored.offset >= position.offset
        {
            return false
        }
        try tables.set(position, of: device, in: channel)
        return true
    }

    func admit(_ key: DeviceKey, producer id: ProducerID, connectNumber: UInt64) throws -> ConnectAdmission {
        guard try !tables.hasErasure(PendingErasure(tenant: key.tenant, user: key.user)) else { return .erasing }
        let now = clock()
        let isKnown = try tables.device(key) != nil
        let device = try seenDevice(key, now: now)
        guard var producer = try seenProducer(id, of: device, now: now) else {
            throw StoreError(
                .limitExceeded, message: "device \(key.device) of \(key.user) has \(device.producers) outboxes",
                advice: "an app keeps its outbox; one that draws a new producer at every start has a defect")
        }
        guard connectNumber >= producer.connectNumber else { return .stale }
        guard connectNumber > producer.connectNumber else { return .repeated }
        producer.connectNumber = connectNumber
        try tables.update(producer, id, of: device)
        return isKnown ? .returning : .firstOfDevice
    }

    func revoke(_ user: UserID, device: DeviceID?, in tenant: TenantID) throws {
        let generation = try tables.generation(of: user, device: device, in: tenant)
        try tables.set(generation: generation + 1, of: user, device: device, in: tenant)
    }

    func revoke(token: String, in tenant: TenantID, until: UInt64) throws {
        let known = try tables.revocation(of: token, in: tenant) ?? 0
        try tables.revoke(token: token, in: tenant, until: max(known, until))
    }
}
