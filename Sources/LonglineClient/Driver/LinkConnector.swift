import LonglineLinks
import NIOCore

/// What an attempt needs to open a link.
struct LinkRequest: Sendable {
    var accessPoint: AccessPoint
    var serverName: String
    /// A TLS session ticket of this access point, from an earlier link.
    var sessionTicket: [UInt8]?
    /// An address token of this access point, from an earlier link.
    var addressToken: [UInt8]?
    /// Whether the first flight may carry the session's first frames: only a connect by resume ticket can't be harmed
    /// by a replay.
    var earlyData: Bool
    /// Where to start from; nil lets the system choose.
    var localAddress: SocketAddress?
}

/// A link that can move between this machine's addresses, as QUIC's can.
protocol MobileLink: Link {
    /// The address and port of this side.
    var localAddress: SocketAddress? { get }
    /// Whether the link can move by now. A move that is asked for before waits until then, which never comes where the old path is
    /// dead.
    var isHandshakeConfirmed: Bool { get }
    /// Moves to another local address, or to a new port of the same one; completes when the new path is validated.
    func migrate(to local: SocketAddress?, completed: @escaping (Result<Void, any Error>) -> Void)
    /// What the transport counted.
    var linkStatistics: LinkStatistics? { get }
    /// From now on nothing is sent and what comes is dropped, without a word to anyone: an outage.
    func goSilent()
}

/// An attempt to open a link.
protocol LinkAttempt: AnyObject {
    /// Gives the attempt up, or the link that came of it, without a farewell: nothing is called any more.
    func abandon()
}

/// Opens links. Called on the loop, and calls back there.
protocol LinkConnector: Sendable {
    /// Starts a link; ``/LonglineLinks/LinkHandler/linkEstablished(_:)`` follows, or `failed`, once, never before this returned.
    func open(
        _ request: LinkRequest, on loop: any EventLoop, handler: any LinkHandler,
        failed: @escaping (ClientError) -> Void
    ) -> any LinkAttempt
}
