public import NIOCore

/// Everything that one side of a session says to the other.
///
/// A frame on the wire is a type (varint), a length (varint) and a body of at most ``FrameLimits/maximumBody`` bytes.
/// An unknown even type is skipped, an unknown odd type closes the session. `docs/protocol.md` is the specification.
public enum Frame: Hashable, Sendable {
    // Lane 0, the control lane.
    /// Client: the first frame of a link.
    case connect(Connect)
    /// Server: the session is up.
    case connected(Connected)
    /// Either side: the session's link ends; nothing follows.
    case close(Close)
    /// Client: asks for proof of life.
    case ping(Ping)
    /// Server: answers one ``Frame/ping(_:)``.
    case pong(Pong)
    /// Server: a resume ticket for the next link.
    case ticket(Ticket)
    /// Client: a fresh token for the session that lives.
    case refresh(Refresh)
    /// Server: the answer to ``Frame/refresh(_:)``.
    case refreshed(Refreshed)
    /// Client: join a room, which is made when it does not exist.
    case join(RoomRequest)
    /// Client: leave a room.
    case leave(RoomRequest)
    /// Server: the answer to a join or leave.
    case roomAnswer(RoomAnswer)

    // Every other lane.
    /// Either side: the first frame of a lane, which names the channel that the lane carries.
    case lane(LaneHeader)
    /// Client: enter a message into the lane's channel.
    case publish(Publish)
    /// Server: a publish was entered, and is durable.
    case published(Published)
    /// Server: a publish was not entered.
    case refused(Refused)
    /// Server: one entry of the lane's channel.
    case deliver(Deliver)
    /// Server: entries that are absent on purpose.
    case skip(Skip)
    /// Server: what lay between the client's cursor and the first entry that is left is gone.
    case gap(Gap)
    /// Client: everything up to this offset was confirmed by the app.
    case acknowledge(Acknowledge)
}

/// How a client proves who it is.
public enum Credential: Hashable, Sendable {
    /// A signed token (JWT, compact form), from the control layer.
    case token(String)
    /// A resume ticket that this service issued earlier.
    case ticket(ByteBuffer)
}

/// A client's first frame on a link.
public struct Connect: Hashable, Sendable {
    /// The protocol versions the client speaks, best first; 1 to 8 of them.
    public var versions: [UInt32]
    /// Who it is.
    public var credential: Credential
    /// The outbox that publishes on this link come from.
    public var producer: ProducerID
    /// Counts the connects of ``producer``; durable in the outbox. The server refuses a lower one than it has seen.
    public var connectNumber: UInt64
    /// The version of the server's cursor record that the client last saw; 0 for none.
    public var cursorVersion: UInt64
    /// The cursors that moved since ``cursorVersion``; at most ``FrameLimits/maximumCursors``. The rest follow as
    /// ``Frame/acknowledge(_:)`` on their lanes.
    public var cursors: [ChannelPosition]
    /// The client's name and version, for logs: at most 64 bytes.
    public var agent: String

    /// A connect frame.
    public init(
        versions: [UInt32], credential: Credential, producer: ProducerID, connectNumber: UInt64,
        cursorVersion: UInt64, cursors: [ChannelPosition], agent: String
    ) {
        self.versions = versions
        self.credential = credential
        self.producer = producer
        self.connectNumber = connectNumber
        self.cursorVersion = cursorVersion
        self.cursors = cursors
        self.agent = agent
    }
}

/// A channel and a place in it.
public struct ChannelPosition: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The place.
    public var position: Position

    /// A channel and a place in it.
    public init(channel: ChannelID, position: Position) {
        self.channel = channel
        self.position = position
    }
}

/// The server's acceptance of a ``Connect``.
public struct Connected: Hashable, Sendable {
    /// The version both will speak.
    public var version: UInt32
    /// Names the session in logs of both sides.
    public var session: UInt64
    /// Whether an earlier session of this device goes on.
    public var resumed: Bool
    /// The server's wall clock, in milliseconds since 1970.
    public var serverTime: UInt64
    /// The address and port that the server sees the client at, as text.
    public var observedAddress: String
    /// When the credential expires, in milliseconds since 1970.
    public var credentialExpiry: UInt64
    /// What the server allows.
    public var limits: SessionLimits
    /// The version of the cursor record after this connect's cursors were taken in.
    public var cursorVersion: UInt64
    /// What happened to each channel the device is entitled to; at most ``FrameLimits/maximumCursors``, the rest are
    /// answered by the header of their lane.
    public var channels: [ChannelAnswer]

    /// A connected frame.
    public init(
        version: UInt32, session: UInt64, resumed: Bool, serverTime: UInt64, observedAddress: String,
        credentialExpiry: UInt64, limits: SessionLimits, cursorVersion: UInt64, channels: [ChannelAnswer]
    ) {
        self.version = version
        self.session = session
        self.resumed = resumed
        self.serverTime = serverTime
        self.observedAddress = observedAddress
        self.credentialExpiry = credentialExpiry
        self.limits = limits
        self.cursorVersion = cursorVersion
        self.channels = channels
    }
}

/// What the server allows on a session.
public struct SessionLimits: Hashable, Sendable {
    /// The largest payload of one publish, in bytes.
    public var maximumPayload: UInt64
    /// Unacknowledged bytes per channel and direction.
    public var channelWindow: UInt64
    /// Publishes without an answer per channel; at most 1,024.
    public var maximumUnacknowledged: UInt64
    /// The shortest heartbeat interval the server serves, in milliseconds.
    public var minimumHeartbeat: UInt64
    /// After this long without a packet, in milliseconds, the server gives the link up.
    public var idleTimeout: UInt64

    /// Session limits.
    public init(
        maximumPayload: UInt64, channelWindow: UInt64, maximumUnacknowledged: UInt64, minimumHeartbeat: UInt64,
        idleTimeout: UInt64
    ) {
        self.maximumPayload = maximumPayload
        self.channelWindow = channelWindow
        self.maximumUnacknowledged = maximumUnacknowledged
        self.minimumHeartbeat = minimumHeartbeat
        self.idleTimeout = idleTimeout
    }
}

/// Whether a channel goes on where the device left it. There is never a silent partial recovery.
public enum Recovery: UInt8, Hashable, Sendable {
    /// Everything after the device's cursor will be delivered.
    case recovered = 0
    /// Entries after the cursor are gone, or the epoch changed: a ``Gap`` says what.
    case gap = 1
    /// The device had no cursor in this channel.
    case fresh = 2
}

/// The server's answer about one channel.
public struct ChannelAnswer: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The last entry in the log now.
    public var head: Position
    /// How the device's cursor fits.
    public var recovery: Recovery

    /// A channel answer.
    public init(channel: ChannelID, head: Position, recovery: Recovery) {
        self.channel = channel
        self.head = head
        self.recovery = recovery
    }
}

/// The end of a link, with what the other side shall do next.
public struct Close: Hashable, Sendable {
    /// Why, and by its range what the client does next.
    public var code: CloseCode
    /// For people and logs; at most 256 bytes.
    public var reason: String
    /// Wait at least this long before the next connect, in milliseconds.
    public var retryAfter: UInt64
    /// `host:port` to connect to instead, or empty.
    public var accessPoint: String

    /// A close frame.
    public init(code: CloseCode, reason: String = "", retryAfter: UInt64 = 0, accessPoint: String = "") {
        self.code = code
        self.reason = reason
        self.retryAfter = retryAfter
        self.accessPoint = accessPoint
    }
}

/// A heartbeat.
public struct Ping: Hashable, Sendable {
    /// Returned in the ``Pong``.
    public var nonce: UInt64

    /// A ping frame.
    public init(nonce: UInt64) { self.nonce = nonce }
}

/// The answer to a ``Ping``.
public struct Pong: Hashable, Sendable {
    /// The nonce of the ping.
    public var nonce: UInt64
    /// The address and port that the server sees the client at, as text.
    public var observedAddress: String

    /// A pong frame.
    public init(nonce: UInt64, observedAddress: String) {
        self.nonce = nonce
        self.observedAddress = observedAddress
    }
}

/// A resume ticket: worth no more than the token it came from.
public struct Ticket: Hashable, Sendable {
    /// Opaque to the client; at most 1,024 bytes.
    public var ticket: ByteBuffer
    /// When it stops to be accepted, in milliseconds since 1970.
    public var expiry: UInt64

    /// A ticket frame.
    public init(ticket: ByteBuffer, expiry: UInt64) {
        self.ticket = ticket
        self.expiry = expiry
    }
}

/// A fresh token within a session.
public struct Refresh: Hashable, Sendable {
    /// A signed token for the same tenant, user and device.
    public var token: String

    /// A refresh frame.
    public init(token: String) { self.token = token }
}

/// The answer to a ``Refresh``. A token that is not accepted closes the session instead.
public struct Refreshed: Hashable, Sendable {
    /// When the new credential expires, in milliseconds since 1970.
    public var credentialExpiry: UInt64

    /// A refreshed frame.
    public init(credentialExpiry: UInt64) { self.credentialExpiry = credentialExpiry }
}

/// A request about membership of a room.
public struct RoomRequest: Hashable, Sendable {
    /// Chosen by the client; the answer names it.
    public var request: UInt64
    /// The room.
    public var room: RoomID

    /// A join or leave request.
    public init(request: UInt64, room: RoomID) {
        self.request = request
        self.room = room
    }
}

/// The answer to a ``RoomRequest``.
public struct RoomAnswer: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why it was refused, or nil.
    public var refusal: RefusalCode?
    /// The entry in the room's log that records the join or leave; meaningless when refused.
    public var position: Position

    /// A room answer.
    public init(request: UInt64, refusal: RefusalCode?, position: Position) {
        self.request = request
        self.refusal = refusal
        self.position = position
    }
}

/// The first frame of every lane but lane 0.
public struct LaneHeader: Hashable, Sendable {
    /// The channel that the lane carries.
    public var channel: ChannelID
    /// The epoch that every offset on this lane belongs to. A client that does not know it yet says 0, and may not
    /// acknowledge on that lane.
    public var epoch: Epoch

    /// A lane header.
    public init(channel: ChannelID, epoch: Epoch) {
        self.channel = channel
        self.epoch = epoch
    }
}

/// A message on its way into the lane's channel.
public struct Publish: Hashable, Sendable {
    /// Counts within the producer, from 1.
    public var id: PublishID
    /// Tells this publish from another that wrongly carries the same ID.
    public var tag: PublishTag
    /// The producer's previous ID in this channel that was not given up; 0 for none.
    public var after: PublishID
    /// For a publish into one's own inbox: the recipient of a direct message, or nil for a note to self.
    public var recipient: UserID?
    /// How long the message is worth delivering, in milliseconds from now; 0 for ever.
    public var timeToLive: UInt64
    /// The message.
    public var payload: ByteBuffer

    /// A publish frame.
    public init(
        id: PublishID, tag: PublishTag, after: PublishID, recipient: UserID?, timeToLive: UInt64, payload: ByteBuffer
    ) {
        self.id = id
        self.tag = tag
        self.after = after
        self.recipient = recipient
        self.timeToLive = timeToLive
        self.payload = payload
    }
}

/// A publish that was entered and is durable.
public struct Published: Hashable, Sendable {
    /// The publish.
    public var id: PublishID
    /// Where it stands in the channel.
    public var position: Position
    /// The server's time of the entry, in milliseconds since 1970.
    public var time: UInt64

    /// A published frame.
    public init(id: PublishID, position: Position, time: UInt64) {
        self.id = id
        self.position = position
        self.time = time
    }
}

/// A publish that was not entered.
public struct Refused: Hashable, Sendable {
    /// The publish.
    public var id: PublishID
    /// Why.
    public var code: RefusalCode
    /// For ``RefusalCode/outOfOrder``: the last ID the ledger holds for this producer and channel.
    public var lastID: PublishID
    /// For codes that are worth another try: not before this many milliseconds.
    public var retryAfter: UInt64

    /// A refused frame.
    public init(id: PublishID, code: RefusalCode, lastID: PublishID = 0, retryAfter: UInt64 = 0) {
        self.id = id
        self.code = code
        self.lastID = lastID
        self.retryAfter = retryAfter
    }
}

/// What an entry of a channel is.
public enum EntryKind: UInt8, Hashable, Sendable {
    /// Somebody published it.
    case message = 0
    /// The sender joined the room.
    case joined = 1
    /// The sender left the room.
    case left = 2
}

/// One entry of a channel, as the log holds it and as it is delivered.
public struct Entry: Hashable, Sendable {
    /// Its place within the channel's epoch.
    public var offset: Offset
    /// The offset of the entry before it in this channel; 0 for the first.
    public var previous: Offset
    /// What it is.
    public var kind: EntryKind
    /// Who published it.
    public var sender: UserID
    /// The device that published it.
    public var device: DeviceID
    /// The outbox it came from.
    public var producer: ProducerID
    /// Its ID within ``producer``.
    public var publishID: PublishID
    /// The recipient, in the sender's record of a direct message.
    public var recipient: UserID?
    /// In the recipient's copy of a direct message: where the sender's record stands in the sender's inbox.
    public var origin: Position?
    /// The server's time, in milliseconds since 1970; never decreasing along a channel.
    public var time: UInt64
    /// When it stops to be worth delivering, in milliseconds since 1970; 0 for never.
    public var expiry: UInt64
    /// The message.
    public var payload: ByteBuffer

    /// An entry.
    public init(
        offset: Offset, previous: Offset, kind: EntryKind, sender: UserID, device: DeviceID, producer: ProducerID,
        publishID: PublishID, recipient: UserID?, origin: Position?, time: UInt64, expiry: UInt64, payload: ByteBuffer
    ) {
        self.offset = offset
        self.previous = previous
        self.kind = kind
        self.sender = sender
        self.device = device
        self.producer = producer
        self.publishID = publishID
        self.recipient = recipient
        self.origin = origin
        self.time = time
        self.expiry = expiry
        self.payload = payload
    }
}

/// An entry on its way to a device.
public struct Deliver: Hashable, Sendable {
    /// The entry.
    public var entry: Entry
    /// Whether it may have reached the app of this device before.
    public var redelivered: Bool

    /// A deliver frame.
    public init(entry: Entry, redelivered: Bool) {
        self.entry = entry
        self.redelivered = redelivered
    }
}

/// Why entries are absent on purpose.
public enum SkipReason: UInt8, Hashable, Sendable {
    /// Their time to live ran out.
    case expired = 0
    /// Their sender took them back.
    case retracted = 1
    /// Retention removed them.
    case trimmed = 2
    /// The device was not entitled to them.
    case notEntitled = 3
}

/// Entries that are absent on purpose; acknowledged like an entry at ``to``.
public struct Skip: Hashable, Sendable {
    /// The entry before the range: the receiver's last.
    public var previous: Offset
    /// The last offset of the range.
    public var to: Offset
    /// Why.
    public var reason: SkipReason

    /// A skip frame.
    public init(previous: Offset, to: Offset, reason: SkipReason) {
        self.previous = previous
        self.to = to
        self.reason = reason
    }
}

/// What lay between the cursor and the first entry that is left is gone.
public struct Gap: Hashable, Sendable {
    /// The device's cursor.
    public var from: Position
    /// The `previous` of the first entry that will be delivered.
    public var first: Offset

    /// A gap frame.
    public init(from: Position, first: Offset) {
        self.from = from
        self.first = first
    }
}

/// The app confirmed everything up to ``offset`` in the lane's epoch.
public struct Acknowledge: Hashable, Sendable {
    /// Cumulative.
    public var offset: Offset

    /// An acknowledge frame.
    public init(offset: Offset) { self.offset = offset }
}
