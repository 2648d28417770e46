import LonglineWire

/// The rules of reading that need no writer.
enum StoreRules {
    static func members(
        of room: RoomID, in tenant: TenantID, for reader: UserID?, after: UserID?, limit: Int,
        _ tables: some StoreTables
    ) throws -> MemberList? {
        guard let channel = try tables.channel(ChannelKey(tenant: tenant, channel: .room(room))) else { return nil }
        var settings: RoomSettings?
        if let reader {
            guard let stay = try stay(of: reader, in: channel, tables) else { return nil }
            settings = Self.settings(stay, in: channel)
        }
        let limit = max(limit, 1)
        // One more than asked for tells whether there is a next page.
        let found = try tables.members(of: channel, after: after, limit: limit + 1)
        return MemberList(
            total: channel.members, members: Array(found.prefix(limit)), more: found.count > limit,
            joining: channel.joining, publishing: channel.publishing, head: channel.ends.position,
            settings: settings)
    }

    /// A stay with its end: that of a room that was deleted, made again and deleted again ended with the first of the two.
    static func ended(_ stint: Stint, in room: ChannelRecord, _ tables: some StoreTables) throws -> Stint {
        var ended = stint.after(deletionOf: room)
        if stint.left == nil, ended.left != nil, let first = try tables.deletion(of: room, after: stint.joined) {
            ended.left = first
        }
        return ended
    }

    /// A user's membership, while it lasts.
    static func stay(of user: UserID, in room: ChannelRecord, _ tables: some StoreTables) throws -> Stint? {
        guard let stint = try tables.stint(of: user, in: room)?.after(deletionOf: room), stint.left == nil else {
            return nil
        }
        return stint
    }

    /// The inbox, when it exists, and the rooms of the user's last stints.
    static func entitlements(of user: UserID, in tenant: TenantID, _ tables: some StoreTables) throws -> [Entitlement] {
        var result: [Entitlement] = []
        if let inbox = try tables.channel(ChannelKey(tenant: tenant, channel: .user(user))) {
            result.append(Entitlement(channel: inbox.key.channel, head: inbox.ends, after: 0, upTo: nil))
        }
        for (room, stint) in try tables.stints(of: user, in: tenant) {
            result.append(entitlement(try ended(stint, in: room, tables), in: room))
        }
        return result
    }

    /// A device's cursors; none of one that isn't known.
    static func cursors(of device: DeviceKey, _ tables: some StoreTables) throws -> CursorRecord {
        guard let known = try tables.device(device) else { return CursorRecord(version: 0, cursors: [:]) }
        return try record(of: known, tables)
    }

    /// A device's cursors that are of their channels' current epochs.
    static func record(of device: DeviceRecord, _ tables: some StoreTables) throws -> CursorRecord {
        var record = CursorRecord(version: device.cursorVersion, cursors: [:])
        for (channel, position) in try tables.cursors(of: device) where position.epoch == channel.epoch {
            record.cursors[channel.key.channel] = position
        }
        return record
    }

    /// The foremost cursor of a user's devices in a channel's current epoch.
    static func confirmed(by user: UserID, in key: ChannelKey, _ tables: some StoreTables) throws -> Position? {
        guard let channel = try tables.channel(key) else { return nil }
        let offset = try tables.highestCursor(of: user, in: channel)
        return offset > 0 ? Position(epoch: channel.epoch, offset: offset) : nil
    }

    /// A device's own channels, and the broadcasts since it is known. One that isn't gets what comes from now on.
    static func channels(of device: DeviceKey, _ tables: some StoreTables) throws -> [Entitlement] {
        var result = try entitlements(of: device.user, in: device.tenant, tables)
        let broadcasts = try tables.broadcasts(in: device.tenant)
        guard !broadcasts.isEmpty else { return result }
        let begin = try tables.device(device)?.begin ?? .max
        for channel in broadcasts {
            // An entry's place, or the chain of what is delivered would have no link there.
            let after =
                try tables.lastOffset(in: channel, through: begin) ?? (channel.first <= begin ? channel.first : 0)
            result.append(
                Entitlement(channel: channel.key.channel, head: channel.ends, after: after, upTo: nil))
        }
        return result
    }

    /// What a member learns of a room; nil once the stay has ended.
    static func settings(_ stint: Stint, in channel: ChannelRecord) -> RoomSettings? {
        guard stint.left == nil, case .room(let room) = channel.key.channel else { return nil }
        return RoomSettings(
            room: room, position: channel.ends.position, joining: channel.joining, publishing: channel.publishing,
            role: stint.role)
    }

    static func entitlement(_ stint: Stint, in room: ChannelRecord) -> Entitlement {
        Entitlement(channel: room.key.channel, head: room.ends, after: stint.after, upTo: stint.left)
    }

    /// See ``ChannelLog/lastEdit(of:in:through:now:)``.
    static func lastEdit(
        of offset: Offset, in key: ChannelKey, through end: Offset, now: UInt64, _ tables: some StoreTables
    ) throws -> Entry? {
        guard let channel = try tables.channel(key) else { return nil }
        for edit in try tables.edits(of: offset, in: channel, limit: .max).reversed() where edit.offset <= end {
            if let entry = try tables.entry(at: edit.offset, in: channel), entry.absence(at: now) == nil {
                return entry
            }
        }
        return nil
    }

    /// See ``ChannelLog/countMessages(in:after:upTo:by:limit:now:)``.
    static func countMessages(
        in key: ChannelKey, after: Offset, upTo: Offset, by authors: Authors, limit: Int, now: UInt64,
        _ tables: some StoreTables
    ) throws -> Int {
        guard let channel = try tables.channel(key) else { return 0 }
        let looking = 1_024
        let counted = try tables.count(
            .news, in: channel, above: after, through: upTo, by: authors, limit: limit, looking: looking, now: now)
        return counted.looked < looking ? counted.count : limit
    }

    /// A page of history; looking at an inbox that is not there makes none.
    static func page(
        _ key: ChannelKey, _ range: LogRange, maximumEntries: Int, now: UInt64, _ tables: some StoreTables
    ) throws -> LogPage {
        guard let channel = try tables.channel(key) else { return try LogPage.absent(key) }
        let above = max(range.after, channel.first)
        let through = min(range.upTo ?? channel.head, channel.head)
        var result: LogPage
        switch range.direction {
        case .newer:
            var page = PageBuilder(
                channel: channel, after: range.after, upTo: range.upTo, maximumBytes: range.maximumBytes,
                maximumEntries: maximumEntries, maximumTaken: max(range.maximumEntries, 1), now: now)
            try tables.entries(in: channel, above: above, through: through, downward: false) { page.take($0) }
            result = page.page()
        case .older:
            var page = BackwardPage(channel: channel, range: range, maximumEntries: maximumEntries, now: now)
            try tables.entries(in: channel, above: above, through: through, downward: true) { page.take($0) }
            result = page.page()
        }
        if let reader = range.reader, case .room = channel.key.channel,
            let stint = try tables.stint(of: reader, in: channel)
        {
            result.stay = entitlement(try ended(stint, in: channel, tables), in: channel)
        }
        return result
    }

    static func channels(after mark: UInt64, limit: Int, _ tables: some StoreTables) throws -> ChannelList {
        let limit = max(limit, 1)
        guard let above = Int64(exactly: mark) else { return ChannelList(channels: [], next: nil) }
        // One more than asked for tells whether there is a next page.
        let found = try tables.channels(above: above, limit: limit + 1)
        let page = found.prefix(limit)
        let next = found.count > limit ? page.last.map { UInt64($0.id) } : nil
        return ChannelList(channels: page.map(\.summary), next: next)
    }

    static func generations(of device: DeviceKey, _ tables: some StoreTables) throws -> RevocationGenerations {
        RevocationGenerations(
            user: try tables.generation(of: device.user, device: nil, in: device.tenant),
            device: try tables.generation(of: device.user, device: device.device, in: device.tenant))
    }
}
