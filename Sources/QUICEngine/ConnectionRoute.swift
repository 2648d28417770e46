/// Where packets go that carry one of some connection IDs: to their connection, as long as it lives. While the peer may
/// still send to a closed one (RFC 9000 section 10.2) it stands for what is left of it, the CONNECTION_CLOSE to repeat if
/// we closed.
///
/// ```
/// routed --closed, or the peer retired the ID--> lingering --at least three probe timeouts--> forgotten
/// ```
/// All IDs of a connection share one, so that closing it touches no table.
final class ConnectionRoute {
    /// nil: it lingers.
    unowned var connection: QUICEngineConnection?
    /// The IDs that lead here, but for the one that a client chose first.
    var ids: [ConnectionID] = []
    /// Of one retired ID: the connection that had it, which may live.
    private(set) weak var formerOwner: QUICEngineConnection?
    /// Whether it stands for one retired ID.
    let isRetiredID: Bool
    /// What is said to a peer that goes on.
    var close: RepeatedClose?

    /// A connection's, not yet routed.
    init() { isRetiredID = false }

    init(retired id: ConnectionID, of connection: QUICEngineConnection) {
        isRetiredID = true
        ids = [id]
        formerOwner = connection
    }
}

/// A CONNECTION_CLOSE in its packet.
struct WrittenClose {
    var bytes: [UInt8]
    /// The same without its reason, in another packet; empty: it has none, or is for a peer that may have no keys for that packet.
    var brief: [UInt8]
    var path: QUICPath
    var ecn: ECNCodepoint
}

/// A CONNECTION_CLOSE that is repeated less and less often, and in no more than three times the bytes that came: without its keys
/// nobody can tell who sent them (RFC 9000 section 10.2.1).
final class RepeatedClose {
    let packet: WrittenClose
    private var received = 0
    private var nextAnswer = 1
    /// Bytes that may be sent.
    private var allowance = 0

    init(packet: WrittenClose) { self.packet = packet }

    /// What a datagram of so many bytes that came in is answered with: the first, second, fourth, eighth, or the next one where too few
    /// bytes have come by then. Where they are too few for the reason it is left out: the code is what a peer can't do without.
    func answer(to count: Int) -> [UInt8]? {
        received += 1
        allowance += 3 * count
        guard received >= nextAnswer,
            let bytes = [packet.bytes, packet.brief].first(where: { !$0.isEmpty && $0.count <= allowance })
        else { return nil }
        allowance -= bytes.count
        nextAnswer = 2 * received
        return bytes
    }
}

/// The lingering routes of an endpoint, by when they are forgotten. That happens to many at a time: a timer for each of
/// thousands that close in a second would cost more than the rest of their end, and lingering a little longer than the
/// standard asks for harms nobody.
struct LingeringRoutes {
    /// Nanoseconds.
    private static let slotLength: UInt64 = 100_000_000

    private struct Slot {
        var end: QUICInstant
        var routes: [ConnectionRoute]
    }

    /// The earliest first.
    private var slots: [Slot] = []
    private(set) var count = 0

    /// When the next ones are to be forgotten.
    var next: QUICInstant? { slots.first?.end }

    /// Keeps a route at least until `end`.
    mutating func insert(_ route: ConnectionRoute, until end: QUICInstant) {
        let past = end.nanoseconds % Self.slotLength
        let end = past == 0 ? end : end.advanced(byNanoseconds: Self.slotLength - past)
        count += 1
        // Nearly always it is one of the last.
        var index = slots.count
        while index > 0, slots[index - 1].end > end { index -= 1 }
        if index > 0, slots[index - 1].end == end {
            slots[index - 1].routes.append(route)
        } else {
            slots.insert(Slot(end: end, routes: [route]), at: index)
        }
    }

    /// Takes some whose time has come; nil: there are none.
    mutating func popDue(now: QUICInstant) -> [ConnectionRoute]? {
        guard let first = slots.first, first.end <= now else { return nil }
        count -= first.routes.count
        return slots.removeFirst().routes
    }
}
