import LonglineSession
import LonglineWire
import NIOCore

extension ModelStore {
    /// A page of history: the whole range is read, and the page cut off its end or its beginning.
    func page(_ read: HistoryRead, time: UInt64) -> SessionPage {
        var page = self.read(
            read.channel, after: read.after, upTo: read.upTo, maximumBytes: .max, time: time)
        // The entries that stay, without what lies beyond the first that doesn't.
        var kept: [SessionPage.Item] = []
        var (entries, bytes) = (0, 0)
        let items = read.direction == .newer ? page.items : page.items.reversed()
        for item in items {
            if case .entry(let entry) = item {
                bytes += entry.payload.readableBytes
                guard entries < read.maximumEntries, entries == 0 || bytes <= read.maximumBytes else { break }
                entries += 1
            }
            kept.append(item)
        }
        page.items = read.direction == .newer ? kept : kept.reversed()
        return page
    }
}
