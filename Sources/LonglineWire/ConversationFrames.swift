public import NIOCore

// A conversation is what an app lists for its user: a room, or the direct messages with one other user. On the wire it has the
// name of a channel: that of the room, or of the other side's inbox, in which this user can't read.

/// A client's request for a page of its user's conversations.
public struct ConversationsRequest: Hashable, Sendable {
    /// Chosen by the client; the answer names it.
    public var request: UInt64
    /// Where the page before ended (``ConversationsPage/next``); empty for the latest.
    public var after: ByteBuffer
    /// The most conversations in the page: 1 to ``FrameLimits/maximumConversations``, or the request is refused.
    public var limit: UInt64

    /// A request.
    public init(request: UInt64, after: ByteBuffer, limit: UInt64) {
        self.request = request
        self.after = after
        self.limit = limit
    }
}

/// A page of a user's conversations, the latest first.
public struct ConversationsPage: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why there is no page, or nil.
    public var refusal: RefusalCode?
    /// For refusals that are worth another try: not before this many milliseconds.
    public var retryAfter: UInt64
    /// Where the next page begins; empty at the end of the list.
    public var next: ByteBuffer
    /// The conversations; at most ``FrameLimits/maximumConversations``.
    public var items: [ConversationItem]

    /// A page.
    public init(request: UInt64, next: ByteBuffer, items: [ConversationItem]) {
        self.request = request
        refusal = nil
        retryAfter = 0
        self.next = next
        self.items = items
    }

    /// A refusal.
    public init(request: UInt64, refusal: RefusalCode, retryAfter: UInt64 = 0) {
        self.init(request: request, next: ByteBuffer(), items: [])
        self.refusal = refusal
        self.retryAfter = retryAfter
    }
}

/// One conversation of a user.
public struct ConversationItem: Hashable, Sendable {
    /// The room, or the other side.
    public var conversation: ChannelID
    /// Its last entry, in the room or in this user's inbox; offset 0 for none yet.
    public var last: Position
    /// The time of that entry, in milliseconds since 1970.
    public var time: UInt64
    /// Messages of others that this user has not read; at most ``FrameLimits/maximumUnread``.
    public var unread: UInt64
    /// What the user decided about it.
    public var settings: ConversationSettings
    /// Up to where the user read it; 0 for nowhere.
    public var read: Offset
    /// Up to where what the user sent reached a device of the other side, in a direct conversation; 0 for nowhere.
    public var peerDelivered: Offset
    /// Up to where the other side read it and says so, in a direct conversation; 0 for nowhere.
    public var peerRead: Offset

    /// An item.
    public init(
        conversation: ChannelID, last: Position, time: UInt64, unread: UInt64, settings: ConversationSettings,
        read: Offset, peerDelivered: Offset, peerRead: Offset
    ) {
        self.conversation = conversation
        self.last = last
        self.time = time
        self.unread = unread
        self.settings = settings
        self.read = read
        self.peerDelivered = peerDelivered
        self.peerRead = peerRead
    }
}

/// What a user decided about a conversation, for all devices.
public struct ConversationSettings: Hashable, Sendable {
    /// Nothing to announce before this time, in milliseconds since 1970: 0 for not muted, ``FrameLimits/maximumNumber`` for
    /// ever.
    public var mutedUntil: UInt64
    /// Whether the other side is blocked; never in a room.
    public var isBlocked: Bool

    /// Settings; by default those of a conversation about which nothing was decided.
    public init(mutedUntil: UInt64 = 0, isBlocked: Bool = false) {
        self.mutedUntil = mutedUntil
        self.isBlocked = isBlocked
    }

    /// Whether it is muted at a wall-clock time, in milliseconds since 1970.
    public func isMuted(at now: UInt64) -> Bool { mutedUntil > now }
}

/// One thing that a user decides about a conversation.
public enum ConversationSetting: Hashable, Sendable {
    /// Announce nothing before this time, in milliseconds since 1970; 0 ends it, ``FrameLimits/maximumNumber`` is for ever.
    case mute(until: UInt64)
    /// Block the other side, or not any more.
    case block(Bool)
}

/// A client's request to change a setting.
public struct ConversationChange: Hashable, Sendable {
    /// Chosen by the client; the answer names it. Never 0.
    public var request: UInt64
    /// The room, or the other side.
    public var conversation: ChannelID
    /// What to change.
    public var setting: ConversationSetting

    /// A change.
    public init(request: UInt64, conversation: ChannelID, setting: ConversationSetting) {
        self.request = request
        self.conversation = conversation
        self.setting = setting
    }
}

/// The settings of a conversation as they are now: the answer to a ``ConversationChange``, or the news of one that another
/// device of the user made.
public struct ConversationState: Hashable, Sendable {
    /// The request it answers; 0 for news.
    public var request: UInt64
    /// Why it was refused, or nil.
    public var refusal: RefusalCode?
    /// The room, or the other side.
    public var conversation: ChannelID
    /// The settings; when refused they mean nothing.
    public var settings: ConversationSettings

    /// A state.
    public init(request: UInt64, refusal: RefusalCode?, conversation: ChannelID, settings: ConversationSettings) {
        self.request = request
        self.refusal = refusal
        self.conversation = conversation
        self.settings = settings
    }
}

/// The user read a conversation up to a place.
public struct ReadMark: Hashable, Sendable {
    /// The room, or the other side.
    public var conversation: ChannelID
    /// The place: in the room, or in this user's inbox.
    public var position: Position
    /// Whether only the user's own devices are told.
    public var isPrivate: Bool

    /// A mark.
    public init(conversation: ChannelID, position: Position, isPrivate: Bool) {
        self.conversation = conversation
        self.position = position
        self.isPrivate = isPrivate
    }
}

/// What a receipt says.
public enum ReceiptKind: UInt8, Hashable, Sendable, CaseIterable {
    /// A device of the user's has it, and its app is done with it.
    case delivered = 0
    /// The user read it.
    case read = 1
}

/// How far a user came in a conversation: everything up to a place.
public struct Receipt: Hashable, Sendable {
    /// The room, or the other side, as the told user names it.
    public var conversation: ChannelID
    /// Whose receipt it is: the other side, a member, or the told user on another device.
    public var user: UserID
    /// What it says.
    public var kind: ReceiptKind
    /// The place: in the room, or in the told user's inbox.
    public var position: Position

    /// A receipt.
    public init(conversation: ChannelID, user: UserID, kind: ReceiptKind, position: Position) {
        self.conversation = conversation
        self.user = user
        self.kind = kind
        self.position = position
    }
}
