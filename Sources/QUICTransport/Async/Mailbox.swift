internal import DequeModule
internal import Synchronization

/// A bounded queue from an event loop to tasks. It ends: what was put in before the end is still taken out.
final class Mailbox<Element: Sendable>: Sendable {
    /// What happens to an element that has no room.
    enum Policy { case dropOldest, refuse }

    /// What became of an element.
    enum Put { case taken, tookOldestsPlace, refused, ended }

    private struct State {
        var elements = Deque<Element>()
        var waiters = Deque<Waiter<Element?>>()
        var isFinished = false
    }

    private let limit: Int
    private let policy: Policy
    private let state = Mutex(State())

    init(limit: Int, policy: Policy) {
        precondition(limit > 0, "a mailbox holds at least one element")
        self.limit = limit
        self.policy = policy
    }

    @discardableResult
    func put(_ element: Element) -> Put {
        var taker: Waiter<Element?>?
        let result: Put = state.withLock { state in
            guard !state.isFinished else { return .ended }
            while let waiter = state.waiters.popFirst() {
                if waiter.claim() {
                    taker = waiter
                    return .taken
                }
            }
            guard state.elements.count >= limit else {
                state.elements.append(element)
                return .taken
            }
            if policy == .refuse { return .refused }
            state.elements.removeFirst()
            state.elements.append(element)
            return .tookOldestsPlace
        }
        taker?.resume(with: .success(element))
        return result
    }

    /// No more elements come.
    func finish() {
        let waiters = state.withLock { state in
            state.isFinished = true
            defer { state.waiters.removeAll() }
            return state.waiters
        }
        for waiter in waiters { waiter.finish(.success(nil)) }
    }

    /// Ends.
    /// - Returns: what nobody took. Elements may do anything when they go: not under the lock.
    func close() -> [Element] {
        finish()
        return state.withLock { state in
            defer { state.elements.removeAll() }
            return Array(state.elements)
        }
    }

    /// The next element, or nil after the last.
    /// - Throws: `CancellationError`.
    func next() async throws -> Element? {
        try await Waiter<Element?>().wait { waiter in
            // Decided under the lock, resumed outside of it.
            let result: Element??? = self.state.withLock { state in
                if let first = state.elements.first {
                    guard waiter.claim() else { return .none }
                    state.elements.removeFirst()
                    return .some(.some(first))
                }
                if state.isFinished { return waiter.claim() ? .some(.some(nil)) : .none }
                // Takers that were cancelled leave, wherever they stand among those who are usually few.
                if let first = state.waiters.first, !first.isWaiting { state.waiters.removeAll { !$0.isWaiting } }
                state.waiters.append(waiter)
                return .none
            }
            if case .some(.some(let value)) = result { waiter.resume(with: .success(value)) }
        }
    }
}
