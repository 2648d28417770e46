import Foundation
import GRDB
import Logging

/// Opens a store's database: connections, migrations, and the check whether it is the one that was closed last.
enum SQLiteOpening {
    static func open(
        _ directory: StoreDirectory, _ configuration: SQLiteStoreConfiguration, _ faults: StoreFaults = StoreFaults()
    ) throws(StoreError) -> DatabasePool {
        try refuseLostDatabase(directory, configuration.logger)
        let leftover = try LeftoverLog.settle(besideDatabase: directory.database, faults)
        if leftover > 0 {
            configuration.logger.notice(
                "store was not closed: its write-ahead log was written to the disk again",
                metadata: ["directory": "\(directory.path)", "bytes": "\(leftover)"])
        }
        return try translate(directory) {
            var settings = Configuration()
            settings.label = "longline.store"
            settings.maximumReaderCount = max(configuration.readers, 1)
            settings.persistentReadOnlyConnections = true
            settings.busyMode = .timeout(5)
            // Nothing hangs on it but whom the file belongs to; SQLite would make it with this mode, and says what is wrong.
            _ = FolderOwner.create(directory.database, mode: 0o644)
            let pool = try DatabasePool(path: directory.database, configuration: settings)
            try pool.writeWithoutTransaction { db in
                // GRDB leaves a pool's writer at NORMAL, which syncs at checkpoints only: what is acknowledged would be
                // lost with the power.
                try db.execute(sql: "PRAGMA synchronous = FULL")
                try db.execute(sql: "PRAGMA wal_autocheckpoint = 0")
                // What was retracted is overwritten in its page.
                try db.execute(sql: "PRAGMA secure_delete = FAST")
                try db.execute(sql: "PRAGMA journal_size_limit = 67108864")
                let synchronous = try Int.fetchOne(db, sql: "PRAGMA synchronous")
                guard synchronous == 2 else {
                    throw StoreError(.unavailable, message: "SQLite did not take synchronous=FULL")
                }
            }
            let migrator = SQLiteSchema.migrator
            guard try pool.read({ try !migrator.hasBeenSuperseded($0) }) else {
                throw StoreError(
                    .versionTooNew, message: "\(directory.database) was written by a later version of Longline",
                    advice: "start that version, or restore a backup made by this one")
            }
            try migrator.migrate(pool)
            try limitSize(pool, configuration.maximumSize)
            return pool
        }
    }

    /// Where a store was open, a database that is not there was lost: a server that began with nothing in its place would forget all that
    /// it acknowledged, without a word. Nor is a file without a byte a database that was closed here: it is what a copy leaves that was
    /// killed. Where no store was open before it is what a first start leaves that was.
    private static func refuseLostDatabase(_ directory: StoreDirectory, _ logger: Logger) throws(StoreError) {
        let isEmpty = directory.hasEmptyDatabase
        if directory.hasIdentity, isEmpty || directory.lacksDatabase {
            throw StoreError(
                .unavailable,
                message: "\(directory.database) is \(isEmpty ? "an empty file" : "missing"), but a store was open here",
                advice: "restore a backup that is complete; to begin with nothing, remove store.identity,"
                    + " and longline.db, longline.db-wal and longline.db-shm where they are")
        }
        guard isEmpty else { return }
        logger.warning(
            "the store's database is an empty file: the store begins with nothing",
            metadata: ["file": "\(directory.database)"])
    }

    private static func limitSize(_ pool: DatabasePool, _ bytes: Int?) throws {
        guard let bytes else { return }
        try pool.writeWithoutTransaction { db in
            let page = try Int.fetchOne(db, sql: "PRAGMA page_size") ?? 4_096
            try db.execute(sql: "PRAGMA max_page_count = \(max(bytes / page, 1))")
        }
    }

    /// Draws a new identity at every open, and new epochs when the last one is not beside the database: then the database is a copy,
    /// and devices may have seen offsets that it will give out again.
    ///
    /// The identity file names the old and the new identity while the database changes from one to the other, so that a crash or a
    /// full disk in between doesn't look like a restored backup.
    /// - Parameter now: the wall clock, in milliseconds since 1970.
    /// - Returns: whether epochs were drawn anew, and when that was so last.
    static func identify(
        _ directory: StoreDirectory, _ pool: DatabasePool, _ logger: Logger, now: UInt64,
        _ random: inout some RandomNumberGenerator
    ) throws(StoreError) -> (isRestored: Bool, restoredAt: UInt64?) {
        let fresh = "\(hex(random.next()))\(hex(random.next()))"
        let (identity, channels, restored) = try translate(directory) {
            try pool.read { db in
                (
                    try String.fetchOne(db, sql: "SELECT identity FROM store") ?? "",
                    try Int.fetchOne(db, sql: "SELECT count(*) FROM channels") ?? 0,
                    try Int64.fetchOne(db, sql: "SELECT restored FROM store") ?? 0
                )
            }
        }
        let isKnown = try directory.isKnown(identity)
        let isUsed = try translate(directory) { try pool.read(wasUsed) }
        let isRestored = !isKnown && isUsed
        let epochs = isRestored ? (0..<channels).map { _ in drawEpoch(&random) } : []
        do throws(StoreError) {
            if isKnown { try directory.writeIdentities([identity, fresh]) }
            try translate(directory) {
                try pool.write { db in
                    if isRestored {
                        try redraw(epochs, db)
                        try db.execute(sql: "UPDATE store SET restored = ?", arguments: [Int64(clamping: now)])
                    }
                    try db.execute(sql: "UPDATE store SET identity = ?", arguments: [fresh])
                }
            }
            try directory.writeIdentities([fresh])
        } catch {
            // What is on a full disk can still be read, under the identity that it has.
            guard error.code == .storageFull, isKnown else { throw error }
            logger.warning("store opened on a full disk", metadata: ["error": "\(error)"])
        }
        if isRestored {
            logger.warning(
                "store was restored from a copy: every channel starts a new epoch",
                metadata: ["directory": "\(directory.path)", "channels": "\(channels)"])
        }
        if isRestored { return (true, now) }
        return (false, restored > 0 ? UInt64(restored) : nil)
    }

    /// Whether somebody was served or shut out: a copy from before the first channel lacks later revocations as well.
    private static func wasUsed(_ db: Database) throws -> Bool {
        try ["channels", "devices", "generations", "revoked_tokens"].contains { table in
            try Bool.fetchOne(db, sql: "SELECT EXISTS (SELECT 1 FROM \(table))") ?? false
        }
    }

    /// Never 0, which stands for "not known" on the wire.
    static func drawEpoch(_ random: inout some RandomNumberGenerator) -> UInt64 {
        while true {
            let epoch: UInt64 = random.next()
            if epoch != 0 { return epoch }
        }
    }

    private static func redraw(_ epochs: [UInt64], _ db: Database) throws {
        let ids = try Int64.fetchAll(db, sql: "SELECT id FROM channels")
        let statement = try db.makeStatement(sql: "UPDATE channels SET epoch = ? WHERE id = ?")
        for (id, epoch) in zip(ids, epochs) {
            try statement.execute(arguments: [Int64(bitPattern: epoch), id])
        }
    }

    private static func hex(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    static func translate<Value>(_ directory: StoreDirectory, _ body: () throws -> Value) throws(StoreError) -> Value {
        do {
            return try body()
        } catch {
            throw storeError(error, directory.database)
        }
    }

    static func storeError(_ error: any Error, _ database: String) -> StoreError {
        if let error = error as? StoreError { return error }
        guard let error = error as? DatabaseError else { return StoreError(.unavailable, message: "\(error)") }
        let text = "\(database): SQLite \(error.extendedResultCode.rawValue): \(error.message ?? "")"
        switch error.resultCode {
        case .SQLITE_FULL:
            return StoreError(.storageFull, message: text, advice: "make room on the store's disk")
        case .SQLITE_CORRUPT, .SQLITE_NOTADB:
            return StoreError(
                .unavailable, message: text, advice: "the database is damaged: keep the files, and restore a backup")
        case .SQLITE_CANTOPEN, .SQLITE_PERM, .SQLITE_READONLY:
            return StoreError(
                .unavailable, message: text, advice: "let the server's user own the folder and the files in it")
        case .SQLITE_MISUSE where error.message == "Connection is closed":
            return StoreError(.closed, message: "the store was closed")
        default:
            return StoreError(.unavailable, message: text)
        }
    }
}
