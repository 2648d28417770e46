import LonglineWire
import NIOCore
import Synchronization

/// The last entries of the channels that were written to lately, so that fan-out doesn't read each of them from the database
/// once a session.
///
/// It is extended only after a commit, by the one writer, in commit order: what it holds is what the database holds. Bounded by
/// two generations: when the young one has half of the bytes, it becomes the old one, and what was old goes.
final class TailCache: Sendable {
    /// Invariant: `entries` is the whole log above `start`, and `channel.head` its last offset.
    fileprivate struct Tail {
        var channel: ChannelRecord
        var start: Offset
        var entries: [Entry] = []
        var bytes = 0
    }
    fileprivate struct State {
        var young: [ChannelKey: Tail] = [:]
        var old: [ChannelKey: Tail] = [:]
        var youngBytes = 0
    }

    /// What an entry costs beside its payload, about.
    private static let overhead = 256
    private let maximumBytes: Int
    private let maximumTailEntries = 256
    private let maximumTailBytes = 256 * 1_024
    private let state = Mutex(State())

    init(maximumBytes: Int) { self.maximumBytes = maximumBytes }

    /// Takes in what a transaction added.
    /// - Parameters:
    ///   - changed: the channels as they are now.
    ///   - erased: entries of these channels of which only the places are left; some may be among the added.
    func extend(
        _ added: [(channel: ChannelKey, entry: Entry)], changed: [ChannelKey: ChannelRecord],
        erased: [ChannelKey: Set<Offset>] = [:]
    ) {
        guard !changed.isEmpty else { return }
        state.withLock { state in
            for (key, entry) in added {
                guard let channel = changed[key] else { continue }
                var tail = state.take(key) ?? Tail(channel: channel, start: entry.previous)
                tail.entries.append(entry)
                tail.bytes += entry.payload.readableBytes + Self.overhead
                if tail.entries.count > maximumTailEntries || tail.bytes > maximumTailBytes { Self.halve(&tail) }
                state.put(tail, key)
            }
            for (key, channel) in changed {
                guard var tail = state.take(key) else { continue }
                tail.channel = channel
                if let offsets = erased[key] { Self.erase(offsets, in: &tail) }
                // Trimmed up to here: what lies below isn't in the log any more.
                if channel.first > tail.start {
                    let gone = tail.entries.prefix { $0.offset <= channel.first }
                    tail.bytes -= gone.reduce(0) { $0 + $1.payload.readableBytes + Self.overhead }
                    tail.entries.removeFirst(gone.count)
                    tail.start = channel.first
                }
                assert((tail.entries.last?.offset ?? tail.start) == channel.head, "the tail reaches the head")
                // One without entries counts no bytes, and would be there for good.
                if !tail.entries.isEmpty { state.put(tail, key) }
            }
            if state.youngBytes > maximumBytes / 2 {
                state.old = state.young
                state.young = [:]
                state.youngBytes = 0
            }
        }
    }

    /// Lets go of channels that are no more. What one of them became later in the same transaction is taken in afterwards.
    func forget(_ removed: Set<ChannelKey>) {
        guard !removed.isEmpty else { return }
        state.withLock { state in for key in removed { _ = state.take(key) } }
    }

    private static func erase(_ offsets: Set<Offset>, in tail: inout Tail) {
        for offset in offsets {
            let index = tail.entries.partitionIndex { $0.offset >= offset }
            guard index < tail.entries.count, tail.entries[index].offset == offset else { continue }
            tail.bytes -= tail.entries[index].payload.readableBytes
            tail.entries[index].erase()
        }
    }

    private static func halve(_ tail: inout Tail) {
        let count = max(tail.entries.count / 2, 1)
        let gone = tail.entries.prefix(count)
        tail.start = gone.last?.offset ?? tail.start
        tail.bytes -= gone.reduce(0) { $0 + $1.payload.readableBytes + overhead }
        tail.entries.removeFirst(count)
    }

    /// A page out of the cache, or nil when it reaches further back.
    func page(
        _ key: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, maximumEntries: Int, now: UInt64
    ) -> LogPage? {
        state.withLock { state in
            guard let tail = state.young[key] ?? state.old[key] else { return nil }
            var page = PageBuilder(
                channel: tail.channel, after: after, upTo: upTo, maximumBytes: maximumBytes,
                maximumEntries: maximumEntries, now: now)
            guard page.start >= tail.start else { return nil }
            let first = tail.entries.partitionIndex { $0.offset > page.start }
            for entry in tail.entries[first...] {
                guard page.take(entry) else { break }
            }
            return page.page()
        }
    }

    /// The ends of a channel, when they are known here.
    func ends(_ key: ChannelKey) -> ChannelHead? {
        state.withLock { state in (state.young[key] ?? state.old[key])?.channel.ends }
    }

    /// Channels of which something is held, for tests.
    var channelCount: Int { state.withLock { $0.young.count + $0.old.count } }

    /// Bytes held, about; for tests and metrics.
    var bytes: Int {
        state.withLock { state in state.youngBytes + state.old.values.reduce(0) { $0 + $1.bytes } }
    }
}

extension TailCache.State {
    fileprivate mutating func take(_ key: ChannelKey) -> TailCache.Tail? {
        if let tail = young.removeValue(forKey: key) {
            youngBytes -= tail.bytes
            return tail
        }
        return old.removeValue(forKey: key)
    }

    fileprivate mutating func put(_ tail: TailCache.Tail, _ key: ChannelKey) {
        young[key] = tail
        youngBytes += tail.bytes
    }
}

extension RandomAccessCollection where Index == Int {
    /// The first index whose element satisfies a predicate that, once true, stays true; by binary search.
    package func partitionIndex(where isAbove: (Element) -> Bool) -> Int {
        var low = startIndex
        var high = endIndex
        while low < high {
            let middle = low + (high - low) / 2
            if isAbove(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
