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
        var size = 0
        var recorded = 0
        var waiters = Deque<Waiter<Element?>>()
        /// With so many takers those that were cancelled are looked for.
        var fullHouse = Mailbox.fewTakers
        var isFinished = false
    }

    private static var fewTakers: Int { 16 }

    let limit: Int
    private let policy: Policy
    private let measure: @Sendable (Element) -> Int
    private let state = Mutex(State())

    /// - Parameter measure: what an element counts in ``recordSize()``.
    init(limit: Int, policy: Policy, measure: @escaping @Sendable (Element) -> Int = { _ in 0 }) {
        precondition(limit > 0, "a mailbox holds at least one element")
        self.limit = limit
        self.policy = policy
        self.measure = measure
    }

    /// What the elements that wait count together, which is on record from now on.
    func recordSize() -> Int {
        state.withLock { state in
            state.recorded = state.size
            return state.size
        }
    }

    /// Whether much less waits than is on record, or so little that it matters, or nothing any more.
    var isRecordStale: Bool {
        state.withLock { state in
            guard state.recorded > 0 else { return false }
            return state.size == 0 || state.recorded - state.size >= Self.recordedWithin
                || (state.recorded > Self.little && state.size <= Self.little)
        }
    }
    private static var recordedWithin: Int { 64 << 10 }
    /// A connection whose datagrams take so much gets no others while its endpoint is full.
    private static var little: Int { 4 << 10 }

    /// Takers that are known, some that were cancelled among them.
    var takerCount: Int { state.withLock { $0.waiters.count } }

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
            let isFull = state.elements.count >= limit
            if isFull, policy == .refuse { return .refused }
            if isFull { state.size -= measure(state.elements.removeFirst()) }
            state.elements.append(element)
            state.size += measure(element)
            return isFull ? .tookOldestsPlace : .taken
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
            defer {
                state.elements.removeAll()
                state.size = 0
            }
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
                    state.size -= self.measure(first)
                    return .some(.some(first))
                }
                if state.isFinished { return waiter.claim() ? .some(.some(nil)) : .none }
                // Takers that were cancelled leave, wherever they stand.
                if state.waiters.count >= state.fullHouse {
                    state.waiters.removeAll { !$0.isWaiting }
                    state.fullHouse = max(2 * state.waiters.count, Self.fewTakers)
                }
                state.waiters.append(waiter)
                return .none
            }
            if case .some(.some(let value)) = result { waiter.resume(with: .success(value)) }
        }
    }
}
