import GRDB
import LonglineWire
import NIOCore

/// ``StoreTables`` over one SQLite connection, within a transaction.
///
/// The writer's instance lives as long as the store and remembers hot rows between transactions; changes of channels are written
/// once at the end of a transaction (``flush()``). After a rollback nothing remembered is true: ``forget()``.
///
/// A transaction costs what it writes pages, each of which goes to the log whole. So a publish writes its entry, the index, its
/// channel and its answer, and no more: a ledger's head is what its answers say, offsets are reserved in blocks, and the oldest
/// answers go by the hundred.
final class SQLiteTables {
    struct ProducerKey: Hashable {
        let device: Int64
        let producer: ProducerID
    }
    struct LedgerKey: Hashable {
        let producer: Int64
        let channel: Int64
    }
    struct ConversationKey: Hashable {
        let owner: Int64
        let name: ChannelID
    }
    struct StintKey: Hashable {
        let room: Int64
        let user: UserID
    }

    /// Rows remembered of each kind; at the limit all are forgotten.
    private static let rememberedRows = 50_000

    var db: Database
    /// The last offset drawn, and the one up to which they may be drawn: on disk, so that none comes twice.
    private var sequence: Offset?
    private var reserved: Offset = 0
    private var reservationIsDirty = false
    private static let offsetsReserved: Offset = 1_024
    private var channels: [ChannelKey: ChannelRecord] = [:]
    private var dirtyChannels: Set<ChannelKey> = []
    var devices: [DeviceKey: DeviceRecord] = [:]
    var producers: [ProducerKey: ProducerRecord] = [:]
    private var ledgers: [LedgerKey: LedgerHead] = [:]
    /// Last stays, and that a user had none.
    var stints: [StintKey: Stint?] = [:]
    /// Conversations, and that there is none.
    var conversations: [ConversationKey: ConversationRecord?] = [:]
    var dirtyConversations: Set<ConversationKey> = []
    /// How many of a ledger's lowest acknowledgements are to be forgotten. They still are on disk, and go before anybody looks.
    private var staleAnswers: [LedgerKey: Int] = [:]
    /// As many of one ledger, or ledgers with some, go with the next transaction.
    private static let staleAnswersKept = 256
    /// The statements of the publish path, for as long as the transaction lasts.
    private var insertEntry: BoundStatement?
    private var insertAnswer: BoundStatement?

    /// What this transaction added and changed, for the tail cache.
    private(set) var addedEntries: [(channel: ChannelKey, entry: Entry)] = []
    private(set) var changedChannels: [ChannelKey: ChannelRecord] = [:]
    /// What this transaction erased, for the tail cache.
    private(set) var erasedEntries: [ChannelKey: Set<Offset>] = [:]
    /// What this transaction removed, for the tail cache.
    private(set) var removedChannels: Set<ChannelKey> = []

    /// Bytes of a payload that an entry's row holds.
    let headBytes: Int

    init(_ db: Database, headBytes: Int = FrameLimits.maximumPayload) {
        self.db = db
        self.headBytes = headBytes
    }

    // MARK: Transactions

    func begin() {
        assert(dirtyChannels.isEmpty, "a transaction ends with flush or forget")
        insertEntry = nil
        insertAnswer = nil
        addedEntries.removeAll(keepingCapacity: true)
        changedChannels.removeAll(keepingCapacity: true)
        erasedEntries.removeAll()
        removedChannels.removeAll()
        if channels.count > Self.rememberedRows { channels.removeAll() }
        if devices.count > Self.rememberedRows { devices.removeAll() }
        if producers.count > Self.rememberedRows { producers.removeAll() }
        if ledgers.count > Self.rememberedRows { ledgers.removeAll() }
        if stints.count > Self.rememberedRows { stints.removeAll() }
        if conversations.count > Self.rememberedRows { conversations.removeAll() }
    }

    func forget() {
        (sequence, reserved, reservationIsDirty) = (nil, 0, false)
        channels.removeAll()
        dirtyChannels.removeAll()
        devices.removeAll()
        producers.removeAll()
        ledgers.removeAll()
        stints.removeAll()
        conversations.removeAll()
        dirtyConversations.removeAll()
        staleAnswers.removeAll()
        insertEntry = nil
        insertAnswer = nil
        addedEntries.removeAll()
        changedChannels.removeAll()
        erasedEntries.removeAll()
        removedChannels.removeAll()
    }

    func flush() throws {
        for key in dirtyChannels {
            guard let channel = channels[key] else { continue }
            try run(
                """
                UPDATE channels SET head = ?, first = ?, time = ?, entries = ?, bytes = ?, members = ?, owners = ?,
                    deleted = ?, joining = ?, publishing = ? WHERE id = ?
                """,
                [
                    Int64(channel.head), Int64(channel.first), Int64(channel.time), channel.entries, channel.bytes,
                    channel.members, channel.owners, Int64(channel.deleted), channel.joining.rawValue,
                    channel.publishing.rawValue, channel.id,
                ])
        }
        dirtyChannels.removeAll(keepingCapacity: true)
        try flushConversations()
        try forgetStaleAnswers(atLeast: staleAnswers.count > Self.staleAnswersKept ? 1 : Self.staleAnswersKept)
        if reservationIsDirty {
            try run("UPDATE store SET sequence = ?", [Int64(reserved)])
            reservationIsDirty = false
        }
        // A database can't be closed while somebody holds its statements.
        insertEntry = nil
        insertAnswer = nil
    }

    // MARK: Statements

    func run(_ sql: String, _ values: [any DatabaseValueConvertible]) throws {
        let statement = try db.cachedStatement(sql: sql)
        try statement.execute(arguments: StatementArguments(values))
    }

    func row(_ sql: String, _ values: [any DatabaseValueConvertible]) throws -> Row? {
        try Row.fetchOne(db.cachedStatement(sql: sql), arguments: StatementArguments(values))
    }

    func rows(_ sql: String, _ values: [any DatabaseValueConvertible]) throws -> [Row] {
        try Row.fetchAll(db.cachedStatement(sql: sql), arguments: StatementArguments(values))
    }

    // MARK: Channels

    static let channelColumns =
        "id, epoch, \"begin\", head, first, time, entries, bytes, members, owners, deleted, joining, publishing"
    static let channelColumnCount = 13

    /// A channel out of a row that begins with ``channelColumns``.
    /// - Throws: ``StoreError`` when the row was not written by a store.
    static func channel(_ row: Row, _ key: ChannelKey) throws -> ChannelRecord {
        guard let joining = RoomJoining(rawValue: row[11]), let publishing = RoomPublishing(rawValue: row[12]) else {
            throw StoreError(.unavailable, message: "channel \(row[0] as Int64) has unknown settings")
        }
        return ChannelRecord(
            id: row[0], key: key, epoch: Epoch(bitPattern: row[1]), begin: row[2], head: row[3], first: row[4],
            time: row[5], entries: row[6], bytes: row[7], members: row[8], owners: row[9], deleted: row[10],
            joining: joining, publishing: publishing)
    }
}

extension SQLiteTables: StoreTables {
    func channel(_ key: ChannelKey) throws -> ChannelRecord? {
        if let known = channels[key] { return known }
        let row = try row(
            "SELECT \(Self.channelColumns) FROM channels WHERE tenant = ? AND name = ?",
            [key.tenant.description, key.channel.description])
        guard let row else { return nil }
        let record = try Self.channel(row, key)
        channels[key] = record
        return record
    }

    func addChannel(_ key: ChannelKey, epoch: Epoch, begin: Offset) throws -> ChannelRecord {
        try run(
            """
            INSERT INTO channels (id, tenant, name, epoch, "begin") VALUES (
                1 + max(coalesce((SELECT max(id) FROM channels), 0), (SELECT removed_channel FROM store)), ?, ?, ?, ?)
            """,
            [key.tenant.description, key.channel.description, Int64(bitPattern: epoch), Int64(begin)])
        let record = ChannelRecord(id: db.lastInsertedRowID, key: key, epoch: epoch, begin: begin)
        channels[key] = record
        return record
    }

    func update(_ channel: ChannelRecord) throws {
        channels[channel.key] = channel
        changedChannels[channel.key] = channel
        dirtyChannels.insert(channel.key)
    }

    func nextOffset() throws -> Offset {
        let next = try lastOffset() + 1
        if next > reserved {
            reserved = next + Self.offsetsReserved - 1
            reservationIsDirty = true
        }
        sequence = next
        return next
    }

    func lastOffset() throws -> Offset {
        if let sequence { return sequence }
        // After a start, or a transaction that failed, what was reserved and not drawn is passed over.
        let last: Offset = try row("SELECT sequence FROM store", []).map { $0[0] } ?? 0
        (sequence, reserved) = (last, last)
        return last
    }

    func lastOffset(in channel: ChannelRecord, through offset: Offset) throws -> Offset? {
        try row(
            "SELECT offset FROM entries WHERE channel = ? AND offset <= ? ORDER BY offset DESC LIMIT 1",
            [channel.id, Int64(clamping: offset)]
        ).map { $0[0] }
    }

    func broadcasts(in tenant: TenantID) throws -> [ChannelRecord] {
        // '0' follows '/': all names that begin with all/, from the index.
        let found = try rows(
            "SELECT \(Self.channelColumns), name FROM channels WHERE tenant = ? AND name > 'all/' AND name < 'all0' ORDER BY name",
            [tenant.description])
        return try found.map { row in
            let record = try Self.channel(row, try Self.key(row[Self.channelColumnCount], tenant))
            // What this transaction changed is not written yet.
            return channels[record.key] ?? record
        }
    }

    func add(_ whole: Entry, to channel: ChannelRecord) throws {
        let entry = whole.head(headBytes)
        if entry.following > 0, entry.origin == nil { try addParts(of: whole) }
        let statement =
            try insertEntry
            ?? BoundStatement(
                db,
                """
                INSERT INTO entries (offset, channel, previous, kind, sender, device, producer_high, producer_low, publish_id,
                    recipient, origin_epoch, origin_offset, time, expiry, payload, target, following)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """)
        insertEntry = statement
        try statement.run { values in
            values.add(entry.offset)
            values.add(channel.id)
            values.add(entry.previous)
            values.add(Int64(entry.kind.rawValue))
            values.add(entry.sender.description)
            values.add(entry.device.description)
            values.add(entry.producer.high)
            values.add(entry.producer.low)
            values.add(entry.publishID)
            if let recipient = entry.recipient { values.add(recipient.description) } else { values.addNull() }
            if let origin = entry.origin {
                values.add(origin.epoch)
                values.add(origin.offset)
            } else {
                values.addNull()
                values.addNull()
            }
            values.add(entry.time)
            values.add(entry.expiry)
            values.add(entry.payload)
            if let target = entry.target { values.add(target) } else { values.addNull() }
            values.add(entry.following)
        }
        addedEntries.append((channel.key, entry))
    }

    func erased(_ offset: Offset, in channel: ChannelKey) { erasedEntries[channel, default: []].insert(offset) }

    func oldest(in channel: ChannelRecord, limit: Int) throws -> [EntrySummary] {
        try rows(
            """
            SELECT offset, time, length(payload) + following,
                CASE WHEN kind = 0 AND origin_offset IS NOT NULL THEN sender END
            FROM entries WHERE channel = ? ORDER BY offset LIMIT ?
            """, [channel.id, limit]
        ).map { row in
            EntrySummary(
                offset: row[0], time: row[1], bytes: row[2],
                incomingFrom: try (row[3] as String?).map { try UserID($0) })
        }
    }

    func removeEntries(in channel: ChannelRecord, through offset: Offset) throws {
        let large = try largePayloads(in: channel, through: offset)
        try run("DELETE FROM entries WHERE channel = ? AND offset <= ?", [channel.id, Int64(offset)])
        try removeParts(large)
    }

    // MARK: Ledgers

    func ledger(_ producer: ProducerRecord, in channel: ChannelRecord) throws -> LedgerHead {
        let key = LedgerKey(producer: producer.id, channel: channel.id)
        if let known = ledgers[key] { return known }
        // The last ID's answer is there as long as the ledger is: only older ones are forgotten.
        let row = try row(
            "SELECT max(publish_id), count(*) FROM answers WHERE producer = ? AND channel = ?",
            [producer.id, channel.id])
        var head = LedgerHead()
        if let row, let lastID = row[0] as Int64? {
            head = LedgerHead(
                lastID: PublishID(bitPattern: lastID), remembered: row[1] as Int - (staleAnswers[key] ?? 0))
        }
        ledgers[key] = head
        return head
    }

    func answer(_ id: PublishID, of producer: ProducerRecord, in channel: ChannelRecord) throws -> LedgerAnswer? {
        try forgetStaleAnswers(atLeast: 1)
        return try row(
            "SELECT tag, epoch, offset, time FROM answers WHERE producer = ? AND channel = ? AND publish_id = ?",
            [producer.id, channel.id, Int64(id)]
        ).map { row in
            let position = Position(epoch: Epoch(bitPattern: row[1]), offset: row[2])
            return LedgerAnswer(
                tag: PublishTag(bitPattern: row[0]), published: Published(id: id, position: position, time: row[3]))
        }
    }

    func oldestAnswer(of producer: ProducerRecord, in channel: ChannelRecord) throws -> PublishID {
        try forgetStaleAnswers(atLeast: 1)
        return try row(
            "SELECT min(publish_id) FROM answers WHERE producer = ? AND channel = ?", [producer.id, channel.id]
        ).flatMap { $0[0] as Int64? }.map { PublishID(bitPattern: $0) } ?? 0
    }

    func remember(_ answer: LedgerAnswer, head: LedgerHead, of producer: ProducerRecord, in channel: ChannelRecord)
        throws
    {
        let key = LedgerKey(producer: producer.id, channel: channel.id)
        let published = answer.published
        let statement =
            try insertAnswer
            ?? BoundStatement(
                db,
                "INSERT INTO answers (producer, channel, publish_id, tag, epoch, offset, time) VALUES (?, ?, ?, ?, ?, ?, ?)"
            )
        insertAnswer = statement
        try statement.run { values in
            values.add(producer.id)
            values.add(channel.id)
            values.add(published.id)
            values.add(answer.tag)
            values.add(published.position.epoch)
            values.add(published.position.offset)
            values.add(published.time)
        }
        if ledgers[key]?.lastID ?? 0 == 0 {
            try run("INSERT OR IGNORE INTO ledgers (producer, channel) VALUES (?, ?)", [producer.id, channel.id])
        }
        ledgers[key] = head
    }

    func forgetOldestAnswers(_ count: Int, of producer: ProducerRecord, in channel: ChannelRecord) throws {
        staleAnswers[LedgerKey(producer: producer.id, channel: channel.id), default: 0] += count
    }

    /// - Parameter least: of ledgers with fewer they stay.
    private func forgetStaleAnswers(atLeast least: Int) throws {
        for (key, count) in staleAnswers where count >= least {
            try run(
                """
                DELETE FROM answers WHERE producer = ?1 AND channel = ?2 AND publish_id IN
                    (SELECT publish_id FROM answers WHERE producer = ?1 AND channel = ?2 ORDER BY publish_id LIMIT ?3)
                """, [key.producer, key.channel, count])
            staleAnswers[key] = nil
        }
    }

    /// What is known of a channel that was removed.
    func forget(_ channel: ChannelKey) {
        channels[channel] = nil
        dirtyChannels.remove(channel)
        changedChannels[channel] = nil
        addedEntries.removeAll { $0.channel == channel }
        removedChannels.insert(channel)
    }

    func forgetDevices() {
        devices.removeAll()
        producers.removeAll()
        ledgers.removeAll()
        // Their numbers may be given to others. What stays of a ledger too long goes with its next publish.
        staleAnswers.removeAll()
    }
}
