/// The limits that the frame grammar itself sets. A frame whose fields keep to theirs always fits ``maximumBody``.
public enum FrameLimits {
    /// The largest body of a frame, in bytes, so that nothing blocks a lane for long.
    public static let maximumBody = 16 * 1024
    /// Cursors in one `CONNECT`, and answers in one `CONNECTED`.
    public static let maximumCursors = 96
    /// `CURSORS` before one `CONNECT`: with it, places in 1,248 channels.
    public static let maximumCursorFrames = 12
    /// `AHEAD` before one `CONNECTED`.
    public static let maximumAheadFrames = 64
    /// Versions in one `CONNECT`.
    public static let maximumVersions = 8
    /// A token's bytes. Together with ``maximumCursors`` of the longest names it leaves a `CONNECT` below ``maximumBody``.
    public static let maximumToken = 7 * 1024
    /// A resume ticket's bytes.
    public static let maximumTicket = 1024
    /// A close reason's bytes.
    public static let maximumReason = 256
    /// The agent string's bytes.
    public static let maximumAgent = 64
    /// The bytes of an address and port as text, an IPv6 zone included.
    public static let maximumAddress = 80
    /// The bytes of a `host:port`: a DNS name has at most 253.
    public static let maximumAccessPoint = 260
    /// The most bytes of a payload in one frame: what a delivery's other fields always leave room for. A larger payload goes
    /// on in ``Part`` frames.
    public static let maximumPayload = 15 * 1024
    /// The payload of a reaction, and the reason of a retraction, in bytes.
    public static let maximumRemark = 64
    /// The largest payload that any server may allow, in bytes, all of its parts together.
    public static let maximumWholePayload = 16 * 1024 * 1024
    /// Payloads under way in parts at once, per link and direction; a page of history may have one in addition.
    public static let maximumPayloadsInParts = 4
    /// The largest channel window that any server may allow, in bytes. A client takes a larger one for that.
    public static let maximumChannelWindow = 64 * 1024 * 1024
    /// Publishes without an answer, per producer and channel: the ledger remembers as many answers.
    public static let maximumUnacknowledged = 1024
    /// Requests for history without an answer, per link.
    public static let maximumHistoryRequests = 4
    /// Entries in one page of history.
    public static let maximumHistoryEntries = 100
    /// Frames in one page of history: its entries, and the ranges between them that are absent on purpose.
    public static let maximumHistoryItems = 256
    /// Members in one page of a room's members, so that no page keeps the control lane for long.
    public static let maximumMembers = 100
    /// Requests for members without an answer, per link.
    public static let maximumMembersRequests = 4
    /// Conversations in one page.
    public static let maximumConversations = 50
    /// The bytes of a place in the list of conversations.
    public static let maximumListPlace = 96
    /// Unread messages of a conversation that are told; there may be more.
    public static let maximumUnread = 1_000
    /// Requests for the list of conversations without an answer, per link.
    public static let maximumListRequests = 4
    /// The largest payload of a signal, in bytes.
    public static let maximumSignalPayload = 1000
    /// The longest life of a signal, in milliseconds; a longer one counts as this.
    public static let maximumSignalDeadline: UInt64 = 60_000
    /// Users in one `SUBSCRIBE` or `UNSUBSCRIBE`.
    public static let maximumPresenceUsers = 100
    /// Channels with another urgency than ``Urgency/chat``, per link.
    public static let maximumUrgencies = 256
    /// Encodings in one `ENCODINGS`.
    public static let maximumEncodings = 8
    /// Channels that one `ENCODINGS` excepts.
    public static let maximumPlainChannels = 64
    /// Groups in one batch.
    public static let maximumBatchGroups = 256
    /// Frames in one batch.
    public static let maximumBatchFrames = 4_096
    /// The frames of one batch before compression, in bytes: known before anything is decompressed.
    public static let maximumBatch = 64 * 1024
    /// One group of a batch, compressed.
    public static let maximumBatchBytes = 16_000
    /// The largest number that a varint carries (RFC 9000 section 16): 2^62 - 1.
    public static let maximumNumber: UInt64 = (1 << 62) - 1
    /// The largest lane number on a transport with lane tags, where the tag's lowest bit is taken: 2^61 - 1.
    public static let maximumTaggedLane: UInt64 = (1 << 61) - 1
}
