/// What an endpoint needs to know before its first datagram.
public struct EndpointConfiguration: Sendable {
    /// How to serve; nil: the endpoint only connects.
    public var server: ServerConfiguration?
    /// A key of 32 bytes, secret and the same for all loops and restarts of a server, from which stateless reset
    /// tokens and address tokens derive. nil: drawn at random.
    public var staticKey: [UInt8]?
    /// Bytes that name the server, put into every connection ID for a load balancer: in the clear and at most 8, unless
    /// `loadBalancing` says otherwise.
    public var serverID: [UInt8] = []
    /// The event loop's number, a plain byte of every connection ID at `workerIDOffset`, by which a kernel filter can
    /// steer datagrams.
    public var workerID: UInt8 = 0
    /// Connection IDs after the QUIC-LB draft; nil: the worker's byte, the server's name, random bytes.
    public var loadBalancing: QUICLoadBalancing?
    /// Connections at a time.
    public var maxConnections = 100_000
    /// Stateless resets sent a second at most.
    public var statelessResetsPerSecond = 100
    /// Version negotiation packets and refusals of new connections sent a second at most.
    public var refusalsPerSecond = 100

    /// Where in a connection ID the worker's byte is: first, or last with `loadBalancing`.
    public var workerIDOffset: Int { loadBalancing.map { 1 + serverID.count + $0.nonceLength } ?? 0 }

    /// An endpoint that only connects, until `server` is set.
    public init() {}
}

/// How an endpoint serves.
public struct ServerConfiguration: Sendable {
    /// Certificate, protocols, tickets.
    public var tls: TLSServerContext
    /// What connections offer.
    public var transport = TransportSettings()
    /// Half-open handshakes from which on a client must show by a Retry that it owns its address (RFC 9000 section 8.1).
    /// 0: always; nil: never, not even one of an address with many half-open handshakes.
    public var retryThreshold: Int? = 64
    /// Half-open handshakes at a time; more are refused with CONNECTION_REFUSED.
    public var maxHandshakes = 1024
    /// Half-open handshakes at a time from one IPv4 address or IPv6 /64 that hasn't shown that it owns the address;
    /// more must, unless `retryThreshold` is nil.
    public var maxHandshakesPerAddress = 32
    /// Established connections at a time that came from one IPv4 address or IPv6 /64; more are refused with
    /// CONNECTION_REFUSED. Each endpoint, which is each loop of a server, counts its own. Providers put thousands of
    /// clients behind one address: a low limit shuts them out.
    public var maxConnectionsPerAddress = 10_000
    /// How long a token from NEW_TOKEN spares a client the address check.
    public var addressTokenLifetime = QUICDuration.seconds(7 * 24 * 3600)

    /// Decides about a datagram from a path that its connection doesn't know yet: true lets it be read, and the connection
    /// may move there once the path is validated; false drops it, and the next one from there is
    /// asked about again. Called in the endpoint's thread, before anything of the datagram is authenticated. nil: all paths are good.
    public typealias PathPolicy = @Sendable (_ new: QUICPath, _ current: QUICPath) -> Bool

    /// The versions spoken, the preferred first: clients that know of a better one than they began with are moved there
    /// (RFC 9368), others get a Version Negotiation packet.
    public var versions: [QUICVersion] = [.v1]
    /// Other addresses of this server that clients shall move to after the handshake (RFC 9000 section 9.6), for instance
    /// from an anycast address to a host's own. The server's socket must receive what is sent to them.
    public var preferredAddresses: [QUICSocketAddress] = []
    /// Which unknown paths datagrams are taken from.
    public var pathPolicy: PathPolicy?
    /// Traces of connections, for debugging. One with preferred addresses of both families, after a Retry, may get none:
    /// its transport parameters don't fit ngtcp2's record.
    public var qlog: QLog?

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
    /// The versions to try, the one to begin with first.
    public var versions: [QUICVersion] = [.v1]
    /// The version an earlier attempt began with; see ``retry(offered:)``.
    var originalVersion: QUICVersion?
    /// Certificate and key for servers that ask for one; nil: none is shown.
    public var identity: TLSClientIdentity?
    /// The cipher suites offered, the preferred first.
    public var cipherSuites = TLSCipherSuite.standard
    /// Whether to move to the address the server prefers, of the family in use, once the handshake is confirmed.
    public var usesPreferredAddress = true
    /// Traces of connections, for debugging. While it is set, a server whose transport parameters don't fit ngtcp2's record is
    /// refused with TRANSPORT_PARAMETER_ERROR: one that has a preferred address and very large limits, or one of each family
    /// and asked for a Retry.
    public var qlog: QLog?

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
    /// Connections that we closed because the peer broke a rule of QUIC or TLS, failed handshakes among them.
    public var protocolErrors: UInt64 = 0
    /// DATAGRAM frames received and dropped because the application took none.
    public var datagramFramesDropped: UInt64 = 0
    /// Datagrams from paths that the policy refused.
    public var datagramsFromRefusedPaths: UInt64 = 0
    /// Datagrams dropped unsent because their deadlines had passed.
    public var datagramFramesExpired: UInt64 = 0
    /// Frames and messages withheld from the C library because it would have aborted on them.
    public var containedFrames: UInt64 = 0
    public var containedHandshakeMessages: UInt64 = 0

    /// All zero.
    public init() {}
}
