internal import LonglineSession
public import NIOCore
public import QUICEngine

/// What every Longline link over QUIC agrees on.
public enum QUICLinkProtocol {
    /// The application protocol's name (ALPN).
    public static let applicationProtocol = "longline/1"
}

extension TransportSettings {
    /// A client's settings for sessions: a stream for each channel, datagrams for signals, and an idle timeout that leaves the
    /// heartbeat to the session.
    public static var longline: TransportSettings {
        var settings = TransportSettings()
        // The server's counts, as the smaller one: how long a session may be quiet is up to the service. A day.
        settings.maxIdleTimeout = .seconds(86_400)
        settings.maxBidirectionalStreams = 1
        settings.maxUnidirectionalStreams = UInt64(ClientSessionConfiguration().maximumLanes)
        settings.streamWindow = 256 << 10
        settings.connectionWindow = 1 << 20
        settings.maxDatagramFrameSize = 1200
        // Half of what a peer with these settings lets us send beyond what it has read: the other half is for chat and control.
        settings.backgroundSendBuffer = 512 << 10
        return settings
    }

    /// The same for a server, with a stream for each lane that it lets a client have.
    public static var longlineServer: TransportSettings {
        var settings = longline
        // Above the longest silence that a session allows by default, so that the session's close comes first.
        settings.maxIdleTimeout = .seconds(660)
        settings.maxUnidirectionalStreams = UInt64(ServerSessionConfiguration().maximumLanes)
        return settings
    }
}

/// Where and how a link is opened.
public struct QUICLinkTarget: Sendable {
    /// A name or a numeric address to connect to.
    public var host: String
    /// The UDP port.
    public var port: Int
    /// The name that the server's certificate must have.
    public var serverName: String
    /// How the certificate is checked.
    public var verification: TLSClientVerification
    /// What ``LinkHandler/sessionTicketReceived(_:link:)`` brought on an earlier link to this server. Bytes that can't be
    /// read, or a ticket whose time is over, are ignored.
    public var sessionTicket: [UInt8]?
    /// What ``LinkHandler/addressTokenReceived(_:link:)`` brought on an earlier link to this server.
    public var addressToken: [UInt8]?
    /// Whether the first flight may carry frames (0-RTT), which an attacker may repeat.
    public var earlyData = true
    /// Where to send from; nil lets the routing table choose. Port 0 lets the system choose one.
    public var localAddress: SocketAddress?
    /// The transport's limits and times.
    public var transport = TransportSettings.longline
    /// Receives the connection's secrets for debugging; nil: nobody does.
    public var keyLog: ClientConfiguration.KeyLog?

    /// A target.
    public init(host: String, port: Int, serverName: String, verification: TLSClientVerification = .systemRoots) {
        self.host = host
        self.port = port
        self.serverName = serverName
        self.verification = verification
    }
}
