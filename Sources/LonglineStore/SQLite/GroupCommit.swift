import GRDB
import Synchronization

/// The one writer of a store. Writes that arrive while a transaction is on its way to the disk share the next.
///
/// ```text
///            submit                       queue empty
///   idle ------------> draining ------------------------> idle
///                         |  ^ next batch
///                         |  |
///                         +--+
///   any --close--> closed: what is queued is still written, what comes is refused
///   draining --a sync failed--> failed: the `fatal` hook ends the process; where it returns, nothing is answered but errors
/// ```
final class GroupCommit: Sendable {
    struct Limits: Sendable {
        var queueRequests: Int
        var queueBytes: Int
        var batchRequests: Int
        var batchBytes: Int
    }

    private struct State {
        var queue: WriteQueue
        var isDraining = false
        var isClosing = false
        /// Why nothing more is taken.
        var closed: StoreError?
        var whenIdle: [@Sendable () -> Void] = []
    }

    private let pool: DatabasePool
    private let writer: Writer
    private let limits: Limits
    private let state: Mutex<State>
    private let thread = WriterThread()

    init(pool: DatabasePool, limits: Limits, writer: Writer) {
        self.pool = pool
        self.limits = limits
        self.writer = writer
        state = Mutex(
            State(queue: WriteQueue(maximumRequests: limits.queueRequests, maximumBytes: limits.queueBytes)))
    }

    /// The thread holds nothing but the work that it does.
    deinit { thread.end() }

    /// Queues a write; the job is answered once, from the writer's thread or, when it is refused at once, from this one.
    func submit(_ job: WriteJob) {
        enum Next { case wait, drain, refuse(StoreError) }
        let next: Next = state.withLock { state in
            if let closed = state.closed { return .refuse(closed) }
            guard state.queue.add(job) else {
                return .refuse(StoreError(.overloaded, message: "\(state.queue.requests) writes are waiting"))
            }
            if state.isDraining { return .wait }
            state.isDraining = true
            return .drain
        }
        switch next {
        case .wait: break
        case .drain: thread.run { self.pool.writeWithoutTransaction { db in self.drain(db) } }
        case .refuse(let error): job.refuse(error)
        }
    }

    /// Refuses what comes from now on, and returns when everything before is written.
    /// - Returns: false when it was called before.
    func close() async -> Bool {
        await withCheckedContinuation { (continuation: CheckedContinuation<Bool, Never>) in
            let isDone: Bool? = state.withLock { state in
                guard !state.isClosing else { return false }
                state.isClosing = true
                if state.closed == nil { state.closed = StoreError(.closed, message: "the store was closed") }
                guard state.isDraining else { return true }
                state.whenIdle.append { continuation.resume(returning: true) }
                return nil
            }
            if let isDone { continuation.resume(returning: isDone) }
        }
    }

    /// Writes what waits, and what comes meanwhile.
    private func drain(_ db: Database) {
        while true {
            let (batch, whenIdle) = state.withLock { state -> ([WriteJob], [@Sendable () -> Void]) in
                let batch = state.queue.next(maximumRequests: limits.batchRequests, maximumBytes: limits.batchBytes)
                guard batch.isEmpty else { return (batch, []) }
                state.isDraining = false
                defer { state.whenIdle = [] }
                return ([], state.whenIdle)
            }
            guard !batch.isEmpty else {
                for done in whenIdle { done() }
                return
            }
            if let fatal = writer.write(batch, db) {
                let stranded = state.withLock { state in
                    state.closed = fatal
                    return state.queue.removeAll()
                }
                for job in stranded { job.refuse(fatal) }
            }
        }
    }
}
