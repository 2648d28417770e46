internal import NIOCore
internal import QUICEngine

/// Whether a loop that has nothing to do looks into its sockets for a while, before it sleeps.
///
/// ```
///              eight times in a row a packet came soon
///     +---------------------------------------------------+      +-- a turn is over --+
///     |                                                   v      v                    |
///  sleeping <---------- a packet came late ------------ willing ---- all is done ----> polling
///     ^                                                                               |
///     +---------------------------- nothing came in time -----------------------------+
/// ```
/// Sleeping and being woken costs both sides more than a short wait: the sender wakes a core, and the one that wakes finds its caches
/// cold. A look that finds nothing costs as well, so that the loop looks only where packets come soon after those before were handled,
/// as from a peer that waits for each answer, and a single miss puts it back to sleep. What looking in vain costs is bounded by that:
/// one ``limit`` for eight packets, and less than that for each packet found. Packets of many peers, which come at random, hardly ever
/// come eight times in a row so soon unless the loop is busy anyway.
struct BusyPolling {
    /// Packets that came soon, one behind the other, before the loop looks.
    static let proofs = 8
    /// Nanoseconds after which the event loop is left to look at its other channels, which it does not meanwhile.
    static let turn: UInt64 = 500_000
    /// Nanoseconds that waking takes: a packet that woke the loop would have been found so much earlier.
    private static let wakingTime: UInt64 = 40_000

    private let limit: UInt64
    private let scale: UInt64
    private(set) var isPolling = false
    private var soon = 0
    private var idleSince: UInt64?
    private var turnBegan: UInt64 = 0

    /// - Parameters:
    ///   - limit: nanoseconds without a packet after which the loop sleeps, at most a turn; 0: it never looks.
    ///   - scale: how many times longer everything takes. Tests are not about the machine's speed.
    init(limit: UInt64, scale: UInt64 = 1) {
        // Else a turn would be over before the miss that a loop learns from.
        precondition(limit <= Self.turn, "a loop looks for a turn at most")
        self.limit = limit * scale
        self.scale = scale
    }

    /// A packet of a connection woke the loop.
    mutating func woke(at now: UInt64) {
        guard limit > 0, !isPolling, let idleSince else { return }
        soon = now &- idleSince < limit + Self.wakingTime * scale ? min(soon + 1, Self.proofs) : 0
    }

    /// All that came is handled.
    /// - Returns: whether the loop shall look into its sockets from now on.
    mutating func rested(at now: UInt64) -> Bool {
        guard limit > 0, !isPolling else { return false }
        idleSince = now
        guard soon >= Self.proofs else { return false }
        isPolling = true
        turnBegan = now
        return true
    }

    /// The loop has looked, and handled what it found.
    /// - Returns: whether it shall look once more; else it sleeps.
    mutating func looked(found: Bool, at now: UInt64) -> Bool {
        assert(isPolling, "who looks has been told to")
        if found { idleSince = now }
        let missed = now &- (idleSince ?? 0) >= limit
        if missed { soon = 0 }
        if missed || now &- turnBegan >= Self.turn * scale { isPolling = false }
        return isPolling
    }

    /// There is nothing to look into for now.
    mutating func stop() { isPolling = false }
}

extension LoopDriver {
    /// Sockets that a look is worth: each is a system call.
    private static let maximumPolledPorts = 16

    /// What a socket woke the loop for is done.
    func rest(wokenAt woken: QUICInstant) {
        guard tookPackets() else { return }
        polling.woke(at: woken.nanoseconds)
        if polling.rested(at: QUICInstant.now().nanoseconds) { lookSoon() }
    }

    /// Whether packets reached a connection since the last call. Who sends others doesn't keep the loop from its sleep.
    private func tookPackets() -> Bool {
        let counters = engine.counters
        let taken = counters.datagramsReceived &- counters.garbageDatagrams &- counters.unknownConnectionIDs
        defer { packetsTaken = taken }
        return taken != packetsTaken
    }

    /// Between two looks the event loop runs what else it has to, and what other threads hand it.
    private func lookSoon() { eventLoop.assumeIsolated().execute { self.look() } }

    /// Looks into the sockets, where the loop would sleep until the kernel says that something came.
    private func look() {
        let now = QUICInstant.now()
        guard canLook else { return polling.stop() }
        let before = socketCounters.messagesReceived
        for port in ports.values { port.read(now: now) }
        lastRead = now
        guard socketCounters.messagesReceived != before else { return goOn(found: false, at: now) }
        tick()
        let found = tookPackets()
        if found { socketCounters.readsWithoutSleep += 1 }
        goOn(found: found, at: .now())
    }

    private func goOn(found: Bool, at now: QUICInstant) {
        if polling.looked(found: found, at: now.nanoseconds) { lookSoon() }
    }

    /// There are sockets, not too many, and none waits for room in its buffer, of which only the kernel tells.
    private var canLook: Bool {
        guard ports.count <= Self.maximumPolledPorts else { return false }
        var isOpen = false
        for port in ports.values {
            if port.waitsForRoom { return false }
            if port.state == .bound { isOpen = true }
        }
        return isOpen
    }
}
