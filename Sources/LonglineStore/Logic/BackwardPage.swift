import LonglineWire
import NIOCore

/// Gathers a page from the end of a range: entries come from the newest down, the page holds them in the log's order.
struct BackwardPage {
    private var newestFirst: [Entry] = []
    private var bytes = 0
    private var taken = 0
    private var hasLarge = false
    private var isFull = false
    private let channel: ChannelRecord
    private let range: LogRange
    private let maximumEntries: Int
    private let now: UInt64

    /// - Parameter maximumEntries: entries that the page looks at.
    init(channel: ChannelRecord, range: LogRange, maximumEntries: Int, now: UInt64) {
        self.channel = channel
        self.range = range
        self.maximumEntries = maximumEntries
        self.now = now
    }

    /// Takes the entry before the one taken last.
    /// - Returns: false when the page is full, and the entry is not in it.
    mutating func take(_ entry: Entry) -> Bool {
        assert(newestFirst.last.map { entry.offset < $0.offset } ?? true, "entries come from the newest down")
        isFull = !hasRoom(for: entry)
        guard !isFull else { return false }
        if entry.absence(at: now) == nil {
            bytes += Int(clamping: entry.length)
            taken += 1
            hasLarge = entry.isLarge
        }
        newestFirst.append(entry)
        return true
    }

    private func hasRoom(for entry: Entry) -> Bool {
        guard newestFirst.count < maximumEntries else { return false }
        if newestFirst.isEmpty || entry.absence(at: now) != nil { return true }
        guard taken == 0 || !(hasLarge || entry.isLarge) else { return false }
        return taken < range.maximumEntries && Int(clamping: entry.length) <= range.maximumBytes - bytes
    }

    /// The page.
    func page() -> LogPage {
        let floor = max(range.after, channel.first)
        let start = isFull ? max(newestFirst.last?.previous ?? floor, floor) : floor
        var page = PageBuilder(
            channel: channel, after: start, upTo: range.upTo, maximumBytes: .max, maximumEntries: .max, now: now)
        for entry in newestFirst.reversed() {
            guard page.take(entry) else { break }
        }
        return page.page()
    }
}

extension Entry {
    /// Whether a page holds the first bytes of its payload only.
    var isLarge: Bool { following > 0 }

    /// Whether it is not worth delivering any more at a wall-clock time, in milliseconds since 1970.
    func isExpired(at now: UInt64) -> Bool { expiry != 0 && expiry <= now }
}
