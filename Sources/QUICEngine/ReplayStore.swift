import Synchronization

/// Remembers the 0-RTT flights a server has seen, so that a copy of one is refused (RFC 8446 section 8.2). Shared by all
/// loops of a server. It is bounded: when it is full of entries that may not be forgotten yet, 0-RTT is refused,
/// and those clients make a 1-RTT handshake. One IPv4 address or IPv6 /64 fills an eighth of it at most.
public final class ReplayStore: Sendable {
    /// The answer to one binder.
    enum Verdict: Sendable { case fresh, seen, full }

    private struct State {
        var expiry: [[UInt8]: UInt64] = [:]
        var order = FIFO<(binder: [UInt8], expiry: UInt64, host: UInt64)>()
        /// Binders of each host.
        var shares: [UInt64: Int] = [:]

        mutating func forgetOldest() {
            guard let (binder, _, host) = order.popFirst() else { return }
            expiry.removeValue(forKey: binder)
            if let count = shares[host] { shares[host] = count > 1 ? count - 1 : nil }
        }
    }

    private let state = Mutex(State())
    /// Binders held at most.
    public let capacity: Int

    /// Binders of one host held at most.
    private var share: Int { max(1, capacity / 8) }

    /// An empty store; one entry takes about 200 bytes.
    public init(capacity: Int = 1_000_000) { self.capacity = capacity }

    /// Binders held now.
    public var count: Int { state.withLock { $0.expiry.count } }

    /// Records a binder unless it is known.
    /// - Parameters:
    ///   - binder: what identifies the flight, the same for each copy of it.
    ///   - host: who sends it: a number for an IPv4 address or IPv6 /64.
    ///   - expiry: from when on it may be forgotten, in seconds since 1970.
    ///   - now: seconds since 1970.
    func check(_ binder: [UInt8], host: UInt64, expiry: UInt64, now: UInt64) -> Verdict {
        state.withLock { state in
            while let oldest = state.order.first, oldest.expiry <= now { state.forgetOldest() }
            if state.expiry[binder] != nil { return .seen }
            guard state.expiry.count < capacity, state.shares[host, default: 0] < share else { return .full }
            state.expiry[binder] = expiry
            state.shares[host, default: 0] += 1
            state.order.append((binder, expiry, host))
            return .fresh
        }
    }
}
