import LonglineStore
import LonglineWire
import NIOCore

/// What retention has to remove, and may.
extension Truth {
    /// The log begins behind an offset now.
    /// - Returns: what is wrong with that, for a rule for what to keep.
    mutating func trim(_ channel: ChannelID, keep: Retention, upTo first: Offset, _ wall: WallTime) -> String? {
        guard let log = logs[channel] else { return first == 0 ? nil : "\(channel) was trimmed, and is not there" }
        logs[channel]?.first = first
        guard first >= log.first else { return "\(channel) begins behind \(first), and did behind \(log.first)" }
        let left = log.entries(above: log.first)
        var bytes = left.reduce(0) { $0 + log.bytes(of: $1) }
        for (entry, count) in zip(left, (1...max(left.count, 1)).reversed()) {
            let isTooMuch = keep.entries.map { count > $0 } ?? false || keep.bytes.map { bytes > $0 } ?? false
            guard entry.offset <= first else {
                let isOld = keep.age.map { Self.isOver(entry.time, $0, wall) } ?? false
                return isTooMuch || isOld ? "\(channel) at \(entry.offset) is kept against \(keep)" : nil
            }
            let mayBeOld = keep.age.map { Self.isOver(log.earliest(of: entry, wall), $0, wall) } ?? false
            if !isTooMuch, !mayBeOld { return "\(channel) at \(entry.offset) was removed against \(keep)" }
            bytes -= log.bytes(of: entry)
        }
        return nil
    }

    private static func isOver(_ time: UInt64, _ age: UInt64, _ wall: WallTime) -> Bool {
        wall.milliseconds > time && wall.milliseconds - time > age
    }
}

extension Truth.Log {
    /// What is retracted takes no room.
    fileprivate func bytes(of entry: Entry) -> Int { erased.contains(entry.offset) ? 0 : entry.payload.readableBytes }

    /// The earliest time that the clock can have said an entry was made at, which may be less than the entry's.
    fileprivate func earliest(of entry: Entry, _ wall: WallTime) -> UInt64 {
        min(entry.time, moments[entry.offset].map { wall.earliest(since: $0) } ?? 0)
    }
}
