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
    private let checkpoints: Checkpointer
    private let faults: StoreFaults
    /// Frames in the write-ahead log after the last commit.
    private var logLength = 0
    /// Whether the transaction wrote something.
    private var hasWritten = false
    private var failed: StoreError?
    /// Whether the last transaction that had something to write found the disk full: said once in the log, and once when it is over.
    private var isFull = false
    /// Whether the log has that a channel's time is ahead of the clock: said once.
    private var hasSaidAhead = false

    init(
        logic: StoreLogic<SQLiteTables>, cache: TailCache, logger: Logger, checkpoints: Checkpointer,
        faults: StoreFaults, fatal: @escaping @Sendable (StoreError) -> Void
    ) {
        self.logic = logic
        self.cache = cache
        self.logger = logger
        self.checkpoints = checkpoints
        self.faults = faults
        self.fatal = fatal
    }

    /// Has SQLite tell how long the write-ahead log is; once, with the connection of every ``write(_:_:)``, which has to be
    /// closed before the writer goes.
    func watchLog(_ db: Database) {
        let writer = Unmanaged.passUnretained(self).toOpaque()
        _ = sqlite3_wal_hook(
            db.sqliteConnection,
            { writer, _, _, length in
                // Called for commits that wrote pages, and no others.
                if let writer { Unmanaged<Writer>.fromOpaque(writer).takeUnretainedValue().noteLog(Int(length)) }
                return SQLITE_OK
            }, writer)
    }

    private func noteLog(_ length: Int) {
        logLength = length
        hasWritten = true
    }

    /// Writes a batch, and answers each of its jobs after its transaction is on disk.
    /// - Parameter isSaid: whether the log has already that it failed: it is a part of what did.
    /// - Returns: the error, when nothing may be written any more.
    func write(_ batch: [WriteJob], _ db: Database, isSaid: Bool = false) -> StoreError? {
        if failed == nil { failed = checkpoints.failure }
        if let failed {
            for job in batch { job.refuse(failed) }
            return failed
        }
        do {
            let answers = try transaction(batch, db)
            // A transaction that had nothing to write says nothing about the disk.
            if isFull, hasWritten {
                isFull = false
                logger.notice("store has room again")
            }
            for answer in answers { answer() }
            checkpoints.committed(length: logLength)
        } catch  where error.failure == .other && batch.count > 1 {
            // One bad write shall not take its neighbours with it.
            for job in batch { _ = write([job], db) }
        } catch {
            // Nor one bad publish those that were handed over with it.
            if error.mayBeOfOne, let job = batch.first, let parts = job.parts?() {
                if !isSaid { say(error.asUnavailable, writes: job.requests) }
                for part in parts { _ = write([part], db, isSaid: true) }
            } else {
                refuse(batch, error, isSaid: isSaid)
            }
        }
        return failed
    }

    private func say(_ error: StoreError, writes: Int) {
        logger.error("store write failed", metadata: ["error": "\(error)", "writes": "\(writes)"])
    }

    private func refuse(_ batch: [WriteJob], _ error: FailedTransaction, isSaid: Bool) {
        let answer: StoreError
        switch error.failure {
        case .full:
            answer = StoreError(
                .storageFull, message: error.description, advice: "make room on the store's disk; reading goes on")
            if !isFull { logger.error("store is full", metadata: ["error": "\(answer)"]) }
            isFull = true
            // A write-ahead log that is all in the database starts anew, and has room for what comes.
            checkpoints.finish()
        case .fatal:
            answer = fail("a transaction could not be made durable: \(error.description)")
        case .other:
            answer = error.asUnavailable
            if !isSaid { say(answer, writes: batch.count) }
        }
        for job in batch { job.refuse(answer) }
    }

    /// Entries of such a channel have a time that is still to come, until the clock gets there.
    private func sayWhatIsAhead() {
        let now = logic.clock()
        let ahead = logic.tables.changedChannels.values.map(\.time).max() ?? 0
        guard ClockMark.isAhead(ahead, now) else { return }
        hasSaidAhead = true
        logger.warning(
            "the clock was ahead when messages were written: what follows in their channels has a time to come",
            metadata: ["seconds": "\((ahead - now) / 1_000)"])
    }

    private func fail(_ message: String) -> StoreError {
        let error = StoreError.undurable(message)
        failed = error
        checkpoints.stop()
        logger.critical("store failed", metadata: ["error": "\(error)"])
        fatal(error)
        return error
    }

    private func transaction(_ batch: [WriteJob], _ db: Database) throws(FailedTransaction) -> [@Sendable () -> Void] {
        var answers: [@Sendable () -> Void] = []
        answers.reserveCapacity(batch.count)
        var isCommit = false
        do {
            hasWritten = false
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
            let failed = FailedTransaction(error, isCommit: isCommit, systemError: systemError)
            if failed.mayBeInLog, let worse = writeOver(db) { throw worse }
            throw failed
        }
        if !hasSaidAhead { sayWhatIsAhead() }
        cache.forget(logic.tables.removedChannels)
        cache.extend(
            logic.tables.addedEntries, changed: logic.tables.changedChannels, erased: logic.tables.erasedEntries)
        return answers
    }
}

extension Writer {
    /// Writes another transaction in the place of one that SQLite gave up when the log had all of it. A process that is killed now would
    /// leave the one that is refused to SQLite's recovery, which takes it in.
    /// - Returns: why it isn't known any more what is on the disk; nil: it is.
    private func writeOver(_ db: Database) -> FailedTransaction? {
        do {
            // SQLite does not write what stands there already: an offset is passed over.
            try db.inTransaction(.immediate) {
                try db.execute(sql: "UPDATE store SET sequence = sequence + 1")
                return .commit
            }
            return nil
        } catch {
            // Where the log's index can't be extended this fails as well, and stands in the log all the same.
            let systemError = db.sqliteConnection.map { sqlite3_system_errno($0) } ?? 0
            let failed = FailedTransaction(error, isCommit: false, systemError: systemError)
            return failed.failure == .fatal ? failed : nil
        }
    }
}

extension StoreError {
    /// A sync failed.
    static func undurable(_ message: String) -> StoreError {
        StoreError(
            .unavailable, message: message,
            advice: "the process ends, because only a restart reads what is on the disk; check the disk, then restart")
    }
}

/// A transaction or checkpoint that did not happen.
struct FailedTransaction: Error {
    let failure: WriteFailure
    /// Whether the write-ahead log may have all of it nevertheless: what comes behind the last write and its sync, as the log's index that
    /// needs room or memory, failed.
    let mayBeInLog: Bool
    /// Whether it may be about one of several writes: memory, and locks, are about all.
    let mayBeOfOne: Bool
    let description: String

    var asUnavailable: StoreError { StoreError(.unavailable, message: description) }

    init(_ error: any Error, isCommit: Bool, systemError: CInt) {
        if let error = error as? DatabaseError {
            failure = WriteFailure(error.extendedResultCode, isCommit: isCommit, systemError: systemError)
            let isBehindLog = error.resultCode == .SQLITE_IOERR || error.resultCode == .SQLITE_NOMEM
            mayBeInLog = isCommit && isBehindLog && failure != .fatal
            let ofAll: [ResultCode] = [.SQLITE_NOMEM, .SQLITE_BUSY, .SQLITE_LOCKED, .SQLITE_INTERRUPT]
            mayBeOfOne = failure == .other && !ofAll.contains(error.resultCode)
            description = "SQLite \(error.extendedResultCode.rawValue): \(error.message ?? "")"
        } else {
            failure = .other
            mayBeInLog = false
            mayBeOfOne = true
            description = "\(error)"
        }
    }
}

/// Where tests make the disk fail; does nothing otherwise.
struct StoreFaults: Sendable {
    var beforeCommit: @Sendable () throws -> Void = {}
    var beforeCheckpoint: @Sendable () throws -> Void = {}
    var duringBackup: @Sendable () throws -> Void = {}
    var beforeLogSync: @Sendable () throws -> Void = {}
}
