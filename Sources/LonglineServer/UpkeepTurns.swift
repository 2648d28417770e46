import DequeModule
import Synchronization

/// Has erasures take their steps one after another, each with its rest: of many at one time every one rests, and the store would
/// have steps of theirs to do all the while. Who came first is first.
final class UpkeepTurns: Sendable {
    private struct State {
        var isTaken = false
        var waiting: Deque<CheckedContinuation<Void, Never>> = []
    }

    private let state = Mutex(State())

    /// Who waits, for tests.
    var waitingCount: Int { state.withLock { $0.waiting.count } }

    /// Waits for the turn, also where the task is cancelled: who has it ends soon then.
    /// - Returns: whether it had to be waited for.
    func take() async -> Bool {
        let isFree = state.withLock { state in
            defer { state.isTaken = true }
            return !state.isTaken
        }
        if isFree { return false }
        await withCheckedContinuation { continuation in
            let isFree = state.withLock { state in
                // It may have been given meanwhile.
                guard state.isTaken else {
                    state.isTaken = true
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if isFree { continuation.resume() }
        }
        return true
    }

    /// Gives the turn to who waits longest.
    func give() {
        let next = state.withLock { state in
            let next = state.waiting.popFirst()
            if next == nil { state.isTaken = false }
            return next
        }
        next?.resume()
    }
}
