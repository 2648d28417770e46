import GRDB
import GRDBSQLite
import Logging
import Synchronization

/// When the write-ahead log is moved into the database. In frames of the log, a page of 4 KiB and 24 bytes each, unless told otherwise.
struct CheckpointLimits: Sendable {
    /// So much growth is moved at a time, beside the writer.
    var pass = 1_000
    /// A log so long is moved to its end, so that it starts anew.
    var restart = 4_000
    /// Beyond, the writer waits for what is moved.
    var wait = 16_000
    /// How long a store that closes waits for who reads an older state, in milliseconds.
    var closingPatience: CInt = 5_000
}

/// Moves the write-ahead log into the database, on a connection and a thread of its own.
///
/// A pass syncs the log, copies its pages into the database and syncs that: milliseconds, in which the writer goes on and
/// appends to the log. SQLite starts the log anew when a write finds all of it moved, which under a steady load never
/// happens by itself. So once the log is long, the writer has a pass made between two of its transactions, right after
/// one beside it has left next to nothing to do.
/// ```
///            the log grew by a pass's frames            moved
///   resting ---------------------------------> passing -------> resting
///      |  ^                                       |
///      |  '-- the log is long, and a pass has     | a sync failed
///      |      just ended: the writer waits for    v
///      '----- the rest, which is little         failed: nothing is moved any more
/// ```
/// Invariants: one pass at a time, all on one connection; none after one whose sync failed, because its pages may be gone
/// from the kernel's memory while the log holds the only copy of them.
final class Checkpointer: Sendable {
    private struct State {
        var isPassing = false
        /// The log's length up to which the last pass came, or tried to.
        var mark = 0
        /// Whether a pass ended since the writer last had one made.
        var hasPassed = false
        var failure: StoreError?
        var isStopped = false
    }

    private let queue: DatabaseQueue
    private let limits: CheckpointLimits
    private let logger: Logger
    private let faults: StoreFaults
    private let fatal: @Sendable (StoreError) -> Void
    private let state = Mutex(State())

    /// Opens its connection to a database that is open in write-ahead mode already.
    init(
        path: String, limits: CheckpointLimits, logger: Logger, faults: StoreFaults,
        fatal: @escaping @Sendable (StoreError) -> Void
    ) throws {
        var settings = Configuration()
        settings.label = "longline.store.checkpoint"
        queue = try DatabaseQueue(path: path, configuration: settings)
        (self.limits, self.logger, self.faults, self.fatal) = (limits, logger, faults, fatal)
        try queue.inDatabase { db in
            try db.execute(sql: "PRAGMA wal_autocheckpoint = 0")
            // A pass's syncs follow this.
            try db.execute(sql: "PRAGMA synchronous = FULL")
            guard try Int.fetchOne(db, sql: "PRAGMA synchronous") == 2 else {
                throw StoreError(.unavailable, message: "SQLite did not take synchronous=FULL")
            }
            // Without a read before it, a checkpoint finds no log.
            _ = try Int.fetchOne(db, sql: "SELECT count(*) FROM sqlite_master")
        }
    }

    /// Why nothing is moved any more: nobody knows what is on the disk.
    var failure: StoreError? { state.withLock { $0.failure } }

    /// A transaction was committed; called by the writer before its next one.
    /// - Parameter length: the log's length now.
    func committed(length: Int) {
        enum Next { case nothing, pass, finish }
        let next: Next = state.withLock { state in
            guard !state.isStopped, state.failure == nil else { return .nothing }
            // The log began anew since.
            if length < state.mark { state.mark = 0 }
            let growth = length - state.mark
            if state.isPassing { return length >= limits.wait && growth >= limits.pass ? .finish : .nothing }
            if growth >= limits.pass {
                state.isPassing = true
                return .pass
            }
            guard length >= limits.restart, state.hasPassed else { return .nothing }
            state.hasPassed = false
            return .finish
        }
        switch next {
        case .nothing: break
        case .pass: queue.asyncWriteWithoutTransaction { db in self.pass(db, beside: true) }
        case .finish: finish()
        }
    }

    /// Moves what is in the log now, and returns when that is done; called by the writer between transactions.
    func finish() { queue.writeWithoutTransaction { db in pass(db, beside: false) } }

    /// Moves nothing any more.
    func stop() { state.withLock { $0.isStopped = true } }

    /// Ends the pass under way, and closes the connection.
    func close() throws {
        stop()
        try queue.close()
    }

    /// SQLite's own checkpoints are off, because they swallow errors: after a failed sync of the database file a later
    /// checkpoint could succeed and drop a log that was still needed.
    private func pass(_ db: Database, beside isBeside: Bool) {
        guard state.withLock({ !$0.isStopped && $0.failure == nil }) else { return ended(beside: isBeside) }
        do {
            try faults.beforeCheckpoint()
            let (length, _) = try db.checkpoint(.passive)
            ended(beside: isBeside, mark: length)
        } catch {
            let systemError = db.sqliteConnection.map { sqlite3_system_errno($0) } ?? 0
            let failed = FailedTransaction(error, isCommit: false, systemError: systemError)
            switch failed.failure {
            case .fatal: fail(failed)
            case .full, .other: logger.debug("store checkpoint failed", metadata: ["error": "\(failed.description)"])
            }
            ended(beside: isBeside)
        }
    }

    private func ended(beside isBeside: Bool, mark: Int? = nil) {
        state.withLock { state in
            if let mark { state.mark = mark }
            if isBeside { (state.isPassing, state.hasPassed) = (false, mark != nil) }
        }
    }

    private func fail(_ failed: FailedTransaction) {
        let error = StoreError.undurable("a checkpoint could not be made durable: \(failed.description)")
        state.withLock { $0.failure = error }
        logger.critical("store failed", metadata: ["error": "\(error)"])
        fatal(error)
    }
}
