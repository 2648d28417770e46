public import QUICEngine

/// What a path does to datagrams. Probabilities are from 0 to 1 and independent of each other.
public struct NetworkConditions: Sendable {
    /// One-way delay.
    public var delay = QUICDuration.milliseconds(10)
    /// Up to so much is added to the delay, at random; more than the distance between datagrams reorders them.
    public var jitter = QUICDuration.milliseconds(0)
    /// A datagram vanishes.
    public var loss = 0.0
    /// A datagram arrives twice, the copy later.
    public var duplication = 0.0
    /// A datagram is held back by three delays, so that others overtake it.
    public var reordering = 0.0
    /// One byte of a datagram is changed.
    public var corruption = 0.0
    /// An ECN-capable datagram is marked as having met congestion.
    public var congestionMark = 0.0
    /// What a direction carries in a second; nil: all there is. What can't leave at once waits, up to ``maximumQueue``.
    public var bytesPerSecond: Int?
    /// Bytes that wait for a direction to be free; what comes beyond vanishes.
    public var maximumQueue = 64 << 10
    /// Larger datagrams vanish.
    public var maxDatagramSize = 1500

    /// A clean path with a delay of 10 ms each way.
    public init() {}

    /// A mobile network on a bad day.
    public static var rough: NetworkConditions {
        var conditions = NetworkConditions()
        conditions.jitter = .milliseconds(8)
        conditions.loss = 0.05
        conditions.duplication = 0.03
        conditions.reordering = 0.05
        return conditions
    }
}

/// A datagram network in memory with a virtual clock: what it does follows from its seed and what is sent. It knows
/// addresses and bytes, no protocol. Not thread-safe.
public final class SimulatedNetwork {
    /// A datagram as its receiver sees it.
    public struct Delivery {
        /// The payload.
        public var bytes: [UInt8]
        /// The receiver's address, and the sender's as a NAT shows it.
        public var path: QUICPath
        /// The mark it arrives with.
        public var ecn: ECNCodepoint
    }

    private struct InFlight {
        var at: QUICInstant
        var order: UInt64
        var delivery: Delivery
    }

    /// The virtual clock. It starts at one second.
    public private(set) var now = QUICInstant(nanoseconds: 1_000_000_000)
    /// What paths do from now on.
    public var conditions: NetworkConditions
    /// Sees each datagram that is sent, before anything happens to it; returning false loses it.
    public var filter: ((_ bytes: [UInt8], _ path: QUICPath) -> Bool)?
    /// Stands between some addresses and all others; nil: nothing does.
    public var nat: SimulatedNAT?
    /// What was sent and what became of it, as a number: two runs alike have the same.
    public private(set) var traceHash: UInt64 = 0xcbf2_9ce4_8422_2325
    /// Datagrams sent, lost and delivered so far.
    public private(set) var sent = 0
    public private(set) var lost = 0
    public private(set) var delivered = 0

    private var random: SeededRandom
    private var inFlight: [InFlight] = []
    private var nextOrder: UInt64 = 0
    private var unreachable: Set<QUICSocketAddress> = []
    /// When what was sent to an address so far has passed the bottleneck.
    private var busyUntil: [QUICSocketAddress: UInt64] = [:]
    private var publicAddress: [QUICSocketAddress: QUICSocketAddress] = [:]
    private var privateAddress: [QUICSocketAddress: QUICSocketAddress] = [:]

    /// A network whose faults follow from a seed.
    public init(seed: UInt64, conditions: NetworkConditions = NetworkConditions()) {
        random = SeededRandom(seed: seed)
        self.conditions = conditions
    }

    /// From now on everything from and to an address vanishes, or no longer does.
    public func setBlackhole(_ address: QUICSocketAddress, _ isBlackhole: Bool) {
        if isBlackhole { unreachable.insert(address) } else { unreachable.remove(address) }
    }

    /// From now on an address appears to others as another: what a NAT does, and does again when it forgets. What was
    /// sent to the old one vanishes.
    public func setNAT(_ inside: QUICSocketAddress, appearsAs outside: QUICSocketAddress) {
        if let old = publicAddress[inside] { privateAddress[old] = nil }
        publicAddress[inside] = outside
        privateAddress[outside] = inside
    }

    /// Sends one datagram.
    public func send(_ bytes: [UInt8], on path: QUICPath, ecn: ECNCodepoint) {
        sent += 1
        mix(UInt64(bytes.count))
        mix(now.nanoseconds)
        let source = nat?.outbound(from: path.local, now: now) ?? publicAddress[path.local] ?? path.local
        let isNATed = privateAddress[path.remote] != nil
        var destination = privateAddress[path.remote] ?? path.remote
        var isStale = !isNATed && publicAddress[path.remote] != nil
        switch nat?.inbound(to: path.remote, now: now) {
        case .passes(let inside): destination = inside
        case .dropped: isStale = true
        case .notOurs, nil: break
        }
        let passes = filter?(bytes, path) ?? true
        // The draws are made whatever happens, so that one fault doesn't shift all others.
        let isLost = random.happens(conditions.loss)
        let isCopied = random.happens(conditions.duplication)
        let isHeld = random.happens(conditions.reordering)
        let isCorrupted = random.happens(conditions.corruption)
        let isMarked = random.happens(conditions.congestionMark)
        let jitter = random.next() % max(1, conditions.jitter.nanoseconds)
        let queued = passes && !isLost && !isStale ? pass(bytes.count, to: destination) : 0
        guard let queued, passes, !isLost, !isStale, bytes.count <= conditions.maxDatagramSize,
            !unreachable.contains(path.local), !unreachable.contains(destination)
        else {
            lost += 1
            mix(0)
            return
        }
        var payload = bytes
        if isCorrupted, !payload.isEmpty {
            payload[Int(random.next() % UInt64(payload.count))] ^= UInt8(1 + random.next() % 255)
        }
        let mark = isMarked && ecn != .notECT ? ECNCodepoint.ce : ecn
        let delivery = Delivery(bytes: payload, path: QUICPath(local: destination, remote: source), ecn: mark)
        let delay = conditions.delay.nanoseconds * (isHeld ? 3 : 1) + jitter + queued
        add(delivery, after: delay)
        if isCopied { add(delivery, after: delay + conditions.delay.nanoseconds / 2) }
    }

    /// Lets a datagram through the bottleneck.
    /// - Returns: how long it takes, in nanoseconds; nil when it has no room there.
    private func pass(_ bytes: Int, to destination: QUICSocketAddress) -> UInt64? {
        guard let rate = conditions.bytesPerSecond, rate > 0 else { return 0 }
        let start = max(now.nanoseconds, busyUntil[destination] ?? 0)
        let waiting = Double(start - now.nanoseconds) / 1e9 * Double(rate)
        guard waiting + Double(bytes) <= Double(conditions.maximumQueue) else { return nil }
        let end = start + UInt64(bytes) * 1_000_000_000 / UInt64(rate)
        busyUntil[destination] = end
        return end - now.nanoseconds
    }

    /// When the next datagram arrives; nil: none is on its way.
    public var nextDelivery: QUICInstant? { inFlight.first?.at }

    /// Moves the clock forward; never back.
    public func advance(to instant: QUICInstant) { now = max(now, instant) }

    /// Takes the next datagram that has arrived by now.
    public func receive() -> Delivery? {
        guard let first = inFlight.first, first.at <= now else { return nil }
        inFlight.removeFirst()
        delivered += 1
        mix(first.order)
        return unreachable.contains(first.delivery.path.local) ? receive() : first.delivery
    }

    private func add(_ delivery: Delivery, after delay: UInt64) {
        let item = InFlight(at: now.advanced(byNanoseconds: delay), order: nextOrder, delivery: delivery)
        nextOrder += 1
        var low = 0
        var high = inFlight.count
        while low < high {
            let middle = (low + high) / 2
            if (inFlight[middle].at, inFlight[middle].order) < (item.at, item.order) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        inFlight.insert(item, at: low)
    }

    private func mix(_ value: UInt64) { traceHash = (traceHash ^ value) &* 0x0000_0100_0000_01b3 }
}
