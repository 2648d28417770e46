import LonglineWire
import NIOCore

/// Makes a page out of a channel's entries in order: one chain of entries and skips without a hole.
///
/// An entry with a large payload is the only one of its page, so that who reads a page has one of them at a time.
///
/// Invariant: `end` is the offset up to which the items reach; the next item's `previous` is `end`.
struct PageBuilder {
    private(set) var items: [LogItem] = []
    private(set) var end: Offset
    private var bytes = 0
    private var seen = 0
    private var taken = 0
    private var hasLarge = false
    private let channel: ChannelRecord
    private let last: Offset
    private let maximumBytes: Int
    private let maximumEntries: Int
    private let maximumTaken: Int
    private let now: UInt64

    /// - Parameters:
    ///   - after: the reader's place; a place below the first entry left is moved up to it.
    ///   - maximumEntries: entries that the page looks at.
    ///   - maximumTaken: of these, entries that are in it and not expired.
    init(
        channel: ChannelRecord, after: Offset, upTo: Offset?, maximumBytes: Int, maximumEntries: Int,
        maximumTaken: Int = .max, now: UInt64
    ) {
        precondition(maximumEntries > 0)
        self.channel = channel
        self.end = max(after, channel.first)
        self.last = min(upTo ?? channel.head, channel.head)
        self.maximumBytes = maximumBytes
        self.maximumEntries = maximumEntries
        self.maximumTaken = maximumTaken
        self.now = now
    }

    /// Where to read the first entry: the one above this offset.
    var start: Offset { end }
    /// The last offset that may be in the page.
    var limit: Offset { last }

    /// Takes the next entry of the channel.
    /// - Returns: false when the page is full, and the entry is not in it.
    mutating func take(_ entry: Entry) -> Bool {
        assert(entry.offset > end, "entries come in order")
        guard entry.offset <= last, seen < maximumEntries else { return false }
        if entry.previous > end {
            // What lay between was removed before its channel's end was: only retention does that.
            skip(to: entry.previous, .trimmed)
        }
        if let reason = entry.absence(at: now) {
            skip(to: entry.offset, reason)
        } else {
            let size = Int(clamping: entry.length)
            guard items.isEmpty || size <= maximumBytes - bytes, taken < maximumTaken else { return false }
            guard taken == 0 || !(hasLarge || entry.isLarge) else { return false }
            hasLarge = entry.isLarge
            bytes += size
            taken += 1
            items.append(.entry(entry))
            end = entry.offset
        }
        seen += 1
        return true
    }

    private mutating func skip(to offset: Offset, _ reason: SkipReason) {
        if case .skip(let before) = items.last, before.reason == reason {
            items[items.count - 1] = .skip(Skip(previous: before.previous, to: offset, reason: reason))
        } else {
            items.append(.skip(Skip(previous: end, to: offset, reason: reason)))
        }
        end = offset
    }

    /// The page.
    func page() -> LogPage {
        LogPage(epoch: channel.epoch, items: items, head: channel.head, first: channel.first)
    }
}
