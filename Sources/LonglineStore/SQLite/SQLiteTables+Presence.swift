import GRDB
import LonglineWire

/// Presence on disk.
extension SQLiteTables {
    func presence(of user: UserID, in tenant: TenantID) throws -> PresenceRecord? {
        let row = try row(
            "SELECT last_seen, visibility FROM presence WHERE tenant = ? AND user = ?",
            [tenant.description, user.description])
        return row.map { row in
            // A value that this version does not know hides: better than to show what was hidden.
            PresenceRecord(lastSeen: row[0], visibility: PresenceVisibility(rawValue: row[1]) ?? .nothing)
        }
    }

    func set(_ presence: PresenceRecord, of user: UserID, in tenant: TenantID) throws {
        try run(
            "INSERT OR REPLACE INTO presence (tenant, user, last_seen, visibility) VALUES (?, ?, ?, ?)",
            [tenant.description, user.description, Int64(clamping: presence.lastSeen), presence.visibility.rawValue])
    }

    func removePresence(of user: UserID, in tenant: TenantID) throws {
        try run("DELETE FROM presence WHERE tenant = ? AND user = ?", [tenant.description, user.description])
    }
}
