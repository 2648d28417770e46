import LonglineWire
import Synchronization

/// Erasures of accounts under way: each goes on when its asker went away, and who asks again waits for the same one.
final class Erasures: Sendable {
    private let underWay = Mutex<[UserKey: Task<Void, any Error>]>([:])

    /// The erasure of a user, if it is under way.
    func underWay(_ user: UserKey) -> Erasure? { underWay.withLock { $0[user] }.map(Erasure.init) }

    /// Begins an erasure, or joins the one under way.
    func join(_ user: UserKey, _ erase: @escaping @Sendable () async throws -> Void) -> Erasure {
        underWay.withLock { underWay in
            if let task = underWay[user] { return Erasure(task: task) }
            let task = Task { [weak self] in
                defer { self?.underWay.withLock { $0[user] = nil } }
                try await erase()
            }
            underWay[user] = task
            return Erasure(task: task)
        }
    }
}

/// One user's erasure under way, for whoever asked for it.
struct Erasure: Sendable {
    fileprivate let task: Task<Void, any Error>

    /// Waits for its end.
    func finished() async throws { try await task.value }

    /// Waits for its end for a while; the erasure goes on either way.
    /// - Returns: whether it is done.
    func isDone(within waiting: Duration) async throws -> Bool {
        try await task.value(within: waiting) != nil
    }
}
