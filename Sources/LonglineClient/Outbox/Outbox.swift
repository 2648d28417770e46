import LonglineWire
import NIOCore

/// What the app may have waiting at once.
public struct OutboxLimits: Hashable, Sendable {
    /// Messages in the outbox.
    public var messages: Int
    /// Payload bytes in the outbox. A message that is larger is refused.
    public var bytes: Int
    /// Messages without an answer in one channel; at most 1,024, since the service remembers as many answers.
    public var messagesPerChannel: Int

    /// Limits.
    public init(messages: Int = 10_000, bytes: Int = 64 * 1024 * 1024, messagesPerChannel: Int = 1024) {
        self.messages = messages
        self.bytes = bytes
        self.messagesPerChannel = messagesPerChannel
    }

    /// Whether a payload of so many bytes has room beside so many messages and bytes. One that never will is no matter of waiting.
    func checkRoom(for size: Int, messages: Int, bytes: Int) throws(ClientError) {
        guard size <= self.bytes else {
            throw ClientError(
                .payloadTooLarge, message: "\(size) bytes, and the outbox may hold \(self.bytes)",
                advice: "raise the outbox limits, or store the data elsewhere and send a reference")
        }
        guard messages < self.messages, bytes + size <= self.bytes else {
            throw ClientError(
                .outboxFull, message: "\(messages) messages of \(bytes) bytes wait for the service",
                advice: "wait for earlier messages to be acknowledged, or raise the outbox limits")
        }
    }
}

/// The publishes without an answer, and the numbering that lets the service tell a repetition from a new message.
///
/// Invariants:
/// 1. IDs grow in the order of ``add(channel:recipient:kind:timeToLive:queuedAt:tag:payload:send:attempted:)`` and are never used twice by
///    one producer.
/// 2. Within a channel, a row's `after` is the ID before it that was not given up; the chain of the channel is the last
///    such ID. So a publish that overtook another is noticed by the service.
/// 3. A given-up row leaves the chain: the one behind it names the one before it.
struct Outbox: Sendable {
    private let limits: OutboxLimits
    private(set) var producer: ProducerID
    private(set) var lastID: PublishID
    private(set) var chains: [ChannelID: PublishID]
    private(set) var rows: [PublishID: StoredPublish] = [:]
    /// The row that names an ID as the one before it. An ID is of one channel, so that one table does for all; 0 is no ID.
    private var successors: [PublishID: PublishID] = [:]
    private var perChannel: [ChannelID: Int] = [:]
    private var ids: [SendID: PublishID] = [:]
    private(set) var ages: [SendID: OutboxAge] = [:]
    /// Rows that can't have left the device.
    private var fresh: Set<PublishID> = []
    private(set) var bytes = 0

    init(
        producer: ProducerID, lastID: PublishID = 0, chains: [ChannelID: PublishID] = [:],
        rows: [StoredPublish] = [], limits: OutboxLimits = OutboxLimits()
    ) {
        self.producer = producer
        self.limits = limits
        self.chains = chains
        // A storage that lost the counter but kept the rows must not use an ID again.
        self.lastID = rows.reduce(lastID) { max($0, $1.id) }
        for row in rows { insert(row) }
    }

    var count: Int { rows.count }

    /// All rows in ID order.
    var inOrder: [StoredPublish] { rows.values.sorted { $0.id < $1.id } }

    /// A row by the name that the app knows it by.
    func row(of send: SendID) -> StoredPublish? { ids[send].flatMap { rows[$0] } }

    func age(of send: SendID) -> OutboxAge? { ages[send] }

    /// Notes how long a row has waited, when this process sees it first.
    mutating func note(_ age: OutboxAge, of send: SendID) {
        if ids[send] != nil, ages[send] == nil { ages[send] = age }
    }

    /// Takes over what an earlier outbox of this process noted: it saw the messages first.
    mutating func goOn(with ages: [SendID: OutboxAge]) {
        for (send, age) in ages where ids[send] != nil { self.ages[send] = age }
    }

    /// From now on every row may leave the device.
    /// - Returns: those that couldn't have until now, in ID order.
    mutating func attemptAll() -> [PublishID] {
        defer { fresh.removeAll() }
        for id in fresh { rows[id]?.attempted = true }
        return fresh.sorted()
    }

    /// Draws an ID and puts a message in.
    mutating func add(
        channel: ChannelID, recipient: UserID?, kind: PublishKind = .message, timeToLive: UInt64, queuedAt: UInt64,
        tag: PublishTag, payload: ByteBuffer, send: SendID, attempted: Bool
    ) throws(ClientError) -> StoredPublish {
        try checkRoom(for: payload.readableBytes, limit: kind.maximumPayload, in: channel)
        lastID += 1
        let row = StoredPublish(
            id: lastID, tag: tag, after: chains[channel] ?? 0, channel: channel, recipient: recipient, kind: kind,
            timeToLive: timeToLive, queuedAt: queuedAt, payload: payload, send: send, attempted: attempted)
        chains[channel] = row.id
        insert(row)
        return row
    }

    /// Whether a payload may be so large.
    static func check(_ size: Int, limit: Int) throws(ClientError) {
        guard size <= limit else {
            throw ClientError(
                .payloadTooLarge, message: "\(size) bytes, and the most is \(limit)",
                advice: "split the message, or store the data elsewhere and send a reference")
        }
    }

    private func checkRoom(for size: Int, limit: Int, in channel: ChannelID) throws(ClientError) {
        try Self.check(size, limit: limit)
        try limits.checkRoom(for: size, messages: rows.count, bytes: bytes)
        let limit = min(limits.messagesPerChannel, FrameLimits.maximumUnacknowledged)
        guard perChannel[channel, default: 0] < limit else {
            throw ClientError(
                .channelFull, message: "\(limit) messages to \(channel) wait for the service",
                advice: "wait for earlier messages to be acknowledged")
        }
    }

    private mutating func insert(_ row: StoredPublish) {
        rows[row.id] = row
        chain(row)
        ids[row.send] = row.id
        if !row.attempted { fresh.insert(row.id) }
        perChannel[row.channel, default: 0] += 1
        bytes += row.payload.readableBytes
    }

    private mutating func chain(_ row: StoredPublish) {
        if row.after != 0 { successors[row.after] = row.id }
    }

    /// The service entered a publish.
    /// - Returns: the row, or nil when it wasn't waiting any more.
    mutating func acknowledge(_ id: PublishID) -> StoredPublish? {
        guard let row = rows.removeValue(forKey: id) else { return nil }
        ids[row.send] = nil
        ages[row.send] = nil
        fresh.remove(id)
        // A storage that was tampered with may have two rows behind one.
        if successors[row.after] == id { successors[row.after] = nil }
        if let left = perChannel[row.channel], left > 1 {
            perChannel[row.channel] = left - 1
        } else {
            perChannel[row.channel] = nil
        }
        bytes -= row.payload.readableBytes
        assert(bytes >= 0 && perChannel.values.reduce(0, +) == rows.count && successors.count <= rows.count)
        return row
    }

    /// What giving up a publish changed beside the row itself.
    struct GivenUp: Equatable {
        var row: StoredPublish
        /// The row behind it, which names another one now.
        var rechained: StoredPublish?
        /// The new end of the channel's chain, if the row was the end.
        var chain: PublishID?
    }

    /// A publish will never be entered: it leaves the chain.
    mutating func giveUp(_ id: PublishID) -> GivenUp? {
        guard let row = acknowledge(id) else { return nil }
        var result = GivenUp(row: row, rechained: nil, chain: nil)
        if let next = successors.removeValue(forKey: id), var behind = rows[next] {
            assert(behind.after == id)
            behind.after = row.after
            rows[next] = behind
            chain(behind)
            result.rechained = behind
        }
        if chains[row.channel] == id {
            chains[row.channel] = row.after
            result.chain = row.after
        }
        return result
    }

    /// Starts again under a new producer: what waits is numbered from 1, in its old order, with new tags.
    /// - Returns: the new ID for each old one.
    mutating func renew(producer: ProducerID, random: inout some RandomNumberGenerator) -> [PublishID: PublishID] {
        let waiting = inOrder
        var renumbered: [PublishID: PublishID] = [:]
        self.producer = producer
        lastID = 0
        chains = [:]
        rows = [:]
        successors = [:]
        ids = [:]
        fresh = []
        for var row in waiting {
            lastID += 1
            renumbered[row.id] = lastID
            row.id = lastID
            row.tag = random.next()
            row.after = chains[row.channel] ?? 0
            chains[row.channel] = row.id
            rows[row.id] = row
            chain(row)
            ids[row.send] = row.id
            if !row.attempted { fresh.insert(row.id) }
        }
        return renumbered
    }
}
