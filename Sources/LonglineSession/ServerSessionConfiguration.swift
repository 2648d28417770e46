public import LonglineWire
public import NIOCore

/// What a server allows its sessions, and how long it waits.
public struct ServerSessionConfiguration: Sendable {
    /// Protocol versions spoken, best first.
    public var versions: [UInt32] = [1]
    /// What ``/LonglineWire/Connected`` tells the client, and what is enforced.
    public var limits = SessionLimits(
        maximumPayload: UInt64(FrameLimits.maximumPayload), channelWindow: 256 * 1024,
        maximumUnacknowledged: UInt64(FrameLimits.maximumUnacknowledged), minimumHeartbeat: 5_000,
        idleTimeout: 600_000)
    /// From the link's start to an accepted `CONNECT`.
    public var connectTimeout: TimeAmount = .seconds(10)
    /// How long a session outlives its credential's expiry, so that a refresh under way is not cut off.
    public var credentialGrace: TimeAmount = .seconds(60)
    /// Client lanes open (or announced by a higher number) at once; beyond it the session closes with `limitExceeded`.
    public var maximumLanes = 512
    /// Lanes of the server open at once, where the link allows as many: what every client takes. Beyond it channels wait for one.
    public var maximumOutboundLanes = 4_096
    /// Channels that one `CONNECTED` lists. Fewer than what fits are for tests of what is left out.
    package var maximumAnswers = FrameLimits.maximumCursors
    /// Bytes of frames that are held until `CONNECT` is accepted, those that came in part among them; beyond it the session closes with `limitExceeded`.
    public var maximumEarlyBytes = 128 * 1024
    /// Joins, leaves and changes of rooms without an answer; beyond it a request is refused with `overloaded`.
    public var maximumRoomRequests = 16
    /// Rooms that were left and confirmed to their end, and whose history may be asked for still: beyond, those left longest ago
    /// are forgotten.
    public var maximumEndedChannels = 64
    /// Rooms that were left and not confirmed to their end; beyond it the session closes with `limitExceeded`.
    public var maximumUnconfirmedEnds = 2_048
    /// Users whose presence a session is told of; beyond it a request is refused with `tooManySubscriptions`.
    public var maximumPresenceUsers = 1_000
    /// What is sent and not acknowledged, all channels together, in bytes: payloads, and 128 for each entry or frame that stands for
    /// some. Bulk and control channels have a quarter of it each, chat channels half; each may exceed its share by one entry. Entries
    /// in parts are counted apart, and as much is for them. Beyond it channels wait in line, and what they have to send in the log.
    public var deliveryBudget = 4 * 1024 * 1024
    /// Log reads under way at once; channels that wait take turns.
    public var maximumReads = 4
    /// Bytes of payload asked for by one log read.
    public var readBytes = 64 * 1024
    /// Bytes of payload in one page of history, beyond its first entry.
    public var historyBytes = 64 * 1024
    /// Whether runs of small entries are compressed for clients that ask for it.
    public var compresses = true
    /// Entries that are read at once make a run from so many on; fewer are live traffic.
    public var leastBatch = 8
    /// The most bytes of a payload in one frame that is sent; the rest goes on in parts.
    public var partBytes = FrameLimits.maximumPayload
    /// Memory for payloads that arrive in parts; sessions that have the same one share it. Beyond it a publish is refused with
    /// `overloaded`.
    public var payloadBudget = PayloadBudget(limit: 256 * 1024 * 1024, limitPerUser: 32 * 1024 * 1024)
    /// A payload of which no part came for so long is refused with `overloaded`.
    public var partTimeout: TimeAmount = .seconds(60)
    /// A payload may take as long as it would at so many bytes per second, and ``partTimeout``; else it is refused likewise.
    public var minimumPartRate = 4096
    /// What the publisher is told to wait then.
    public var payloadRetryAfter: TimeAmount = .seconds(5)
    /// A lane with nothing unacknowledged is finished after this long without a frame.
    public var laneIdleTime: TimeAmount = .seconds(120)
    /// How long news that are not urgent wait for a client in the background, when nothing else is sent to it before.
    public var backgroundHold: TimeAmount = .seconds(30)
    /// How long everything but the inbox waits for a client in low power, when nothing else is sent to it before.
    public var lowPowerHold: TimeAmount = .minutes(5)
    /// A client is told that a channel waits for it after this long without having been sent everything.
    public var lagNoticeTime: TimeAmount = .seconds(5)
    /// How long receipts are gathered before the client is told, in the foreground.
    public var receiptDelay: TimeAmount = .milliseconds(100)
    /// What waits goes out when logs have grown so many times.
    public var maximumHeldWakes = 64

    /// The defaults above.
    public init() {}
}
