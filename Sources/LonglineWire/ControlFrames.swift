public import NIOCore

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
    /// The cursors that moved since ``cursorVersion``; on the wire at most ``FrameLimits/maximumCursors``. More go before it, as
    /// ``Frame/cursors(_:)``, and what has no room there follows as ``Frame/acknowledge(_:)`` on its lane.
    public var cursors: [ChannelPosition]
    /// The client's name and version, for logs: at most 64 bytes.
    public var agent: String

    /// A connect frame. A longer agent than the limit is cut, as it is for logs only.
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
        self.agent = agent.cut(toBytes: FrameLimits.maximumAgent)
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

    /// A close frame. A longer reason than the limit is cut: a text for logs must not keep a session from ending.
    public init(code: CloseCode, reason: String = "", retryAfter: UInt64 = 0, accessPoint: String = "") {
        self.code = code
        self.reason = reason.cut(toBytes: FrameLimits.maximumReason)
        self.retryAfter = retryAfter
        self.accessPoint = accessPoint
    }
}

/// A heartbeat.
public struct Ping: Hashable, Sendable {
    /// Returned in the ``Pong``.
    public var nonce: UInt64
    /// How long the server waits with its answer, in milliseconds; 0 for at once. The answer to a later one shows that
    /// the path still carries what the server sends after so long a silence.
    public var answerAfter: UInt64

    /// A ping frame.
    public init(nonce: UInt64, answerAfter: UInt64 = 0) {
        self.nonce = nonce
        self.answerAfter = answerAfter
    }
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

/// What an app is to its user at present. It says how often the client beats, and what the server holds back.
public enum SessionMode: UInt8, Hashable, Sendable, CaseIterable {
    /// The user looks at it: everything is delivered at once. Every link begins so.
    case foreground = 0
    /// The user looks at something else: what is not urgent is delivered in batches.
    case background = 1
    /// The device saves power: everything but the inbox is delivered in batches, as rarely as it may be.
    case lowPower = 2
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

/// The answer to a ``RoomRequest`` or a ``RoomCommand``.
public struct RoomAnswer: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why it was refused, or nil.
    public var refusal: RefusalCode?
    /// The entry in the room's log that records the join, leave or change, or the log's last one where nothing had to change;
    /// meaningless when refused.
    public var position: Position

    /// A room answer.
    public init(request: UInt64, refusal: RefusalCode?, position: Position) {
        self.request = request
        self.refusal = refusal
        self.position = position
    }
}

/// Delivery of a channel stopped within the session, because the fresh token does not allow it.
public struct ChannelStopped: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID

    /// A stop.
    public init(channel: ChannelID) { self.channel = channel }
}

extension String {
    /// The longest beginning that has at most `limit` bytes of UTF-8 and ends between two characters.
    fileprivate func cut(toBytes limit: Int) -> String {
        if utf8.count <= limit { return self }
        var end = utf8.index(startIndex, offsetBy: limit)
        while end > startIndex, end.samePosition(in: self) == nil { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}
