import LonglineWire
import NIOCore

/// What a store keeps about a channel.
struct ChannelRecord: Hashable, Sendable {
    let id: Int64
    let key: ChannelKey
    var epoch: Epoch
    /// The last offset drawn when it was made: at or below lies nothing of it. 0 where that is not known.
    let begin: Offset
    /// The last entry; 0 for none yet.
    var head: Offset = 0
    /// The last entry that was trimmed; 0 for none.
    var first: Offset = 0
    /// The time of the last entry: the next is never earlier.
    var time: UInt64 = 0
    /// Entries in the log, and the bytes of their payloads.
    var entries = 0
    var bytes = 0
    /// Members now, in a room, and the owners among them.
    var members = 0
    var owners = 0
    /// The entry by which the room was deleted last; 0 for none. Who joined before is no member any more.
    var deleted: Offset = 0
    var joining = RoomJoining.anyone
    var publishing = RoomPublishing.members

    var ends: ChannelHead { ChannelHead(position: Position(epoch: epoch, offset: head), first: first) }
}

/// What a store keeps about a device, its cursors apart.
struct DeviceRecord: Hashable, Sendable {
    let id: Int64
    let key: DeviceKey
    /// When it was last seen, in milliseconds since 1970.
    var seen: UInt64
    /// The version of its cursors.
    var cursorVersion: UInt64 = 0
    /// Its outboxes.
    var producers = 0
    /// The last offset drawn when the store first heard of it: what is broadcast later is delivered to it.
    var begin: Offset = 0
}

/// What a store keeps about one outbox of a device.
struct ProducerRecord: Hashable, Sendable {
    let id: Int64
    /// When it was last seen, in milliseconds since 1970.
    var seen: UInt64
    /// The highest connect number.
    var connectNumber: UInt64 = 0
}

/// The head of one publish ledger.
struct LedgerHead: Hashable, Sendable {
    /// The last ID entered; 0 for none.
    var lastID: PublishID = 0
    /// Acknowledgements remembered.
    var remembered = 0
}

/// A user's last stay in a room, as offsets of the room's log.
struct Stint: Hashable, Sendable {
    /// The entry before the join.
    var after: Offset
    /// The join.
    var joined: Offset
    /// The leave, or nil while it lasts.
    var left: Offset?
    var role = RoomRole.member

    /// As it is after the room's last deletion, which ends every stay without touching its row. Where the room was deleted before,
    /// it may have ended sooner: ``StoreRules/ended(_:in:_:)`` knows when.
    func after(deletionOf room: ChannelRecord) -> Stint {
        guard left == nil, joined < room.deleted else { return self }
        var ended = self
        ended.left = room.deleted
        return ended
    }
}

/// What retention needs to know of an entry.
struct EntrySummary: Hashable, Sendable {
    var offset: Offset
    var time: UInt64
    var bytes: Int
    /// The sender of a message that counts as unread until it is read.
    var incomingFrom: UserID?
}

/// What time it was when the sequence of offsets had come so far. Marks are made where entries have times that the clock has not
/// reached, so that their ages are known.
struct ClockMark: Hashable, Sendable {
    /// The most that are kept; beyond, every second one goes.
    static let most = 1_000
    /// Marks are at least so far apart, in milliseconds.
    static let step: UInt64 = 3_600_000
    /// A time that the clock reaches within so many milliseconds is taken for what it is.
    static let tolerance: UInt64 = 3_600_000

    var offset: Offset
    var time: UInt64

    static func isAhead(_ time: UInt64, _ now: UInt64) -> Bool { time > now && time - now > tolerance }
}

/// What counting unread messages came to.
struct UnreadCount: Hashable, Sendable {
    var count: Int
    /// Entries that were looked at, and the last of them; where there was none, the place behind which they were to begin.
    var looked: Int
    var last: Offset
}

/// What a store keeps, without any rule: ``StoreLogic`` has the rules, so that two stores can't differ in them.
///
/// Calls come from one writer at a time. Ids are the tables' own, above 0 and never used again.
protocol StoreTables: AnyObject {
    func channel(_ key: ChannelKey) throws -> ChannelRecord?
    func addChannel(_ key: ChannelKey, epoch: Epoch, begin: Offset) throws -> ChannelRecord
    func update(_ channel: ChannelRecord) throws
    /// Draws from the one sequence that all channels share.
    func nextOffset() throws -> Offset
    /// The offset drawn last.
    func lastOffset() throws -> Offset
    /// The offset of a channel's last entry at or below one; nil when there is none left.
    func lastOffset(in channel: ChannelRecord, through offset: Offset) throws -> Offset?
    /// The channels to all of a tenant, in the order of their names' bytes.
    func broadcasts(in tenant: TenantID) throws -> [ChannelRecord]
    /// - Parameters:
    ///   - entry: with all of its payload. A copy's payload is that of the entry it comes from, and need not be kept twice.
    ///   - channel: the record as it is with the entry.
    func add(_ entry: Entry, to channel: ChannelRecord) throws
    /// Bytes of an entry's payload from a place in it; nil when there is no such entry or place.
    func payload(of offset: Offset, in channel: ChannelRecord, from: UInt64, maximumBytes: Int) throws -> ByteBuffer?
    func oldest(in channel: ChannelRecord, limit: Int) throws -> [EntrySummary]
    func removeEntries(in channel: ChannelRecord, through offset: Offset) throws
    /// The channels with an id above `mark`, in the order of their ids. Their oldest entry's time is that of the first mark of the
    /// clock behind it, where that is earlier.
    func channels(above mark: Int64, limit: Int) throws -> [(id: Int64, summary: ChannelSummary)]
    /// Hands the entries of a range to `take`, in their order or from the last one down, until it answers false. Of a large
    /// payload an entry holds the first bytes.
    func entries(
        in channel: ChannelRecord, above: Offset, through: Offset, downward: Bool, _ take: (Entry) -> Bool) throws

    /// The time of the first mark of the clock at or above an offset: what has the offset was written by then.
    func clockMark(from offset: Offset) throws -> UInt64?
    /// The time of the last mark.
    func lastClockMark() throws -> UInt64?
    /// Marks that it is `time` at the offset drawn last. Marks that say later are forgotten; and where there are more than
    /// ``ClockMark/most``, every second one before the last: what it stood for counts as written by the next.
    func markClock(_ time: UInt64) throws

    func entry(at offset: Offset, in channel: ChannelRecord) throws -> Entry?
    /// The edits of an entry, at most `limit`, in their order.
    func edits(of offset: Offset, in channel: ChannelRecord, limit: Int) throws -> [EntrySummary]
    /// Notes of a direct message's record that its recipient got no copy. It goes with the record.
    func withholdCopy(of record: Offset) throws
    func isCopyWithheld(of record: Offset) throws -> Bool
    /// Leaves the place of an entry and takes the rest: see ``LonglineWire/Entry/erase()``.
    func erase(_ offset: Offset, in channel: ChannelRecord) throws

    func device(_ key: DeviceKey) throws -> DeviceRecord?
    func addDevice(_ key: DeviceKey, seen: UInt64, begin: Offset) throws -> DeviceRecord
    func update(_ device: DeviceRecord) throws
    func producer(_ producer: ProducerID, of device: DeviceRecord) throws -> ProducerRecord?
    func addProducer(_ producer: ProducerID, of device: DeviceRecord, seen: UInt64) throws -> ProducerRecord
    func update(_ producer: ProducerRecord, _ id: ProducerID, of device: DeviceRecord) throws

    func ledger(_ producer: ProducerRecord, in channel: ChannelRecord) throws -> LedgerHead
    func answer(_ id: PublishID, of producer: ProducerRecord, in channel: ChannelRecord) throws -> LedgerAnswer?
    /// The lowest ID with an acknowledgement; 0 when there is none.
    func oldestAnswer(of producer: ProducerRecord, in channel: ChannelRecord) throws -> PublishID
    func remember(_ answer: LedgerAnswer, head: LedgerHead, of producer: ProducerRecord, in channel: ChannelRecord)
        throws
    /// Forgets the acknowledgements with the lowest IDs.
    func forgetOldestAnswers(_ count: Int, of producer: ProducerRecord, in channel: ChannelRecord) throws

    /// Stays as they were written: see ``StoreRules/ended(_:in:_:)``.
    func stint(of user: UserID, in room: ChannelRecord) throws -> Stint?
    func stints(of user: UserID, in tenant: TenantID) throws -> [(room: ChannelRecord, stint: Stint)]
    func set(_ stint: Stint, of user: UserID, in room: ChannelRecord) throws
    func removeStint(of user: UserID, in room: ChannelRecord) throws
    /// Remembers a deletion of a room, and forgets those that end no stay any more.
    func addDeletion(_ offset: Offset, of room: ChannelRecord) throws
    /// The first deletion of a room behind an offset.
    func deletion(of room: ChannelRecord, after offset: Offset) throws -> Offset?
    /// Members whose names come behind `user`, in the order of their bytes.
    func members(of room: ChannelRecord, after user: UserID?, limit: Int) throws -> [RoomMember]
    /// The member who joined first.
    func oldestMember(of room: ChannelRecord) throws -> UserID?

    func cursors(of device: DeviceRecord) throws -> [(channel: ChannelRecord, position: Position)]
    func cursor(of device: DeviceRecord, in channel: ChannelRecord) throws -> Position?
    func set(_ cursor: Position, of device: DeviceRecord, in channel: ChannelRecord) throws
    /// Removes the cursors that a user's devices have in a channel.
    func removeCursors(of user: UserID, in channel: ChannelRecord) throws

    func conversation(_ name: ChannelID, of inbox: ChannelRecord) throws -> ConversationRecord?
    func update(_ conversation: ConversationRecord) throws
    /// Direct conversations behind a place, the latest first.
    func directConversations(of inbox: ChannelRecord, after: ConversationPlace?, limit: Int) throws
        -> [ConversationRecord]
    /// The conversations that a user muted or blocked.
    func countSettings(of inbox: ChannelRecord) throws -> Int
    func conversationsWithSettings(of inbox: ChannelRecord) throws -> [ConversationRecord]
    /// Counts what some authors wrote in a range, up to `limit` and among the first `looking` entries of it.
    func count(
        _ what: Counted, in channel: ChannelRecord, above: Offset, through: Offset, by authors: Authors, limit: Int,
        looking: Int, now: UInt64
    ) throws -> UnreadCount
    /// The highest cursor that a user's devices have in a channel's present epoch; 0 for none.
    func highestCursor(of user: UserID, in channel: ChannelRecord) throws -> Offset
    /// Removes what is kept of a conversation.
    func removeConversation(_ name: ChannelID, of inbox: ChannelRecord) throws
    /// Removes up to `limit` conversations of an inbox.
    /// - Returns: how many.
    func removeConversations(of inbox: ChannelRecord, limit: Int) throws -> Int

    /// - Parameter device: nil for the user's own generation.
    func generation(of user: UserID, device: DeviceID?, in tenant: TenantID) throws -> UInt64
    func set(generation: UInt64, of user: UserID, device: DeviceID?, in tenant: TenantID) throws
    /// Removes up to `limit` of the generations of a user's devices, and not the user's own.
    /// - Returns: how many.
    func removeDeviceGenerations(of user: UserID, in tenant: TenantID, limit: Int) throws -> Int
    func revocation(of token: String, in tenant: TenantID) throws -> UInt64?
    func revoke(token: String, in tenant: TenantID, until: UInt64) throws

    func presence(of user: UserID, in tenant: TenantID) throws -> PresenceRecord?
    func set(_ presence: PresenceRecord, of user: UserID, in tenant: TenantID) throws
    func removePresence(of user: UserID, in tenant: TenantID) throws

    func addErasure(_ erasure: PendingErasure) throws
    func removeErasure(_ erasure: PendingErasure) throws
    func erasures(limit: Int) throws -> [PendingErasure]
    func hasErasure(_ erasure: PendingErasure) throws -> Bool

    /// At most one for each platform.
    func places(of user: UserID, in tenant: TenantID) throws -> [PlaceRecord]
    func set(_ place: PlaceRecord, of user: UserID, in tenant: TenantID) throws
    func removePlaces(of user: UserID, in tenant: TenantID) throws

    /// Takes a step through what is kept of one kind, in some order, and removes: presence that hides nothing, devices and outboxes
    /// with all that hangs on them, expired tokens; channels whose last entry is old, rooms without entries and members, and
    /// inboxes without entries whose users have no device, no stay and no settings, with all that hangs on them.
    func sweep(_ stage: SweepStage, after mark: SweepMark, _ rule: SweepRule) throws -> SweepStep

    /// Removes up to `limit` rows of a user's devices: first all that hangs on them, then the devices.
    /// - Returns: the rows removed; fewer than `limit` when nothing is left.
    func removeDevices(of user: UserID, in tenant: TenantID, limit: Int) throws -> Int
    /// Removes a channel that has no entries, and that nothing names.
    func remove(_ channel: ChannelRecord) throws
}
