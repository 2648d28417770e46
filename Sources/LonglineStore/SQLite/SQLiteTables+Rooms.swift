import GRDB
import LonglineWire

/// Who is or was in which room.
extension SQLiteTables {
    private static let stintColumns = "after, joined, \"left\", role"

    /// A stay out of a row.
    /// - Throws: ``StoreError`` when the row was not written by a store.
    private static func stint(_ row: Row, from index: Int) throws -> Stint {
        Stint(after: row[index], joined: row[index + 1], left: row[index + 2], role: try role(row, index + 3))
    }

    private static func role(_ row: Row, _ index: Int) throws -> RoomRole {
        guard let role = RoomRole(rawValue: row[index]) else {
            throw StoreError(.unavailable, message: "a member has the unknown role \(row[index] as Int64)")
        }
        return role
    }

    func stint(of user: UserID, in room: ChannelRecord) throws -> Stint? {
        let key = StintKey(room: room.id, user: user)
        if let known = stints[key] { return known }
        let found = try row(
            "SELECT \(Self.stintColumns) FROM stints WHERE tenant = ? AND user = ? AND room = ?",
            [room.key.tenant.description, user.description, room.id]
        ).map { try Self.stint($0, from: 0) }
        stints[key] = .some(found)
        return found
    }

    func stints(of user: UserID, in tenant: TenantID) throws -> [(room: ChannelRecord, stint: Stint)] {
        try flush()
        return try rows(
            """
            SELECT \(Self.channelColumns), name, \(Self.stintColumns)
            FROM stints JOIN channels ON channels.id = stints.room
            WHERE stints.tenant = ? AND user = ? ORDER BY room
            """, [tenant.description, user.description]
        ).map { row in
            (
                try Self.channel(row, try Self.key(row[Self.channelColumnCount], tenant)),
                try Self.stint(row, from: Self.channelColumnCount + 1)
            )
        }
    }

    func set(_ stint: Stint, of user: UserID, in room: ChannelRecord) throws {
        // The life of the room that it belongs to.
        let life = stint.joined > room.deleted ? room.deleted : 0
        try run(
            """
            INSERT OR REPLACE INTO stints (tenant, user, room, after, joined, "left", role, life)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            """,
            [
                room.key.tenant.description, user.description, room.id, Int64(stint.after), Int64(stint.joined),
                stint.left.map { Int64($0).databaseValue } ?? .null, stint.role.rawValue, Int64(life),
            ])
        stints[StintKey(room: room.id, user: user)] = .some(stint)
    }

    func removeStint(of user: UserID, in room: ChannelRecord) throws {
        try run(
            "DELETE FROM stints WHERE tenant = ? AND user = ? AND room = ?",
            [room.key.tenant.description, user.description, room.id])
        stints[StintKey(room: room.id, user: user)] = .some(nil)
    }

    func addDeletion(_ offset: Offset, of room: ChannelRecord) throws {
        // One that no open stay began before, and behind the deletion before it.
        try run(
            """
            DELETE FROM deletions WHERE room = ? AND NOT EXISTS (
                SELECT 1 FROM stints WHERE stints.room = deletions.room AND "left" IS NULL AND joined < deletions.offset
                AND joined > coalesce((SELECT max(earlier.offset) FROM deletions AS earlier
                    WHERE earlier.room = deletions.room AND earlier.offset < deletions.offset), 0))
            """, [room.id])
        try run("INSERT INTO deletions (room, offset) VALUES (?, ?)", [room.id, Int64(offset)])
    }

    func deletion(of room: ChannelRecord, after offset: Offset) throws -> Offset? {
        try row(
            "SELECT offset FROM deletions WHERE room = ? AND offset > ? ORDER BY offset LIMIT 1",
            [room.id, Int64(offset)]
        ).map { row in row[0] }
    }

    /// From the index `members` alone: whoever was in the room before its last deletion costs nothing.
    func members(of room: ChannelRecord, after user: UserID?, limit: Int) throws -> [RoomMember] {
        try rows(
            """
            SELECT user, role FROM stints
            WHERE room = ? AND life = ? AND "left" IS NULL AND user > ? ORDER BY user LIMIT ?
            """, [room.id, Int64(room.deleted), user?.description ?? "", limit]
        ).map { row in RoomMember(user: try UserID(row[0] as String), role: try Self.role(row, 1)) }
    }

    /// One row, found by the index `members_by_age`.
    func oldestMember(of room: ChannelRecord) throws -> UserID? {
        try row(
            "SELECT user FROM stints WHERE room = ? AND \"left\" IS NULL AND joined > ? ORDER BY joined LIMIT 1",
            [room.id, Int64(room.deleted)]
        ).map { row in try UserID(row[0] as String) }
    }
}
