import Foundation
import GRDB
import LonglineWire
import NIOCore
import Synchronization

/// Keeps a client's state in one SQLite file (and its write-ahead log), readable by its owner only.
///
/// Each batch is one transaction with `synchronous=FULL`: what ``apply(_:)`` returned for survives a power cut. The
/// file is locked for as long as the storage lives, so that two processes can't publish from one outbox. Once ``erase()`` has wiped it,
/// after a logout say, the lock is let go: another storage may open the file, and this one opens it again when it is used again.
public final class SQLiteClientStorage: ClientStorage {
    /// What the storage has of its file.
    private enum File {
        case open(DatabaseQueue)
        /// Wiped, and open for others. Nothing of this storage is in it.
        case letGo
        case closed
    }

    private let path: String
    private let file: Mutex<File>
    /// true: writes go to the database's own queue.
    public var handsOverAtOnce: Bool { true }

    /// Opens or creates the file, and its directory with mode 0700 when that is missing. Reads and writes on the caller's thread;
    /// ``open(path:)`` doesn't.
    /// - Throws: ``ClientError`` of code ``ClientError/Code/storage``, ``ClientError/Code/storageInUse`` or
    ///   ``ClientError/Code/storageTooNew``.
    public init(path: String) throws {
        let database = try Self.openFile(path)
        self.path = path
        file = Mutex(.open(database))
    }

    private static func openFile(_ path: String) throws -> DatabaseQueue {
        do {
            try create(path)
            var configuration = GRDB.Configuration()
            configuration.busyMode = .immediateError
            configuration.prepareDatabase { database in
                // The lock is taken with the first write and kept; the log then needs no shared memory file.
                try database.execute(sql: "PRAGMA locking_mode=EXCLUSIVE")
                try database.execute(sql: "PRAGMA journal_mode=WAL")
                try database.execute(sql: "PRAGMA synchronous=FULL")
            }
            let database = try DatabaseQueue(path: path, configuration: configuration)
            try migrate(database, path: path)
            // Takes the lock now, not with the first message.
            try database.write { try $0.execute(sql: "INSERT OR REPLACE INTO fact VALUES ('opened', 1, NULL)") }
            return database
        } catch {
            throw describe(error, path: path)
        }
    }

    /// The open file; one that was let go is opened again, on this thread.
    func opened() throws -> DatabaseQueue {
        try file.withLock { file -> DatabaseQueue in
            switch file {
            case .open(let database): return database
            case .letGo:
                let database = try Self.openFile(path)
                file = .open(database)
                return database
            case .closed: throw ClientError(.storage, message: "\(path) was closed", advice: "open it anew")
            }
        }
    }

    /// As ``opened()``; what takes reading and writing is done elsewhere.
    private func ready() async throws -> DatabaseQueue {
        if isLetGo { return try await Self.elsewhere { try self.opened() } }
        return try opened()
    }

    private var isLetGo: Bool { file.withLock { file in if case .letGo = file { true } else { false } } }

    /// As ``init(path:)``, on a thread of its own.
    public static func open(path: String) async throws -> SQLiteClientStorage {
        try await elsewhere { try SQLiteClientStorage(path: path) }
    }

    /// Runs what may wait for the disk where no task and no event loop waits behind it.
    static func elsewhere<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            DispatchQueue.global().async { continuation.resume(with: Result { try body() }) }
        }
    }

    public func load() async throws -> StoredClientState {
        do {
            let database = try await ready()
            return try await database.writeWithoutTransaction { database in
                try Self.inTransaction(database, .deferred) { try Self.readState($0) }
            }
        } catch {
            throw Self.describe(error, path: path)
        }
    }

    public func apply(_ changes: [StorageChange]) async throws {
        do {
            let database = try await ready()
            try await database.writeWithoutTransaction { database in
                try Self.settled(database) { database in
                    for change in changes { try Self.apply(change, to: database) }
                }
            }
        } catch {
            throw Self.describe(error, path: path)
        }
    }

    /// A transaction of which nothing comes back later when this throws.
    ///
    /// Where the sync at its end fails, SQLite's log may hold it whole. A process that ended now would leave it to SQLite's recovery,
    /// which takes it in; so another one is written in its place.
    static func settled<Value>(_ database: Database, _ body: (Database) throws -> Value) throws -> Value {
        do { return try inTransaction(database, .immediate, body) } catch let error as DatabaseError
            where error.resultCode == .SQLITE_IOERR
        {
            // SQLite does not write what stands there already. A disk that doesn't take this either is asked with the next message.
            try? inTransaction(database) { database in
                try database.execute(
                    sql: "INSERT OR REPLACE INTO fact VALUES ('opened', ?, NULL)",
                    arguments: [Int64.random(in: .min ... .max)])
            }
            throw error
        }
    }

    /// A transaction. To read, too: `DatabaseQueue.read` asks a connection that was closed while it waited for its turn whether it is in a
    /// transaction, which ends the process; this throws there.
    static func inTransaction<Value>(
        _ database: Database, _ kind: Database.TransactionKind = .immediate, _ body: (Database) throws -> Value
    ) throws -> Value {
        var value: Value?
        try database.inTransaction(kind) {
            value = try body(database)
            return .commit
        }
        guard let value else { throw ClientError(.storage, message: "a transaction had no result") }
        return value
    }

    /// Wipes the file and lets go of its lock: the next login's storage may open it while this one still lives. Erased again without a
    /// use in between, it leaves alone what another storage may have put there.
    public func erase() async throws {
        if isLetGo { return }
        do {
            let database = try opened()
            try await database.writeWithoutTransaction { try Self.erase($0) }
            try await Self.elsewhere { self.letGo() }
        } catch {
            throw Self.describe(error, path: path)
        }
    }

    /// What can't be closed stays open, and locked: it is wiped in any case.
    private func letGo() {
        file.withLock { file in
            guard case .open(let database) = file else { return }
            do {
                try database.close()
                file = .letGo
            } catch {}
        }
    }

    /// Closes the file and lets go of its lock. Later calls fail.
    public func close() throws {
        try file.withLock { file in
            if case .open(let database) = file { try database.close() }
            file = .closed
        }
    }

    // MARK: The file

    static func create(_ path: String) throws {
        let directory = URL(fileURLWithPath: path).deletingLastPathComponent().path
        if !FileManager.default.fileExists(atPath: directory) {
            try FileManager.default.createDirectory(
                atPath: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        }
        // The mode is there before the first secret is. SQLite gives its log the mode of the file.
        try creation.withLock { _ in
            var status = stat()
            if stat(path, &status) == 0 {
                // A folder that nobody may look into any more would be lost to its owner, as a home folder is.
                guard status.st_mode & S_IFMT == S_IFREG else {
                    throw ClientError(
                        .storage, message: "\(path) is there, and is no file",
                        advice: "name a file in a folder of the app's own")
                }
                // One that is there isn't opened: closing it would give up the locks that this process's SQLite has on it.
                if status.st_mode & 0o077 != 0 { chmod(path, 0o600) }
                return
            }
            let descriptor = Foundation.open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else {
                throw ClientError(
                    .storage, message: "can't create \(path): \(String(cString: strerror(errno)))",
                    advice: "check the directory and its permissions")
            }
            Foundation.close(descriptor)
        }
    }

    /// One at a time: what another thread makes and opens between the look and the open would be closed with its locks.
    private static let creation = Mutex(())

    static func describe(_ error: any Error, path: String) -> ClientError {
        if let error = error as? ClientError { return error }
        if let error = error as? DatabaseError {
            switch error.resultCode {
            case .SQLITE_BUSY, .SQLITE_LOCKED:
                return ClientError(
                    .storageInUse,
                    message: "\(path) is in use, by another process or by another storage of this process",
                    cause: error,
                    advice: "use one storage for one client and close() it before another opens the file, "
                        + "or let processes share one as SharedClientStorage")
            case .SQLITE_FULL:
                return ClientError(.storage, message: "the disk is full", cause: error, advice: "make room on the disk")
            case .SQLITE_READONLY, .SQLITE_PERM:
                return ClientError(
                    .storage, message: "\(path) can't be written", cause: error,
                    advice: "check the permissions of the file and its folder, and whether the volume is read-only")
            case .SQLITE_IOERR, .SQLITE_CANTOPEN:
                return ClientError(
                    .storage, message: "\(path) can't be read or written", cause: error,
                    advice: "check the disk, and the file's protection class where files are locked with the device")
            case .SQLITE_NOTADB, .SQLITE_CORRUPT:
                return ClientError(
                    .storage, message: "\(path) is damaged, or is no client storage", cause: error,
                    advice: "move the file away; messages that waited in it are lost")
            default: break
            }
        }
        return ClientError(.storage, message: "\(path) can't be used", cause: error)
    }

    /// Brings the tables to this version's layout, and leaves a file alone whose layout it doesn't know.
    ///
    /// Two processes may do it at one moment: the migrator reads what is done before it locks the file, so one of them finds its next
    /// step done already, and fails without having changed anything. It goes on from where the other one is.
    static func migrate(_ database: DatabaseQueue, path: String) throws {
        var done = try steps(database, path: path)
        while true {
            do {
                return try migrator.migrate(database)
            } catch let error as DatabaseError where error.resultCode != .SQLITE_BUSY {
                let now = try steps(database, path: path)
                guard now > done else { throw error }
                done = now
            }
        }
    }

    /// How many steps of the migration were done.
    private static func steps(_ database: DatabaseQueue, path: String) throws -> Int {
        try database.read { database in
            // From here on the file is seen as it is now: its first table may come at any moment.
            _ = try Int.fetchOne(database, sql: "SELECT count(*) FROM sqlite_master")
            guard try !migrator.hasBeenSuperseded(database) else {
                throw ClientError(
                    .storageTooNew, message: "\(path) was written by a later version of the app",
                    advice: "upgrade the app; what waits in the file is kept")
            }
            return try migrator.appliedIdentifiers(database).count
        }
    }

    /// What is deleted is overwritten as well, the file is written anew without its free pages, and the log, which holds older
    /// versions of them, is emptied.
    /// - Parameter check: throws, in the same transaction, when this process may not.
    static func erase(_ database: Database, if check: () throws -> Void = {}) throws {
        try database.execute(sql: "PRAGMA secure_delete=ON")
        try database.inTransaction(.immediate) {
            try check()
            for table in [
                "outbox", "outcome", "submission", "chain", "cursor", "fact", "network", "access", "control_route",
            ] {
                try database.execute(sql: "DELETE FROM \(table)")
            }
            try beginLogin(database)
            return .commit
        }
        try database.execute(sql: "VACUUM")
        _ = try database.checkpoint(.truncate)
    }

    private static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE outbox (
                        id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, after INTEGER NOT NULL, channel TEXT NOT NULL,
                        recipient TEXT, time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL
                    ) STRICT;
                    CREATE TABLE chain (channel TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;
                    CREATE TABLE cursor (
                        channel TEXT PRIMARY KEY, epoch INTEGER NOT NULL, offset INTEGER NOT NULL
                    ) STRICT, WITHOUT ROWID;
                    CREATE TABLE fact (name TEXT PRIMARY KEY, number INTEGER, bytes BLOB) STRICT, WITHOUT ROWID;
                    """)
        }
        migrator.registerMigration("heartbeat-networks") { database in
            try database.execute(
                sql: """
                    CREATE TABLE network (
                        name TEXT PRIMARY KEY, lived INTEGER, died INTEGER, last_use INTEGER NOT NULL
                    ) STRICT, WITHOUT ROWID;
                    """)
        }
        migrator.registerMigration("entries-that-name-another") { database in
            try database.execute(
                sql: """
                    ALTER TABLE outbox ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
                    ALTER TABLE outbox ADD COLUMN target_epoch INTEGER NOT NULL DEFAULT 0;
                    ALTER TABLE outbox ADD COLUMN target_offset INTEGER NOT NULL DEFAULT 0;
                    """)
        }
        migrator.registerMigration("sends") { database in
            // Of a row of an older version it isn't known whether it left.
            try database.execute(
                sql: """
                    ALTER TABLE outbox ADD COLUMN send BLOB;
                    ALTER TABLE outbox ADD COLUMN attempted INTEGER NOT NULL DEFAULT 1;
                    UPDATE outbox SET send = randomblob(16);
                    CREATE TABLE outcome (
                        seq INTEGER PRIMARY KEY AUTOINCREMENT, send BLOB NOT NULL, channel TEXT NOT NULL, recipient TEXT,
                        queued_at INTEGER NOT NULL, state INTEGER NOT NULL, code INTEGER, publish_id INTEGER,
                        epoch INTEGER, offset INTEGER, time INTEGER
                    ) STRICT;
                    CREATE INDEX outbox_send ON outbox (send);
                    CREATE INDEX outcome_send ON outcome (send);
                    """)
        }
        migrator.registerMigration("shared") { database in
            // What other processes of the app put in, and which of them owns the file.
            try database.execute(
                sql: """
                    CREATE TABLE submission (
                        seq INTEGER PRIMARY KEY AUTOINCREMENT, send BLOB NOT NULL UNIQUE, destination TEXT NOT NULL,
                        time_to_live INTEGER NOT NULL, queued_at INTEGER NOT NULL, payload BLOB NOT NULL, taken INTEGER,
                        kind INTEGER NOT NULL, target_epoch INTEGER NOT NULL, target_offset INTEGER NOT NULL
                    ) STRICT;
                    CREATE TABLE owner (
                        id INTEGER PRIMARY KEY CHECK (id = 1), token BLOB, generation INTEGER NOT NULL,
                        locked INTEGER NOT NULL, challenge INTEGER
                    ) STRICT;
                    """)
        }
        migrator.registerMigration("access") { database in
            try database.execute(
                sql: """
                    CREATE TABLE access (
                        id INTEGER PRIMARY KEY CHECK (id = 1), answer BLOB NOT NULL, control TEXT NOT NULL, user TEXT,
                        received_at INTEGER NOT NULL
                    ) STRICT;
                    CREATE TABLE control_route (
                        url TEXT PRIMARY KEY, http3_port INTEGER, https_first_until INTEGER NOT NULL
                    ) STRICT, WITHOUT ROWID;
                    """)
        }
        return migrator
    }
}
