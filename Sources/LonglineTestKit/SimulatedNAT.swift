public import QUICEngine

/// A NAT that forgets: it binds what comes from inside to a port of its own, and forgets the binding after a silence.
/// What comes from outside to a forgotten port vanishes; the next datagram from inside gets another port.
public struct SimulatedNAT {
    /// The silence after which a binding is forgotten, from now on.
    public var timeout: QUICDuration
    /// Whether what comes from outside keeps a binding alive, as most NATs have it (RFC 4787 section 4.3 allows both).
    public var isRefreshedFromOutside: Bool
    /// Whether a forgotten binding gets its old port again, so that nobody sees that it was forgotten.
    public var keepsPorts: Bool
    /// Bindings that were forgotten, as far as traffic showed it.
    public private(set) var forgotten = 0
    /// Datagrams that came from outside to a forgotten binding.
    public private(set) var dropped = 0

    private struct Binding {
        var outside: QUICSocketAddress
        var lastUse: QUICInstant
    }

    private let inside: Set<QUICSocketAddress>
    private let base: QUICSocketAddress
    private var nextPort: UInt16
    private var bindings: [QUICSocketAddress: Binding] = [:]
    private var owners: [QUICSocketAddress: QUICSocketAddress] = [:]

    /// A NAT.
    /// - Parameters:
    ///   - inside: who is behind it.
    ///   - outside: its address, and its first port.
    public init(
        inside: Set<QUICSocketAddress>, outside: QUICSocketAddress, timeout: QUICDuration,
        isRefreshedFromOutside: Bool = true, keepsPorts: Bool = false
    ) {
        self.inside = inside
        base = outside
        nextPort = outside.port
        self.timeout = timeout
        self.isRefreshedFromOutside = isRefreshedFromOutside
        self.keepsPorts = keepsPorts
    }

    /// Where a datagram from inside seems to come from; nil for one that is not from inside.
    mutating func outbound(from address: QUICSocketAddress, now: QUICInstant) -> QUICSocketAddress? {
        guard inside.contains(address) else { return nil }
        if let binding = bindings[address] {
            if isAlive(binding, now: now) || keepsPorts {
                if !isAlive(binding, now: now) { forgotten += 1 }
                bindings[address]?.lastUse = now
                return binding.outside
            }
            forgotten += 1
            owners[binding.outside] = nil
        }
        var outside = base
        outside.port = nextPort
        nextPort += 1
        bindings[address] = Binding(outside: outside, lastUse: now)
        owners[outside] = address
        return outside
    }

    enum Inbound { case notOurs, dropped, passes(QUICSocketAddress) }

    /// Where a datagram from outside goes.
    mutating func inbound(to address: QUICSocketAddress, now: QUICInstant) -> Inbound {
        guard address.host == base.host else { return .notOurs }
        guard let owner = owners[address], let binding = bindings[owner], isAlive(binding, now: now) else {
            dropped += 1
            return .dropped
        }
        if isRefreshedFromOutside { bindings[owner]?.lastUse = now }
        return .passes(owner)
    }

    private func isAlive(_ binding: Binding, now: QUICInstant) -> Bool {
        now < binding.lastUse.advanced(byNanoseconds: timeout.nanoseconds)
    }
}
