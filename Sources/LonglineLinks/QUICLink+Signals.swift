internal import LonglineSession
public import LonglineWire
public import NIOCore
internal import QUICEngine
internal import QUICTransport

/// The signals of one link that may still wait in the transport, so that newer ones can take their place.
///
/// Bounded: the transport's queue is, and what has left it is forgotten when there are twice as many.
struct SignalDatagrams {
    private static let limit = 128

    private var waiting: [SignalKey: UInt64] = [:]
    private var lastID: UInt64 = 0

    /// The datagram that may wait with an older signal.
    func predecessor(of key: SignalKey) -> UInt64? { waiting[key] }

    /// A number for the next datagram.
    mutating func nextID() -> UInt64 {
        lastID += 1
        return lastID
    }

    /// A datagram went into the queue.
    mutating func add(_ key: SignalKey, _ id: UInt64, isWaiting: (UInt64) -> Bool) {
        if waiting.count >= Self.limit { waiting = waiting.filter { isWaiting($0.value) } }
        waiting[key] = id
    }
}

/// Signals in DATAGRAM frames (RFC 9221).
extension QUICLink {
    /// More than this not yet sent on lane 0 means that it is backed up. A few frames of the same moment fit.
    private static let backlog = 4 << 10

    /// Sends a signal as the protocol says; see ``Link/sendSignal(_:until:)``.
    public func sendSignal(_ signal: Signal, until: NIODeadline) -> SignalRoute {
        guard state == .established, isHandshakeComplete, let connection,
            let signal = signal.remaining(until: until, now: .now())
        else { return .dropped }
        var bytes = ByteBuffer()
        do throws(FrameError) { try FrameEncoder.encode(.signal(signal), into: &bytes) } catch {
            // An error of this side, as in `send`, but nothing hangs on a signal.
            assertionFailure("\(error)")
            return .dropped
        }
        if let limit = connection.maxDatagramSize, bytes.readableBytes <= limit {
            return sendDatagram(bytes, SignalKey(signal), lifetime: until - .now(), on: connection)
        }
        guard !isBackedUp else { return .dropped }
        send(.signal(signal), lane: .control)
        return .lane
    }

    private func sendDatagram(
        _ bytes: ByteBuffer, _ key: SignalKey, lifetime: TimeAmount, on connection: QUICLoopConnection
    ) -> SignalRoute {
        let id = signals.nextID()
        let older = signals.predecessor(of: key)
        // What is refused leaves the older one where it is: that is better than none.
        let isQueued = (try? connection.sendDatagram(bytes, id: id, lifetime: lifetime, replacing: older)) ?? false
        guard isQueued else { return .dropped }
        signals.add(key, id) { connection.isDatagramWaiting($0) }
        return .datagram
    }

    /// Whether what was sent on lane 0 before is held up.
    private var isBackedUp: Bool {
        let unsent = control.flatMap { connection?.unsentBytes($0) } ?? 0
        return unsent + (outbound[.control]?.pending.readableBytes ?? 0) > Self.backlog
    }

    /// A DATAGRAM frame holds whole frames, as a lane does. Before the handshake is complete it may be a replay, and is dropped.
    func received(datagram bytes: [UInt8]) {
        guard state == .established, isHandshakeComplete else { return }
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer(bytes: bytes))
        do throws(FrameError) {
            while state == .established, let frame = try decoder.next() {
                handler?.receivedDatagram(frame, link: self)
            }
            try decoder.finish()
        } catch {
            handler?.receivedInvalid(error, lane: .control, link: self)
        }
    }
}
