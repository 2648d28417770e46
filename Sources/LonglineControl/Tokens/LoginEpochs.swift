import Foundation
import GRDB
import LonglineStore
import LonglineWire

/// Numbers each user's deliberate logins, with one counter for all of the user's devices, durably.
///
/// A token that is issued without a login carries the number of its device's last one. Numbers are seconds since 1970 or more, as
/// those of `longline token`: they go on growing where the database was lost or is an older copy.
struct LoginEpochs: Sendable {
    let database: ControlDatabase

    /// The next login of a user, on this device.
    func allot(_ device: DeviceKey, now: UInt64) async throws -> UInt64 {
        try await database.pool.write { db in
            let last =
                try Int64.fetchOne(
                    db, sql: "SELECT max(epoch) FROM logins WHERE tenant = ? AND user = ?",
                    arguments: [device.tenant.description, device.user.description]) ?? 0
            let next = max(last + 1, Int64(clamping: now / 1_000))
            try db.execute(
                sql: """
                    INSERT INTO logins (tenant, user, device, epoch) VALUES (?, ?, ?, ?)
                    ON CONFLICT (tenant, user, device) DO UPDATE SET epoch = excluded.epoch
                    """,
                arguments: [device.tenant.description, device.user.description, device.device.description, next])
            return UInt64(clamping: next)
        }
    }

    /// The last login on this device; 0 where there was none.
    func last(_ device: DeviceKey) async throws -> UInt64 {
        let last = try await database.pool.read { db in
            try Int64.fetchOne(
                db, sql: "SELECT epoch FROM logins WHERE tenant = ? AND user = ? AND device = ?",
                arguments: [device.tenant.description, device.user.description, device.device.description])
        }
        return UInt64(clamping: last ?? 0)
    }
}
