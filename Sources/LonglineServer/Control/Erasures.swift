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
///
/// ``stop()`` ends them between two steps: what is resolved goes on at the next start.
final class Erasures: Sendable {
    private struct UnderWay {
        let erasure: Erasure
        /// Whether somebody joined since the task looked last.
        var isAskedAgain = false
    }

    private struct State {
        var underWay: [UserKey: UnderWay] = [:]
        var isStopped = false
    }

    private let state = Mutex(State())

    /// Has erasures end as soon as the step that each is at is over, those under way and those to come.
    func stop() {
        state.withLock { state in
            state.isStopped = true
            for underWay in state.underWay.values { underWay.erasure.task.cancel() }
        }
    }

    /// Begins an erasure, or joins the one under way.
    func join(_ user: UserKey, _ erase: @escaping @Sendable () async throws -> Void) -> Erasure {
        state.withLock { state in
            if let underWay = state.underWay[user] {
                state.underWay[user]?.isAskedAgain = true
                return underWay.erasure
            }
            let end = ErasureEnd()
            let task = Task { [weak self] in
                // Behind the lines below: it may be cancelled there.
                self?.state.withLock { _ in }
                do {
                    repeat { try await erase() } while self?.goesOn(user) ?? false
                    end.settle(.success(()))
                } catch {
                    self?.end(user)
                    end.settle(.failure(error))
                    throw error
                }
            }
            if state.isStopped { task.cancel() }
            let erasure = Erasure(task: task, end: end)
            state.underWay[user] = UnderWay(erasure: erasure)
            return erasure
        }
    }

    /// Ends a user's erasure, unless somebody joined it since this was asked last.
    private func goesOn(_ user: UserKey) -> Bool {
        state.withLock { state in
            guard state.underWay[user]?.isAskedAgain == true else {
                state.underWay[user] = nil
                return false
            }
            state.underWay[user]?.isAskedAgain = false
            return true
        }
    }

    private func end(_ user: UserKey) { state.withLock { $0.underWay[user] = nil } }
}

/// One user's erasure under way, for whoever asked for it.
struct Erasure: Sendable {
    fileprivate let task: Task<Void, any Error>
    fileprivate let end: ErasureEnd

    /// Who waits for a while, for tests.
    var waiterCount: Int { end.waiterCount }

    /// Waits for its end.
    func finished() async throws { try await task.value }

    /// Waits for its end for a while; the erasure goes on either way.
    /// - Returns: whether it is done.
    func isDone(within waiting: Duration) async throws -> Bool {
        try await end.came(within: waiting)
    }
}
