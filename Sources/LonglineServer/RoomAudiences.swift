import LonglineStore
import LonglineWire
import Synchronization

/// How many devices with an established session listen to each room, all loops together: what a signal into it would cost.
///
/// Loops change and ask it while they run, so it is split, and a lock is held for one look at a table.
final class RoomAudiences: Sendable {
    private static let shardCount = 16

    private final class Shard: Sendable {
        let counts = Mutex<[ChannelKey: Int]>([:])
    }

    private let shards = (0..<shardCount).map { _ in Shard() }

    /// A device begins to listen (1), or stops (-1). Inboxes are not counted.
    func add(_ change: Int, to channel: ChannelKey) {
        guard case .room = channel.channel else { return }
        shard(of: channel).counts.withLock { counts in
            let count = counts[channel, default: 0] + change
            assert(count >= 0, "a room with fewer listeners than none")
            counts[channel] = count > 0 ? count : nil
        }
    }

    /// The devices that listen to a room now.
    func count(of channel: ChannelKey) -> Int { shard(of: channel).counts.withLock { $0[channel] ?? 0 } }

    private func shard(of channel: ChannelKey) -> Shard {
        shards[Int(UInt(bitPattern: channel.hashValue) % UInt(Self.shardCount))]
    }
}
