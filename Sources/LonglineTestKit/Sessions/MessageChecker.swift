import LonglineSession
import LonglineWire
import NIOCore

/// Watches what a service promises about messages, and writes down every promise that is broken.
///
/// It is told what apps publish, what they hear back and what they are given, and compares it with the log. The rules:
/// an acknowledged publish is in the log, once, where the acknowledgement says; a producer's order is kept in each
/// channel; a device is given each entry it is entitled to, in order, once per life of the app, marked when it was given
/// before; and what it is not given is skipped or reported lost, and truly absent.
public struct MessageChecker {
    /// Broken promises, in the order in which they were seen.
    public private(set) var violations: [String] = []
    /// Entries given to apps.
    public private(set) var deliveries = 0
    /// Publishes that apps were told are entered.
    public var acknowledgements: Int { acknowledged.count }

    private var published: [UInt64: (device: DeviceID, channel: ChannelID)] = [:]
    private var acknowledged: Set<UInt64> = []
    private var refused: Set<UInt64> = []
    private var told: [DeviceID: [ChannelID: Position]] = [:]
    private var everGiven: [DeviceID: [ChannelID: Set<Offset>]] = [:]
    private var processed: [DeviceID: [ChannelID: Offset]] = [:]
    private var restored: Set<DeviceID> = []

    /// Nothing seen yet.
    public init() {}

    /// A message's number, in the first 8 bytes of its payload.
    static func number(of payload: ByteBuffer) -> UInt64? { payload.getInteger(at: payload.readerIndex) }

    /// Writes down a broken promise.
    public mutating func violation(_ text: String) { violations.append(text) }

    // MARK: Publishing

    mutating func published(_ number: UInt64, by device: DeviceID, in channel: ChannelID) {
        published[number] = (device, channel)
    }

    mutating func acknowledged(_ number: UInt64, at position: Position, in channel: ChannelID, store: ModelStore) {
        acknowledged.insert(number)
        let entry = store.logs[channel]?.entry(at: position.offset)
        if store.logs[channel]?.epoch != position.epoch || entry.flatMap({ Self.number(of: $0.payload) }) != number {
            violation("message \(number) was acknowledged at \(position) in \(channel), and is not there")
        }
    }

    mutating func refused(_ number: UInt64) { refused.insert(number) }

    // MARK: Receiving

    mutating func delivered(
        _ deliver: Deliver, epoch: Epoch, in channel: ChannelID, to device: DeviceID, of user: UserID, store: ModelStore
    ) {
        deliveries += 1
        let entry = deliver.entry
        let place = "\(channel) at \(entry.offset) for \(device)"
        guard let log = store.logs[channel], log.epoch == epoch,
            log.entry(at: entry.offset) == entry
        else { return violation("\(place): given what is not in the log") }
        if !store.mayRead(entry.offset, of: channel, user) { violation("\(place): given without a right to it") }
        let last = lastTold(device, channel, epoch: epoch)
        if entry.offset <= last { violation("\(place): given again, or out of order, after \(last)") }
        for missed in owed(after: last, before: entry.offset, in: log, channel, to: user, store: store) {
            violation("\(place): \(missed.offset) was missed silently")
        }
        if everGiven[device]?[channel]?.contains(entry.offset) == true, !deliver.redelivered {
            violation("\(place): given to a new life of the app without a mark")
        }
        everGiven[device, default: [:]][channel, default: []].insert(entry.offset)
        told[device, default: [:]][channel] = Position(epoch: epoch, offset: max(last, entry.offset))
    }

    mutating func skipped(
        _ skip: Skip, epoch: Epoch, in channel: ChannelID, to device: DeviceID, of user: UserID, store: ModelStore,
        time: UInt64
    ) {
        guard let log = store.logs[channel], log.epoch == epoch else {
            return violation("\(channel) for \(device): a skip in another log")
        }
        let last = lastTold(device, channel, epoch: epoch)
        for entry in owed(after: last, before: skip.to + 1, in: log, channel, to: user, store: store)
        where !(entry.expiry > 0 && entry.expiry <= time) && entry.offset > log.first {
            violation("\(channel) for \(device): \(entry.offset) was skipped (\(skip.reason)), and is there")
        }
        told[device, default: [:]][channel] = Position(epoch: epoch, offset: max(last, skip.to))
    }

    mutating func lost(
        _ gap: Gap, epoch: Epoch, in channel: ChannelID, to device: DeviceID, of user: UserID, store: ModelStore
    ) {
        guard let log = store.logs[channel], log.epoch == epoch else {
            return violation("\(channel) for \(device): a gap in another log")
        }
        let last = lastTold(device, channel, epoch: epoch)
        for entry in owed(after: last, before: gap.first + 1, in: log, channel, to: user, store: store)
        where entry.offset > log.first {
            violation("\(channel) for \(device): \(entry.offset) was reported lost, and is there")
        }
        told[device, default: [:]][channel] = Position(epoch: epoch, offset: gap.first)
    }

    /// The app is done with everything up to an offset.
    mutating func processed(_ offset: Offset, in channel: ChannelID, by device: DeviceID) {
        processed[device, default: [:]][channel] = max(offset, processed[device]?[channel] ?? 0)
    }

    /// A new life of the app goes on from the cursors it kept. `backup`: from an older state than its last.
    mutating func restarted(_ device: DeviceID, cursors: [ChannelID: Position], backup: Bool) {
        for (channel, cursor) in cursors {
            let done = processed[device]?[channel] ?? 0
            for offset in everGiven[device]?[channel] ?? [] where offset > done && offset <= cursor.offset {
                violation("\(channel) at \(offset) is behind \(device)'s cursor, and its app never was done with it")
            }
        }
        told[device] = cursors
        if backup { restored.insert(device) }
    }

    private func lastTold(_ device: DeviceID, _ channel: ChannelID, epoch: Epoch) -> Offset {
        told[device]?[channel].flatMap { $0.epoch == epoch ? $0.offset : nil } ?? 0
    }

    private func owed(
        after last: Offset, before end: Offset, in log: ModelStore.Log, _ channel: ChannelID, to user: UserID,
        store: ModelStore
    ) -> [Entry] {
        guard let stint = store.stint(of: user, in: channel) else { return [] }
        return Array(
            log.entries(above: max(last, stint.after)).prefix { $0.offset < end && $0.offset <= stint.upTo ?? .max })
    }

    // MARK: The end

    /// Once everything is quiet, nothing may be owed any more.
    mutating func finish(devices: [(device: DeviceID, user: UserID)], store: ModelStore) {
        var places: [UInt64: Int] = [:]
        for (channel, log) in store.logs {
            checkOrder(log, channel)
            for entry in log.entries where entry.kind == .message {
                guard let number = Self.number(of: entry.payload) else { continue }
                places[number, default: 0] += 1
                if published[number]?.channel != channel { violation("message \(number) stands in \(channel)") }
            }
        }
        for (number, count) in places where count > 1 { violation("message \(number) was entered \(count) times") }
        for number in acknowledged where places[number] == nil {
            violation("message \(number) was acknowledged and is gone")
        }
        for (number, origin) in published where !restored.contains(origin.device) {
            if refused.contains(number), places[number] != nil {
                violation("message \(number) was refused and entered")
            }
            if !refused.contains(number), !acknowledged.contains(number) {
                violation("message \(number) of \(origin.device) in \(origin.channel) never got an answer")
            }
        }
        for (device, user) in devices {
            for channel in store.channels(of: user) {
                guard let log = store.logs[channel] else { continue }
                let last = lastTold(device, channel, epoch: log.epoch)
                for entry in owed(after: last, before: .max, in: log, channel, to: user, store: store) {
                    violation("\(channel) at \(entry.offset) never reached \(device), which ends at \(last)")
                }
                let cursor = store.cursors[device]?[channel]?.offset ?? 0
                if cursor < last { violation("\(channel): the server's cursor of \(device) is \(cursor), not \(last)") }
            }
        }
    }

    private mutating func checkOrder(_ log: ModelStore.Log, _ channel: ChannelID) {
        var lastID: [ProducerID: PublishID] = [:]
        var lastNumber: [DeviceID: UInt64] = [:]
        for entry in log.entries where entry.kind == .message {
            if entry.publishID <= lastID[entry.producer] ?? 0 {
                violation("\(channel) at \(entry.offset): \(entry.device)'s publish \(entry.publishID) is out of order")
            }
            lastID[entry.producer] = entry.publishID
            guard let number = Self.number(of: entry.payload), !restored.contains(entry.device) else { continue }
            if number <= lastNumber[entry.device] ?? 0 {
                violation("\(channel) at \(entry.offset): \(entry.device)'s message \(number) is out of order")
            }
            lastNumber[entry.device] = number
        }
    }
}
