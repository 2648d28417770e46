internal import Synchronization

/// How many of something may be under way at a time. One task takes places, any task gives them back.
final class Places: Sendable {
    private struct State {
        var free: Int
        var taker: Waiter<Void>?
    }

    private let state: Mutex<State>

    init(_ count: Int) {
        precondition(count > 0, "there is a place")
        state = Mutex(State(free: count))
    }

    /// Takes a place, as soon as there is one.
    /// - Throws: `CancellationError`; none was taken then.
    func take() async throws {
        let isTaken = state.withLock { state in
            guard state.free > 0 else { return false }
            state.free -= 1
            return true
        }
        if isTaken { return }
        try await Waiter<Void>().wait { waiter in
            // Decided under the lock, resumed outside of it.
            let isClaimed = self.state.withLock { state in
                guard state.free > 0 else {
                    state.taker = waiter
                    return false
                }
                guard waiter.claim() else { return false }
                state.free -= 1
                return true
            }
            if isClaimed { waiter.resume(with: .success(())) }
        }
    }

    /// Gives a place back.
    func give() {
        let taker: Waiter<Void>? = state.withLock { state in
            defer { state.taker = nil }
            if let taker = state.taker, taker.claim() { return taker }
            state.free += 1
            return nil
        }
        taker?.resume(with: .success(()))
    }
}
