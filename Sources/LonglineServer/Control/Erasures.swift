import LonglineWire
import Synchronization

/// Erasures of accounts under way: each goes on when its asker went away, and who asks again waits for the same one.
///
/// ```
///          join               done, nobody joined
///   none ───────▶ under way ──────────────────────▶ none
///                  │     ▲     failed: whoever waits is told
///                  └─────┘
///       done, and somebody joined meanwhile: once more
/// ```
/// Who joined may have resolved something that was not looked at any more. An erasure asks first whether there is one to make, so
/// that once more than needed costs little.
final class Erasures: Sendable {
    private struct UnderWay {
        let task: Task<Void, any Error>
        /// Whether somebody joined since the task looked last.
        var isAskedAgain = false
    }

    private let underWay = Mutex<[UserKey: UnderWay]>([:])

    /// Begins an erasure, or joins the one under way.
    func join(_ user: UserKey, _ erase: @escaping @Sendable () async throws -> Void) -> Erasure {
        underWay.withLock { underWay in
            if let erasure = underWay[user] {
                underWay[user]?.isAskedAgain = true
                return Erasure(task: erasure.task)
            }
            let task = Task { [weak self] in
                do {
                    repeat { try await erase() } while self?.goesOn(user) ?? false
                } catch {
                    self?.end(user)
                    throw error
                }
            }
            underWay[user] = UnderWay(task: task)
            return Erasure(task: task)
        }
    }

    /// Ends a user's erasure, unless somebody joined it since this was asked last.
    private func goesOn(_ user: UserKey) -> Bool {
        underWay.withLock { underWay in
            guard underWay[user]?.isAskedAgain == true else {
                underWay[user] = nil
                return false
            }
            underWay[user]?.isAskedAgain = false
            return true
        }
    }

    private func end(_ user: UserKey) { underWay.withLock { $0[user] = nil } }
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
