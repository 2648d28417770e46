import LonglineWire
import NIOCore

/// The rules of every store, over tables that have none. One writer uses it at a time, within a transaction.
struct StoreLogic<Tables: StoreTables> {
    let tables: Tables
    let limits: StoreLimits
    /// The wall clock, in milliseconds since 1970.
    let clock: @Sendable () -> UInt64
    var random: any RandomNumberGenerator & Sendable
    /// Acknowledgements that a ledger remembers.
    var remembered = PublishLedger.remembered

    /// A device's or outbox's `seen` is written at most this often while it publishes, in milliseconds: once a day.
    private static var seenStep: UInt64 { 24 * 3_600 * 1_000 }

    init(
        tables: Tables, limits: StoreLimits, clock: @escaping @Sendable () -> UInt64,
        random: any RandomNumberGenerator & Sendable
    ) {
        self.tables = tables
        self.limits = limits
        self.clock = clock
        self.random = random
    }

    // MARK: Channels

    /// Never 0, which stands for "not known" on the wire.
    mutating func drawEpoch() -> Epoch {
        while true {
            let epoch: UInt64 = random.next()
            if epoch != 0 { return epoch }
        }
    }

    /// A channel; an inbox is made on first sight, a room isn't.
    mutating func channel(_ key: ChannelKey) throws -> ChannelRecord? {
        if let known = try tables.channel(key) { return known }
        guard case .user = key.channel else { return nil }
        return try addChannel(key)
    }

    mutating func addChannel(_ key: ChannelKey) throws -> ChannelRecord {
        try tables.addChannel(key, epoch: drawEpoch(), begin: tables.lastOffset())
    }

    /// Why a publish can't be the first of a broadcast, which it makes; nil when it can.
    private func refusalOfNewBroadcast(_ publish: Publish, _ key: ChannelKey) throws -> Refused? {
        // Everything that could refuse it later: a broadcast that is made is there for good, and they are few.
        // No ledger knows what isn't there.
        if publish.after > 0 { return Refused(id: publish.id, code: .outOfOrder) }
        if publish.recipient != nil { return Refused(id: publish.id, code: .unknownRecipient) }
        guard publish.following == 0, publish.payload.readableBytes <= limits.maximumPayload else {
            return Refused(id: publish.id, code: .payloadTooLarge)
        }
        switch publish.kind {
        case .message: break
        case .request: return Refused(id: publish.id, code: .unknownRecipient)
        case .edit, .retract, .react, .reply: return Refused(id: publish.id, code: .unknownTarget)
        }
        let isFull = try tables.broadcasts(in: key.tenant).count >= limits.broadcastsPerTenant
        return isFull ? Refused(id: publish.id, code: .limitReached) : nil
    }

    /// Enters an entry at the channel's end; fills in offset, previous and time.
    func enter(_ draft: Entry, in channel: inout ChannelRecord, now: UInt64) throws -> Entry {
        var entry = draft
        entry.previous = channel.head
        entry.offset = try tables.nextOffset()
        precondition(entry.offset > channel.head, "offsets grow along a channel")
        entry.time = max(now, channel.time)
        channel.head = entry.offset
        channel.time = entry.time
        channel.entries += 1
        channel.bytes += entry.payload.readableBytes
        try tables.add(entry, to: channel)
        try tables.update(channel)
        if ClockMark.isAhead(entry.time, now) { try markClock(now) }
        return entry
    }

    // MARK: Devices and their outboxes

    /// The record of a device, made on first sight, and noted as seen.
    func seenDevice(_ key: DeviceKey, now: UInt64, step: UInt64 = 0) throws -> DeviceRecord {
        guard var device = try tables.device(key) else {
            return try tables.addDevice(key, seen: now, begin: tables.lastOffset())
        }
        if now > device.seen, now - device.seen > step {
            device.seen = now
            try tables.update(device)
        }
        return device
    }

    /// The record of an outbox, made on first sight, and noted as seen; nil when the device has too many.
    func seenProducer(_ id: ProducerID, of device: DeviceRecord, now: UInt64, step: UInt64 = 0) throws
        -> ProducerRecord?
    {
        guard var producer = try tables.producer(id, of: device) else {
            guard device.producers < limits.producersPerDevice else { return nil }
            var counted = device
            counted.producers += 1
            try tables.update(counted)
            return try tables.addProducer(id, of: counted, seen: now)
        }
        if now > producer.seen, now - producer.seen > step {
            producer.seen = now
            try tables.update(producer, id, of: device)
        }
        return producer
    }

    // MARK: Publish

    /// Judges one publish and enters it.
    mutating func append(_ request: AppendRequest) throws -> AppendOutcome {
        let publish = request.publish
        func refused(_ code: RefusalCode, retryAfter: UInt64 = 0) -> AppendOutcome {
            .refused(Refused(id: publish.id, code: code, retryAfter: retryAfter))
        }
        guard PublishLedger.isValid(id: publish.id, after: publish.after) else { return refused(.invalidID) }
        if case .user(let owner) = request.channel, owner != request.device.user { return refused(.unknownChannel) }
        let key = ChannelKey(tenant: request.device.tenant, channel: request.channel)
        var place = try channel(key)
        if place == nil, let refusal = request.refusal { return refused(refusal) }
        if place == nil, case .all = request.channel {
            if let refusal = try refusalOfNewBroadcast(publish, key) { return .refused(refusal) }
            let device = try seenDevice(request.device, now: clock(), step: Self.seenStep)
            guard try seenProducer(request.producer, of: device, now: clock(), step: Self.seenStep) != nil else {
                return refused(.overloaded, retryAfter: limits.retryAfter)
            }
            place = try addChannel(key)
        }
        guard var channel = place else { return refused(.unknownChannel) }

        let known = try tables.device(request.device)
        let producer = try known.flatMap { try tables.producer(request.producer, of: $0) }
        var head = try producer.map { try tables.ledger($0, in: channel) } ?? LedgerHead()
        let barrier = try request.refusal ?? self.barrier(to: request, in: channel)
        // Who never published there has nothing to be acknowledged, and learns nothing about a room, not even whether it
        // exists. Who did gets the answers to what was entered before the leave.
        if let barrier, head.lastID == 0 { return refused(barrier) }
        let verdict = try PublishLedger.judge(
            id: publish.id, tag: publish.tag, after: publish.after, lastID: head.lastID,
            oldest: {
                guard head.remembered >= remembered, let producer else { return 0 }
                return try tables.oldestAnswer(of: producer, in: channel)
            },
            answer: { id in try producer.flatMap { try tables.answer(id, of: $0, in: channel) } })
        switch verdict {
        case .duplicate(var published):
            // The entry stands in the log's present life, also when the ledger's row comes from one before a restore.
            published.position.epoch = channel.epoch
            return .duplicate(published)
        // Nothing of a stranger's will be entered, whatever its order: else a backlog would end one row at a time.
        case .refuse(let refusal) where refusal.code == .outOfOrder:
            return barrier.map { refused($0) } ?? .refused(refusal)
        case .refuse(let refusal): return .refused(refusal)
        case .enter: break
        }
        if let barrier { return refused(barrier) }
        guard publish.following == 0,
            publish.payload.readableBytes <= min(limits.maximumPayload, publish.kind.maximumPayload)
        else { return refused(.payloadTooLarge) }
        if publish.recipient != nil, request.channel != .user(request.device.user) { return refused(.unknownRecipient) }
        let now = clock()
        var named: Entry?
        switch try target(of: request, in: channel, now: now) {
        case .none: break
        case .entry(let entry): named = entry
        case .refused(let code): return refused(code)
        }
        let device = try seenDevice(request.device, now: now, step: Self.seenStep)
        guard let producer = try seenProducer(request.producer, of: device, now: now, step: Self.seenStep) else {
            return refused(.overloaded, retryAfter: limits.retryAfter)
        }

        // Looked up once for the block and the entry: each look costs a publish something.
        let conversation = try conversation(with: publish.recipient, of: channel)
        let isBlocking = conversation.map { $0.blocked != 0 } ?? false
        // What was said before the block may be taken back in spite of it.
        if isBlocking, !request.isModeration, publish.kind.entryKind != .retracted { return refused(.blocked) }
        // By the clock, and not by the channel's time, which may be ahead of it.
        let draft = Self.draft(request, naming: named, time: now)
        let entry = try enter(draft, in: &channel, now: now)
        if let conversation { try note(entry, in: conversation) }
        if let named, case .retract = publish.kind { try erase(named.offset, from: &channel) }
        let position = Position(epoch: channel.epoch, offset: entry.offset)
        let published = Published(id: publish.id, position: position, time: entry.time)
        try remember(LedgerAnswer(tag: publish.tag, published: published), &head, producer, channel)
        let copy = try copyToRecipient(
            entry, origin: position, request: request, named: named, isBlocking: isBlocking, now: now)
        return .entered(published, previous: entry.previous, expiry: entry.expiry, copy: copy)
    }

    private func remember(
        _ answer: LedgerAnswer, _ head: inout LedgerHead, _ producer: ProducerRecord, _ channel: ChannelRecord
    ) throws {
        precondition(answer.published.id > head.lastID, "last IDs only grow")
        head.lastID = answer.published.id
        let surplus = head.remembered + 1 - remembered
        if surplus > 0 { try tables.forgetOldestAnswers(surplus, of: producer, in: channel) }
        head.remembered += 1 - max(surplus, 0)
        try tables.remember(answer, head: head, of: producer, in: channel)
    }

    /// The recipient's copy of a direct message, keyed by the sender's record; none for a note to self, and for what is
    /// said of a message that the recipient never got, or only in an inbox that is gone.
    /// - Parameter isBlocking: the sender blocks the recipient.
    private mutating func copyToRecipient(
        _ record: Entry, origin: Position, request: AppendRequest, named: Entry?, isBlocking: Bool, now: UInt64
    ) throws -> InboxCopy? {
        guard let recipient = record.recipient, recipient != record.sender else { return nil }
        if let copy = try enterCopy(of: record, for: recipient, origin, request, named, isBlocking, now) {
            return copy
        }
        // Once the recipient's log is trimmed nothing else tells.
        if record.kind == .message { try tables.withholdCopy(of: record.offset) }
        // The copy's place in the sequence is used up, or who is blocked could tell by the next one's offset.
        _ = try tables.nextOffset()
        return nil
    }

    private mutating func enterCopy(
        of record: Entry, for recipient: UserID, _ origin: Position, _ request: AppendRequest, _ named: Entry?,
        _ isBlocking: Bool, _ now: UInt64
    ) throws -> InboxCopy? {
        let key = ChannelKey(tenant: request.device.tenant, channel: .user(recipient))
        guard var inbox = try channel(key) else { return nil }
        let conversation = try conversation(.user(record.sender), of: inbox)
        // Who is blocked is not told: what they send stays theirs alone. Only what they take back goes all the same.
        let isBlocked = conversation.blocked != 0 && !request.isModeration
        guard !isBlocked || record.kind == .retracted else { return nil }
        var copy = record
        copy.recipient = nil
        copy.origin = origin
        if let named {
            guard let target = try counterpart(of: named, in: inbox) else { return nil }
            copy.target = target
        }
        // A reason would be a word that arrives.
        let isOutOfTouch = isBlocked || isBlocking && !request.isModeration
        if isOutOfTouch { copy.payload = ByteBuffer() }
        copy = try enter(copy, in: &inbox, now: now)
        precondition(copy.offset == record.offset + 1, "a copy is drawn right after its record")
        // Nor does it bring the conversation to the front of the list.
        if !isOutOfTouch { try note(copy, in: conversation) }
        if let target = copy.target, copy.kind == .retracted { try erase(target, from: &inbox) }
        let position = Position(epoch: inbox.epoch, offset: copy.offset)
        return InboxCopy(
            channel: key.channel, position: position, target: copy.target, isOutOfTouch: isOutOfTouch)
    }

    private static func draft(_ request: AppendRequest, naming named: Entry?, time: UInt64) -> Entry {
        let publish = request.publish
        return Entry(
            offset: 0, previous: 0, kind: publish.kind.entryKind, sender: request.device.user,
            device: request.device.device, producer: request.producer, publishID: publish.id,
            recipient: publish.recipient, origin: nil, target: named?.offset, time: time,
            expiry: expiry(of: publish, naming: named, time: time), payload: publish.payload)
    }

    /// Why a user may not publish into a channel now, or nil.
    private func barrier(to request: AppendRequest, in channel: ChannelRecord) throws -> RefusalCode? {
        let user = request.device.user
        switch channel.key.channel {
        case .user(let owner): return owner == user ? nil : .unknownChannel
        case .room where request.isService: return nil
        case .room:
            guard let stay = try StoreRules.stay(of: user, in: channel, tables) else { return .unknownChannel }
            // Whoever wrote something may take it back, whatever the room has become.
            guard request.publish.kind.entryKind != .retracted else { return nil }
            return channel.publishing == .owners && stay.role != .owner ? .forbidden : nil
        // Who may is the credential's affair, and was looked at.
        case .all: return nil
        }
    }
}
