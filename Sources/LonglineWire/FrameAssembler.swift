import NIOCore

/// Cuts a byte stream into frames, whatever the pieces it arrives in. The plain and the lane-tagged form share it.
///
/// ```
///            header complete, type known           body complete
///   header ------------------------------> body ------------------> (frame), header
///     |  \
///     |   `-- header complete, even type unknown --> skip -- all skipped --> header
///     |
///     `-- odd type unknown, or length over the limit, or a body that can't be read --> failed (for good)
/// ```
///
/// Bytes are looked at where they lie; only a frame that ends in a later piece is gathered, in a buffer of its own, so
/// that neither a read buffer is kept nor a byte copied more than once. What is held back is less than one frame.
struct FrameAssembler {
    /// What comes out.
    enum Item {
        case frame(Frame, lane: UInt64)
        case finished(lane: UInt64)
    }

    private enum State {
        case header
        case body(FrameType, length: Int, lane: UInt64)
        case skip(Int)
        case failed(FrameError)
    }

    private struct Header {
        var lane: UInt64 = 0
        var finished = false
        var type: UInt64 = 0
        var length: UInt64 = 0
        /// The bytes that the header takes.
        var size = 0
    }

    private let tagged: Bool
    private var state = State.header
    /// The first part of a frame whose end has not come: of its header, or of its body.
    private var gathered = ByteBuffer()
    /// What came and was not looked at.
    private var input = ByteBuffer()

    init(tagged: Bool) { self.tagged = tagged }

    /// The bytes held back until more come; after `next` answered nil, less than one frame.
    var heldBytes: Int { gathered.readableBytes + input.readableBytes }

    /// Says that no more bytes come, after `next` answered nil.
    func finish() throws(FrameError) {
        if case .failed(let error) = state { throw error }
        guard case .header = state, heldBytes == 0 else {
            throw FrameError(.malformed, message: "the stream ended inside a frame")
        }
    }

    mutating func append(_ bytes: ByteBuffer) {
        if case .failed = state { return }
        if input.readableBytes == 0 {
            input = bytes
        } else {
            input.writeImmutableBuffer(bytes)
        }
    }

    mutating func next() throws(FrameError) -> Item? {
        do {
            return try advance()
        } catch {
            state = .failed(error)
            gathered = ByteBuffer()
            input = ByteBuffer()
            throw error
        }
    }

    private mutating func advance() throws(FrameError) -> Item? {
        while true {
            switch state {
            case .failed(let error):
                throw error
            case .header:
                guard let header = try takeHeader() else { return nil }
                if header.finished { return .finished(lane: header.lane) }
            case .skip(let rest):
                let dropped = min(rest, input.readableBytes)
                input.moveReaderIndex(forwardBy: dropped)
                guard dropped == rest else {
                    state = .skip(rest - dropped)
                    input = ByteBuffer()
                    return nil
                }
                state = .header
            case .body(let type, let length, let lane):
                guard let body = takeBody(length: length) else { return nil }
                state = .header
                return .frame(try Frame(type: type, body: body), lane: lane)
            }
        }
    }

    /// Takes a header when all of it is there, and enters the state that it asks for.
    private mutating func takeHeader() throws(FrameError) -> Header? {
        var header: Header?
        if gathered.readableBytes == 0 {
            header = try parseHeader(input)
            if let header {
                input.moveReaderIndex(forwardBy: header.size)
            } else {
                gathered = ownCopy(of: input)
                input = ByteBuffer()
            }
        } else {
            // At most 24 rounds: three varints of at most 8 bytes.
            while header == nil, let byte = input.readInteger(as: UInt8.self) {
                gathered.writeInteger(byte)
                header = try parseHeader(gathered)
            }
            if header != nil { gathered = ByteBuffer() }
            if input.readableBytes == 0 { input = ByteBuffer() }
        }
        guard let header else { return nil }
        if header.finished {
            state = .header
        } else if let type = FrameType(rawValue: header.type) {
            state = .body(type, length: Int(header.length), lane: header.lane)
        } else {
            state = .skip(Int(header.length))
        }
        return header
    }

    /// Reads a header as far as it is there; what is wrong is said at the first byte that shows it.
    private func parseHeader(_ bytes: ByteBuffer) throws(FrameError) -> Header? {
        var header = Header()
        var index = bytes.readerIndex
        if tagged {
            guard let (tag, size) = Varint.peek(bytes, at: index) else { return nil }
            index += size
            header.lane = tag >> 1
            header.finished = tag & 1 == 1
            if header.finished {
                guard header.lane != 0 else {
                    throw FrameError(.malformed, message: "lane 0 can't be finished")
                }
                header.size = size
                return header
            }
        }
        guard let (type, typeSize) = Varint.peek(bytes, at: index) else { return nil }
        index += typeSize
        guard type % 2 == 0 || FrameType(rawValue: type) != nil else {
            throw FrameError(.unknownType, message: "type 0x\(String(type, radix: 16)) is unknown")
        }
        guard let (length, lengthSize) = Varint.peek(bytes, at: index) else { return nil }
        index += lengthSize
        guard length <= UInt64(FrameLimits.maximumBody) else {
            throw FrameError(
                .tooLarge, message: "a body of \(length) bytes is announced, the limit is \(FrameLimits.maximumBody)")
        }
        header.type = type
        header.length = length
        header.size = index - bytes.readerIndex
        return header
    }

    /// Takes a body when all of it is there: in place when it came in one piece, gathered otherwise.
    private mutating func takeBody(length: Int) -> ByteBuffer? {
        if gathered.readableBytes == 0, let body = input.readSlice(length: length) { return body }
        let missing = length - gathered.readableBytes
        if input.readableBytes <= missing {
            gathered.writeImmutableBuffer(input)
            input = ByteBuffer()
        } else if var part = input.readSlice(length: missing) {
            gathered.writeBuffer(&part)
        }
        guard gathered.readableBytes == length else { return nil }
        defer { gathered = ByteBuffer() }
        return gathered
    }

    private func ownCopy(of bytes: ByteBuffer) -> ByteBuffer {
        var copy = ByteBuffer()
        copy.writeImmutableBuffer(bytes)
        return copy
    }
}
