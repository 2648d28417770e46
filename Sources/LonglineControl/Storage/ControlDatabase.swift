import Foundation
import GRDB
public import LonglineServer
import Synchronization

/// What the control layer keeps: API keys (hashed), logins, idempotency keys, and its node's name. One SQLite database beside the
/// messages, mode 0600; several processes may have it open.
public final class ControlDatabase: Sendable {
    let pool: DatabasePool

    /// Opens the database of a server's folder, or makes it. Blocks on the disk.
    /// - Throws: ``ControlError/Code/storeUnavailable``, ``ControlError/Code/versionTooNew``.
    public convenience init(_ directory: ServerDirectory) throws(ControlError) {
        try self.init(path: directory.path + "/control.db")
    }

    /// Opens the database at a path, or makes it. Blocks on the disk.
    /// - Throws: ``ControlError/Code/storeUnavailable``, ``ControlError/Code/versionTooNew``.
    public init(path: String) throws(ControlError) {
        do {
            // SQLite gives its other files the mode of this one.
            let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else {
                throw ControlError(
                    .storeUnavailable, message: "can't open \(path): \(String(cString: strerror(errno)))")
            }
            try FileHandle(fileDescriptor: descriptor, closeOnDealloc: false).close()
            var settings = Configuration()
            settings.label = "longline.control"
            settings.maximumReaderCount = 2
            settings.busyMode = .timeout(5)
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
        } catch {
            throw ControlError(
                .storeUnavailable, message: "can't open \(path)", cause: error,
                advice: "check the folder, its owner and free space")
        }
    }

    /// Closes it. Later calls throw.
    public func close() throws(ControlError) {
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

    private static var migrator: DatabaseMigrator {
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
        return migrator
    }
}

extension ControlDatabase {
    /// Whether it can be read.
    func check() async throws { _ = try await pool.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM node") } }
}
