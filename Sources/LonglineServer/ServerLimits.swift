import LonglineSession
public import LonglineWire
public import NIOCore

/// What a peer, a user and a tenant may take. Every queue and table of the server has its bound here.
///
/// The defaults suit one node of a few cores; raise ``maximumConnections`` and the session counts with the memory.
public struct ServerLimits: Sendable {
    /// Connections at one time, authenticated or not. Beyond: closed with ``/LonglineWire/CloseCode/overloaded``.
    public var maximumConnections = 100_000
    /// Connections that have not been accepted yet. Beyond: closed with ``/LonglineWire/CloseCode/overloaded``.
    public var maximumUnauthenticated = 4096
    /// Of these, connections from one address (IPv6: one network of 64 bits); no more than are left for others, so half of all at most,
    /// unless it is as many as there may be of all. Beyond: closed with ``/LonglineWire/CloseCode/overloaded``. Many users may share an
    /// address, so it bounds connects under way, not sessions.
    public var maximumUnauthenticatedPerAddress = 1024
    /// Sessions at one time, all tenants together. Beyond: ``/LonglineWire/CloseCode/overloaded``.
    public var maximumSessions = 100_000
    /// Sessions of one tenant at one time. Beyond: ``/LonglineWire/CloseCode/overloaded``.
    public var maximumSessionsPerTenant = 100_000
    /// Devices of one user with a session at one time. Beyond: ``/LonglineWire/CloseCode/limitExceeded``.
    public var maximumSessionsPerUser = 16
    /// Connects of one user, all devices together, in a second in the long run, above 0; at once: ``connectBurst``. Beyond:
    /// ``/LonglineWire/CloseCode/overloaded`` with the time after which another try is worth it.
    public var connectsPerSecond = 20.0
    /// Connects of one user at once, 1 or more.
    public var connectBurst = 500
    /// How long the server remembers an ended session, so that a device that comes back goes on with it.
    public var resumeWindow: TimeAmount = .hours(2)
    /// How many ended sessions it remembers; the oldest is forgotten first.
    public var maximumDetachedSessions = 100_000

    /// The versions of the protocol, best first. Internal: there is one so far, and tests stand in for a service of another time.
    var protocolVersions: [UInt32] = [1]

    /// How long who can do without an event loop's answer waits for it. Internal: tests wait for less.
    var loopPatience = Duration.seconds(1)

    /// How long a new connection may take to be accepted. Then: ``/LonglineWire/CloseCode/connectTimeout``.
    public var connectTimeout: TimeAmount = .seconds(10)
    /// After this long without a packet the server gives a session up.
    public var idleTimeout: TimeAmount = .minutes(10)
    /// The shortest heartbeat interval a client may use.
    public var minimumHeartbeat: TimeAmount = .seconds(5)
    /// How long messages of rooms wait for a client in the background, unless something else wakes its radio before.
    public var backgroundHold: TimeAmount = .seconds(30)
    /// The same for a client in low power.
    public var lowPowerHold: TimeAmount = .minutes(5)

    /// A client is told that a channel waits for it when it has not been sent everything for so long.
    public var lagNoticeTime: TimeAmount = .seconds(5)

    /// The largest payload of a publish, in bytes; at most ``/LonglineWire/FrameLimits/maximumWholePayload``. One that is over
    /// ``/LonglineWire/FrameLimits/maximumPayload`` comes and goes in parts.
    /// Beyond: ``/LonglineWire/RefusalCode/payloadTooLarge``.
    public var maximumPayload = 1024 * 1024
    /// Whether runs of small messages are compressed for clients that ask for it. What different users wrote never is together.
    public var compressesCatchUps = true
    /// Memory for payloads that are arriving in parts, all sessions together, in bytes; one session has 4 of them at most.
    /// Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var arrivingPayloadBytes = 256 * 1024 * 1024
    /// The same of one user, all sessions together.
    public var arrivingPayloadBytesPerUser = 32 * 1024 * 1024
    /// How long a payload may be without a next part. Then: ``/LonglineWire/RefusalCode/overloaded``.
    public var partTimeout: TimeAmount = .seconds(60)
    /// A payload may take as long as it would at so many bytes per second, and ``partTimeout``.
    /// Then: ``/LonglineWire/RefusalCode/overloaded``.
    public var minimumPartRate = 4096
    /// Unacknowledged bytes per channel and direction; at most ``/LonglineWire/FrameLimits/maximumChannelWindow``.
    public var channelWindow = 256 * 1024
    /// What is delivered to one session and not acknowledged, all channels together, in bytes: payloads, and 128 for each entry. A
    /// quarter is for channels that the client calls bulk, one for its control channels, half for all others; as much again is for
    /// entries in parts. Beyond, the rest waits in the log. The exact rule is in `docs/protocol.md`. 64 KiB to 64 MiB.
    public var unacknowledgedBytesPerSession = 4 * 1024 * 1024
    /// Publishes without an answer per channel; at most ``/LonglineWire/FrameLimits/maximumUnacknowledged``.
    public var maximumUnacknowledged = FrameLimits.maximumUnacknowledged

    /// What each user may publish, all devices together; nil: not limited. Joins, leaves and changes of rooms count as publishes
    /// without bytes. Beyond: ``/LonglineWire/RefusalCode/overloaded``, for a publish with the time after which another try is worth
    /// it.
    public var publishRatePerUser: PublishRate?
    /// What all users of a tenant may publish together; nil: not limited. Beyond: as with ``publishRatePerUser``.
    public var publishRatePerTenant: PublishRate?
    /// Where tenants may take more or less than these limits say.
    public var tenants: [TenantID: TenantLimits] = [:]

    /// Publishes of one session that wait for the store; also of those that wait for the app's decision or a change of their room, and
    /// for the handshake. Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var appendsPerSession = 2048
    /// Payload bytes of publishes that wait for the store, per event loop. Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var appendBytesPerLoop = 64 * 1024 * 1024
    /// Bytes of one session's publishes that wait for the app's decision or a change of their room, and of those that wait for the
    /// handshake: payloads, and 512 for each. One may always wait. Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var waitingBytesPerSession = 4 * 1024 * 1024
    /// The same of all sessions of an event loop. Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var waitingBytesPerLoop = 64 * 1024 * 1024
    /// Publishes that are handed to the store as one batch.
    public var appendBatch = 1024
    /// Log reads under way at one time, per event loop; the rest wait their turn (one read per session and channel).
    public var concurrentReadsPerLoop = 16
    /// How long cursors are gathered before they are written.
    public var cursorDelay: TimeAmount = .milliseconds(50)

    /// How long read places and receipts are gathered before they are stored and told.
    public var receiptDelay: TimeAmount = .milliseconds(50)
    /// Lists and settings of conversations that one user asks for per second, all sessions together, after a burst of
    /// ``conversationRequestBurst``. Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var conversationRequestsPerSecond = 5.0
    /// Lists and settings of one user at once.
    public var conversationRequestBurst = 200
    /// `READ`s of one user, all sessions together, in a second in the long run, above 0; at once: ``readBurst``. Beyond they are
    /// dropped and counted.
    public var readsPerSecond = 200.0
    /// `READ`s of one user at once, 1 or more.
    public var readBurst = 4_096

    /// Joins, leaves and changes of rooms of one user per second, all sessions together, after a burst of ``roomRequestBurst``.
    /// Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var roomRequestsPerSecond = 5.0
    /// Joins, leaves and changes of rooms of one user at once.
    public var roomRequestBurst = 20
    /// Pages of rooms' members that one user asks for per second, all sessions together, after a burst of ``memberRequestBurst``.
    /// Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var memberRequestsPerSecond = 10.0
    /// Pages of rooms' members that one user asks for at once.
    public var memberRequestBurst = 100
    /// Rooms a user may join. Beyond: ``/LonglineWire/RefusalCode/limitReached``. (``/LonglineStore/StoreLimits`` bound the rooms that
    /// others add a user to as well, and the members of a room.)
    public var roomsPerUser = 500

    /// Signals that one user may send per second, all sessions together, after a burst of ``signalBurst``. Beyond: dropped.
    public var signalsPerSecond = 20.0
    /// Signals that one user may send at once.
    public var signalBurst = 40
    /// Devices connected in a room up to which signals into it are passed on. Beyond: dropped.
    public var signalAudience = 200
    /// Signals of one event loop that wait to be passed on within one turn of it. Beyond: the oldest is dropped.
    public var signalsPerLoop = 4096

    /// Users whose presence one session is told of. Beyond: ``/LonglineWire/RefusalCode/tooManySubscriptions``.
    public var presencePerSession = 1000
    /// Pairs of a session and a user whose presence it is told of, per event loop.
    /// Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var presenceWatchesPerLoop = 1_000_000
    /// Requests for presence of one user per second, all sessions together, after a burst of ``presenceRequestBurst``.
    /// Beyond: ``/LonglineWire/RefusalCode/overloaded``.
    public var presenceRequestsPerSecond = 5.0
    /// Requests for presence of one user at once.
    public var presenceRequestBurst = 60
    /// A user whose last connection, or last one in the foreground, was lost shows as before for so long: who comes back meanwhile
    /// was never away.
    public var presenceGrace: TimeAmount = .seconds(10)
    /// At most one change of a user's presence is told in so long; then what is so by then.
    public var presenceInterval: TimeAmount = .seconds(5)
    /// How long what is to be kept of presence is gathered before it is written.
    public var presenceDelay: TimeAmount = .seconds(2)

    /// Log lines per second about things that peers cause, errors and others each; the rest are counted and reported in one line.
    public var logLinesPerSecond = 50.0

    /// Clients that are told to go elsewhere come back spread over this time.
    public var drainSpread: TimeAmount = .seconds(5)
    /// How long a graceful shutdown waits for connections to close.
    public var drainTimeout: TimeAmount = .seconds(10)
    /// What a client is asked to wait when the store or the server has no room.
    public var retryAfter: TimeAmount = .seconds(1)

    /// The default limits.
    public init() {}

    /// These limits with what a running server takes from others: payload, sessions, connections and their rate, publish
    /// rates, tenants.
    func reloadable(from other: ServerLimits) -> ServerLimits {
        var limits = self
        limits.maximumPayload = other.maximumPayload
        limits.maximumConnections = other.maximumConnections
        limits.maximumSessions = other.maximumSessions
        limits.maximumSessionsPerTenant = other.maximumSessionsPerTenant
        limits.maximumSessionsPerUser = other.maximumSessionsPerUser
        limits.connectsPerSecond = other.connectsPerSecond
        limits.connectBurst = other.connectBurst
        limits.publishRatePerUser = other.publishRatePerUser
        limits.publishRatePerTenant = other.publishRatePerTenant
        limits.tenants = other.tenants
        return limits
    }

    /// What the server tells clients of a tenant.
    func session(in tenant: TenantID) -> SessionLimits {
        var limits = session
        limits.maximumPayload = UInt64(maximumPayload(in: tenant))
        return limits
    }

    /// What the server tells each client whose tenant has no limits of its own.
    var session: SessionLimits {
        SessionLimits(
            maximumPayload: UInt64(maximumPayload), channelWindow: UInt64(channelWindow),
            maximumUnacknowledged: UInt64(maximumUnacknowledged),
            minimumHeartbeat: minimumHeartbeat.wholeMilliseconds, idleTimeout: idleTimeout.wholeMilliseconds)
    }
}

extension TimeAmount {
    /// Milliseconds, rounded down; 0 for a negative amount.
    var wholeMilliseconds: UInt64 { UInt64(max(0, nanoseconds / 1_000_000)) }
}
