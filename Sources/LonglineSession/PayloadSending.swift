public import LonglineWire
import NIOCore

/// An entry of which the first frame was sent, and whose payload goes on in parts that are read from the log one by one.
struct PayloadSending {
    let offset: Offset
    let previous: Offset
    /// The whole payload's bytes.
    let length: UInt64
    /// The first byte that was not sent.
    private(set) var next: UInt64
    var isReading = false

    init(_ entry: Entry) {
        offset = entry.offset
        previous = entry.previous
        length = entry.length
        next = UInt64(entry.payload.readableBytes)
    }

    var isDone: Bool { next >= length }

    /// The frames that carry the next bytes.
    mutating func parts(_ bytes: ByteBuffer, partBytes: Int) -> [Frame] {
        var bytes = bytes
        var frames: [Frame] = []
        while !isDone {
            let count = min(bytes.readableBytes, partBytes, Int(clamping: length - next))
            guard count > 0, let part = bytes.readSlice(length: count) else { break }
            frames.append(.part(Part(offset: next, bytes: part)))
            next += UInt64(count)
        }
        return frames
    }
}

/// A read of the next bytes of an entry's payload, as the host hands it to the store.
public struct PayloadRead: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The life of its log: an answer about another one is dropped.
    public var epoch: Epoch
    /// The entry.
    public var offset: Offset
    /// The first byte to read.
    public var from: UInt64
    /// The most bytes.
    public var maximumBytes: Int
    /// The request for history whose page the entry is in; nil for delivery.
    public var history: UInt64?
}
