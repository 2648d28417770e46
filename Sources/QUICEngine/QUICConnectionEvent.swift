/// What a connection reports; taken from the endpoint with `pollEvent`, in order.
///
/// What is large and rare is held indirectly: the events of every packet stay small enough to be copied with a few moves.
public enum QUICConnectionEvent: Sendable {
    /// Server: a client's first valid Initial packet created this connection.
    case accepted
    /// Client: streams may be opened and written now; what is written leaves as 0-RTT.
    case earlyDataPossible
    /// Client: the server refused 0-RTT. The engine sends what was written again, once, on the same streams.
    case earlyDataRejected
    /// The TLS handshake is complete; the peer is authenticated as configured.
    indirect case handshakeCompleted(HandshakeInfo)
    /// The handshake is confirmed (RFC 9001 section 4.1.2); from now on migration is possible.
    case handshakeConfirmed
    /// The peer opened a stream.
    case streamOpened(QUICStreamID)
    /// A stream has bytes to read, or its end. Reported once until the next `read` that empties it.
    case streamReadable(QUICStreamID)
    /// A stream that took less than it was offered has room again.
    case streamWritable(QUICStreamID)
    /// The peer abandoned its sending side; what wasn't read is discarded.
    case streamReset(QUICStreamID, code: UInt64)
    /// The peer wants no more bytes; the engine has reset our sending side with the same code.
    case stopSending(QUICStreamID, code: UInt64)
    /// The peer's QUIC stack has acknowledged everything that was written to a stream, and its end: see
    /// ``QUICEngineConnection/notifyDelivery(of:)``.
    case streamDelivered(QUICStreamID)
    /// Both directions are done. Bytes and the end not yet read can still be read.
    case streamClosed(QUICStreamID)
    /// `openStream` may succeed again after it returned nil.
    case streamsAvailable(bidirectional: Bool)
    /// A DATAGRAM frame came in; `isEarly`: in a 0-RTT packet, which an attacker may have sent again.
    case datagram([UInt8], isEarly: Bool)
    /// The packet that carried a datagram was acknowledged.
    case datagramAcknowledged(id: UInt64)
    /// The packet that carried a datagram was declared lost, or the path became too small for it before it left. The
    /// declaration can be wrong: the peer may have it all the same.
    case datagramLost(id: UInt64)
    /// A datagram was dropped unsent because its deadline had passed.
    case datagramExpired(id: UInt64)
    /// ``QUICEngineConnection/maxDatagramSize`` became this: when the handshake allows datagrams, when the path MTU was
    /// found to be larger or has become smaller, and after a change of path.
    case maxDatagramSizeChanged(Int)
    /// Client: a ticket for a later connection; keep the latest.
    indirect case sessionTicket(SessionTicket)
    /// Client: a token that spares a later connection from this address the address check.
    case addressToken([UInt8])
    /// A path answered a challenge.
    indirect case pathValidated(QUICPath)
    /// A path didn't answer a challenge in time.
    indirect case pathFailed(QUICPath)
    /// Packets now go to this path.
    indirect case pathChanged(QUICPath)
    /// The last event of a connection.
    indirect case closed(QUICCloseReason)
}

/// Why a connection ended.
public enum QUICCloseReason: Sendable, Hashable {
    /// Nothing was received for the idle timeout: ``TransportSettings/maxIdleTimeout``, or the peer's if that is smaller. The
    /// peer is not told.
    case idleTimeout
    /// The handshake didn't complete within ``TransportSettings/handshakeTimeout``.
    case handshakeTimeout
    /// The handshake failed here or at the peer; the error says why.
    indirect case handshakeFailed(QUICError)
    /// The peer's application closed, with a code of its protocol. The reason is the peer's text: check before showing it.
    case peerApplication(code: UInt64, reason: String)
    /// The peer's QUIC stack closed with a code of RFC 9000 section 20.1; from 0x100 to 0x1ff a TLS alert plus 0x100.
    case peerTransport(code: UInt64, reason: String)
    /// Our application closed.
    case localApplication(code: UInt64, reason: String)
    /// Our QUIC stack closed because the peer broke a rule, or of an error of our own, with a code of RFC 9000 section 20.1.
    case localTransport(code: UInt64, reason: String)
    /// The peer has lost the connection's state, for instance by a restart, and said so (RFC 9000 section 10.3).
    case statelessReset
    /// The path takes no packets of 1,200 bytes any more, without which there is no QUIC (RFC 9000 section 14). The peer was told, with
    /// NO_ERROR.
    case pathTooSmall
    /// Client: the server speaks none of the versions this attempt could use, but these. Another attempt with one of
    /// them, if there is one in common, is the caller's business: see ``ClientConfiguration/retry(offered:)``.
    case versionNegotiation(offered: [QUICVersion])
    /// The endpoint gave the connection up without a word to the peer.
    case abandoned
}

/// What the TLS handshake agreed on.
public struct HandshakeInfo: Sendable, Hashable {
    /// What became of 0-RTT data.
    public enum EarlyData: Sendable, Hashable {
        /// No 0-RTT data was offered.
        case notAttempted
        /// The server took it.
        case accepted
        /// The server refused it. What a client had written was sent again, once, after the handshake.
        case rejected
    }

    /// The ALPN protocol, if one was agreed on.
    public var applicationProtocol: String?
    /// The name the client asked for, if any.
    public var serverName: String?
    /// Whether a session ticket replaced the certificate exchange.
    public var resumed: Bool
    /// What became of 0-RTT data.
    public var earlyData: EarlyData
    /// The peer's certificates in DER, leaf first. After a resumption a server has those that its client showed when it got the
    /// ticket, verified anew, and a client may have none. Empty on a server whose client showed none.
    public var peerCertificates: [[UInt8]]
    /// The cipher suite's name, for logs.
    public var cipherSuite: String
    /// The version spoken.
    public var version: QUICVersion
}

extension HandshakeInfo {
    /// What a handshake without a ticket agrees on, where there was none: for connections on a stand-in.
    package init(applicationProtocol: String) {
        self.init(
            applicationProtocol: applicationProtocol, serverName: nil, resumed: false, earlyData: .notAttempted,
            peerCertificates: [], cipherSuite: "", version: .v1)
    }
}

/// Numbers about one connection. Bytes and packets are counted by the engine itself.
public struct ConnectionStatistics: Sendable, Hashable {
    /// The latest round trip measured; zero before the first.
    public var latestRTT = QUICDuration(nanoseconds: 0)
    /// The smallest round trip measured; zero before the first.
    public var minimumRTT = QUICDuration(nanoseconds: 0)
    /// The smoothed round trip (RFC 9002 section 5.3).
    public var smoothedRTT = QUICDuration(nanoseconds: 0)
    /// The round trip's mean variation (RFC 9002 section 5.3).
    public var rttVariation = QUICDuration(nanoseconds: 0)
    /// The congestion window in bytes.
    public var congestionWindow: UInt64 = 0
    /// Bytes sent and neither acknowledged nor declared lost.
    public var bytesInFlight: UInt64 = 0
    /// Bytes of UDP payload sent.
    public var bytesSent: UInt64 = 0
    /// UDP datagrams sent: one holds several packets during the handshake, one packet later.
    public var packetsSent: UInt64 = 0
    /// Bytes of UDP payload received that were addressed to this connection, whoever sent them.
    public var bytesReceived: UInt64 = 0
    /// UDP datagrams received that were addressed to this connection, whoever sent them.
    public var datagramsReceived: UInt64 = 0
    /// Packets received under keys that only the peer has: they show that the peer lives. Initial packets don't count,
    /// because anyone who sees the handshake can make them; copies of a packet do.
    public var packetsReceived: UInt64 = 0
    /// Packets declared lost so far; nil unless a qlog trace is written, because ngtcp2 tells of losses nowhere else. It
    /// tells of no bytes.
    public var packetsLost: UInt64?
    /// Times that our sending keys were updated, on request of either side.
    public var keyUpdates: UInt64 = 0
    /// Stream bytes buffered to be sent or acknowledged, over all streams.
    public var sendBufferBytes = 0
    /// Where packets go now.
    public var path: QUICPath
    /// Time since the connection was created.
    public var age = QUICDuration(nanoseconds: 0)
    /// What became of the handshake; nil until it is complete.
    public var handshake: HandshakeInfo?
}

/// The result of one `read`.
public struct StreamRead: Sendable, Hashable {
    /// Bytes copied.
    public var count: Int
    /// Whether the stream's end was reached: nothing follows what this read returned.
    public var finished: Bool

    /// Makes a result.
    public init(count: Int, finished: Bool) {
        self.count = count
        self.finished = finished
    }
}

/// One GSO run: datagrams of one path and one ECN mark, all `segmentSize` long but the last, which may be shorter.
public struct QUICTransmit: Sendable, Hashable {
    /// Where they go.
    public var path: QUICPath
    /// How their IP headers are marked.
    public var ecn: ECNCodepoint
    /// The length of each datagram but perhaps the last.
    public var segmentSize: Int
    /// The bytes written to the buffer.
    public var length: Int
}
