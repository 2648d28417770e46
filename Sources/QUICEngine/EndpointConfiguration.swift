/// What an endpoint needs to know before its first datagram.
public struct EndpointConfiguration: Sendable {
    /// How to serve; nil: the endpoint only connects.
    public var server: ServerConfiguration?
    /// A key of 32 bytes, secret and the same for all loops and restarts of a server, from which stateless reset
    /// tokens (RFC 9000 section 10.3) and address tokens derive. nil, the default: drawn at random, so that after a restart
    /// clients notice only by a timeout that their connections are gone. Servers that can be reached beside each other may share
    /// it, to accept each other's address tokens, only if each has a `serverID` of its own, from which the reset tokens derive,
    /// too: otherwise one answers a packet of another's connection with what ends that (RFC 9000 section 21.11).
    public var staticKey: [UInt8]?
    /// Bytes that name the server, put into every connection ID for a load balancer: in the clear and at most 8, unless
    /// `loadBalancing` says otherwise.
    public var serverID: [UInt8] = []
    /// The event loop's number, a plain byte of every connection ID at `workerIDOffset`, by which a kernel filter can
    /// steer datagrams.
    public var workerID: UInt8 = 0
    /// Connection IDs after the QUIC-LB draft; nil: the worker's byte, the server's name, random bytes.
    public var loadBalancing: QUICLoadBalancing?
    /// Connections at a time, both ways; 100,000. At the limit clients get CONNECTION_REFUSED, and connecting throws
    /// ``QUICError/Code/connectionLimit``.
    public var maxConnections = 100_000
    /// Bytes that the connections may hold together: of streams and datagrams received and not yet taken, of streams sent and not
    /// yet acknowledged, of datagrams that wait to be sent, what data out of order takes, and 32 KiB for each half-open handshake;
    /// 1 GiB. Beyond it new connections are refused with CONNECTION_REFUSED, connecting throws
    /// ``QUICError/Code/connectionLimit``, and what is read from a stream doesn't let its peer send more until less is held. Those that
    /// live keep the windows that they were given, and the datagrams that they have received, to which others come only while a connection
    /// has no more than 4 KiB of them. Of what takes memory out of order the connections of one IPv4 address or IPv6 /64 may have an
    /// eighth, but always 16 MiB and what ``ServerConfiguration/transport`` lets one connection have; beyond it those of them that have most
    /// end with NO_ERROR, until an eighth of that is free. As much they may have sent and not acknowledged, datagrams that wait among it, but
    /// always what fills two connections' send buffers, or what ``maxUnacknowledgedBytesPerAddress`` says: the more they have, the less of it
    /// one of them is left; writers wait, and datagrams are refused. Whatever the others have, a connection may have 16 KiB of streams and 4
    /// KiB of datagrams, and each of its streams 2 KiB until those come to 16 KiB, or, of the streams of urgency 0 and of the others above
    /// ``StreamPriority/standard``, to 8 KiB each.
    public var maxBufferedBytes = 1 << 30
    /// Bytes that the connections from one IPv4 address or IPv6 /64 may have written together that are not acknowledged; nil, the
    /// default: the share of ``maxBufferedBytes`` that is said there. Raise it where many clients come from one address, as behind a
    /// proxy: those that don't read leave the others little more than 16 KiB a round trip. One connection can have half of it at most.
    /// Each endpoint, which is each loop of a server, counts its own. Values below zero are zero.
    public var maxUnacknowledgedBytesPerAddress: Int?
    /// Stateless resets sent a second at most; 100. Beyond it what they answer is dropped in silence.
    public var statelessResetsPerSecond = 100
    /// Version negotiation packets and refusals of new connections sent a second at most; 100. Beyond it what they answer is
    /// dropped in silence.
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
    /// Half-open handshakes, and those that failed within the last second or two, from which on a client must show by a Retry that it
    /// owns its address (RFC 9000 section 8.1). 64 unless changed; 0: always; nil: never, not even one of an address with many half-open
    /// handshakes. A Retry costs the client a round trip. In any case one goes to a client whose first packet to come isn't its
    /// first: what came of a ClientHello without its beginning is kept for nobody who hasn't shown his address.
    public var retryThreshold: Int? = 64
    /// Half-open handshakes at a time; 1,024. More are refused with CONNECTION_REFUSED.
    public var maxHandshakes = 1024
    /// Half-open handshakes at a time from one IPv4 address or IPv6 /64 that hasn't shown that it owns the address; 32.
    /// More must show it by a Retry, unless `retryThreshold` is nil.
    public var maxHandshakesPerAddress = 32
    /// Half-open handshakes at a time from one IPv4 address or IPv6 /64, whatever it has shown; 512. More are refused with
    /// CONNECTION_REFUSED, so that one host can't take all of `maxHandshakes`.
    public var maxValidatedHandshakesPerAddress = 512
    /// Established connections at a time that came from one IPv4 address or IPv6 /64; 10,000. More are refused with
    /// CONNECTION_REFUSED. Each endpoint, which is each loop of a server, counts its own. Providers put thousands of
    /// clients behind one address: a low limit shuts them out.
    public var maxConnectionsPerAddress = 10_000
    /// How long a token from NEW_TOKEN (RFC 9000 section 8.1.3) spares a client the address check: seven days. Each does it once for
    /// each loop of a server.
    public var addressTokenLifetime = QUICDuration.seconds(7 * 24 * 3600)

    /// Decides about a datagram from a path that its connection doesn't know yet: true lets it be read, and the connection
    /// may move there once the path is validated; false drops it, and the next one from there is
    /// asked about again. Called in the endpoint's thread, before anything of the datagram is authenticated. nil: all paths are good.
    public typealias PathPolicy = @Sendable (_ new: QUICPath, _ current: QUICPath) -> Bool

    /// The versions spoken, the preferred first: clients that know of a better one than they began with are moved there
    /// (RFC 9368), others get a Version Negotiation packet. From 1 to 8, each once and available in the ngtcp2 in use, or
    /// making the endpoint throws `invalidConfiguration`.
    public var versions: [QUICVersion] = [.v1]
    /// Other addresses of this server that clients shall move to after the handshake (RFC 9000 section 9.6), for instance
    /// from an anycast address to a host's own. At most one of each family, with a port. The server's sockets must receive what
    /// is sent to them: QUICTransport refuses others.
    public var preferredAddresses: [QUICSocketAddress] = []
    /// What tickets are for, beside the limits in ``transport``: one that was given under another context opens no session here. For
    /// settings of the application protocol that 0-RTT data goes by before the client learns the present ones (RFC 9114 section
    /// 7.2.4.2), where several servers share a `TLSServerContext`. Any bytes; none.
    public var ticketContext: [UInt8] = []
    /// Which unknown paths datagrams are taken from; nil: from all.
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

    /// The protocols offered, the preferred first (RFC 7301): from 1 to 8, of 1 to 31 bytes. With none in common with the
    /// server the handshake fails.
    public var applicationProtocols: [String]
    /// The server's name, sent as SNI and compared with its certificate.
    public var serverName: String
    /// How the server's certificate is checked.
    public var verification: TLSClientVerification
    /// What the connection offers.
    public var transport = TransportSettings()
    /// A ticket of an earlier connection to this server. It is not used if it is of another name or version, if it has
    /// expired or ends in more than seven days, or if `verification` or the certificate of `identity` was another then.
    public var sessionTicket: SessionTicket?
    /// A token of an earlier connection to this server, from this network.
    public var addressToken: [UInt8]?
    /// Whether 0-RTT (RFC 9001 section 4.6) is used when the ticket allows it. What is sent so may be repeated by an
    /// attacker.
    public var earlyData = true
    /// Receives the connection's secrets for debugging; nil: nobody does.
    public var keyLog: KeyLog?
    /// The versions to try, the one to begin with first; from 1 to 8, each once.
    public var versions: [QUICVersion] = [.v1]
    /// The version an earlier attempt began with; see ``retry(offered:)``.
    var originalVersion: QUICVersion?
    /// Certificate and key for servers that ask for one; nil: none is shown.
    public var identity: TLSClientIdentity?
    /// The cipher suites offered, the preferred first; each once, at least one.
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
    /// UDP datagrams received, whatever was in them.
    public var datagramsReceived: UInt64 = 0
    /// Bytes of UDP payload received.
    public var bytesReceived: UInt64 = 0
    /// UDP datagrams handed out to be sent.
    public var datagramsSent: UInt64 = 0
    /// Bytes of UDP payload handed out to be sent.
    public var bytesSent: UInt64 = 0
    /// Datagrams that are no QUIC packet, or not one that means anything here.
    public var garbageDatagrams: UInt64 = 0
    /// Datagrams for a connection ID nobody knows.
    public var unknownConnectionIDs: UInt64 = 0
    /// Stateless resets sent (RFC 9000 section 10.3).
    public var statelessResetsSent: UInt64 = 0
    /// Connections of ours that ended by a stateless reset from the peer.
    public var statelessResetsReceived: UInt64 = 0
    /// Retry packets sent.
    public var retriesSent: UInt64 = 0
    /// Version negotiation packets sent.
    public var versionNegotiationsSent: UInt64 = 0
    /// New connections refused for a limit.
    public var connectionsRefused: UInt64 = 0
    /// Of those, the ones refused because of ``EndpointConfiguration/maxBufferedBytes``.
    public var connectionsRefusedForMemory: UInt64 = 0
    /// Connections that were ended because their peer made them hold too much data out of order: more than
    /// ``TransportSettings/connectionWindow``, and 16 KiB for each stream that it may have open.
    public var connectionsEndedForMemory: UInt64 = 0
    /// Times that a connection's peer was not allowed to send more because of ``EndpointConfiguration/maxBufferedBytes``.
    public var windowsWithheld: UInt64 = 0
    /// Times that a stream took less than was written to it, or a datagram was refused, because the connections from its peer's address
    /// have too much to send, of what those of an address may have of ``EndpointConfiguration/maxBufferedBytes``.
    public var writesWithheld: UInt64 = 0
    /// Connections accepted, as a server.
    public var connectionsAccepted: UInt64 = 0
    /// Connections begun, as a client.
    public var connectionsInitiated: UInt64 = 0
    /// Handshakes that were completed, in either role.
    public var handshakesCompleted: UInt64 = 0
    /// Connections that ended, for whatever reason, before their handshake was complete.
    public var handshakesFailed: UInt64 = 0
    /// Completed handshakes in which a session ticket stood for the certificates.
    public var handshakesResumed: UInt64 = 0
    /// Completed handshakes whose 0-RTT data the server took.
    public var earlyDataAccepted: UInt64 = 0
    /// Completed handshakes whose 0-RTT data the server refused.
    public var earlyDataRejected: UInt64 = 0
    /// Connections that we closed because the peer broke a rule of QUIC or TLS, failed handshakes among them.
    public var protocolErrors: UInt64 = 0
    /// DATAGRAM frames received and dropped because the application took none, or all connections together hold too much.
    public var datagramFramesDropped: UInt64 = 0
    /// Datagrams from paths that the policy refused.
    public var datagramsFromRefusedPaths: UInt64 = 0
    /// Datagrams dropped unsent because their deadlines had passed.
    public var datagramFramesExpired: UInt64 = 0
    /// QUIC frames withheld from ngtcp2 because it would have aborted on them.
    public var containedFrames: UInt64 = 0
    /// TLS handshake messages that had no place where they came, withheld from GnuTLS because ngtcp2 would have aborted on
    /// what it makes of them. Each closes its connection with 0x10a (RFC 9001 section 6).
    public var containedHandshakeMessages: UInt64 = 0

    /// All zero.
    public init() {}
}
