import Synchronization

/// Remembers the 0-RTT flights a server has seen, so that a copy of one is refused (RFC 8446 section 8.2). Shared by all
/// loops of a server. It is bounded: when it is full of entries that may not be forgotten yet, 0-RTT is refused,
/// and those clients make a 1-RTT handshake.
public final class ReplayStore: Sendable {
    /// The answer to one binder.
    enum Verdict: Sendable { case fresh, seen, full }

    private struct State {
        var expiry: [[UInt8]: UInt64] = [:]
        var order: [(binder: [UInt8], expiry: UInt64)] = []
        var oldest = 0
    }

    private let state = Mutex(State())
    /// Binders held at most.
    public let capacity: Int

    /// An empty store; one entry takes about 200 bytes.
    public init(capacity: Int = 1_000_000) { self.capacity = capacity }

    /// Binders held now.
    public var count: Int { state.withLock { $0.expiry.count } }

    /// Records a binder unless it is known.
    /// - Parameters:
    ///   - binder: what identifies the flight, the same for each copy of it.
    ///   - expiry: from when on it may be forgotten, in seconds since 1970.
    ///   - now: seconds since 1970.
    func check(_ binder: [UInt8], expiry: UInt64, now: UInt64) -> Verdict {
        state.withLock { state in
            while state.oldest < state.order.count, state.order[state.oldest].expiry <= now {
                state.expiry.removeValue(forKey: state.order[state.oldest].binder)
                state.oldest += 1
            }
            if state.oldest > 1024, state.oldest > state.order.count / 2 {
                state.order.removeFirst(state.oldest)
                state.oldest = 0
            }
            if state.expiry[binder] != nil { return .seen }
            guard state.expiry.count < capacity else { return .full }
            state.expiry[binder] = expiry
            state.order.append((binder, expiry))
            return .fresh
        }
    }
}
