public import NIOCore

// A transport with one byte stream (TCP, WebSocket) carries every lane on it. Before each frame stands a tag, a varint
// of 2 * lane; the tag 2 * lane + 1 stands alone and says that the lane is finished, as FIN does on a QUIC stream.

/// One item of a lane-tagged stream.
public enum TaggedFrame: Hashable, Sendable {
    /// A frame of a lane.
    case frame(Frame, lane: UInt64)
    /// The sender finished this lane; never lane 0.
    case finished(lane: UInt64)
}

/// Writes the lane-tagged form.
public enum TaggedFrameEncoder {
    /// Appends a frame of a lane.
    /// - Throws: ``FrameError`` as ``FrameEncoder/encode(_:into:)``, and `unrepresentable` for a lane over
    ///   ``FrameLimits/maximumTaggedLane``; the buffer is then as it was.
    public static func encode(_ frame: Frame, lane: UInt64, into buffer: inout ByteBuffer) throws(FrameError) {
        let start = buffer.writerIndex
        try writeTag(lane: lane, finished: false, into: &buffer)
        do { try FrameEncoder.encode(frame, into: &buffer) } catch {
            buffer.moveWriterIndex(to: start)
            throw error
        }
    }

    /// Appends the end of a lane.
    /// - Throws: ``FrameError`` (`unrepresentable`) for lane 0 and for a lane over ``FrameLimits/maximumTaggedLane``.
    public static func encodeFinish(lane: UInt64, into buffer: inout ByteBuffer) throws(FrameError) {
        guard lane != 0 else { throw FrameError(.unrepresentable, message: "lane 0 can't be finished") }
        try writeTag(lane: lane, finished: true, into: &buffer)
    }

    /// Appends a frame on a lane that every receiver skips (``FrameEncoder/grease(using:into:)``).
    /// - Throws: ``FrameError`` (`unrepresentable`) for a lane over ``FrameLimits/maximumTaggedLane``.
    public static func grease(
        lane: UInt64, using random: inout some RandomNumberGenerator, into buffer: inout ByteBuffer
    ) throws(FrameError) {
        try writeTag(lane: lane, finished: false, into: &buffer)
        FrameEncoder.grease(using: &random, into: &buffer)
    }

    private static func writeTag(lane: UInt64, finished: Bool, into buffer: inout ByteBuffer) throws(FrameError) {
        guard lane <= FrameLimits.maximumTaggedLane else {
            throw FrameError(.unrepresentable, message: "lane is over 2^61 - 1")
        }
        Varint.write(lane << 1 | (finished ? 1 : 0), to: &buffer)
    }
}

/// Reads the lane-tagged form from bytes that arrive in pieces of any size; used like ``FrameDecoder``.
///
/// A transport's messages (WebSocket) have no meaning of their own: their contents are one byte stream.
public struct TaggedFrameDecoder: Sendable {
    private var assembler = FrameAssembler(tagged: true)

    /// A decoder at the start of a stream.
    public init() {}

    /// Takes in bytes. Payloads may share their storage.
    public mutating func append(_ bytes: ByteBuffer) { assembler.append(bytes) }

    /// The next whole item, or nil until more bytes came.
    /// - Throws: ``FrameError`` (`malformed`, `tooLarge`, `unknownType`, `limitExceeded`).
    public mutating func next() throws(FrameError) -> TaggedFrame? {
        switch try assembler.next() {
        case .frame(let frame, let lane): .frame(frame, lane: lane)
        case .finished(let lane): .finished(lane: lane)
        case nil: nil
        }
    }

    /// Says that no more bytes come; to be called after ``next()`` answered nil.
    /// - Throws: ``FrameError``: `malformed` when the stream ended inside a frame, or what ``next()`` threw before.
    public func finish() throws(FrameError) { try assembler.finish() }

    /// The bytes held back until more come; after ``next()`` answered nil, less than one frame.
    public var heldBytes: Int { assembler.heldBytes }
}
