import Foundation
import GRDB
public import LonglineServer
import LonglineStore
import LonglineWire
import Synchronization

/// What the control layer keeps: API keys (hashed), logins, idempotency keys, and its node's name. One SQLite database beside the
/// messages, mode 0600; several processes may have it open.
public final class ControlDatabase: Sendable {
    let pool: DatabasePool
    private let use: DatabaseUse

    /// Whether a server's folder has one.
    public static func exists(_ directory: ServerDirectory) -> Bool {
        FileManager.default.fileExists(atPath: directory.path + "/control.db")
    }

    /// Opens the database of a server's folder, or makes it. Blocks on the disk.
    /// - Throws: ``ControlError/Code/storeUnavailable``, ``ControlError/Code/versionTooNew``.
    public convenience init(_ directory: ServerDirectory) throws(ControlError) {
        try self.init(path: directory.path + "/control.db")
    }

    /// Opens the database at a path, or makes it. Blocks on the disk.
    /// - Throws: ``ControlError/Code/storeUnavailable``, ``ControlError/Code/versionTooNew``.
    public init(path: String) throws(ControlError) {
        do {
            let lock = try OpeningLock(folder: URL(filePath: path).deletingLastPathComponent().path)
            defer { _ = lock }
            // What a process left of the write-ahead log may not be on the disk. One that has the file open saw to that.
            use = try DatabaseUse(path: URL(filePath: path).deletingPathExtension().path + ".lock") {
                // An earlier version may have it open: it knows nothing of that lock.
                guard try !LeftoverLog.isInUse(database: path) else { return }
                try LeftoverLog.settle(besideDatabase: path)
            }
            try Self.create(path)
            var settings = Configuration()
            settings.label = "longline.control"
            settings.maximumReaderCount = 2
            settings.busyMode = .timeout(5)
            // What was forgotten is overwritten in its page.
            settings.prepareDatabase { try $0.execute(sql: "PRAGMA secure_delete = FAST") }
            pool = try DatabasePool(path: path, configuration: settings)
            try pool.writeWithoutTransaction { try $0.execute(sql: "PRAGMA synchronous = FULL") }
            let migrator = Self.migrator
            guard try pool.read({ try !migrator.hasBeenSuperseded($0) }) else {
                throw ControlError(
                    .versionTooNew, message: "\(path) was written by a later version of Longline",
                    advice: "start that version, or restore a backup made by this one")
            }
            try migrator.migrate(pool)
        } catch let error as ControlError {
            throw error
        } catch let error as StoreError {
            throw ControlError(
                .storeUnavailable, message: "can't open \(path)", cause: error, advice: error.advice)
        } catch {
            throw ControlError(
                .storeUnavailable, message: "can't open \(path)", cause: error,
                advice: "check the folder, its owner and free space")
        }
    }

    /// Makes the file where there is none: SQLite gives its other files the mode of this one.
    private static func create(_ path: String) throws(ControlError) {
        let code = FolderOwner.create(path)
        guard code == 0 else {
            throw ControlError(.storeUnavailable, message: "can't open \(path): \(String(cString: strerror(code)))")
        }
    }

    /// Forgets users whose accounts a server erases. ``LonglineControl`` does so by itself; where there is none although there was
    /// one before, whoever runs the server calls this before its start.
    public func isErased(with server: LonglineServer) {
        server.alsoErase { user, tenant in try await self.forget(user, in: tenant) }
    }

    /// Closes it. Later calls throw.
    public func close() throws(ControlError) {
        defer { use.end() }
        do { try pool.close() } catch {
            throw ControlError(.storeUnavailable, message: "the control database was not closed in order", cause: error)
        }
    }

    /// The node's name: 16 hexadecimal digits, drawn when the database was made.
    /// - Throws: ``ControlError/Code/storeUnavailable``.
    public func nodeID() throws(ControlError) -> NodeID {
        do {
            let name = try pool.read { try String.fetchOne($0, sql: "SELECT name FROM node") }
            if let name, let id = NodeID(name) { return id }
        } catch {
            throw ControlError(.storeUnavailable, message: "the control database can't be read", cause: error)
        }
        throw ControlError(.storeUnavailable, message: "the control database has no node")
    }

    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { db in
            try db.execute(
                sql: """
                    CREATE TABLE api_keys (
                        id TEXT PRIMARY KEY, hash BLOB NOT NULL, tenant TEXT, rights TEXT NOT NULL, label TEXT NOT NULL,
                        created INTEGER NOT NULL, revoked INTEGER) WITHOUT ROWID;
                    CREATE TABLE logins (
                        tenant TEXT NOT NULL, user TEXT NOT NULL, device TEXT NOT NULL, epoch INTEGER NOT NULL,
                        PRIMARY KEY (tenant, user, device)) WITHOUT ROWID;
                    CREATE TABLE idempotency (
                        api_key TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, created INTEGER NOT NULL,
                        number INTEGER NOT NULL, result BLOB, PRIMARY KEY (api_key, key)) WITHOUT ROWID;
                    CREATE INDEX idempotency_created ON idempotency (created);
                    CREATE TABLE numbers (api_key TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
                    CREATE TABLE node (name TEXT NOT NULL);
                    """)
            try db.execute(sql: "INSERT INTO node (name) VALUES (?)", arguments: [NodeID.random().description])
        }
        migrator.registerMigration("users") { db in
            // When logins of before were used last is not known: as if now.
            try db.execute(
                sql: """
                    ALTER TABLE logins ADD COLUMN seen INTEGER NOT NULL DEFAULT 0;
                    CREATE INDEX logins_seen ON logins (seen);
                    ALTER TABLE idempotency ADD COLUMN tenant TEXT;
                    ALTER TABLE idempotency ADD COLUMN user TEXT;
                    CREATE INDEX idempotency_user ON idempotency (tenant, user) WHERE user IS NOT NULL;
                    """)
            try db.execute(
                sql: "UPDATE logins SET seen = ?", arguments: [Int64(clamping: WallClock.milliseconds())])
            try nameUsers(db)
        }
        return migrator
    }
}

extension ControlDatabase {
    /// Says of requests of before which user their result names.
    private static func nameUsers(_ db: Database) throws {
        let rows = try Row.fetchAll(
            db,
            sql: """
                SELECT i.api_key, i.key, i.result, k.tenant FROM idempotency i JOIN api_keys k ON k.id = i.api_key
                    WHERE i.result IS NOT NULL AND k.tenant IS NOT NULL
                """)
        for row in rows {
            guard let user = IdempotencyKeys.user(inResult: row["result"]) else { continue }
            try db.execute(
                sql: "UPDATE idempotency SET tenant = ?, user = ? WHERE api_key = ? AND key = ?",
                arguments: [row["tenant"] as String, user, row["api_key"] as String, row["key"] as String])
        }
    }

    /// Forgets a user: logins, and what idempotency keys remember of requests about the user.
    func forget(_ user: UserID, in tenant: TenantID) async throws {
        try await LoginEpochs(database: self).forget(user, in: tenant)
        try await IdempotencyKeys.forget(user, in: tenant, from: self)
    }

    /// Writes ``step`` rows in a transaction, and again until there are fewer.
    func writeInSteps(_ statement: @escaping @Sendable (Database) throws -> Void) async throws {
        var changed = 0
        repeat {
            try Task.checkCancellation()
            changed = try await pool.write { db in
                try statement(db)
                return db.changesCount
            }
        } while changed == Self.step
    }

    /// Rows that are written in one transaction.
    static let step = 1_000

    /// Whether it can be read.
    func check() async throws { _ = try await pool.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM node") } }
}
