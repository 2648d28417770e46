import Synchronization

/// Remembers the 0-RTT flights a server has seen, so that a copy of one is refused (RFC 8446 section 8.2). Shared by all
/// loops of a server. It is bounded: when it is full of entries that may not be forgotten yet, 0-RTT is refused,
/// and those clients make a 1-RTT handshake. One IPv4 address or IPv6 /64 fills an eighth of it at most.
///
/// It also remembers the tickets sealed by the servers that share it: 0-RTT data is taken only with these. Another server
/// with the same ``TicketKeyRing`` resumes with them, but can't know which flights came here (RFC 8446 section 8.3).
public final class ReplayStore: Sendable {
    /// The answer to one binder.
    enum Verdict: Sendable { case fresh, seen, full }

    private struct State {
        var binders = ExpiringKeys<[UInt8]>()
        /// By a part of their hashes.
        var tickets = ExpiringKeys<UInt64>()
    }

    private let state = Mutex(State())
    /// Binders held at most, and tickets.
    public let capacity: Int

    /// Those of one host held at most.
    private var share: Int { max(1, capacity / 8) }

    /// An empty store; one entry takes about 200 bytes, and a ticket about 100.
    /// - Parameter capacity: flights remembered at most, and tickets. Of more tickets, or of more than an eighth from one
    ///   host, the oldest are forgotten: their clients resume without 0-RTT.
    public init(capacity: Int = 1_000_000) { self.capacity = capacity }

    /// Binders held now.
    public var count: Int { state.withLock { $0.binders.count } }

    /// Records a binder unless it is known.
    /// - Parameters:
    ///   - binder: what identifies the flight, the same for each copy of it.
    ///   - host: who sends it: a number for an IPv4 address or IPv6 /64.
    ///   - expiry: from when on it may be forgotten, in seconds since 1970.
    ///   - now: seconds since 1970.
    func check(_ binder: [UInt8], host: UInt64, expiry: UInt64, now: UInt64) -> Verdict {
        state.withLock { state in
            state.binders.forget(expiredBy: now)
            if state.binders.contains(binder) { return .seen }
            if state.binders.count(of: host) >= share { state.binders.forgetOldest(of: host, expiredBy: now) }
            guard state.binders.count < capacity, state.binders.count(of: host) < share else { return .full }
            state.binders.insert(binder, host: host, expiry: expiry)
            return .fresh
        }
    }

    /// Records a ticket that was sealed for a client. Where its host has a full share that is in place of the oldest of them: a client
    /// returns with its newest.
    func noteSealed(_ ticket: UnsafeRawBufferPointer, host: UInt64, expiry: UInt64, now: UInt64) {
        guard let key = Self.key(of: ticket) else { return }
        state.withLock { state in
            state.tickets.forget(expiredBy: now)
            if state.tickets.count(of: host) >= share { state.tickets.forgetOldest(of: host) }
            state.tickets.insert(key, host: host, expiry: expiry)
            if state.tickets.count > capacity { state.tickets.forgetOldest() }
        }
    }

    /// Whether a server that shares this store has sealed the ticket, as far as is remembered.
    func hasSealed(_ ticket: UnsafeRawBufferPointer) -> Bool {
        guard let key = Self.key(of: ticket) else { return false }
        return state.withLock { $0.tickets.contains(key) }
    }

    /// Nobody chooses what a ticket is: 64 bits tell those of this server from others. nil: the TLS library fails.
    private static func key(of ticket: UnsafeRawBufferPointer) -> UInt64? {
        TLSHash.sha256(ticket).map { $0.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }
    }
}
