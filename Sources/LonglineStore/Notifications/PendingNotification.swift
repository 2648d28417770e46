public import LonglineWire
public import NIOCore

/// That a user has news in a conversation and nobody told the user's devices yet: one for each user and conversation, however
/// much is new.
public struct PendingNotification: Hashable, Sendable {
    /// What it is about: news of the same key take its place.
    public struct Key: Hashable, Sendable {
        /// The tenant.
        public var tenant: TenantID
        /// Whom to tell.
        public var user: UserID
        /// The room, or the inbox of whom the direct messages are from.
        public var conversation: ChannelID

        /// A key.
        public init(tenant: TenantID, user: UserID, conversation: ChannelID) {
            self.tenant = tenant
            self.user = user
            self.conversation = conversation
        }
    }

    /// What it is about.
    public var key: Key
    /// The channel that the news are in: the user's own inbox for direct messages.
    public var channel: ChannelID
    /// The last of the news there.
    public var position: Position
    /// Who sent it.
    public var sender: UserID
    /// How many are new since the user was told last.
    public var count: UInt64
    /// The time of the last, in milliseconds since 1970.
    public var time: UInt64
    /// When the last stops to be worth delivering, in milliseconds since 1970; 0 for never.
    public var expiry: UInt64
    /// When none of the news is worth delivering any more, in milliseconds since 1970; 0 for never, as when one of them is
    /// for good.
    public var until: UInt64
    /// The last message, where it is told.
    public var payload: ByteBuffer?
    /// When the first of the news came, in milliseconds since 1970; in a server's memory by a clock that nobody sets.
    public var since: UInt64
    /// How often telling failed.
    public var failures: Int
    /// Not to be told before this, in milliseconds since 1970; in a server's memory as ``since``.
    public var notBefore: UInt64

    /// A notification.
    /// - Parameter until: nil for `expiry`, as of a single message.
    public init(
        key: Key, channel: ChannelID, position: Position, sender: UserID, count: UInt64, time: UInt64, expiry: UInt64,
        until: UInt64? = nil, payload: ByteBuffer?, since: UInt64, failures: Int = 0, notBefore: UInt64
    ) {
        self.key = key
        self.channel = channel
        self.position = position
        self.sender = sender
        self.count = count
        self.time = time
        self.expiry = expiry
        self.until = until ?? expiry
        self.payload = payload
        self.since = since
        self.failures = failures
        self.notBefore = notBefore
    }
}
