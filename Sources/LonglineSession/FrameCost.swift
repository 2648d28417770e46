import LonglineWire
import NIOCore

/// What a frame weighs in a channel's window and in held frames: its payload and a fixed overhead, the same on both
/// sides whatever the encoding.
enum FrameCost {
    /// Bytes counted for everything but the payload.
    static let overhead = 128

    static func of(_ payload: ByteBuffer) -> Int { payload.readableBytes + overhead }

    static func of(_ frame: Frame) -> Int {
        switch frame {
        case .publish(let publish): of(publish.payload)
        case .deliver(let deliver): of(deliver.entry.payload)
        default: overhead
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
