import Crypto
import FoundationEssentials
import LonglineServer
import LonglineStore
import LonglineWire

/// Where the next page of a channel begins. Its text says nothing to whoever carries it.
struct HistoryCursor: Hashable, Sendable {
    enum Order: String, Sendable {
        /// The newest first, and on to older ones.
        case newest
        /// The oldest first, and on to newer ones.
        case oldest
    }

    var order: Order
    /// Whose page it is behind.
    var channel: ChannelTag
    /// The life of the log that the offset belongs to.
    var epoch: Epoch
    /// The last that the next page may have, or the one behind which it begins.
    var offset: Offset

    /// The cursor behind a page; nil behind the last one.
    static func next(behind page: LogPage, of channel: ChannelKey, _ order: Order) -> HistoryCursor? {
        let offset: Offset
        switch order {
        case .newest:
            guard let first = page.items.first else { return nil }
            // A chain: each item names the place before it.
            offset = first.previous
            guard offset > page.first else { return nil }
        case .oldest:
            guard let last = page.items.last else { return nil }
            offset = last.end
            guard offset < page.head else { return nil }
        }
        return HistoryCursor(order: order, channel: ChannelTag(channel), epoch: page.epoch, offset: offset)
    }

    var text: String {
        var bytes: [UInt8] = [Self.version, order == .newest ? 0 : 1]
        for number in [channel.hash, epoch, offset] { withUnsafeBytes(of: number.bigEndian) { bytes += $0 } }
        return Base64URL.encode(Data(bytes))
    }

    private static let version: UInt8 = 2
    /// Named no channel: version, order, epoch and offset.
    private static let versionWithoutChannel: (number: UInt8, bytes: Int) = (1, 18)

    /// - Throws: ``Problem`` when it is none that was given out, or was given out by a version that named no channel.
    static func read(_ text: String?) throws(Problem) -> HistoryCursor? {
        guard let text else { return nil }
        let unknown = Problem(.notFound, "'cursor' is none that a page gave")
        guard text.utf8.count <= 64, let bytes = Base64URL.decode(text.utf8), let first = bytes.first,
            bytes.dropFirst().first.map({ $0 <= 1 }) == true
        else { throw unknown }
        // Whose page it is behind is not known: who pages has to begin anew, as after a restore.
        guard first != versionWithoutChannel.number || bytes.count != versionWithoutChannel.bytes else {
            throw Problem(.cursorExpired, "'cursor' is of an earlier version: begin with the first page")
        }
        guard first == version, bytes.count == 26 else { throw unknown }
        let numbers = Array(bytes.dropFirst(2))
        func number(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
        return HistoryCursor(
            order: bytes[bytes.startIndex + 1] == 0 ? .newest : .oldest,
            channel: ChannelTag(hash: number(numbers[0..<8])), epoch: number(numbers[8..<16]),
            offset: min(number(numbers[16..<24]), FrameLimits.maximumNumber))
    }
}

/// Tells channels apart in a cursor: a part of the name's hash.
struct ChannelTag: Hashable, Sendable {
    let hash: UInt64

    init(hash: UInt64) { self.hash = hash }

    init(_ channel: ChannelKey) {
        // A tenant's name has no slash.
        let name = Data("\(channel.tenant)/\(channel.channel)".utf8)
        hash = SHA256.hash(data: name).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
}

extension LogItem {
    fileprivate var previous: Offset {
        switch self {
        case .entry(let entry): entry.previous
        case .skip(let skip): skip.previous
        }
    }

    fileprivate var end: Offset {
        switch self {
        case .entry(let entry): entry.offset
        case .skip(let skip): skip.to
        }
    }
}
