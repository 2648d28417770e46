import Foundation
import GRDB
public import LonglineWire
import NIOCore

/// Keeps pending notifications in an SQLite file of their own, so that they survive the server.
///
/// One process at a time, which has to see to that: a server opens it behind its store's lock. A batch is one transaction, on disk when
/// the call returns.
public final class NotificationJournal: Sendable {
    private let database: DatabaseQueue

    /// Opens the file, or makes it with mode 0600. What a process left of its write-ahead log is written to the disk once more.
    /// - Throws: ``StoreError/Code/unavailable`` or ``StoreError/Code/versionTooNew``.
    public init(path: String) throws(StoreError) {
        do {
            _ = try LeftoverLog.settle(besideDatabase: path)
            let code = FolderOwner.create(path)
            guard code == 0 else {
                throw StoreError(.unavailable, message: "\(path) can't be made: \(StoreDirectory.text(code))")
            }
            var configuration = Configuration()
            configuration.label = "longline.notifications"
            configuration.prepareDatabase { database in
                try database.execute(sql: "PRAGMA journal_mode = WAL")
                try database.execute(sql: "PRAGMA synchronous = FULL")
                // What was told or forgotten is overwritten in its page.
                try database.execute(sql: "PRAGMA secure_delete = FAST")
            }
            database = try DatabaseQueue(path: path, configuration: configuration)
            guard try database.read({ try !Self.migrator.hasBeenSuperseded($0) }) else {
                throw StoreError(
                    .versionTooNew, message: "\(path) was written by a later version of Longline",
                    advice: "start that version, or move the file away: what it holds is not told then")
            }
            try Self.migrator.migrate(database)
        } catch {
            throw Self.translate(error, path)
        }
    }

    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE notification (
                        tenant TEXT NOT NULL, user TEXT NOT NULL, conversation TEXT NOT NULL, channel TEXT NOT NULL,
                        epoch INTEGER NOT NULL, offset INTEGER NOT NULL, sender TEXT NOT NULL, count INTEGER NOT NULL,
                        time INTEGER NOT NULL, expiry INTEGER NOT NULL, payload BLOB, since INTEGER NOT NULL,
                        failures INTEGER NOT NULL, not_before INTEGER NOT NULL,
                        PRIMARY KEY (tenant, user, conversation)) WITHOUT ROWID
                    """)
        }
        migrator.registerMigration("2") { database in
            try database.execute(sql: "ALTER TABLE notification ADD COLUMN until INTEGER NOT NULL DEFAULT 0")
            // How long the others of several are worth telling was not kept: better told in vain than not at all.
            try database.execute(sql: "UPDATE notification SET until = expiry WHERE count = 1")
        }
        return migrator
    }

    /// Everything that is kept, the oldest first. A row that can't be true is left out.
    public func load() async throws(StoreError) -> [PendingNotification] {
        do {
            return try await database.read { database in
                try Row.fetchAll(database, sql: "SELECT * FROM notification ORDER BY since").compactMap {
                    try? Self.notification($0)
                }
            }
        } catch {
            throw Self.translate(error, database.path)
        }
    }

    /// Keeps and forgets, in one transaction.
    public func apply(
        keep: [PendingNotification], forget: [PendingNotification.Key]
    ) async throws(StoreError) {
        try await apply { (keep, forget) }
    }

    /// As ``apply(keep:forget:)``, of what there is to be kept and forgotten when the writes before it are done.
    /// - Parameter changes: called once, on the database's queue; not at all where it can't be had.
    public func apply(
        _ changes: @escaping @Sendable () -> (keep: [PendingNotification], forget: [PendingNotification.Key])
    ) async throws(StoreError) {
        do {
            try await database.write { database in
                let (keep, forget) = changes()
                for key in forget { try Self.remove(key, database) }
                for notification in keep { try Self.insert(notification, database) }
            }
        } catch {
            throw Self.translate(error, database.path)
        }
    }

    /// Forgets all that waits for a user. On disk when the call returns.
    public func forget(_ user: UserID, in tenant: TenantID) async throws(StoreError) {
        do {
            try await database.write { database in
                try database.execute(
                    sql: "DELETE FROM notification WHERE tenant = ? AND user = ?",
                    arguments: [tenant.description, user.description])
            }
        } catch {
            throw Self.translate(error, database.path)
        }
    }

    /// Gives the file back.
    public func close() throws(StoreError) {
        do { try database.close() } catch { throw Self.translate(error, database.path) }
    }

    private static func insert(_ value: PendingNotification, _ database: Database) throws {
        try database.cachedStatement(
            sql: "INSERT OR REPLACE INTO notification VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ).execute(
            arguments: [
                value.key.tenant.description, value.key.user.description, value.key.conversation.description,
                value.channel.description, Int64(bitPattern: value.position.epoch),
                Int64(clamping: value.position.offset),
                value.sender.description, Int64(clamping: value.count), Int64(clamping: value.time),
                Int64(clamping: value.expiry), value.payload.map { Data($0.readableBytesView) },
                Int64(clamping: value.since), value.failures, Int64(clamping: value.notBefore),
                Int64(clamping: value.until),
            ])
    }

    private static func remove(_ key: PendingNotification.Key, _ database: Database) throws {
        try database.cachedStatement(sql: "DELETE FROM notification WHERE tenant = ? AND user = ? AND conversation = ?")
            .execute(arguments: [key.tenant.description, key.user.description, key.conversation.description])
    }

    private static func notification(_ row: Row) throws -> PendingNotification {
        func number(_ column: String) -> UInt64 { UInt64(clamping: row[column] as Int64) }
        let epoch: Int64 = row["epoch"]
        let payload: Data? = row["payload"]
        return PendingNotification(
            key: PendingNotification.Key(
                tenant: try TenantID(row["tenant"] as String), user: try UserID(row["user"] as String),
                conversation: try ChannelID(row["conversation"] as String)),
            channel: try ChannelID(row["channel"] as String),
            position: Position(epoch: UInt64(bitPattern: epoch), offset: number("offset")),
            sender: try UserID(row["sender"] as String), count: number("count"), time: number("time"),
            expiry: number("expiry"), until: number("until"), payload: payload.map { ByteBuffer(bytes: $0) },
            since: number("since"),
            failures: row["failures"], notBefore: number("not_before"))
    }

    private static func translate(_ error: any Error, _ path: String) -> StoreError {
        if let error = error as? StoreError { return error }
        guard let error = error as? DatabaseError else { return StoreError(.unavailable, message: "\(path): \(error)") }
        let text = "\(path): SQLite \(error.extendedResultCode.rawValue): \(error.message ?? "")"
        switch error.resultCode {
        case .SQLITE_FULL: return StoreError(.storageFull, message: text, advice: "make room on the disk")
        case .SQLITE_CORRUPT, .SQLITE_NOTADB:
            return StoreError(
                .unavailable, message: text,
                advice: "the file is damaged: move it away, with its -wal and -shm; what it holds is not told then")
        default: return StoreError(.unavailable, message: text)
        }
    }
}
