import GRDB
import GRDBSQLite
import Logging

/// Turns batches of writes into transactions.
///
/// `@unchecked Sendable`: everything mutable is touched only by ``write(_:_:)``, which runs on the database pool's one writer
/// queue.
final class Writer: @unchecked Sendable {
    private var logic: StoreLogic<SQLiteTables>
    private let cache: TailCache
    private let logger: Logger
    private let fatal: @Sendable (StoreError) -> Void
    private let checkpointBytes: Int
    private let faults: StoreFaults
    private var bytesSinceCheckpoint = 0
    private var failed: StoreError?
    /// Whether the last transaction found the disk full: said once in the log, and once when it is over.
    private var isFull = false

    init(
        logic: StoreLogic<SQLiteTables>, cache: TailCache, logger: Logger, checkpointBytes: Int, faults: StoreFaults,
        fatal: @escaping @Sendable (StoreError) -> Void
    ) {
        self.logic = logic
        self.cache = cache
        self.logger = logger
        self.checkpointBytes = checkpointBytes
        self.faults = faults
        self.fatal = fatal
    }

    /// Writes a batch, and answers each of its jobs after its transaction is on disk.
    /// - Returns: the error, when nothing may be written any more.
    func write(_ batch: [WriteJob], _ db: Database) -> StoreError? {
        if let failed {
            for job in batch { job.refuse(failed) }
            return failed
        }
        do {
            let answers = try transaction(batch, db)
            if isFull {
                isFull = false
                logger.notice("store has room again")
            }
            for answer in answers { answer() }
            checkpointWhenDue(batch, db)
        } catch  where error.failure == .other && batch.count > 1 {
            // One bad write shall not take its neighbours with it.
            for job in batch { _ = write([job], db) }
        } catch {
            refuse(batch, error, db)
        }
        return failed
    }

    private func refuse(_ batch: [WriteJob], _ error: FailedTransaction, _ db: Database) {
        let answer: StoreError
        switch error.failure {
        case .full:
            answer = StoreError(
                .storageFull, message: error.description, advice: "make room on the store's disk; reading goes on")
            if !isFull { logger.error("store is full", metadata: ["error": "\(answer)"]) }
            isFull = true
            // A write-ahead log that is all in the database starts anew, and has room for what comes.
            checkpoint(db)
        case .fatal:
            answer = fail("a transaction could not be made durable: \(error.description)")
        case .other:
            answer = StoreError(.unavailable, message: error.description)
            logger.error("store write failed", metadata: ["error": "\(answer)", "writes": "\(batch.count)"])
        }
        for job in batch { job.refuse(answer) }
    }

    private func fail(_ message: String) -> StoreError {
        let error = StoreError(
            .unavailable, message: message,
            advice: "the process ends, because only a restart reads what is on the disk; check the disk, then restart")
        failed = error
        logger.critical("store failed", metadata: ["error": "\(error)"])
        fatal(error)
        return error
    }

    private func transaction(_ batch: [WriteJob], _ db: Database) throws(FailedTransaction) -> [@Sendable () -> Void] {
        var answers: [@Sendable () -> Void] = []
        answers.reserveCapacity(batch.count)
        var isCommit = false
        do {
            logic.tables.db = db
            logic.tables.begin()
            try db.inTransaction(.immediate) {
                for job in batch { answers.append(try job.perform(&logic)) }
                try logic.tables.flush()
                isCommit = true
                try faults.beforeCommit()
                return .commit
            }
        } catch {
            let systemError = db.sqliteConnection.map { sqlite3_system_errno($0) } ?? 0
            logic.tables.forget()
            throw FailedTransaction(error, isCommit: isCommit, systemError: systemError)
        }
        cache.forget(logic.tables.removedChannels)
        cache.extend(
            logic.tables.addedEntries, changed: logic.tables.changedChannels, erased: logic.tables.erasedEntries)
        return answers
    }

    private func checkpointWhenDue(_ batch: [WriteJob], _ db: Database) {
        // About eight pages change with any transaction; a request touches a few more.
        bytesSinceCheckpoint += 32_768 + batch.reduce(0) { $0 + $1.bytes * 2 + $1.requests * 512 }
        guard bytesSinceCheckpoint >= checkpointBytes else { return }
        bytesSinceCheckpoint = 0
        checkpoint(db)
    }

    /// Moves the write-ahead log into the database. SQLite's own checkpoints are off, because they swallow errors: after a
    /// failed sync of the database file a later checkpoint could succeed and drop a log that was still needed.
    private func checkpoint(_ db: Database) {
        do {
            try faults.beforeCheckpoint()
            try db.checkpoint(.passive)
        } catch {
            let systemError = db.sqliteConnection.map { sqlite3_system_errno($0) } ?? 0
            let failed = FailedTransaction(error, isCommit: false, systemError: systemError)
            switch failed.failure {
            case .fatal: _ = fail("a checkpoint could not be made durable: \(failed.description)")
            case .full, .other: logger.debug("store checkpoint failed", metadata: ["error": "\(failed.description)"])
            }
        }
    }
}

/// A transaction or checkpoint that did not happen.
struct FailedTransaction: Error {
    let failure: WriteFailure
    let description: String

    init(_ error: any Error, isCommit: Bool, systemError: CInt) {
        if let error = error as? DatabaseError {
            failure = WriteFailure(error.extendedResultCode, isCommit: isCommit, systemError: systemError)
            description = "SQLite \(error.extendedResultCode.rawValue): \(error.message ?? "")"
        } else {
            failure = .other
            description = "\(error)"
        }
    }
}

/// Where tests make the disk fail; does nothing otherwise.
struct StoreFaults: Sendable {
    var beforeCommit: @Sendable () throws -> Void = {}
    var beforeCheckpoint: @Sendable () throws -> Void = {}
}
