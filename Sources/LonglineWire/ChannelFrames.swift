public import NIOCore

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
    /// What it does: a message, or something about another entry.
    public var kind: PublishKind
    /// How long the message is worth delivering, in milliseconds from now; 0 for ever.
    public var timeToLive: UInt64
    /// The message, or its first bytes.
    public var payload: ByteBuffer
    /// Bytes of the message that follow in ``Part`` frames; 0 when ``payload`` is all of it.
    public var following: UInt64

    /// A publish frame.
    public init(
        id: PublishID, tag: PublishTag, after: PublishID, recipient: UserID?, kind: PublishKind = .message,
        timeToLive: UInt64, payload: ByteBuffer, following: UInt64 = 0
    ) {
        self.following = following
        self.id = id
        self.tag = tag
        self.after = after
        self.recipient = recipient
        self.kind = kind
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
    /// The sender joined the room, or made ``Entry/recipient`` a member.
    case joined = 1
    /// The sender left the room, or ended the membership of ``Entry/recipient``.
    case left = 2
    /// The sender changed the room's settings or owners, or deleted it: ``Entry/change`` says what.
    case changed = 3
    /// The payload takes the place of that of the message that ``Entry/target`` names.
    case edited = 4
    /// The message that ``Entry/target`` names was taken back: its payload is gone from the log.
    case retracted = 5
    /// The payload is the sender's reaction to the message that ``Entry/target`` names; an empty one takes it back.
    case reacted = 6
    /// The answer to the request that ``Entry/target`` names.
    case reply = 7
    /// Asks for a reply, until ``Entry/expiry``.
    case request = 8

    /// Whether an entry of this kind names another.
    public var namesEntry: Bool {
        switch self {
        case .message, .joined, .left, .changed, .request: false
        case .edited, .retracted, .reacted, .reply: true
        }
    }

    /// Whether who is away is told of an entry of this kind.
    package var isNews: Bool {
        switch self {
        case .message, .reply, .request: true
        case .joined, .left, .changed, .edited, .retracted, .reacted: false
        }
    }
}

/// One entry of a channel, as the log holds it and as it is delivered.
public struct Entry: Hashable, Sendable {
    /// Its place within the channel's epoch.
    public var offset: Offset
    /// The offset of the entry before it in this channel; 0 for the first.
    public var previous: Offset
    /// What it is.
    public var kind: EntryKind
    /// Who published it, or joined, left or changed the room.
    public var sender: UserID
    /// The device that published it.
    public var device: DeviceID
    /// The outbox it came from.
    public var producer: ProducerID
    /// Its ID within ``producer``.
    public var publishID: PublishID
    /// The recipient, in the sender's record of a direct message. In a room's log: whom the sender added, removed or made an
    /// owner.
    public var recipient: UserID?
    /// In the recipient's copy of a direct message: where the sender's record stands in the sender's inbox.
    public var origin: Position?
    /// The offset of the entry that this one is about, in this channel; what it names may be gone from the log by now.
    public var target: Offset?
    /// The server's time, in milliseconds since 1970; never decreasing along a channel.
    public var time: UInt64
    /// When it stops to be worth delivering, in milliseconds since 1970; 0 for never.
    public var expiry: UInt64
    /// The message, or its first bytes.
    public var payload: ByteBuffer
    /// Bytes of the message that are not here: they follow in ``Part`` frames, or are read from the log. 0 when ``payload`` is
    /// all of it.
    public var following: UInt64

    /// An entry.
    public init(
        offset: Offset, previous: Offset, kind: EntryKind, sender: UserID, device: DeviceID, producer: ProducerID,
        publishID: PublishID, recipient: UserID?, origin: Position?, target: Offset? = nil, time: UInt64,
        expiry: UInt64, payload: ByteBuffer, following: UInt64 = 0
    ) {
        self.following = following
        self.offset = offset
        self.previous = previous
        self.kind = kind
        self.sender = sender
        self.device = device
        self.producer = producer
        self.publishID = publishID
        self.recipient = recipient
        self.origin = origin
        self.target = target
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
