import Foundation
import GRDB
import LonglineServer
import LonglineStore
import LonglineWire

/// Numbers each user's deliberate logins, with one counter for all of the user's devices, durably.
///
/// A token that is issued without a login carries the number of its device's last one. Numbers are seconds since 1970 or more, as
/// those of `longline token`: they go on growing where the database was lost or is an older copy.
struct LoginEpochs: Sendable {
    let database: ControlDatabase

    /// The next login of a user, on this device.
    /// - Parameter kept: written in the same transaction: where that fails, there was no login.
    func allot(
        _ device: DeviceKey, now: UInt64,
        with kept: @escaping @Sendable (_ epoch: UInt64, _ db: Database) throws -> Void = { _, _ in }
    ) async throws -> UInt64 {
        try await database.pool.write { db in
            let last =
                try Int64.fetchOne(
                    db, sql: "SELECT max(epoch) FROM logins WHERE tenant = ? AND user = ?",
                    arguments: [device.tenant.description, device.user.description]) ?? 0
            let next = max(last + 1, Int64(clamping: now / 1_000))
            try db.execute(
                sql: """
                    INSERT INTO logins (tenant, user, device, epoch, seen) VALUES (?, ?, ?, ?, ?)
                    ON CONFLICT (tenant, user, device) DO UPDATE SET epoch = excluded.epoch, seen = excluded.seen
                    """,
                arguments: Self.name(device) + [next, Int64(clamping: now)])
            let epoch = UInt64(clamping: next)
            try kept(epoch, db)
            return epoch
        }
    }

    /// The last login on this device; 0 where there was none.
    func last(_ device: DeviceKey, now: UInt64) async throws -> UInt64 {
        let name = Self.name(device)
        let login = try await database.pool.read { db in
            try Row.fetchOne(
                db, sql: "SELECT epoch, seen FROM logins WHERE tenant = ? AND user = ? AND device = ?", arguments: name
            ).map { (epoch: $0["epoch"] as Int64, seen: $0["seen"] as Int64) }
        }
        guard let login else { return 0 }
        // Written down once a day, so that a renewal is a read.
        if UInt64(clamping: login.seen) + Self.day <= now {
            do {
                try await database.pool.write { db in
                    try db.execute(
                        sql: "UPDATE logins SET seen = ? WHERE tenant = ? AND user = ? AND device = ?",
                        arguments: [Int64(clamping: now)] + name)
                }
            } catch let error as DatabaseError where error.isStorageFull {
                // A full disk renews tokens all the same: of the half year that a login is kept this is a day.
            }
        }
        return UInt64(clamping: login.epoch)
    }

    private static func name(_ device: DeviceKey) -> StatementArguments {
        [device.tenant.description, device.user.description, device.device.description]
    }

    /// Forgets a user's logins.
    func forget(_ user: UserID, in tenant: TenantID) async throws {
        try await database.writeInSteps { db in
            try db.execute(
                sql: """
                    DELETE FROM logins WHERE (tenant, user, device) IN
                        (SELECT tenant, user, device FROM logins WHERE tenant = ? AND user = ? LIMIT ?)
                    """, arguments: [tenant.description, user.description, ControlDatabase.step])
        }
    }

    /// Forgets logins of devices that nobody asked a token for in a long time.
    ///
    /// As long as the store remembers a device its number has to be known, or a renewed token would carry a lower one: the last
    /// token may have been used until it expired, and the store forgets a device so long behind that.
    /// - Parameters:
    ///   - tokenLifetime: the longest.
    ///   - unseen: how long the store remembers a device that is not seen, in milliseconds.
    func sweep(now: UInt64, tokenLifetime: Duration, unseen: UInt64 = StoreLimits().unseen) async throws {
        let (kept, isForEver) = unseen.addingReportingOverflow(tokenLifetime.wholeMilliseconds + 2 * Self.day)
        guard !isForEver, now > kept else { return }
        try await database.writeInSteps { db in
            try db.execute(
                sql: """
                    DELETE FROM logins WHERE (tenant, user, device) IN
                        (SELECT tenant, user, device FROM logins WHERE seen <= ? LIMIT ?)
                    """, arguments: [Int64(clamping: now - kept), ControlDatabase.step])
        }
    }

    /// In milliseconds. What was seen is known to within one; one more is for clocks and the sweep's own turn.
    private static let day: UInt64 = 24 * 3_600 * 1_000
}
