import LonglineWire

/// Forgetting an account.
extension StoreLogic {
    /// Rooms that one step leaves: each costs an entry, and its members' attention.
    private static var roomsPerStep: Int { 256 }

    func requestErasure(of user: UserID, in tenant: TenantID) throws {
        try revoke(user, device: nil, in: tenant)
        try tables.addErasure(PendingErasure(tenant: tenant, user: user))
    }

    mutating func erase(_ user: UserID, in tenant: TenantID) throws -> ErasureStep {
        let stints = try tables.stints(of: user, in: tenant)
        var step = ErasureStep(isDone: false, left: [])
        for (room, stint) in stints.prefix(Self.roomsPerStep) {
            if stint.after(deletionOf: room).left == nil, case .room(let name) = room.key.channel {
                let nobody = DeviceKey(tenant: tenant, user: user, device: Self.noDevice)
                if case .done(let receipt) = try change(name, .leave, by: nobody) {
                    step.left.append(ChannelPosition(channel: room.key.channel, position: receipt.head))
                }
            }
            try forgetStint(of: user, in: room)
        }
        guard stints.count <= Self.roomsPerStep else { return step }

        var budget = limits.trimEntries
        let key = ChannelKey(tenant: tenant, channel: .user(user))
        if var inbox = try tables.channel(key) {
            let oldest = try tables.oldest(in: inbox, limit: budget)
            var bytes = 0
            let removed = oldest.prefix { entry in
                defer { bytes += entry.bytes }
                return bytes < limits.trimBytes
            }
            if let last = removed.last {
                inbox.entries -= removed.count
                inbox.bytes -= removed.reduce(0) { $0 + $1.bytes }
                inbox.first = last.offset
                try tables.removeEntries(in: inbox, through: last.offset)
                try tables.update(inbox)
            }
            guard removed.count == oldest.count else { return step }
            budget -= removed.count
            if budget > 0 { budget -= try tables.removeConversations(of: inbox, limit: budget) }
        }
        if budget > 0 { budget -= try tables.removeDevices(of: user, in: tenant, limit: budget) }
        guard budget > 0 else { return step }
        budget -= try forgetDeviceGenerations(of: user, in: tenant, limit: budget)
        guard budget > 0 else { return step }
        // Old credentials are void by the user's generation; a user who comes back may be counted from the start.
        try tables.removePlaces(of: user, in: tenant)
        // Last, when nothing names it any more.
        if let inbox = try tables.channel(key) { try tables.remove(inbox) }
        try tables.removePresence(of: user, in: tenant)
        try tables.removeErasure(PendingErasure(tenant: tenant, user: user))
        step.isDone = true
        return step
    }

    /// Forgets how often each device was revoked: the user's own generation, raised once more, voids whatever these did.
    /// - Returns: the rows removed.
    private func forgetDeviceGenerations(of user: UserID, in tenant: TenantID, limit: Int) throws -> Int {
        let removed = try tables.removeDeviceGenerations(of: user, in: tenant, limit: limit)
        if removed > 0 { try revoke(user, device: nil, in: tenant) }
        return removed
    }

    /// What a leave entry names for a device when none did it.
    private static var noDevice: DeviceID {
        do { return try DeviceID("-") } catch { preconditionFailure("a hyphen is a name: \(error)") }
    }
}
