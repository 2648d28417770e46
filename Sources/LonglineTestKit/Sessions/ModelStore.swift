import LonglineSession
public import LonglineWire
import NIOCore

/// The log, the ledger and the cursors of a simulation: what a store has to do, in the fewest words, and written apart
/// from the real stores, so that they can be compared.
///
/// Everything in it is durable: the simulated server calls it when a transaction commits. Entries that were trimmed stay
/// known here as the truth that deliveries are checked against.
public final class ModelStore {
    /// One channel's log.
    public struct Log {
        /// Its life.
        public let epoch: Epoch
        /// Every entry ever entered, in order.
        public var entries: [Entry] = []
        /// What lies at or below was trimmed.
        public var first: Offset = 0
        /// The last entry.
        public var head: Position { Position(epoch: epoch, offset: entries.last?.offset ?? 0) }

        /// The entries above an offset.
        func entries(above offset: Offset) -> ArraySlice<Entry> {
            var low = 0
            var high = entries.count
            while low < high {
                let middle = (low + high) / 2
                if entries[middle].offset > offset { high = middle } else { low = middle + 1 }
            }
            return entries[low...]
        }

        /// The entry at an offset.
        func entry(at offset: Offset) -> Entry? {
            entries(above: offset &- 1).first.flatMap { $0.offset == offset ? $0 : nil }
        }
    }

    /// The range of a room that a user may read.
    public struct Stint {
        /// Nothing at or below.
        public var after: Offset
        /// The leave entry.
        public var upTo: Offset?
    }

    struct LedgerKey: Hashable {
        let device: DeviceID
        let producer: ProducerID
        let channel: ChannelID
    }
    struct Ledger {
        var last: PublishID = 0
        var answers: [PublishID: (tag: PublishTag, published: Published)] = [:]
    }
    struct StintKey: Hashable {
        let user: UserID
        let channel: ChannelID
    }

    /// The logs.
    public private(set) var logs: [ChannelID: Log] = [:]
    private var ledgers: [LedgerKey: Ledger] = [:]
    private(set) var stints: [ChannelID: [UserID: Stint]] = [:]
    /// Memberships that were followed by another.
    private var formerStints: [StintKey: [Stint]] = [:]
    var cursors: [DeviceID: [ChannelID: Position]] = [:]
    var cursorVersions: [DeviceID: UInt64] = [:]
    private var connectNumbers: [ProducerID: UInt64] = [:]
    private var nextOffset: Offset = 1
    private var random: SeededRandom
    /// Rules that are broken on purpose.
    let faults: Set<SimulatedFault>

    init(random: SeededRandom, faults: Set<SimulatedFault>) {
        self.random = random
        self.faults = faults
    }

    /// A channel's log; made on first sight.
    public func log(_ channel: ChannelID) -> Log {
        if let log = logs[channel] { return log }
        let log = Log(epoch: random.next() | 1)
        logs[channel] = log
        return log
    }

    /// The range of a channel that a user may read now, or nil for none.
    public func stint(of user: UserID, in channel: ChannelID) -> Stint? {
        if channel == .user(user) { return Stint(after: 0, upTo: nil) }
        return stints[channel]?[user]
    }

    /// Whether a user may read, or once was given, an offset.
    func mayRead(_ offset: Offset, of channel: ChannelID, _ user: UserID) -> Bool {
        let former = formerStints[StintKey(user: user, channel: channel)] ?? []
        return (former + [stint(of: user, in: channel)].compactMap { $0 }).contains {
            offset > $0.after && offset <= $0.upTo ?? .max
        }
    }

    func channels(of user: UserID) -> [ChannelID] {
        [.user(user)] + stints.filter { $0.value[user] != nil }.map(\.key).sorted { "\($0)" < "\($1)" }
    }

    func append(
        _ publish: Publish, channel: ChannelID, user: UserID, device: DeviceID, producer: ProducerID, time: UInt64
    ) -> PublishOutcome {
        let key = LedgerKey(device: device, producer: producer, channel: channel)
        var ledger = ledgers[key] ?? Ledger()
        if publish.id <= ledger.last {
            guard let known = ledger.answers[publish.id] else {
                return .refused(Refused(id: publish.id, code: .outcomeUnknown))
            }
            guard known.tag == publish.tag || faults.contains(.ignoreTag) else {
                return .refused(Refused(id: publish.id, code: .idReused))
            }
            if faults.contains(.enterTwice) {
                _ = enter(
                    publish, .message, channel: channel, user: user, device: device, producer: producer, time: time)
            }
            return .published(known.published)
        }
        guard publish.after <= ledger.last || faults.contains(.ignoreAfter) else {
            return .refused(Refused(id: publish.id, code: .outOfOrder, lastID: ledger.last))
        }
        guard stint(of: user, in: channel)?.upTo == nil else {
            return .refused(Refused(id: publish.id, code: .unknownChannel))
        }
        let entry = enter(
            publish, .message, channel: channel, user: user, device: device, producer: producer, time: time)
        let published = Published(
            id: publish.id, position: Position(epoch: log(channel).epoch, offset: entry.offset), time: time)
        ledger.last = publish.id
        ledger.answers[publish.id] = (publish.tag, published)
        ledger.answers[publish.id &- UInt64(FrameLimits.maximumUnacknowledged)] = nil
        ledgers[key] = ledger
        return .published(published)
    }

    private func enter(
        _ publish: Publish?, _ kind: EntryKind, channel: ChannelID, user: UserID, device: DeviceID,
        producer: ProducerID,
        time: UInt64
    ) -> Entry {
        var log = log(channel)
        let lifetime = publish?.timeToLive ?? 0
        let entry = Entry(
            offset: nextOffset, previous: log.head.offset, kind: kind, sender: user, device: device, producer: producer,
            publishID: publish?.id ?? 0, recipient: nil, origin: nil, time: time,
            expiry: lifetime == 0 ? 0 : time + lifetime, payload: publish?.payload ?? ByteBuffer())
        nextOffset += UInt64.random(in: 1...3, using: &random)
        log.entries.append(entry)
        logs[channel] = log
        return entry
    }

    func join(_ room: RoomID, user: UserID, device: DeviceID, time: UInt64) -> Position {
        let channel = ChannelID.room(room)
        let epoch = log(channel).epoch
        if let stint = stints[channel]?[user], stint.upTo == nil { return Position(epoch: epoch, offset: stint.after) }
        if let former = stints[channel]?[user] {
            formerStints[StintKey(user: user, channel: channel), default: []].append(former)
        }
        let entry = enter(
            nil, .joined, channel: channel, user: user, device: device, producer: ProducerID(high: 0, low: 0),
            time: time)
        stints[channel, default: [:]][user] = Stint(after: entry.previous)
        return Position(epoch: epoch, offset: entry.offset)
    }

    func leave(_ room: RoomID, user: UserID, device: DeviceID, time: UInt64) -> Position? {
        let channel = ChannelID.room(room)
        guard let stint = stints[channel]?[user], stint.upTo == nil else { return nil }
        let entry = enter(
            nil, .left, channel: channel, user: user, device: device, producer: ProducerID(high: 0, low: 0), time: time)
        stints[channel]?[user]?.upTo = entry.offset
        return Position(epoch: log(channel).epoch, offset: entry.offset)
    }

    /// What a crash would leave, for faults that say things before they are durable.
    func snapshot() -> () -> Void {
        let (logs, ledgers) = (logs, ledgers)
        return { [unowned self] in (self.logs, self.ledgers) = (logs, ledgers) }
    }

    func trim(_ channel: ChannelID, to offset: Offset) {
        var log = log(channel)
        log.first = max(log.first, offset)
        logs[channel] = log
    }

    func read(_ channel: ChannelID, after: Offset, upTo: Offset?, maximumBytes: Int, time: UInt64) -> SessionPage {
        let log = log(channel)
        var end = max(after, log.first)
        var items: [SessionPage.Item] = []
        var bytes = 0
        for entry in log.entries(above: end) {
            guard entry.offset <= upTo ?? .max else { break }
            if entry.expiry > 0, entry.expiry <= time {
                items.append(.skip(Skip(previous: end, to: entry.offset, reason: .expired)))
            } else {
                bytes += entry.payload.readableBytes
                guard items.isEmpty || bytes <= maximumBytes else { break }
                items.append(.entry(entry))
            }
            end = entry.offset
        }
        return SessionPage(epoch: log.epoch, items: items, head: log.head.offset, first: log.first)
    }

    /// - Returns: whether this number is the highest of its producer and new; nil when a higher one was seen.
    func admit(_ producer: ProducerID, connectNumber: UInt64) -> Bool? {
        let known = connectNumbers[producer] ?? 0
        guard connectNumber >= known || faults.contains(.ignoreConnectNumber) else { return nil }
        connectNumbers[producer] = max(known, connectNumber)
        return connectNumber > known || !faults.isDisjoint(with: [.trustRepeatedConnect, .ignoreConnectNumber])
    }

    func advance(_ device: DeviceID, channel: ChannelID, to position: Position) {
        guard position.epoch == log(channel).epoch, position.offset <= log(channel).head.offset else { return }
        if let stored = cursors[device]?[channel], stored.epoch == position.epoch, stored.offset >= position.offset {
            return
        }
        cursors[device, default: [:]][channel] = position
        cursorVersions[device, default: 0] += 1
    }
}
