import LonglineStore
import LonglineWire

/// What has been woken lately on one event loop, kept while sessions load their channels.
///
/// A session reads its channels' heads from the store and subscribes to them afterwards, on its loop. An entry that
/// commits in between is in neither: the wake for it came when nobody listened. So a load notes where the history stands
/// before it reads, and asks afterwards what was woken since. Nothing is kept while nobody loads.
struct WakeHistory {
    /// A load under way.
    struct Load {
        fileprivate let since: UInt64
    }

    private let limit: Int
    private var loads = 0
    private var sequence: UInt64 = 0
    /// Loads that began before this can't be answered: the table was too large and was dropped.
    private var completeSince: UInt64 = 0
    private var woken: [ChannelKey: (head: Position, sequence: UInt64)] = [:]
    /// Rooms that were deleted, each as often as that happened. Each is woken as well, so that there are no more rooms.
    private var deleted: [ChannelKey: [(end: Position, sequence: UInt64)]] = [:]
    private static let deletionLimit = 32
    /// Of those woken, the broadcasts.
    private var broadcasts: Set<ChannelKey> = []

    /// - Parameter limit: channels kept at most.
    init(limit: Int = 65_536) { self.limit = limit }

    /// Channels kept now.
    var count: Int { woken.count }

    /// Call before the heads are read.
    mutating func beginLoad() -> Load {
        loads += 1
        return Load(since: sequence)
    }

    /// Call once for each load, after its last ``wakes(since:of:)``.
    mutating func endLoad(_ load: Load) {
        assert(loads > 0, "a load ended twice")
        loads -= 1
        if loads == 0 { forget() }
    }

    /// Takes note of a wake.
    mutating func record(_ channel: ChannelKey, head: Position) {
        guard loads > 0 else { return }
        sequence += 1
        if woken.count >= limit && woken[channel] == nil {
            forget()
            completeSince = sequence
        }
        // Wakes come in any order.
        let newest = woken[channel].map { head.isBehind($0.head) ? $0.head : head } ?? head
        woken[channel] = (newest, sequence)
        if case .all = channel.channel { broadcasts.insert(channel) }
    }

    /// Takes note of a room's deletion, before the wake for it.
    mutating func recordDeletion(_ channel: ChannelKey, end: Position) {
        guard loads > 0 else { return }
        record(channel, head: end)
        deleted[channel, default: []].append((end, sequence))
        if deleted[channel, default: []].count > Self.deletionLimit {
            forget()
            completeSince = sequence
        }
    }

    private mutating func forget() {
        woken.removeAll()
        deleted.removeAll()
        broadcasts.removeAll()
    }

    /// The broadcasts of a tenant that were woken since the load began. To be asked when ``wakes(since:of:)`` had an answer.
    func broadcasts(since load: Load, in tenant: TenantID) -> [(ChannelKey, Position)] {
        broadcasts.compactMap { channel in
            guard channel.tenant == tenant, let wake = woken[channel], wake.sequence > load.since else { return nil }
            return (channel, wake.head)
        }
    }

    /// The rooms of these that were deleted since the load began, each with the entries that say so: one that was made again may have
    /// been deleted again. To be asked when ``wakes(since:of:)`` had an answer.
    func deletions(since load: Load, of channels: some Sequence<ChannelKey>) -> [(room: RoomID, end: Position)] {
        channels.flatMap { channel -> [(room: RoomID, end: Position)] in
            guard case .room(let room) = channel.channel else { return [] }
            return (deleted[channel] ?? []).filter { $0.sequence > load.since }.map { (room, $0.end) }
        }
    }

    /// The last wake since the load began, for each of the channels that had one; nil when that is not known any more
    /// and the heads have to be read again.
    func wakes(since load: Load, of channels: some Sequence<ChannelKey>) -> [(ChannelKey, Position)]? {
        guard load.since >= completeSince else { return nil }
        return channels.compactMap { channel in
            guard let wake = woken[channel], wake.sequence > load.since else { return nil }
            return (channel, wake.head)
        }
    }
}
