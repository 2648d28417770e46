internal import NIOCore
internal import QUICEngine

/// Whether a loop that has nothing to do looks into its sockets for a while, before it sleeps.
///
/// ```
///           eight times in a row a packet came soon after the loop had fallen asleep
///  sleeping ------------------------------------------------------------------------> willing <-+
///     ^                                                                                  |      |
///     |                                                            all that came is done |      | a turn is over
///     |              nothing came in time                                                v      |
///     +------------------------------------------------------------------------------ polling --+
/// ```
/// Sleeping and being woken costs both sides more than a short wait: the sender wakes a core, and the one that wakes finds its caches
/// cold. A look that finds nothing costs as well, so that the loop looks only where packets come one soon after the other, as from a
/// peer that waits for each answer, and a single miss puts it back to sleep. What misses can cost is bounded by that: one ``limit`` for
/// eight packets. Packets of many peers, which come at random, hardly ever come eight times in a row so soon unless the loop is busy
/// anyway.
struct BusyPolling {
    /// Nanoseconds that a packet may take to wake the loop: so much later than it would have been found.
    static let wakingTime: UInt64 = 40_000
    /// Packets that came soon, one behind the other, before the loop looks.
    static let proofs = 8
    /// Nanoseconds after which the event loop is left to look at its other channels, which it does not meanwhile.
    static let turn: UInt64 = 500_000

    /// Nanoseconds without a packet after which the loop sleeps; 0: it never looks.
    let limit: UInt64
    private(set) var isPolling = false
    private var soon = 0
    private var idleSince: UInt64?
    private var turnBegan: UInt64 = 0

    init(limit: UInt64) {
        // Else a turn would be over before the miss that a loop learns from.
        precondition(limit <= Self.turn, "a loop looks for a turn at most")
        self.limit = limit
    }

    /// A packet woke the loop.
    mutating func woke(at now: UInt64) {
        guard limit > 0, !isPolling, let idleSince else { return }
        soon = now &- idleSince < limit + Self.wakingTime ? min(soon + 1, Self.proofs) : 0
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
        if missed || now &- turnBegan >= Self.turn { isPolling = false }
        return isPolling
    }

    /// There is nothing to look into any more.
    mutating func stop() { isPolling = false }
}

extension LoopDriver {
    /// What a socket woke the loop for is done.
    func rest() {
        if polling.rested(at: QUICInstant.now().nanoseconds) { lookSoon() }
    }

    /// Between two looks the event loop runs what else it has to, and what other threads hand it.
    private func lookSoon() { eventLoop.assumeIsolated().execute { self.look() } }

    /// Looks into the sockets, where the loop would sleep until the kernel says that something came.
    private func look() {
        let now = QUICInstant.now()
        let before = socketCounters.messagesReceived
        var isOpen = false
        for port in ports.values where port.state == .bound {
            isOpen = true
            port.read(now: now)
        }
        // An event loop that ends must run out of tasks.
        guard isOpen else { return polling.stop() }
        lastRead = now
        let found = socketCounters.messagesReceived != before
        if found {
            socketCounters.readsWithoutSleep += 1
            tick()
        }
        if polling.looked(found: found, at: found ? QUICInstant.now().nanoseconds : now.nanoseconds) { lookSoon() }
    }
}
