import LonglineWire
import NIOCore

/// ``StoreTables`` in dictionaries.
final class MemoryTables: StoreTables {
    struct LedgerKey: Hashable {
        let producer: Int64
        let channel: Int64
    }
    struct Ledger {
        var head = LedgerHead()
        /// In the order of their IDs.
        var answers: [LedgerAnswer] = []
    }
    struct ProducerKey: Hashable {
        let device: Int64
        let producer: ProducerID
    }
    struct UserKey: Hashable {
        let tenant: TenantID
        let user: UserID
    }
    private struct GenerationKey: Hashable {
        let user: UserKey
        let device: DeviceID?
    }
    struct TokenKey: Hashable {
        let tenant: TenantID
        let token: String
    }

    /// Bytes of a payload that an entry of a page holds.
    private let headBytes: Int
    private var lastID: Int64 = 0
    private var sequence: Offset = 0
    var channels: [ChannelKey: ChannelRecord] = [:]
    private var keys: [Int64: ChannelKey] = [:]
    private var broadcasts: [TenantID: [ChannelKey]] = [:]
    /// By channel, in the order of their offsets.
    private var logs: [Int64: [Entry]] = [:]
    /// Records of direct messages of which there is no copy.
    private var withheldCopies: Set<Offset> = []
    var devices: [DeviceKey: DeviceRecord] = [:]
    var producers: [ProducerKey: ProducerRecord] = [:]
    var ledgers: [LedgerKey: Ledger] = [:]
    var stintsByUser: [UserKey: [Int64: Stint]] = [:]
    var membersByRoom: [Int64: Set<UserID>] = [:]
    var deletionsByRoom: [Int64: [Offset]] = [:]
    var cursors: [Int64: [Int64: Position]] = [:]
    var conversations: [Int64: [ChannelID: ConversationRecord]] = [:]
    private var generations: [GenerationKey: UInt64] = [:]
    var tokens: [TokenKey: UInt64] = [:]
    var presences: [UserKey: PresenceRecord] = [:]
    private var placesByUser: [UserKey: [DevicePlatform: PlaceRecord]] = [:]
    private var pendingErasures: Set<PendingErasure> = []
    /// In the order of their offsets, and so of their times.
    private var clockMarks: [ClockMark] = []

    init(headBytes: Int) { self.headBytes = headBytes }

    private func nextID() -> Int64 {
        lastID += 1
        return lastID
    }

    /// Tables of their own that hold the same.
    func copy() -> MemoryTables {
        let copy = MemoryTables(headBytes: headBytes)
        (copy.lastID, copy.sequence) = (lastID, sequence)
        (copy.channels, copy.keys, copy.logs, copy.broadcasts) = (channels, keys, logs, broadcasts)
        copy.withheldCopies = withheldCopies
        (copy.devices, copy.producers, copy.ledgers) = (devices, producers, ledgers)
        (copy.stintsByUser, copy.membersByRoom) = (stintsByUser, membersByRoom)
        copy.deletionsByRoom = deletionsByRoom
        (copy.cursors, copy.generations, copy.tokens) = (cursors, generations, tokens)
        copy.conversations = conversations
        copy.presences = presences
        copy.placesByUser = placesByUser
        copy.pendingErasures = pendingErasures
        copy.clockMarks = clockMarks
        return copy
    }

    /// Gives every channel another epoch, in the order in which they were made.
    func changeEpochs(_ draw: () -> Epoch) {
        for id in keys.keys.sorted() {
            if let key = keys[id] { channels[key]?.epoch = draw() }
        }
    }

    // MARK: Channels

    func channel(_ key: ChannelKey) -> ChannelRecord? { channels[key] }

    func addChannel(_ key: ChannelKey, epoch: Epoch, begin: Offset) -> ChannelRecord {
        let record = ChannelRecord(id: nextID(), key: key, epoch: epoch, begin: begin)
        channels[key] = record
        keys[record.id] = key
        if case .all = key.channel { broadcasts[key.tenant, default: []].append(key) }
        return record
    }

    func update(_ channel: ChannelRecord) { channels[channel.key] = channel }

    func nextOffset() -> Offset {
        sequence += 1
        return sequence
    }

    func lastOffset() -> Offset { sequence }

    func lastOffset(in channel: ChannelRecord, through offset: Offset) -> Offset? {
        let log = logs[channel.id] ?? []
        let count = log.partitionIndex { $0.offset > offset }
        return count > 0 ? log[count - 1].offset : nil
    }

    func broadcasts(in tenant: TenantID) -> [ChannelRecord] {
        (broadcasts[tenant] ?? []).compactMap { channels[$0] }
            .sorted { $0.key.channel.description.utf8.lexicographicallyPrecedes($1.key.channel.description.utf8) }
    }

    func add(_ entry: Entry, to channel: ChannelRecord) { logs[channel.id, default: []].append(entry) }

    func payload(of offset: Offset, in channel: ChannelRecord, from: UInt64, maximumBytes: Int) -> ByteBuffer? {
        guard let entry = entries(in: channel, above: max(offset, 1) - 1).first, entry.offset == offset,
            from < entry.length
        else { return nil }
        let count = min(max(maximumBytes, 1), entry.payload.readableBytes - Int(from))
        return entry.payload.getSlice(at: entry.payload.readerIndex + Int(from), length: count)
    }

    func oldest(in channel: ChannelRecord, limit: Int) -> [EntrySummary] {
        (logs[channel.id] ?? []).prefix(limit).map {
            EntrySummary(
                offset: $0.offset, time: $0.time, bytes: $0.payload.readableBytes,
                incomingFrom: $0.countsAsUnread ? $0.sender : nil)
        }
    }

    func removeEntries(in channel: ChannelRecord, through offset: Offset) {
        let count = (logs[channel.id] ?? []).partitionIndex { $0.offset > offset }
        if !withheldCopies.isEmpty { withheldCopies.subtract((logs[channel.id] ?? []).prefix(count).map(\.offset)) }
        logs[channel.id]?.removeFirst(count)
    }

    func channels(above mark: Int64, limit: Int) -> [(id: Int64, summary: ChannelSummary)] {
        keys.filter { $0.key > mark }.sorted { $0.key < $1.key }.prefix(limit).compactMap { id, key in
            channels[key].map { record in
                let oldest = logs[id]?.first.map { min($0.time, clockMark(from: $0.offset) ?? $0.time) }
                let summary = ChannelSummary(key: key, entries: record.entries, bytes: record.bytes, oldest: oldest)
                return (id, summary)
            }
        }
    }

    func entries(
        in channel: ChannelRecord, above: Offset, through: Offset, downward: Bool, _ take: (Entry) -> Bool
    ) {
        let log = entries(in: channel, above: above).prefix { $0.offset <= through }
        if downward {
            _ = log.reversed().first { !take($0.head(headBytes)) }
        } else {
            _ = log.first { !take($0.head(headBytes)) }
        }
    }

    func clockMark(from offset: Offset) -> UInt64? { clockMarks.first { $0.offset >= offset }?.time }

    func lastClockMark() -> UInt64? { clockMarks.last?.time }

    func markClock(_ time: UInt64) {
        clockMarks.removeAll { $0.time >= time }
        if clockMarks.last?.offset != sequence { clockMarks.append(ClockMark(offset: sequence, time: time)) }
        guard clockMarks.count > ClockMark.most else { return }
        let last = clockMarks.count - 1
        clockMarks = clockMarks.indices.filter { (last - $0) % 2 == 0 }.map { clockMarks[$0] }
    }

    func entry(at offset: Offset, in channel: ChannelRecord) -> Entry? {
        guard offset > 0, let entry = entries(in: channel, above: offset - 1).first else { return nil }
        return entry.offset == offset ? entry : nil
    }

    func edits(of offset: Offset, in channel: ChannelRecord, limit: Int) -> [EntrySummary] {
        entries(in: channel, above: offset).lazy.filter { $0.kind == .edited && $0.target == offset }.prefix(limit).map
        {
            EntrySummary(offset: $0.offset, time: $0.time, bytes: $0.payload.readableBytes)
        }
    }

    func withholdCopy(of record: Offset) { withheldCopies.insert(record) }

    func isCopyWithheld(of record: Offset) -> Bool { withheldCopies.contains(record) }

    func erase(_ offset: Offset, in channel: ChannelRecord) {
        let index = (logs[channel.id] ?? []).partitionIndex { $0.offset >= offset }
        logs[channel.id]?[index].erase()
    }

    /// The entries above an offset, in order, with all of their payloads.
    func entries(in channel: ChannelRecord, above offset: Offset) -> ArraySlice<Entry> {
        let log = logs[channel.id] ?? []
        return log[log.partitionIndex { $0.offset > offset }...]
    }

    // MARK: Devices

    func device(_ key: DeviceKey) -> DeviceRecord? { devices[key] }

    func addDevice(_ key: DeviceKey, seen: UInt64, begin: Offset) -> DeviceRecord {
        let record = DeviceRecord(id: nextID(), key: key, seen: seen, begin: begin)
        devices[key] = record
        return record
    }

    func update(_ device: DeviceRecord) { devices[device.key] = device }

    func producer(_ producer: ProducerID, of device: DeviceRecord) -> ProducerRecord? {
        producers[ProducerKey(device: device.id, producer: producer)]
    }

    func addProducer(_ producer: ProducerID, of device: DeviceRecord, seen: UInt64) -> ProducerRecord {
        let record = ProducerRecord(id: nextID(), seen: seen)
        producers[ProducerKey(device: device.id, producer: producer)] = record
        return record
    }

    func update(_ producer: ProducerRecord, _ id: ProducerID, of device: DeviceRecord) {
        producers[ProducerKey(device: device.id, producer: id)] = producer
    }

    // MARK: Ledgers

    func ledger(_ producer: ProducerRecord, in channel: ChannelRecord) -> LedgerHead {
        ledgers[LedgerKey(producer: producer.id, channel: channel.id)]?.head ?? LedgerHead()
    }

    func answer(_ id: PublishID, of producer: ProducerRecord, in channel: ChannelRecord) -> LedgerAnswer? {
        ledgers[LedgerKey(producer: producer.id, channel: channel.id)]?.answers.first { $0.published.id == id }
    }

    func oldestAnswer(of producer: ProducerRecord, in channel: ChannelRecord) -> PublishID {
        ledgers[LedgerKey(producer: producer.id, channel: channel.id)]?.answers.first?.published.id ?? 0
    }

    func remember(_ answer: LedgerAnswer, head: LedgerHead, of producer: ProducerRecord, in channel: ChannelRecord) {
        let key = LedgerKey(producer: producer.id, channel: channel.id)
        ledgers[key, default: Ledger()].head = head
        ledgers[key]?.answers.append(answer)
    }

    func forgetOldestAnswers(_ count: Int, of producer: ProducerRecord, in channel: ChannelRecord) {
        ledgers[LedgerKey(producer: producer.id, channel: channel.id)]?.answers.removeFirst(count)
    }

    // MARK: Rooms

    func stint(of user: UserID, in room: ChannelRecord) -> Stint? {
        stintsByUser[UserKey(tenant: room.key.tenant, user: user)]?[room.id]
    }

    func stints(of user: UserID, in tenant: TenantID) -> [(room: ChannelRecord, stint: Stint)] {
        let stints = stintsByUser[UserKey(tenant: tenant, user: user)] ?? [:]
        return stints.sorted { $0.key < $1.key }.compactMap { id, stint in
            keys[id].flatMap { channels[$0] }.map { ($0, stint) }
        }
    }

    func set(_ stint: Stint, of user: UserID, in room: ChannelRecord) {
        stintsByUser[UserKey(tenant: room.key.tenant, user: user), default: [:]][room.id] = stint
        if stint.left == nil {
            membersByRoom[room.id, default: []].insert(user)
        } else {
            membersByRoom[room.id]?.remove(user)
        }
    }

    func removeStint(of user: UserID, in room: ChannelRecord) {
        stintsByUser[UserKey(tenant: room.key.tenant, user: user)]?[room.id] = nil
        membersByRoom[room.id]?.remove(user)
    }

    func addDeletion(_ offset: Offset, of room: ChannelRecord) {
        let known = deletionsByRoom[room.id] ?? []
        let open = (membersByRoom[room.id] ?? []).compactMap { stint(of: $0, in: room)?.joined }
        let ending = Set(open.compactMap { joined in known.first { $0 > joined } })
        deletionsByRoom[room.id] = known.filter(ending.contains) + [offset]
    }

    func deletion(of room: ChannelRecord, after offset: Offset) -> Offset? {
        deletionsByRoom[room.id]?.first { $0 > offset }
    }

    /// The members' rows; those from before the room's last deletion don't count.
    private func stays(in room: ChannelRecord) -> [(user: UserID, stint: Stint)] {
        (membersByRoom[room.id] ?? []).compactMap { user in
            guard let stint = stint(of: user, in: room), stint.after(deletionOf: room).left == nil else { return nil }
            return (user, stint)
        }
    }

    func members(of room: ChannelRecord, after user: UserID?, limit: Int) -> [RoomMember] {
        let behind = Array((user?.description ?? "").utf8)
        return stays(in: room).filter { behind.lexicographicallyPrecedes(Array($0.user.description.utf8)) }
            .sorted { $0.user.description.utf8.lexicographicallyPrecedes($1.user.description.utf8) }.prefix(limit)
            .map { RoomMember(user: $0.user, role: $0.stint.role) }
    }

    func oldestMember(of room: ChannelRecord) -> UserID? {
        stays(in: room).min { $0.stint.joined < $1.stint.joined }?.user
    }

    // MARK: Cursors

    func cursors(of device: DeviceRecord) -> [(channel: ChannelRecord, position: Position)] {
        (cursors[device.id] ?? [:]).compactMap { id, position in
            keys[id].flatMap { channels[$0] }.map { ($0, position) }
        }
    }

    func cursor(of device: DeviceRecord, in channel: ChannelRecord) -> Position? { cursors[device.id]?[channel.id] }

    func set(_ cursor: Position, of device: DeviceRecord, in channel: ChannelRecord) {
        cursors[device.id, default: [:]][channel.id] = cursor
    }

    func removeCursors(of user: UserID, in channel: ChannelRecord) {
        for device in devices.values where device.key.tenant == channel.key.tenant && device.key.user == user {
            cursors[device.id]?[channel.id] = nil
        }
    }

    // MARK: Conversations

    func conversation(_ name: ChannelID, of inbox: ChannelRecord) -> ConversationRecord? {
        conversations[inbox.id]?[name]
    }

    func update(_ conversation: ConversationRecord) {
        conversations[conversation.owner, default: [:]][conversation.name] = conversation
    }

    func directConversations(of inbox: ChannelRecord, after: ConversationPlace?, limit: Int) -> [ConversationRecord] {
        let direct = (conversations[inbox.id] ?? [:]).values.filter { conversation in
            guard case .user = conversation.name else { return false }
            return after.map { ConversationPlace.comesBefore($0, conversation.place) } ?? true
        }
        return Array(direct.sorted { ConversationPlace.comesBefore($0.place, $1.place) }.prefix(limit))
    }

    func countSettings(of inbox: ChannelRecord) -> Int {
        (conversations[inbox.id] ?? [:]).values.count { $0.hasSettings }
    }

    func conversationsWithSettings(of inbox: ChannelRecord) -> [ConversationRecord] {
        (conversations[inbox.id] ?? [:]).values.filter(\.hasSettings)
    }

    func count(
        _ what: Counted, in channel: ChannelRecord, above: Offset, through: Offset, by authors: Authors, limit: Int,
        looking: Int, now: UInt64
    ) -> UnreadCount {
        let looked = entries(in: channel, above: above).prefix { $0.offset <= through }.prefix(looking)
        let count = looked.count {
            what.includes($0.kind) && authors.includes($0.sender) && !$0.isExpired(at: now)
        }
        return UnreadCount(count: min(limit, count), looked: looked.count, last: looked.last?.offset ?? above)
    }

    func highestCursor(of user: UserID, in channel: ChannelRecord) -> Offset {
        let ids = devices.values.filter { $0.key.tenant == channel.key.tenant && $0.key.user == user }.map(\.id)
        return ids.compactMap { cursors[$0]?[channel.id] }.filter { $0.epoch == channel.epoch }.map(\.offset).max() ?? 0
    }

    func removeConversation(_ name: ChannelID, of inbox: ChannelRecord) { conversations[inbox.id]?[name] = nil }

    func removeConversations(of inbox: ChannelRecord, limit: Int) -> Int {
        let names = (conversations[inbox.id] ?? [:]).keys.prefix(limit)
        for name in names { conversations[inbox.id]?[name] = nil }
        return names.count
    }

    // MARK: Revocations

    func generation(of user: UserID, device: DeviceID?, in tenant: TenantID) -> UInt64 {
        generations[GenerationKey(user: UserKey(tenant: tenant, user: user), device: device)] ?? 0
    }

    func set(generation: UInt64, of user: UserID, device: DeviceID?, in tenant: TenantID) {
        generations[GenerationKey(user: UserKey(tenant: tenant, user: user), device: device)] = generation
    }

    func removeDeviceGenerations(of user: UserID, in tenant: TenantID, limit: Int) -> Int {
        let owner = UserKey(tenant: tenant, user: user)
        let gone = generations.keys.filter { $0.user == owner && $0.device != nil }.prefix(limit)
        for key in gone { generations[key] = nil }
        return gone.count
    }

    func revocation(of token: String, in tenant: TenantID) -> UInt64? { tokens[TokenKey(tenant: tenant, token: token)] }

    func revoke(token: String, in tenant: TenantID, until: UInt64) {
        tokens[TokenKey(tenant: tenant, token: token)] = until
    }

    // MARK: Presence

    func presence(of user: UserID, in tenant: TenantID) -> PresenceRecord? {
        presences[UserKey(tenant: tenant, user: user)]
    }

    func set(_ presence: PresenceRecord, of user: UserID, in tenant: TenantID) {
        presences[UserKey(tenant: tenant, user: user)] = presence
    }

    func removePresence(of user: UserID, in tenant: TenantID) { presences[UserKey(tenant: tenant, user: user)] = nil }

    // MARK: Places

    func places(of user: UserID, in tenant: TenantID) -> [PlaceRecord] {
        Array((placesByUser[UserKey(tenant: tenant, user: user)] ?? [:]).values)
    }

    func set(_ place: PlaceRecord, of user: UserID, in tenant: TenantID) {
        placesByUser[UserKey(tenant: tenant, user: user), default: [:]][place.platform] = place
    }

    func removePlaces(of user: UserID, in tenant: TenantID) { placesByUser[UserKey(tenant: tenant, user: user)] = nil }

    // MARK: Erasures

    func addErasure(_ erasure: PendingErasure) { pendingErasures.insert(erasure) }

    func removeErasure(_ erasure: PendingErasure) { pendingErasures.remove(erasure) }

    func erasures(limit: Int) -> [PendingErasure] { Array(pendingErasures.prefix(limit)) }

    func hasErasure(_ erasure: PendingErasure) -> Bool { pendingErasures.contains(erasure) }

    // MARK: Erasure

    func removeDevices(of user: UserID, in tenant: TenantID, limit: Int) -> Int {
        var budget = limit
        for (key, device) in devices where key.tenant == tenant && key.user == user {
            let outboxes = producers.filter { $0.key.device == device.id }
            for (outbox, record) in outboxes {
                for (ledgerKey, ledger) in ledgers where ledgerKey.producer == record.id {
                    let count = min(budget, ledger.answers.count)
                    ledgers[ledgerKey]?.answers.removeLast(count)
                    budget -= count
                    guard budget > 0 else { return limit }
                    ledgers[ledgerKey] = nil
                    budget -= 1
                }
                guard budget > 0 else { return limit }
                producers[outbox] = nil
                budget -= 1
            }
            guard budget > 0 else { return limit }
            cursors[device.id] = nil
            devices[key] = nil
            budget -= 1
        }
        return limit - max(budget, 0)
    }

    func remove(_ channel: ChannelRecord) {
        assert(logs[channel.id]?.isEmpty ?? true, "a channel that is removed has no entries")
        channels[channel.key] = nil
        keys[channel.id] = nil
        logs[channel.id] = nil
    }
}
