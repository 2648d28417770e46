public import LonglineWire

/// The conversations of users: what they list, how far they read, what they muted and whom they blocked.
///
/// A conversation has the name of a channel: a room's, or that of the other side's inbox (``LonglineWire/ChannelID/user(_:)``)
/// for the direct messages with that user.
public protocol Conversations: Sendable {
    /// Lists a user's conversations, the latest first: rooms that the user is in, and users with whom there are direct
    /// messages or settings.
    /// - Parameters:
    ///   - user: whose.
    ///   - tenant: the user's.
    ///   - after: where the page before ended (``ConversationList/next``), or nil to begin.
    ///   - limit: the most conversations in the page, 1 or more.
    ///   - now: the wall clock, in milliseconds since 1970.
    func conversations(
        of user: UserID, in tenant: TenantID, after: ConversationPlace?, limit: Int, now: UInt64
    ) async throws(StoreError) -> ConversationList

    /// Takes note of what users read, each on its own, in one transaction. What moves nothing is ignored: another epoch than
    /// the channel's, a place beyond its log, or not above what was read before.
    /// - Returns: one outcome a note, in their order; nil for what changed nothing.
    func markRead(_ notes: [ReadNote]) async throws(StoreError) -> [ReadOutcome?]

    /// What to tell senders whose messages reached a device, one a note, in their order; nil where nobody is told.
    func receipts(for notes: [DeliveryNote]) async throws(StoreError) -> [DeliveryNote?]

    /// Changes a setting, for all devices of the user.
    /// - Returns: the settings as they are then; nil when there can't be such a conversation: a room that the user is not
    ///   in (but for the end of a mute from before), oneself, a block of a room.
    /// - Throws: ``StoreError/Code/limitExceeded`` when the user has settings for ``StoreLimits/settingsPerUser`` others. Mutes that
    ///   are over, and those of rooms that the user left, give way before that.
    func set(
        _ setting: ConversationSetting, of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings?

    /// What a user decided about a conversation: whether a message in it is worth waking somebody for, say. The default
    /// settings where nothing was decided.
    func settings(
        of conversation: ChannelID, for user: UserID, in tenant: TenantID
    ) async throws(StoreError) -> ConversationSettings

    /// Those of `others` with whom a user is not in touch: one of the two blocked the other. Nothing passes between them but
    /// what is said in rooms, and that a message that had arrived was taken back.
    func outOfTouch(
        _ user: UserID, with others: [UserID], in tenant: TenantID
    ) async throws(StoreError) -> Set<UserID>
}

/// A place in a list of conversations, the latest first.
public struct ConversationPlace: Hashable, Sendable {
    /// The time of the conversation's last entry, in milliseconds since 1970.
    public var time: UInt64
    /// The conversation: names tell equal times apart.
    public var conversation: ChannelID

    /// A place.
    public init(time: UInt64, conversation: ChannelID) {
        self.time = time
        self.conversation = conversation
    }
}

/// Whose messages count.
public enum Authors: Hashable, Sendable {
    /// This user's: the other side of a direct conversation.
    case only(UserID)
    /// Everybody's but this user's: in a room.
    case allBut(UserID)
}

/// A page of a list of conversations.
public struct ConversationList: Hashable, Sendable {
    /// The conversations.
    public var items: [ConversationItem]
    /// Where the next page begins, or nil at the end.
    public var next: ConversationPlace?

    /// A page.
    public init(items: [ConversationItem], next: ConversationPlace?) {
        self.items = items
        self.next = next
    }
}

/// A user read a conversation up to a place.
public struct ReadNote: Hashable, Sendable {
    /// The user's tenant.
    public var tenant: TenantID
    /// Who read.
    public var user: UserID
    /// What was read.
    public var mark: ReadMark

    /// A note.
    public init(tenant: TenantID, user: UserID, mark: ReadMark) {
        self.tenant = tenant
        self.user = user
        self.mark = mark
    }
}

/// What a ``ReadNote`` changed, and who is told.
public struct ReadOutcome: Hashable, Sendable {
    /// Whom to tell beside the reader's own devices.
    public enum Audience: Hashable, Sendable {
        /// Nobody: the reader keeps it private, somebody blocked somebody, or the room is large.
        case nobody
        /// The other side of a direct conversation, with the place in their own inbox.
        case peer(UserID, Position)
        /// The room's members.
        case members
    }

    /// Up to where the user read, in the room or in the user's inbox: before the mark where more than
    /// ``StoreLimits/unreadEntries`` entries of an inbox lie between.
    public var position: Position
    /// Who else is told.
    public var audience: Audience

    /// An outcome.
    public init(position: Position, audience: Audience) {
        self.position = position
        self.audience = audience
    }
}

/// A direct message reached a device of its recipient.
public struct DeliveryNote: Hashable, Sendable {
    /// The tenant of both.
    public var tenant: TenantID
    /// Whose device.
    public var recipient: UserID
    /// Who sent it.
    public var sender: UserID
    /// Where the message stands in the sender's inbox.
    public var origin: Position

    /// A note.
    public init(tenant: TenantID, recipient: UserID, sender: UserID, origin: Position) {
        self.tenant = tenant
        self.recipient = recipient
        self.sender = sender
        self.origin = origin
    }
}
