public import NIOCore

/// Reads the frames of one lane from bytes that arrive in pieces of any size.
///
/// Append what came, then call ``next()`` until it answers nil. After that it holds less than one frame back. An error
/// is final: every further call throws it again.
public struct FrameDecoder: Sendable {
    private var assembler = FrameAssembler(tagged: false)

    /// A decoder at the start of a lane.
    public init() {}

    /// Takes in bytes. Payloads may share their storage.
    public mutating func append(_ bytes: ByteBuffer) { assembler.append(bytes) }

    /// The next whole frame, or nil until more bytes came. Frames of unknown even types are passed over.
    /// - Throws: ``FrameError`` (`malformed`, `tooLarge`, `unknownType`, `limitExceeded`).
    public mutating func next() throws(FrameError) -> Frame? {
        guard case .frame(let frame, _) = try assembler.next() else { return nil }
        return frame
    }

    /// Says that no more bytes come; to be called after ``next()`` answered nil.
    /// - Throws: ``FrameError``: `malformed` when the lane ended inside a frame, or what ``next()`` threw before.
    public func finish() throws(FrameError) { try assembler.finish() }

    /// The bytes held back until more come; after ``next()`` answered nil, less than one frame.
    public var heldBytes: Int { assembler.heldBytes }
}
