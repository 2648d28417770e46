import GRDB
import LonglineWire

/// The sweep. A step looks at so many rows of one table, in the order of its primary key, and removes about as many at most,
/// whatever hangs on them.
extension SQLiteTables {
    private typealias Values = [any DatabaseValueConvertible]

    /// A table and the columns of its primary key, names before numbers or behind them.
    private struct Swept {
        let table: String
        var names: [String] = []
        var numbers: [String] = []
        var beginsWithNumbers = false

        /// In the order of the key.
        func ordered<Item>(_ names: [Item], _ numbers: [Item]) -> [Item] {
            beginsWithNumbers ? numbers + names : names + numbers
        }
    }

    /// A range of a table's primary key, as a condition and its values.
    private struct SweptRange {
        let condition: String
        let values: Values
        /// Where the next begins, or nil at the table's end.
        let end: SweepMark?
    }

    private func range(of swept: Swept, after mark: SweepMark, rows: Int) throws -> SweptRange {
        let columns = swept.ordered(swept.names, swept.numbers)
        let key = "(\(columns.joined(separator: ", ")))"
        let places = "(\(columns.map { _ in "?" }.joined(separator: ", ")))"
        // No name is empty, and numbers are above 0.
        let names = mark.names.isEmpty ? swept.names.map { _ in "" } : mark.names
        let numbers = mark.numbers.isEmpty ? swept.numbers.map { _ in 0 } : mark.numbers
        let above = swept.ordered(names as Values, numbers as Values)
        let last = try row(
            """
            SELECT \(columns.joined(separator: ", ")) FROM \(swept.table) WHERE \(key) > \(places)
            ORDER BY \(columns.joined(separator: ", ")) LIMIT 1 OFFSET ?
            """, above + [rows - 1])
        guard let last else { return SweptRange(condition: "\(key) > \(places)", values: above, end: nil) }
        let end = SweepMark(
            names: swept.names.map { last[$0] as String }, numbers: swept.numbers.map { last[$0] as Int64 })
        return SweptRange(
            condition: "\(key) > \(places) AND \(key) <= \(places)",
            values: above + swept.ordered(end.names as Values, end.numbers as Values), end: end)
    }

    /// Removes up to `limit` rows of a table, named by the columns of its key.
    /// - Returns: how many.
    private func delete(
        from table: String, _ key: String, where condition: String, _ values: Values, limit: Int
    ) throws -> Int {
        try run(
            "DELETE FROM \(table) WHERE (\(key)) IN (SELECT \(key) FROM \(table) WHERE \(condition) LIMIT ?)",
            values + [limit])
        return db.changesCount
    }

    func sweep(_ stage: SweepStage, after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        try flush()
        switch stage {
        case .presence:
            let presence = Swept(table: "presence", names: ["tenant", "user"])
            let range = try range(of: presence, after: mark, rows: rule.rows)
            try run(
                "DELETE FROM presence WHERE \(range.condition) AND last_seen < ? AND visibility = ?",
                range.values + [Int64(clamping: rule.unseenSince), PresenceVisibility.everything.rawValue])
            return SweepStep(removed: db.changesCount, next: range.end)
        case .tokens:
            let tokens = Swept(table: "revoked_tokens", names: ["tenant", "token"])
            let range = try range(of: tokens, after: mark, rows: rule.rows)
            try run(
                "DELETE FROM revoked_tokens WHERE \(range.condition) AND until <= ?",
                range.values + [Int64(clamping: rule.expiredAt)])
            return SweepStep(removed: db.changesCount, next: range.end)
        case .devices: return try sweepDevices(after: mark, rule)
        case .outboxes: return try sweepOutboxes(after: mark, rule)
        case .channels: return try sweepChannels(after: mark, rule)
        case .ledgers, .cursors, .stints: return try collect(stage, after: mark, rule)
        case .conversations: return try collectConversations(after: mark, rule)
        }
    }

    // MARK: Devices and outboxes

    private func sweepDevices(after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        let range = try range(of: Swept(table: "devices", numbers: ["id"]), after: mark, rows: rule.rows)
        let removed = try removeDevices(
            where: "\(range.condition) AND seen < ?", range.values + [Int64(clamping: rule.unseenSince)],
            limit: rule.rows)
        return SweepStep(removed: removed.devices, next: removed.rows < rule.rows ? range.end : mark)
    }

    func removeDevices(of user: UserID, in tenant: TenantID, limit: Int) throws -> Int {
        try flush()
        return try removeDevices(
            where: "tenant = ? AND user = ?", [tenant.description, user.description], limit: limit
        ).rows
    }

    /// Removes devices, and before them all that hangs on them, up to `limit` rows together.
    private func removeDevices(where condition: String, _ values: Values, limit: Int) throws -> (
        rows: Int, devices: Int
    ) {
        let devices = "SELECT id FROM devices WHERE \(condition)"
        let outboxes = "SELECT id FROM producers WHERE device IN (\(devices))"
        // In this order a row goes only after what hangs on it.
        let tables = [
            ("answers", "producer, channel, publish_id", "producer IN (\(outboxes))"),
            ("ledgers", "producer, channel", "producer IN (\(outboxes))"),
            ("producers", "id", "device IN (\(devices))"), ("cursors", "device, channel", "device IN (\(devices))"),
            ("devices", "id", condition),
        ]
        var removed: [String: Int] = [:]
        var room = limit
        for (table, key, condition) in tables where room > 0 {
            let count = try delete(from: table, key, where: condition, values, limit: room)
            removed[table] = count
            room -= count
        }
        if room < limit { forgetDevices() }
        if room <= 0, removed["producers", default: 0] > 0 {
            // A device that comes back before the next step has the outboxes that are left.
            try run(
                """
                UPDATE devices SET producers = (SELECT count(*) FROM producers WHERE producers.device = devices.id)
                WHERE \(condition)
                """, values)
        }
        return (limit - room, removed["devices", default: 0])
    }

    private func sweepOutboxes(after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        let range = try range(of: Swept(table: "producers", numbers: ["id"]), after: mark, rows: rule.rows)
        let old = "\(range.condition) AND seen < ?"
        let values = range.values + [Int64(clamping: rule.unseenSince)]
        var room = rule.rows
        for (table, key) in [("answers", "producer, channel, publish_id"), ("ledgers", "producer, channel")]
        where room > 0 {
            room -= try delete(
                from: table, key, where: "producer IN (SELECT id FROM producers WHERE \(old))", values, limit: room)
        }
        if room < rule.rows { forgetDevices() }
        guard room > 0 else { return SweepStep(removed: 0, next: mark) }
        try run(
            """
            UPDATE devices SET producers = producers -
                (SELECT count(*) FROM producers WHERE producers.device = devices.id AND \(old))
            WHERE id IN (SELECT device FROM producers WHERE \(old))
            """, values + values)
        try run("DELETE FROM producers WHERE \(old)", values)
        let removed = db.changesCount
        if removed > 0 { forgetDevices() }
        return SweepStep(removed: removed, next: range.end)
    }

    // MARK: Channels

    /// Rooms without entries and members, and inboxes without entries whose users have no device, no stay and no settings. What
    /// hangs on them and can be found by them goes with them, the rest with ``collect(_:after:_:)``: nothing finds it
    /// meanwhile, since no channel gets their numbers.
    private func sweepChannels(after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        let range = try range(of: Swept(table: "channels", numbers: ["id"]), after: mark, rows: rule.rows)
        // '0' follows '/'. A name behind `user/` is a user's.
        let found = try rows(
            """
            SELECT id, tenant, name FROM channels WHERE \(range.condition)
            AND entries = 0 AND members = 0 AND time < ? AND (
                (name > 'room/' AND name < 'room0') OR (name > 'user/' AND name < 'user0'
                AND NOT EXISTS (SELECT 1 FROM devices
                    WHERE devices.tenant = channels.tenant AND devices.user = substr(channels.name, 6))
                AND NOT EXISTS (SELECT 1 FROM stints JOIN channels AS rooms ON rooms.id = stints.room
                    WHERE stints.tenant = channels.tenant AND stints.user = substr(channels.name, 6))
                AND NOT EXISTS (SELECT 1 FROM conversations
                    WHERE owner = channels.id AND (muted_until <> 0 OR blocked <> 0))))
            ORDER BY id
            """, range.values + [Int64(clamping: rule.unseenSince)])
        guard !found.isEmpty else { return SweepStep(removed: 0, next: range.end) }
        defer {
            stints.removeAll()
            conversations.removeAll()
        }
        var step = SweepStep(removed: 0, next: range.end)
        var room = rule.rows
        for row in found {
            let id: Int64 = row[0]
            for (table, owner, key) in [("deletions", "room", "offset"), ("conversations", "owner", "name")]
            where room > 0 {
                room -= try delete(from: table, "\(owner), \(key)", where: "\(owner) = ?", [id], limit: room)
            }
            guard room > 0 else {
                // The same range again, for those that are left.
                step.next = mark
                break
            }
            try removeRow(of: try Self.key(row[2], TenantID(row[1] as String)), id: id)
            room -= 1
            step.removed += 1
        }
        if step.removed > 0 { try run("UPDATE store SET orphans = 1", []) }
        return step
    }

    func remove(_ channel: ChannelRecord) throws { try removeRow(of: channel.key, id: channel.id) }

    private func removeRow(of channel: ChannelKey, id: Int64) throws {
        try run("DELETE FROM channels WHERE id = ?", [id])
        // No channel gets the number again, though it was the highest: something may still name it.
        try run("UPDATE store SET removed_channel = max(removed_channel, ?)", [id])
        forget(channel)
    }

    /// Whether channels were removed since what names them was collected last.
    private func hasOrphans() throws -> Bool { try row("SELECT orphans FROM store", []).map { $0[0] as Bool } ?? false }

    /// Removes what names channels that are gone. These rows are in the order of something else, and an index for the sweep would
    /// cost every publish; so all of them are looked at, once channels were removed.
    private func collect(_ stage: SweepStage, after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        guard try hasOrphans() else { return SweepStep(removed: 0, next: nil) }
        let (swept, channel) =
            switch stage {
            case .ledgers: (Swept(table: "ledgers", numbers: ["producer", "channel"]), "channel")
            case .cursors: (Swept(table: "cursors", numbers: ["device", "channel"]), "channel")
            default: (Swept(table: "stints", names: ["tenant", "user"], numbers: ["room"]), "room")
            }
        let range = try range(of: swept, after: mark, rows: rule.rows)
        let orphaned =
            "\(range.condition) AND NOT EXISTS (SELECT 1 FROM channels WHERE channels.id = \(swept.table).\(channel))"
        if stage == .ledgers {
            let answers = try delete(
                from: "answers", "producer, channel, publish_id",
                where: "(producer, channel) IN (SELECT producer, channel FROM ledgers WHERE \(orphaned))", range.values,
                limit: rule.rows)
            guard answers < rule.rows else { return SweepStep(removed: 0, next: mark) }
        }
        try run("DELETE FROM \(swept.table) WHERE \(orphaned)", range.values)
        let removed = db.changesCount
        if stage == .stints, range.end == nil { try run("UPDATE store SET orphans = 0", []) }
        return SweepStep(removed: removed, next: range.end)
    }

    /// Removes what users did in rooms of which they have no stay any more. It names the room, and not the room's row: one of that
    /// name that was made since is another. Settings stay, as many as a user may have.
    private func collectConversations(after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep {
        guard try hasOrphans() else { return SweepStep(removed: 0, next: nil) }
        let swept = Swept(table: "conversations", names: ["name"], numbers: ["owner"], beginsWithNumbers: true)
        let range = try range(of: swept, after: mark, rows: rule.rows)
        // In this order each of the three is found by a key of its own. A name behind `user/` is a user's.
        try run(
            """
            DELETE FROM conversations WHERE \(range.condition) AND name > 'room/' AND name < 'room0'
            AND muted_until = 0 AND blocked = 0 AND NOT EXISTS (
                SELECT 1 FROM channels AS inboxes
                CROSS JOIN channels AS rooms ON rooms.tenant = inboxes.tenant AND rooms.name = conversations.name
                CROSS JOIN stints ON stints.tenant = inboxes.tenant AND stints.user = substr(inboxes.name, 6)
                    AND stints.room = rooms.id
                WHERE inboxes.id = conversations.owner)
            """, range.values)
        let removed = db.changesCount
        if removed > 0 { conversations.removeAll() }
        return SweepStep(removed: removed, next: range.end)
    }
}
