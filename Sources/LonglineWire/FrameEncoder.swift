public import NIOCore

/// Writes frames as bytes. A frame whose fields keep to ``FrameLimits`` can always be written.
public enum FrameEncoder {
    /// Appends a frame to a buffer.
    /// - Throws: ``FrameError`` (`limitExceeded`, `unrepresentable`) for a value that the protocol can't carry, which is
    ///   an error of the caller; the buffer is then as it was.
    public static func encode(_ frame: Frame, into buffer: inout ByteBuffer) throws(FrameError) {
        let bodySize = try bodySize(frame)
        let type = frame.type.rawValue
        buffer.reserveCapacity(minimumWritableBytes: headerSize(type: type, bodySize: bodySize) + bodySize)
        Varint.write(type, to: &buffer)
        Varint.write(UInt64(bodySize), to: &buffer)
        try writeBody(of: frame, size: bodySize, into: &buffer)
    }

    /// The bytes that ``encode(_:into:)`` appends, header included.
    /// - Throws: what ``encode(_:into:)`` would.
    public static func encodedSize(_ frame: Frame) throws(FrameError) -> Int {
        let bodySize = try bodySize(frame)
        return headerSize(type: frame.type.rawValue, bodySize: bodySize) + bodySize
    }

    /// Appends a frame of an unknown even type and of random bytes, which every receiver skips.
    ///
    /// Senders do this now and then, so that receivers can't lose the habit and the protocol can grow.
    public static func grease(using random: inout some RandomNumberGenerator, into buffer: inout ByteBuffer) {
        // A random width, so that types of every varint length come up; 0x40 n + 0x2a stays below 2^62.
        let n = random.next() & FrameLimits.maximumNumber >> UInt64.random(in: 6...62, using: &random)
        let body = Int.random(in: 0...32, using: &random)
        Varint.write(0x40 * n + 0x2a, to: &buffer)
        Varint.write(UInt64(body), to: &buffer)
        for _ in 0..<body { buffer.writeInteger(UInt8.random(in: 0...255, using: &random)) }
    }

    /// The body's size, which holds for a body that can be written.
    private static func bodySize(_ frame: Frame) throws(FrameError) -> Int {
        var counter = CountingSink()
        do { try frame.writeBody(to: &counter) } catch {
            throw FrameError(error.code, message: "\(frame.type.name): \(error.message)", cause: error.cause)
        }
        guard counter.size <= FrameLimits.maximumBody else {
            throw FrameError(
                .limitExceeded,
                message: "\(frame.type.name): the body has \(counter.size), the limit is \(FrameLimits.maximumBody)")
        }
        return counter.size
    }

    private static func headerSize(type: UInt64, bodySize: Int) -> Int {
        Varint.size(type) + Varint.size(UInt64(bodySize))
    }

    private static func writeBody(of frame: Frame, size: Int, into buffer: inout ByteBuffer) throws(FrameError) {
        let start = buffer.writerIndex
        // The buffer moves into the sink and back, so that it stays the only owner of its storage.
        var sink = BufferSink(buffer: buffer)
        buffer = ByteBuffer()
        defer { buffer = sink.buffer }
        try frame.writeBody(to: &sink)
        assert(sink.buffer.writerIndex - start == size, "the counted and the written size differ")
    }
}
