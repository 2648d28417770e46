import NIOCore

/// Reads the fields of one body in order. Nothing in a body makes it trap: it yields a field or a ``FrameError``.
struct FrameReader {
    private var body: ByteBuffer
    private let type: FrameType

    init(_ body: ByteBuffer, type: FrameType) {
        self.body = body
        self.type = type
    }

    func malformed(_ field: StaticString, _ what: String, cause: IdentifierError? = nil) -> FrameError {
        FrameError(.malformed, message: "\(type.name) \(field): \(what)", cause: cause)
    }

    mutating func byte(_ field: StaticString) throws(FrameError) -> UInt8 {
        guard let value = body.readInteger(as: UInt8.self) else { throw malformed(field, "the body ends before it") }
        return value
    }

    mutating func fixed(_ field: StaticString) throws(FrameError) -> UInt64 {
        guard let value = body.readInteger(as: UInt64.self) else { throw malformed(field, "the body ends before it") }
        return value
    }

    mutating func varint(_ field: StaticString) throws(FrameError) -> UInt64 {
        guard let (value, length) = Varint.peek(body, at: body.readerIndex) else {
            throw malformed(field, "the body ends before it")
        }
        body.moveReaderIndex(forwardBy: length)
        return value
    }

    mutating func varint32(_ field: StaticString) throws(FrameError) -> UInt32 {
        guard let value = UInt32(exactly: try varint(field)) else { throw malformed(field, "is over 2^32 - 1") }
        return value
    }

    /// One byte that has a meaning for each of its values, or is malformed.
    mutating func choice<Choice: RawRepresentable<UInt8>>(_ field: StaticString) throws(FrameError) -> Choice {
        let value = try byte(field)
        guard let choice = Choice(rawValue: value) else { throw malformed(field, "has an unknown value") }
        return choice
    }

    /// A byte of which only some bits have a meaning; the others must be 0.
    mutating func flags(_ field: StaticString, known: UInt8) throws(FrameError) -> UInt8 {
        let value = try byte(field)
        guard value & ~known == 0 else { throw malformed(field, "has unknown bits") }
        return value
    }

    /// A length or count within its limit.
    mutating func count(_ field: StaticString, limit: Int) throws(FrameError) -> Int {
        let value = try varint(field)
        guard value <= UInt64(limit) else {
            throw FrameError(.limitExceeded, message: "\(type.name) \(field) has \(value), the limit is \(limit)")
        }
        return Int(value)
    }

    mutating func string(_ field: StaticString, limit: Int) throws(FrameError) -> String {
        let length = try count(field, limit: limit)
        guard let view = body.readableBytesView.prefix(exactly: length) else {
            throw malformed(field, "the body ends inside it")
        }
        guard let text = String(validating: view, as: UTF8.self) else { throw malformed(field, "is not UTF-8") }
        body.moveReaderIndex(forwardBy: length)
        return text
    }

    /// Bytes that share the body's storage, or have their own where they would hold much more memory than they are.
    mutating func bytes(_ field: StaticString, limit: Int) throws(FrameError) -> ByteBuffer {
        let length = try count(field, limit: limit)
        guard let slice = body.readSlice(length: length) else { throw malformed(field, "the body ends inside it") }
        return slice.withoutLargeBacking()
    }

    /// A payload, as ``bytes(_:limit:)`` but as long as the body lets it be: one over its limit is the session's to judge.
    mutating func payload() throws(FrameError) -> ByteBuffer {
        let length = try varint("payload")
        guard length <= UInt64(body.readableBytes), let slice = body.readSlice(length: Int(length)) else {
            throw malformed("payload", "the body ends inside it")
        }
        return slice.withoutLargeBacking()
    }

    /// The bytes of a payload that follow in parts, of which there are some.
    mutating func following() throws(FrameError) -> UInt64 {
        let value = try varint("following")
        guard value > 0 else { throw malformed("following", "is 0") }
        return value
    }

    mutating func user(_ field: StaticString) throws(FrameError) -> UserID {
        let text = try string(field, limit: IdentifierRule.limit)
        do { return try UserID(text) } catch { throw malformed(field, "is no name", cause: error) }
    }

    mutating func device(_ field: StaticString) throws(FrameError) -> DeviceID {
        let text = try string(field, limit: IdentifierRule.limit)
        do { return try DeviceID(text) } catch { throw malformed(field, "is no name", cause: error) }
    }

    mutating func room(_ field: StaticString) throws(FrameError) -> RoomID {
        let text = try string(field, limit: IdentifierRule.limit)
        do { return try RoomID(text) } catch { throw malformed(field, "is no name", cause: error) }
    }

    mutating func channel(_ field: StaticString) throws(FrameError) -> ChannelID {
        let text = try string(field, limit: IdentifierRule.limit + 5)
        do { return try ChannelID(text) } catch { throw malformed(field, "is no channel", cause: error) }
    }

    mutating func producer(_ field: StaticString) throws(FrameError) -> ProducerID {
        ProducerID(high: try fixed(field), low: try fixed(field))
    }

    mutating func position(_ field: StaticString) throws(FrameError) -> Position {
        Position(epoch: try fixed(field), offset: try varint(field))
    }

    /// A known body is consumed exactly: version 1 has no room for additions at its end.
    func finish() throws(FrameError) {
        guard body.readableBytes == 0 else {
            throw FrameError(.malformed, message: "\(type.name): \(body.readableBytes) bytes after the last field")
        }
    }
}

extension ByteBufferView {
    /// The first `length` bytes, or nil when there are fewer.
    fileprivate func prefix(exactly length: Int) -> ByteBufferView? {
        length <= count ? self[startIndex..<startIndex + length] : nil
    }
}

extension ByteBuffer {
    /// The same bytes, copied when the storage behind them is over four times as large: a small payload kept by an
    /// app must not keep a whole read buffer.
    fileprivate func withoutLargeBacking() -> ByteBuffer {
        guard storageCapacity / 4 > readableBytes else { return self }
        var copy = ByteBuffer()
        copy.writeBytes(readableBytesView)
        return copy
    }
}
