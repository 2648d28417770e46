import GRDB
import Logging

/// Opens a store's database: connections, migrations, and the check whether it is the one that was closed last.
enum SQLiteOpening {
    static func open(_ directory: StoreDirectory, _ configuration: SQLiteStoreConfiguration) throws(StoreError)
        -> DatabasePool
    {
        try translate(directory) {
            var settings = Configuration()
            settings.label = "longline.store"
            settings.maximumReaderCount = max(configuration.readers, 1)
            settings.persistentReadOnlyConnections = true
            settings.busyMode = .timeout(5)
            let pool = try DatabasePool(path: directory.database, configuration: settings)
            try pool.writeWithoutTransaction { db in
                // GRDB leaves a pool's writer at NORMAL, which syncs at checkpoints only: what is acknowledged would be
                // lost with the power.
                try db.execute(sql: "PRAGMA synchronous = FULL")
                try db.execute(sql: "PRAGMA wal_autocheckpoint = 0")
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

    private static func limitSize(_ pool: DatabasePool, _ bytes: Int?) throws {
        guard let bytes else { return }
        try pool.writeWithoutTransaction { db in
            let page = try Int.fetchOne(db, sql: "PRAGMA page_size") ?? 4_096
            try db.execute(sql: "PRAGMA max_page_count = \(max(bytes / page, 1))")
        }
    }

    /// Draws a new identity at every open, and new epochs when the last one is not beside the database: then the database is a copy,
    /// and devices may have seen offsets that it will give out again.
    /// - Returns: whether epochs were drawn anew.
    static func identify(
        _ directory: StoreDirectory, _ pool: DatabasePool, _ logger: Logger,
        _ random: inout some RandomNumberGenerator
    ) throws(StoreError) -> Bool {
        let fresh = "\(hex(random.next()))\(hex(random.next()))"
        let beside = directory.readIdentity()
        var drawn: [UInt64] = []
        let (isKnown, hasChannels) = try translate(directory) {
            try pool.read { db in
                let identity = try String.fetchOne(db, sql: "SELECT identity FROM store") ?? ""
                let expected = try directory.expectedIdentity(identity)
                let count = try Int.fetchOne(db, sql: "SELECT count(*) FROM channels") ?? 0
                drawn = Array(repeating: 0, count: count)
                return (!identity.isEmpty && beside == expected, count > 0)
            }
        }
        let isRestored = !isKnown && hasChannels
        for index in drawn.indices where isRestored {
            // 0 stands for "not known" on the wire.
            repeat { drawn[index] = random.next() } while drawn[index] == 0
        }
        try translate(directory) { [drawn] in
            try pool.write { db in
                if isRestored { try redraw(drawn, db) }
                try db.execute(sql: "UPDATE store SET identity = ?", arguments: [fresh])
            }
        }
        // A crash before this line leaves a file that does not match: epochs are drawn once more, which harms nothing.
        try directory.writeIdentity(fresh)
        if isRestored {
            logger.warning(
                "store was restored from a copy: every channel starts a new epoch",
                metadata: ["directory": "\(directory.path)", "channels": "\(drawn.count)"])
        }
        return isRestored
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
            throw storeError(error, directory)
        }
    }

    static func storeError(_ error: any Error, _ directory: StoreDirectory) -> StoreError {
        if let error = error as? StoreError { return error }
        guard let error = error as? DatabaseError else { return StoreError(.unavailable, message: "\(error)") }
        let text = "\(directory.database): SQLite \(error.extendedResultCode.rawValue): \(error.message ?? "")"
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
