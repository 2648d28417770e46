public import LonglineWire

/// A channel within its tenant: the key of everything a store holds.
public struct ChannelKey: Hashable, Sendable {
    /// The tenant.
    public let tenant: TenantID
    /// The channel.
    public let channel: ChannelID

    /// A channel key.
    public init(tenant: TenantID, channel: ChannelID) {
        self.tenant = tenant
        self.channel = channel
    }
}

/// A device within its tenant.
public struct DeviceKey: Hashable, Sendable {
    /// The tenant.
    public let tenant: TenantID
    /// The user.
    public let user: UserID
    /// The device.
    public let device: DeviceID

    /// A device key.
    public init(tenant: TenantID, user: UserID, device: DeviceID) {
        self.tenant = tenant
        self.user = user
        self.device = device
    }
}

/// One publish on its way into the log, with the key that the ledger knows it by.
public struct AppendRequest: Sendable {
    /// The publishing device.
    public var device: DeviceKey
    /// Its outbox.
    public var producer: ProducerID
    /// Where the entry goes. A direct message goes into the sender's own inbox and names a recipient.
    public var channel: ChannelID
    /// The publish as it came.
    public var publish: Publish

    /// An append request.
    public init(device: DeviceKey, producer: ProducerID, channel: ChannelID, publish: Publish) {
        self.device = device
        self.producer = producer
        self.channel = channel
        self.publish = publish
    }
}

/// What became of one ``AppendRequest``.
public enum AppendOutcome: Hashable, Sendable {
    /// Entered now, and durable. `copy` is the recipient's inbox and the offset of the copy there.
    case entered(Published, previous: Offset, copy: InboxCopy?)
    /// Entered by an earlier request with the same ID and tag: the same acknowledgement again.
    case duplicate(Published)
    /// Not entered, and nothing stored.
    case refused(Refused)
}

/// The recipient's copy of a direct message.
public struct InboxCopy: Hashable, Sendable {
    /// The recipient's inbox.
    public var channel: ChannelID
    /// Where the copy stands there.
    public var position: Position

    /// An inbox copy.
    public init(channel: ChannelID, position: Position) {
        self.channel = channel
        self.position = position
    }
}

/// One stretch of a channel's log.
public struct LogPage: Sendable {
    /// The epoch of every offset in the page.
    public var epoch: Epoch
    /// The entries and the absences, in order and without a hole: each continues where the one before it ended.
    public var items: [LogItem]
    /// The offset of the channel's last entry when the page was read; 0 when it is empty.
    public var head: Offset
    /// The `previous` of the first entry that is left: what lies at or below is gone. 0 when nothing was trimmed.
    public var first: Offset

    /// A page.
    public init(epoch: Epoch, items: [LogItem], head: Offset, first: Offset) {
        self.epoch = epoch
        self.items = items
        self.head = head
        self.first = first
    }
}

/// One step along a channel's log.
public enum LogItem: Hashable, Sendable {
    /// An entry.
    case entry(Entry)
    /// A range that is absent on purpose.
    case skip(Skip)
}

/// The ends of a channel's log.
public struct ChannelHead: Hashable, Sendable {
    /// The last entry; offset 0 when the channel is empty.
    public var position: Position
    /// The `previous` of the first entry that is left; 0 when nothing was trimmed.
    public var first: Offset

    /// A head.
    public init(position: Position, first: Offset) {
        self.position = position
        self.first = first
    }
}

/// The ordered durable logs of all channels, with the publish ledger in the same transaction.
///
/// An implementation decides how it batches and where it stores; what it answers is durable. No method ever answers
/// before its transaction is on disk. A failed disk sync ends the process (the data might be half on disk, and only a restart reads what is there).
public protocol ChannelLog: Sendable {
    /// Enters publishes, each judged by the ledger on its own, in this order.
    ///
    /// Requests of one producer and channel in one batch see each other. Concurrent calls share a transaction (group
    /// commit).
    /// - Returns: one outcome per request, in the order of the requests.
    func append(_ batch: [AppendRequest]) async -> [AppendOutcome]

    /// Reads on from a place, at least one item when there is one, and no more than `maximumBytes` of payload beyond.
    ///
    /// Skips cover what expired (at wall-clock `now`, in milliseconds since 1970) or is absent inside the range. When
    /// `after` lies below the first entry that is left, the page starts at the first entry left: compare ``LogPage/first``.
    /// - Parameter upTo: the last offset the reader is entitled to, or nil for all.
    func read(_ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64)
        async throws(StoreError) -> LogPage

    /// The ends of a channel's log. An inbox is made on first sight; a room that does not exist yields nil.
    func head(of channel: ChannelKey) async throws(StoreError) -> ChannelHead?

    /// The channels a user may read, with the ranges of offsets: the inbox, and every room the user is or was in.
    func entitlements(of user: UserID, in tenant: TenantID) async throws(StoreError) -> [Entitlement]

    /// Enters a join of `device.user` into the room's log (making the room when `create`), or finds the one there is.
    /// - Returns: the place of the join entry; nil when the room does not exist and `create` is false.
    func join(_ room: RoomID, by device: DeviceKey, create: Bool) async throws(StoreError) -> Position?

    /// Enters a leave into the room's log.
    /// - Returns: the place of the leave entry; nil when the user isn't a member.
    func leave(_ room: RoomID, by device: DeviceKey) async throws(StoreError) -> Position?

    /// The users who are in a room now.
    func members(of room: RoomID, in tenant: TenantID) async throws(StoreError) -> [UserID]
}

/// The part of a channel that a user may read, in push, catch-up and history alike.
public struct Entitlement: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The log's ends.
    public var head: ChannelHead
    /// Nothing at or below this offset is readable: the one before the join entry; 0 for an inbox.
    public var after: Offset
    /// The leave entry, the last that is readable; nil while the membership lasts.
    public var upTo: Offset?

    /// An entitlement.
    public init(channel: ChannelID, head: ChannelHead, after: Offset, upTo: Offset?) {
        self.channel = channel
        self.head = head
        self.after = after
        self.upTo = upTo
    }
}

/// What devices have confirmed: one record a device.
public protocol DeviceCursors: Sendable {
    /// Moves cursors forward, and answers the record as it is then.
    ///
    /// Within an epoch a cursor only grows; a cursor of another epoch than the channel's current one is ignored. The
    /// version grows when the record changed.
    func advance(_ device: DeviceKey, to cursors: [ChannelPosition]) async throws(StoreError) -> CursorRecord

    /// Takes note of a connect.
    ///
    /// - Returns: false when a higher number of this producer was seen (stale), true otherwise.
    func admit(_ device: DeviceKey, producer: ProducerID, connectNumber: UInt64) async throws(StoreError) -> Bool
}

/// All cursors of one device.
public struct CursorRecord: Hashable, Sendable {
    /// Grows with every change; 0 before the first.
    public var version: UInt64
    /// The places confirmed, in their current epochs.
    public var cursors: [ChannelID: Position]

    /// A record.
    public init(version: UInt64, cursors: [ChannelID: Position]) {
        self.version = version
        self.cursors = cursors
    }
}

/// Who has been shut out. Durable, and compared by generation, never by clock.
public protocol Revocations: Sendable {
    /// The generation of a user and of one of its devices; each starts at 0 and grows with every revocation.
    func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations
    /// Shuts out every credential of a user issued under an earlier generation.
    func revoke(user: UserID, in tenant: TenantID) async throws(StoreError)
    /// Shuts out every credential of a device issued under an earlier generation.
    func revoke(device: DeviceKey) async throws(StoreError)
    /// Shuts out one token by its ID until it would have expired anyway (milliseconds since 1970).
    func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError)
    /// Whether a token was shut out by its ID.
    func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool
}

/// How often a user and one of its devices were revoked.
public struct RevocationGenerations: Hashable, Sendable {
    /// Of the user.
    public var user: UInt64
    /// Of the device.
    public var device: UInt64

    /// Generations.
    public init(user: UInt64, device: UInt64) {
        self.user = user
        self.device = device
    }
}

/// A store with all parts. ``ChannelLog`` holds the publish ledger, in the entry's transaction.
public typealias MessageStore = ChannelLog & DeviceCursors & Revocations
