public import LonglineWire

/// What a client has done since it was created, and how its connection is doing.
public struct ClientStatistics: Hashable, Sendable {
    /// Sessions that were accepted.
    public var connects = 0
    /// Of these, how many went on with an earlier session.
    public var resumedSessions = 0
    /// Of these, how many were accepted with their first flight (0-RTT).
    public var earlyDataAccepted = 0
    /// Attempts that came to nothing.
    public var failedAttempts = 0
    /// Times a connection moved to another path.
    public var migrations = 0
    /// Messages put into the outbox.
    public var sent = 0
    /// Messages that the service acknowledged.
    public var published = 0
    /// Messages that were refused for good.
    public var refused = 0
    /// Times that the service refused a message for now, which is sent again by itself; since the client was made.
    public var putOff: UInt64 = 0
    /// Why, the last time.
    public var lastPutOff: RefusalCode?
    /// Messages that the app took back before they left.
    public var cancelled = 0
    /// Messages handed to the app.
    public var delivered = 0
    /// Messages lost to this device, as far as gaps told: the number of gaps.
    public var gaps = 0
    /// Requests of others that nobody read, because too many waited.
    public var requestsDropped = 0
    /// Replies that came when nobody waited for them any more.
    public var lateReplies = 0
    /// Signals that left, in datagrams or beside messages.
    public var signalsSent = 0
    /// Signals that were dropped on this side: no connection, or no room on it.
    public var signalsDropped = 0
    /// Signals of others that came.
    public var signalsReceived = 0
    /// Messages in the outbox now.
    public var waiting = 0
    /// Delivered places that the app has not confirmed.
    public var unconfirmed = 0
    /// How long a quiet connection waits for its next proof of life, by what is known of the present network; nil when
    /// the interval is fixed.
    public var learnedHeartbeat: Duration?
    /// Answers of the control layer.
    public var accessAnswers = 0
    /// Questions to the control layer that came to nothing.
    public var failedAccessQuestions = 0
    /// Of what came as the control layer's answer, how much was refused because no key in
    /// ``LonglineClient/LonglineClient/Configuration/controlKeys`` had signed it for this question.
    public var untrustedAccessAnswers = 0
    /// What carried the control layer's last answer; nil before the first.
    public var controlTransport: ControlTransport?
    /// Where the last attempt's access point came from; nil before the first.
    public var accessSource: AccessSource?
    /// How long ago the control layer's last answer came; nil without one.
    public var accessAge: Duration?
    /// The connection's transport, while there is one.
    public var link: LinkStatistics?

    init() {}
}

/// What a link's transport counted.
public struct LinkStatistics: Hashable, Sendable {
    /// The last round-trip time.
    public var latestRTT: Duration
    /// The smoothed round-trip time.
    public var smoothedRTT: Duration
    /// The smallest round-trip time.
    public var minimumRTT: Duration
    /// Bytes that may be in flight.
    public var congestionWindow: Int
    /// UDP payload sent.
    public var bytesSent: UInt64
    /// UDP payload received.
    public var bytesReceived: UInt64
    /// Packets sent.
    public var packetsSent: UInt64
    /// Packets received.
    public var packetsReceived: UInt64
    /// This side's address and port.
    public var localAddress: String
    /// The service's address and port.
    public var remoteAddress: String

    /// Counts.
    public init(
        latestRTT: Duration, smoothedRTT: Duration, minimumRTT: Duration, congestionWindow: Int, bytesSent: UInt64,
        bytesReceived: UInt64, packetsSent: UInt64, packetsReceived: UInt64, localAddress: String,
        remoteAddress: String
    ) {
        self.latestRTT = latestRTT
        self.smoothedRTT = smoothedRTT
        self.minimumRTT = minimumRTT
        self.congestionWindow = congestionWindow
        self.bytesSent = bytesSent
        self.bytesReceived = bytesReceived
        self.packetsSent = packetsSent
        self.packetsReceived = packetsReceived
        self.localAddress = localAddress
        self.remoteAddress = remoteAddress
    }
}
