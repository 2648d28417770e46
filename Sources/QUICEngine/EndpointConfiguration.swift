/// What an endpoint needs to know before its first datagram.
public struct EndpointConfiguration: Sendable {
    /// How to serve; nil: the endpoint only connects.
    public var server: ServerConfiguration?
    /// A key of 32 bytes, secret and the same for all loops and restarts of a server, from which stateless reset
    /// tokens and address tokens derive. nil: drawn at random.
    public var staticKey: [UInt8]?
    /// Bytes that name the server, put into every connection ID in the clear for a load balancer; at most 8.
    public var serverID: [UInt8] = []
    /// The event loop's number, a plain byte of every connection ID, by which a kernel filter can steer datagrams.
    public var workerID: UInt8 = 0
    /// Connections at a time.
    public var maxConnections = 100_000
    /// Stateless resets sent a second at most.
    public var statelessResetsPerSecond = 100
    /// Version negotiation packets and refusals of new connections sent a second at most.
    public var refusalsPerSecond = 100

    /// An endpoint that only connects, until `server` is set.
    public init() {}
}

/// How an endpoint serves.
public struct ServerConfiguration: Sendable {
    /// Certificate, protocols, tickets.
    public var tls: TLSServerContext
    /// What connections offer.
    public var transport = TransportSettings()
    /// Half-open handshakes from which on a client must show by a Retry that it owns its address.
    public var retryThreshold = 64
    /// Half-open handshakes at a time; more are refused with CONNECTION_REFUSED.
    public var maxHandshakes = 1024
    /// Half-open handshakes at a time from one IPv4 address or IPv6 /64 that hasn't shown that it owns the address;
    /// more must.
    public var maxHandshakesPerAddress = 32
    /// How long a token from NEW_TOKEN spares a client the address check.
    public var addressTokenLifetime = QUICDuration.seconds(7 * 24 * 3600)

    /// Serves with this certificate and these protocols.
    public init(tls: TLSServerContext) { self.tls = tls }
}

/// How to connect to one server.
public struct ClientConfiguration: Sendable {
    /// Receives lines in the format of SSLKEYLOGFILE. Whoever has them can read the connection.
    public typealias KeyLog = @Sendable (String) -> Void

    /// The protocols offered, the preferred first (RFC 7301).
    public var applicationProtocols: [String]
    /// The server's name, sent as SNI and compared with its certificate.
    public var serverName: String
    /// How the server's certificate is checked.
    public var verification: TLSClientVerification
    /// What the connection offers.
    public var transport = TransportSettings()
    /// A ticket of an earlier connection to this server.
    public var sessionTicket: SessionTicket?
    /// A token of an earlier connection to this server, from this network.
    public var addressToken: [UInt8]?
    /// Whether 0-RTT is used when the ticket allows it.
    public var earlyData = true
    /// Receives the connection's secrets for debugging; nil: nobody does.
    public var keyLog: KeyLog?

    /// Connects to a server by name.
    public init(
        serverName: String, applicationProtocols: [String], verification: TLSClientVerification = .systemRoots
    ) {
        self.serverName = serverName
        self.applicationProtocols = applicationProtocols
        self.verification = verification
    }
}

/// What an endpoint counted since it was made.
public struct EndpointCounters: Sendable, Hashable {
    /// Datagrams and bytes received and sent.
    public var datagramsReceived: UInt64 = 0
    public var bytesReceived: UInt64 = 0
    public var datagramsSent: UInt64 = 0
    public var bytesSent: UInt64 = 0
    /// Datagrams that are no QUIC packet, or not one that means anything here.
    public var garbageDatagrams: UInt64 = 0
    /// Datagrams for a connection ID nobody knows.
    public var unknownConnectionIDs: UInt64 = 0
    /// Stateless resets sent and received.
    public var statelessResetsSent: UInt64 = 0
    public var statelessResetsReceived: UInt64 = 0
    /// Retry packets sent.
    public var retriesSent: UInt64 = 0
    /// Version negotiation packets sent.
    public var versionNegotiationsSent: UInt64 = 0
    /// New connections refused for a limit.
    public var connectionsRefused: UInt64 = 0
    /// Connections accepted and connections made.
    public var connectionsAccepted: UInt64 = 0
    public var connectionsInitiated: UInt64 = 0
    /// Handshakes by their end.
    public var handshakesCompleted: UInt64 = 0
    public var handshakesFailed: UInt64 = 0
    public var handshakesResumed: UInt64 = 0
    public var earlyDataAccepted: UInt64 = 0
    public var earlyDataRejected: UInt64 = 0
    /// DATAGRAM frames received and dropped because the application took none.
    public var datagramFramesDropped: UInt64 = 0
    /// Datagrams dropped unsent because their deadlines had passed.
    public var datagramFramesExpired: UInt64 = 0
    /// Frames and messages withheld from the C library because it would have aborted on them.
    public var containedFrames: UInt64 = 0
    public var containedHandshakeMessages: UInt64 = 0

    /// All zero.
    public init() {}
}
