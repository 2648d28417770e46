public import NIOCore

/// The next bytes of a payload that is too large for the frame it began in: on the lane of that frame, in order.
public struct Part: Hashable, Sendable {
    /// The bytes of the payload before these.
    public var offset: UInt64
    /// The bytes. None: the rest of the payload does not come, and what came of it is dropped.
    public var bytes: ByteBuffer

    /// A part.
    public init(offset: UInt64, bytes: ByteBuffer) {
        self.offset = offset
        self.bytes = bytes
    }

    /// Whether it says that the rest does not come.
    public var isEnd: Bool { bytes.readableBytes == 0 }
}

extension Part {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(offset, "offset")
        try sink.bytes(bytes, limit: FrameLimits.maximumPayload, "bytes")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            offset: try reader.varint("offset"),
            bytes: try reader.bytes("bytes", limit: FrameLimits.maximumPayload))
    }
}

extension Publish {
    /// The whole payload's bytes: those that are here, and those that follow.
    public var length: UInt64 { UInt64(payload.readableBytes) &+ following }
}

extension Entry {
    /// The whole payload's bytes: those that are here, and those that follow.
    public var length: UInt64 { UInt64(payload.readableBytes) &+ following }

    /// The entry with the first `bytes` bytes of its payload, in memory of their own; the others follow.
    public func head(_ bytes: Int) -> Entry {
        guard payload.readableBytes > bytes else { return self }
        var head = self
        head.payload = ByteBuffer(bytes: payload.readableBytesView.prefix(bytes))
        head.following = length - UInt64(bytes)
        return head
    }
}
