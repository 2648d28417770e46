public import NIOCore

/// What a side of HTTP/3 accepts. The defaults suit a server that is open to the world.
public struct HTTP3Limits: Sendable, Hashable {
    /// Bytes of a header or trailer section, counted as in RFC 9114 section 4.2.2: names and values, and 32 for each line. Told to
    /// the peer as SETTINGS_MAX_FIELD_SECTION_SIZE. 32 KiB; from 1 KiB to 64 KiB, others count as the nearest. A request with more
    /// is answered with 431, a response with more fails with ``HTTP3Error/Code/fieldSectionTooLarge``. A single name has at most
    /// 256 bytes: a longer one can't be decoded, and ends the connection with QPACK_DECOMPRESSION_FAILED.
    public var fieldSectionSize = 32 << 10
    /// Bytes of a body, or nil: any number. nil. A request with more is answered with 413, and reading more throws
    /// ``HTTP3Error/Code/bodyTooLarge``.
    public var bodySize: UInt64?
    /// Bytes of the dynamic table that the peer's encoder may use (SETTINGS_QPACK_MAX_TABLE_CAPACITY); 4,096. At most 64 KiB.
    public var tableCapacity = 4096
    /// Streams whose sections may wait for table entries (SETTINGS_QPACK_BLOCKED_STREAMS); 100. A peer that lets more wait breaks
    /// the connection with QPACK_DECOMPRESSION_FAILED (RFC 9204 section 2.1.2).
    public var blockedStreams = 100
    /// Bytes of dynamic table that our encoder uses at most, where the peer allows it; 4,096. 0: it uses none.
    public var encoderTableCapacity = 4096
    /// Server: how long the header section of a request may take, from the stream's first byte; 10 s. Then the stream ends with
    /// H3_REQUEST_INCOMPLETE.
    public var requestHeadTimeout = TimeAmount.seconds(10)
    /// Server: how long a handler may wait for ``bodyProgress`` more bytes of a request's body; 30 s. Then reading throws
    /// ``HTTP3Error/Code/timeout``, and a request that has no response yet is answered with 408. Time in which nobody waits for
    /// the body doesn't count.
    public var bodyTimeout = TimeAmount.seconds(30)
    /// Server: bytes of a body that must come within ``bodyTimeout``; 1,024, or the body's end.
    public var bodyProgress = 1024
    /// Server: how long a write may wait for a client to take ``writeProgress`` more bytes, and a response that was written as a whole
    /// for one to take or acknowledge them; 5 minutes. Time in which nothing waits doesn't count, nor does that in which a response
    /// waits behind others or for room that they fill, and not for the client's flow control for its stream, as long as the client takes
    /// of all together ``writeProgress`` for each that waits. Then the write throws
    /// ``HTTP3Error/Code/timeout``, and the stream ends with H3_REQUEST_CANCELLED. As long the end of the client's side is waited for,
    /// once nobody needs it.
    public var writeTimeout = TimeAmount.minutes(5)
    /// Server: bytes of a response that a client must take within ``writeTimeout``; 1,024, or the rest of what was written.
    public var writeProgress = 1024
    /// Server: how long a connection may have no request; nil: as long as the transport keeps it, whose idle timeout a client can
    /// hold off. Then it is told (GOAWAY) and closed with H3_NO_ERROR. nil. Kept to within a quarter of it. A request is over when the
    /// client has its response, whether or not it has ended its side of the stream.
    public var idleTimeout: TimeAmount?
    /// Server: requests that a client may have open at a time, where the transport allows fewer because it serves other protocols,
    /// too; nil: no more than that. The client learns of it once the handshake is complete. nil.
    public var openRequests: UInt64?
    /// Server: handlers that run at a time on one connection, those of cancelled requests included; 256. More requests are
    /// rejected with H3_REQUEST_REJECTED. How many requests a client may have open is ``openRequests``, or the transport's
    /// ``/QUICEngine/TransportSettings/maxBidirectionalStreams``.
    public var concurrentHandlers = 256
    /// Server: requests that a client may give up at once, by a reset or by refusing the response, and again in the course of each half
    /// minute from then on; 1,000. Each request whose response the client takes makes up for one. Who gives up more, each of which makes
    /// place for another at once, means to exhaust the server: the connection ends with H3_EXCESSIVE_LOAD.
    public var cancellations = 1000
    /// Client: requests that wait for the server to allow another stream; 1,000. More fail with
    /// ``HTTP3Error/Code/tooManyRequests``.
    public var waitingRequests = 1000

    /// The defaults.
    public init() {}

    /// What a server's tickets are given under: its SETTINGS, which a client goes by in 0-RTT packets when it comes back, so that they
    /// may not be less then (RFC 9114 section 7.2.4.2). ``HTTP3Server`` adds it to its `ticketContext`; a server whose port takes other
    /// protocols, too, and that shares its TLS context with one of other limits, does so itself.
    public var ticketContext: [UInt8] {
        let limits = effective
        return Array("h3 \(limits.fieldSectionSize) \(limits.tableCapacity) \(limits.blockedStreams);".utf8)
    }

    /// What can't be set, or not so high.
    var effective: HTTP3Limits {
        var limits = self
        limits.fieldSectionSize = min(max(fieldSectionSize, 1 << 10), 64 << 10)
        limits.tableCapacity = min(max(tableCapacity, 0), 64 << 10)
        limits.encoderTableCapacity = min(max(encoderTableCapacity, 0), 64 << 10)
        limits.blockedStreams = min(max(blockedStreams, 0), 1 << 16)
        limits.concurrentHandlers = max(concurrentHandlers, 1)
        limits.cancellations = max(cancellations, 1)
        limits.waitingRequests = max(waitingRequests, 0)
        limits.bodyProgress = max(bodyProgress, 1)
        limits.writeProgress = max(writeProgress, 1)
        limits.idleTimeout = idleTimeout.map { max($0, .milliseconds(10)) }
        return limits
    }
}
