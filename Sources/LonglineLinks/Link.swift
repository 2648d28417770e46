public import LonglineSession
public import LonglineWire
public import NIOCore

/// What carries a session's lanes.
public enum LinkKind: String, Hashable, Sendable, CaseIterable {
    /// QUIC: a lane is a stream.
    case quic
    /// TCP with TLS: one stream carries frames tagged with their lane.
    case tcp
    /// WebSocket: as ``tcp``, in binary messages.
    case webSocket
}

/// How a link came to be.
public struct LinkHandshake: Hashable, Sendable {
    /// The application protocol both agreed on (ALPN).
    public var applicationProtocol: String
    /// Whether TLS resumed an earlier session.
    public var resumed: Bool
    /// Whether what was sent before the handshake completed was taken.
    public var earlyDataAccepted: Bool
    /// From the first packet to the completed handshake, as this side saw it.
    public var duration: TimeAmount

    /// A handshake report.
    public init(applicationProtocol: String, resumed: Bool, earlyDataAccepted: Bool, duration: TimeAmount) {
        self.applicationProtocol = applicationProtocol
        self.resumed = resumed
        self.earlyDataAccepted = earlyDataAccepted
        self.duration = duration
    }
}

/// Why a link is gone. It says nothing about the session, which may go on over another link.
public enum LinkCloseReason: Hashable, Sendable {
    /// This side closed it.
    case local
    /// The peer closed it with a code of the session protocol.
    case peer(code: CloseCode, reason: String)
    /// Nothing came for the idle timeout.
    case idleTimeout
    /// The handshake failed; the text is for logs and names no secrets.
    case handshakeFailed(String)
    /// The handshake wasn't complete in time, and nothing said why: often nobody is there, or the network loses everything.
    case handshakeTimeout
    /// The transport failed in another way; the text is for logs and names no secrets.
    case failed(String)
}

/// How a signal left.
public enum SignalRoute: Hashable, Sendable {
    /// In a datagram, which may be lost.
    case datagram
    /// On lane 0.
    case lane
    /// Not at all: too late, or no room.
    case dropped
}

/// One side of one connection between a client and a server, which carries frames on lanes.
///
/// A link is confined to its event loop: every call is made there, and every call of its ``LinkHandler`` comes there.
/// A session outlives its links; a link never outlives its connection.
public protocol Link: AnyObject {
    /// What carries it.
    var kind: LinkKind { get }
    /// The loop it is confined to.
    var eventLoop: any EventLoop { get }
    /// The peer's address and port as text; it changes when the peer migrates.
    var remoteAddress: String { get }
    /// Bytes that came and were not told of: those of frames whose end has not come, on all lanes but lane 0, which holds less
    /// than one frame.
    var partialBytes: Int { get }

    /// How many lanes of this side the peer lets be open at once, as far as is known: on a server once the client's first frame has
    /// come, on a client once the link is established.
    var laneLimit: Int { get }
    /// Opens a lane of this side. Frames may be sent on it at once; they wait if the peer allows no more streams now.
    func openLane(_ lane: LaneID)
    /// Says how urgent a lane is among the others, for what waits on it and for what is sent from now on; before, it is
    /// ``/LonglineWire/Urgency/chat``. Lane 0 goes before all of them.
    ///
    /// What is less urgent leaves only when nothing more urgent can, and never fills what more urgent lanes need of the
    /// transport's buffers.
    func prioritize(_ lane: LaneID, _ urgency: Urgency)
    /// Encodes a frame and sends it behind what was sent on the lane before.
    ///
    /// The link queues whatever it is given, and says so by ``LinkHandler/laneOverfull(_:link:)`` when that is more than a
    /// peer that listens lets wait. Ignored once the link is closed.
    func send(_ frame: Frame, lane: LaneID)
    /// Sends a signal if it can leave soon: in a datagram where the peer takes those and it fits one, else on lane 0 unless
    /// that is backed up. Where one of the same sender, channel and kind has not left yet, it goes instead of that. Never
    /// before the handshake completed.
    func sendSignal(_ signal: Signal, until: NIODeadline) -> SignalRoute
    /// Says that nothing more will be sent on a lane; what was sent before is delivered first.
    func finishLane(_ lane: LaneID)
    /// Whether the lane takes more now; ``LinkHandler/laneWritabilityChanged(_:writable:link:)`` tells of changes.
    func isWritable(_ lane: LaneID) -> Bool
    /// Calls ``LinkHandler/laneWritabilityChanged(_:writable:link:)`` with true, once, when what was sent on the lane so far has
    /// been handed to the transport: for a sender that has much to send and wants to queue little.
    func reportWhenDrained(_ lane: LaneID)
    /// Calls ``LinkHandler/laneDelivered(_:question:link:)``, once, when the peer's transport has all that was sent on the lane so
    /// far: a frame that is sent after that, on whatever lane, is read behind it. Also when the lane is no more. A second call before
    /// that moves the place that is waited for, and the question's number, which names the answer, with it.
    func reportWhenDelivered(_ lane: LaneID, question: UInt64)
    /// Has what came meanwhile be read soon, where the loop goes from task to task and nothing is sent: it looks at its sockets only
    /// when none is left.
    func pollSockets()
    /// Sends what was queued, then closes the connection with a code of the session protocol. Later calls do nothing.
    func close(_ code: CloseCode, reason: String)
}

/// What drives a ``Link``: the server's or the client's session host. Called on the link's event loop.
public protocol LinkHandler: AnyObject {
    /// The link exists. A client may send, perhaps as early data; a server waits for the client's first frame.
    func linkEstablished(_ link: any Link)
    /// The handshake is complete: what was read before it can't be a replay any more.
    func handshakeCompleted(_ link: any Link, info: LinkHandshake)
    /// A frame came. `early` says that some of it came before the handshake completed.
    func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link)
    /// A frame came in a datagram, after the handshake: before or after anything else.
    func receivedDatagram(_ frame: Frame, link: any Link)
    /// The bytes on a lane are no frame. Nothing more is read from that lane.
    func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link)
    /// The peer will send nothing more on a lane (finished or reset).
    func laneFinished(_ lane: LaneID, link: any Link)
    /// A lane of this side stopped taking frames without delay, or takes them again.
    func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link)
    /// What ``Link/reportWhenDelivered(_:question:)`` asked about was delivered, or the lane is no more.
    func laneDelivered(_ lane: LaneID, question: UInt64, link: any Link)
    /// Over 512 KiB wait on a lane of this side for a peer that does not take them, or over 8,192 lanes of this side are not at their
    /// end, or more waits on all together than a server lets: it closes the link. It is said again with every flush that leaves
    /// as much, of several lanes of the last one that was sent on.
    func laneOverfull(_ lane: LaneID, link: any Link)
    /// The peer takes no more of a lane of this side, or broke lane 0 off (STOP_SENDING, RESET_STREAM): what the protocol says there
    /// can't be said any more, so the link has to be closed.
    func laneStopped(_ lane: LaneID, link: any Link)
    /// An authenticated packet came: the path lives.
    func packetReceived(_ link: any Link)
    /// The path changed and was validated: another local or remote address.
    func pathChanged(_ link: any Link)
    /// The server gave this client a TLS session ticket for a later 0-RTT connect (opaque bytes).
    func sessionTicketReceived(_ ticket: [UInt8], link: any Link)
    /// The server gave this client an address token for a later connect.
    func addressTokenReceived(_ token: [UInt8], link: any Link)
    /// The events of one loop tick were delivered, or changes of writability: work off what they caused.
    func batchEnded(_ link: any Link)
    /// The link is gone; the last call.
    func linkClosed(_ link: any Link, reason: LinkCloseReason)
}

extension Link {
    /// For transports whose lanes share one stream: it is inside one frame at a time.
    public var partialBytes: Int { 0 }

    /// For transports that can't.
    public func pollSockets() {}

    /// On one byte stream only the protocol limits them.
    public var laneLimit: Int { .max }

    /// For transports without datagrams, and without early data: on lane 0, while that takes more.
    public func sendSignal(_ signal: Signal, until: NIODeadline) -> SignalRoute {
        guard isWritable(.control), let signal = signal.remaining(until: until, now: .now()) else { return .dropped }
        send(.signal(signal), lane: .control)
        return .lane
    }
}

extension Close {
    /// What ``LinkHandler/laneStopped(_:link:)`` ends a session with.
    public static let laneStopped = Close(code: .unexpectedFrame, reason: "a lane was stopped")
}

extension LinkHandler {
    public func receivedDatagram(_ frame: Frame, link: any Link) {}
    public func laneOverfull(_ lane: LaneID, link: any Link) {}
    public func laneStopped(_ lane: LaneID, link: any Link) {
        link.close(Close.laneStopped.code, reason: Close.laneStopped.reason)
    }
    public func laneDelivered(_ lane: LaneID, question: UInt64, link: any Link) {}
    public func packetReceived(_ link: any Link) {}
    public func pathChanged(_ link: any Link) {}
    public func sessionTicketReceived(_ ticket: [UInt8], link: any Link) {}
    public func addressTokenReceived(_ token: [UInt8], link: any Link) {}
}
