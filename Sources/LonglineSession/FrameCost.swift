import LonglineWire
import NIOCore

/// What a frame weighs in a channel's window and in held frames: its payload and a fixed overhead, the same on both
/// sides whatever the encoding.
enum FrameCost {
    /// Bytes counted for everything but the payload.
    static let overhead = 128

    /// A publish with all of its parts.
    static func of(_ publish: Publish) -> Int { of(length: publish.length) }

    /// An entry with all of its parts.
    static func of(_ entry: Entry) -> Int { of(length: entry.length) }

    /// A peer may announce more than any payload has. That is refused, and counts no more than what is just too large, so that no
    /// number of them reaches the end of what can be counted.
    private static func of(length: UInt64) -> Int {
        Int(min(length, UInt64(FrameLimits.maximumWholePayload) + 1)) + overhead
    }

    /// What one frame holds: of those on lanes what their windows count, of any other its length, or the overhead for it and for
    /// each item of its lists where that is more.
    static func of(_ frame: Frame) -> Int {
        switch frame {
        case .publish(let publish): publish.payload.readableBytes + overhead
        case .deliver(let deliver): deliver.entry.payload.readableBytes + overhead
        case .part(let part): part.bytes.readableBytes + overhead
        case .batch(let batch): batch.length + overhead * max(1, batch.groups.count)
        default:
            // What was read can be written, and is no longer than a body may be.
            max(overhead * (1 + items(in: frame)), (try? FrameEncoder.encodedSize(frame)) ?? FrameLimits.maximumBody)
        }
    }

    /// Items of a frame's lists, each of which takes memory of its own.
    private static func items(in frame: Frame) -> Int {
        switch frame {
        case .connect(let connect): connect.cursors.count
        case .connected(let connected): connected.channels.count
        case .cursors(let cursors): cursors.cursors.count
        case .ahead(let ahead): ahead.records.count
        case .membersPage(let page): page.members.count
        case .conversationsPage(let page): page.items.count
        case .subscribe(let request): request.users.count
        case .unsubscribe(let end): end.users.count
        case .encodings(let encodings): encodings.plain.count
        default: 0
        }
    }
}

/// What a client may have unacknowledged in one channel before CONNECTED names the limits, and so what every server
/// grants whatever its limits are.
enum EarlyAllowance {
    /// Bytes, counted by ``FrameCost``.
    static let bytes = 64 * 1024
    /// Publishes: as many as fit into ``bytes``.
    static let publishes = bytes / FrameCost.overhead
}
