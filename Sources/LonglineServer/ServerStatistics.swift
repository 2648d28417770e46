public import LonglineLinks
public import LonglineSession
public import LonglineStore
public import LonglineWire

/// What a server has done since it started, and what it holds now.
public struct ServerStatistics: Hashable, Sendable {
    /// Connections open now.
    public var connections = 0
    /// Of these, not accepted yet.
    public var unauthenticated = 0
    /// Sessions established now.
    public var sessions = 0
    /// Ended sessions that are remembered for a return.
    public var detachedSessions = 0
    /// Subscriptions of sessions to channels now.
    public var subscriptions = 0

    /// Connections accepted since the start.
    public var connectionsAccepted: UInt64 = 0
    /// Of these, closed at once because their address had too many that were not accepted yet.
    public var connectionsOverAddressLimit: UInt64 = 0
    /// Completed handshakes that began from nothing.
    public var handshakesFull: UInt64 = 0
    /// Completed handshakes that resumed an earlier TLS session, without early data.
    public var handshakesResumed: UInt64 = 0
    /// Completed handshakes whose early data was taken (0-RTT).
    public var handshakesEarly: UInt64 = 0
    /// Times that a link went on over another path.
    public var migrations: UInt64 = 0
    /// Links up now, by what carries them.
    public var connectionsByTransport: [LinkKind: Int] = [:]
    /// From an entry's time to its way out to a device, in milliseconds; only what was entered while the device had its session and
    /// its app was in the foreground: catching up doesn't count, nor what waits on purpose.
    public var deliveryLatency = Histogram(bounds: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000])
    /// Between two heartbeats of a session, in seconds.
    public var heartbeatInterval = Histogram(bounds: [5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300, 400, 600])
    /// Sessions granted since the start.
    public var sessionsGranted: UInt64 = 0
    /// Of these, those that go on from an earlier session.
    public var sessionsResumed: UInt64 = 0
    /// Connects turned away because their user connected too fast.
    public var connectsOverRate: UInt64 = 0
    /// Connects in early data that had to complete their handshake before they were granted.
    public var earlyConnectsDeferred: UInt64 = 0
    /// Sessions that ended because their device connected anew.
    public var takeovers: UInt64 = 0
    /// Frames received.
    public var framesReceived: UInt64 = 0
    /// Frames that could not be parsed.
    public var framesInvalid: UInt64 = 0
    /// Frames sent.
    public var framesSent: UInt64 = 0
    /// Publishes entered.
    public var published: UInt64 = 0
    /// Publishes, and changes of rooms, refused because their user or tenant published too fast; they are among ``refusals``.
    public var publishesOverRate: UInt64 = 0
    /// Publishes refused because too many wait, for the store, the app's decision or the handshake; they are among ``refusals``.
    public var publishesWithoutRoom: UInt64 = 0
    /// Publishes answered from the ledger.
    public var duplicates: UInt64 = 0
    /// Entries sent to devices.
    public var delivered: UInt64 = 0
    /// Compressed batches sent; their entries are counted in ``delivered``.
    public var batches: UInt64 = 0
    /// Bytes that batches saved, before the link's own overhead.
    public var batchBytesSaved: UInt64 = 0
    /// Times that a device was told that a channel waits for it.
    public var slowConsumers: UInt64 = 0
    /// Pages of history sent; their entries are among ``delivered``.
    public var historyPages: UInt64 = 0
    /// Signals of devices that were passed on to other sessions.
    public var signalsRelayed: UInt64 = 0
    /// Signals sent to devices in datagrams.
    public var signalDatagrams: UInt64 = 0
    /// Signals sent to devices on lane 0.
    public var signalsOnLane: UInt64 = 0
    /// Signals dropped, by reason: those of a device once, those for a device once each.
    public var signalsDropped: [SignalDrop: UInt64] = [:]
    /// Pairs of a session and a user whose presence it is told of, now.
    public var presenceWatches = 0
    /// Users whose presence is held in memory, now: connected ones, and those that somebody is told of.
    public var presentUsers = 0
    /// Changes of users' presence, each told to all who want to know; a user's first state counts, too.
    public var presenceChanges: UInt64 = 0
    /// States of users sent to devices.
    public var presenceSent: UInt64 = 0
    /// Reads of the log.
    public var reads: UInt64 = 0
    /// Reads that another session's read answered too.
    public var readsShared: UInt64 = 0
    /// Places that users read and that were dropped, because too many waited.
    public var readsDropped: UInt64 = 0
    /// Store calls that failed.
    public var storeFailures: UInt64 = 0
    /// Sweeps that applied the retention, ended or under way.
    public var retentionSweeps: UInt64 = 0
    /// Channels from which a sweep removed something, once a sweep each.
    public var channelsTrimmed: UInt64 = 0
    /// Entries removed by retention.
    public var entriesTrimmed: UInt64 = 0
    /// Bytes of payload removed by retention.
    public var bytesTrimmed: UInt64 = 0
    /// What the app's own decision was asked, and how that went.
    public var authorization = AuthorizationStatistics()
    /// Times that a source of the keys that tokens are verified with failed: its old keys stayed.
    public var tokenKeyFailures: UInt64 = 0
    /// Sources of such keys that failed when they were asked last.
    public var tokenKeySourcesFailing = 0
    /// Until when the certificate in use is good, in seconds since 1970; nil where none is in use yet.
    public var certificateExpiry: UInt64?
    /// What the store's files take, and what is left; nil where the store is not the server's own.
    public var disk: StoreDiskUse?
    /// What webhooks have done.
    public var webhooks = WebhookStatistics()
    /// Log lines left out because there were too many.
    public var logLinesDropped: UInt64 = 0
    /// Publishes and requests refused, by code: up to ``highestRefusal``.
    public var refusals: [RefusalCode: UInt64] = [:]
    /// Those with codes above it, together. Only the app's own decision gives such codes.
    public var otherRefusals: UInt64 = 0
    /// Links closed by the server, by code.
    public var closes: [CloseCode: UInt64] = [:]
    /// Links closed by the client or lost.
    public var closedByPeer: UInt64 = 0
    /// Event loops that did not answer within a second: what they count and hold is as they said last.
    public var loopsBehind = 0

    /// The highest refusal code that is counted by itself. An app may give any number for one, and a count of each would take memory, and
    /// a series of the metrics, for each.
    public static let highestRefusal = RefusalCode(rawValue: 255)

    /// All zero.
    public init() {}

    /// Counts a publish or request that was refused.
    mutating func countRefusal(_ code: RefusalCode) {
        if code.rawValue > Self.highestRefusal.rawValue {
            otherRefusals += 1
        } else {
            refusals[code, default: 0] += 1
        }
    }

    /// Adds what another part of the server counted.
    mutating func add(_ other: ServerStatistics) {
        connections += other.connections
        unauthenticated += other.unauthenticated
        sessions += other.sessions
        detachedSessions += other.detachedSessions
        subscriptions += other.subscriptions
        connectionsAccepted += other.connectionsAccepted
        connectionsOverAddressLimit += other.connectionsOverAddressLimit
        handshakesFull += other.handshakesFull
        handshakesResumed += other.handshakesResumed
        handshakesEarly += other.handshakesEarly
        migrations += other.migrations
        connectionsByTransport.merge(other.connectionsByTransport, uniquingKeysWith: +)
        deliveryLatency.add(other.deliveryLatency)
        heartbeatInterval.add(other.heartbeatInterval)
        sessionsGranted += other.sessionsGranted
        sessionsResumed += other.sessionsResumed
        takeovers += other.takeovers
        framesReceived += other.framesReceived
        framesInvalid += other.framesInvalid
        framesSent += other.framesSent
        published += other.published
        publishesOverRate += other.publishesOverRate
        connectsOverRate += other.connectsOverRate
        earlyConnectsDeferred += other.earlyConnectsDeferred
        publishesWithoutRoom += other.publishesWithoutRoom
        duplicates += other.duplicates
        delivered += other.delivered
        batches += other.batches
        batchBytesSaved += other.batchBytesSaved
        slowConsumers += other.slowConsumers
        historyPages += other.historyPages
        reads += other.reads
        readsShared += other.readsShared
        readsDropped += other.readsDropped
        storeFailures += other.storeFailures
        retentionSweeps += other.retentionSweeps
        channelsTrimmed += other.channelsTrimmed
        entriesTrimmed += other.entriesTrimmed
        bytesTrimmed += other.bytesTrimmed
        logLinesDropped += other.logLinesDropped
        presenceWatches += other.presenceWatches
        presentUsers += other.presentUsers
        presenceChanges += other.presenceChanges
        presenceSent += other.presenceSent
        signalsRelayed += other.signalsRelayed
        signalDatagrams += other.signalDatagrams
        signalsOnLane += other.signalsOnLane
        signalsDropped.merge(other.signalsDropped, uniquingKeysWith: +)
        refusals.merge(other.refusals, uniquingKeysWith: +)
        otherRefusals += other.otherRefusals
        closes.merge(other.closes, uniquingKeysWith: +)
        closedByPeer += other.closedByPeer
        loopsBehind += other.loopsBehind
    }
}
