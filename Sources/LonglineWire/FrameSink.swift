import NIOCore

/// Where a body goes: its fields are written down once, and run once to count bytes and once to write them.
///
/// Numbers that count are varints (RFC 9000 section 16) in their shortest form; opaque 64-bit values are eight bytes,
/// big-endian. Strings and bytes have a varint length before them.
protocol FrameSink {
    mutating func byte(_ value: UInt8)
    mutating func fixed(_ value: UInt64)
    /// Writes a value that is known to be at most ``FrameLimits/maximumNumber``.
    mutating func uncheckedVarint(_ value: UInt64)
    mutating func raw(_ text: String.UTF8View)
    mutating func raw(_ bytes: ByteBuffer)
}

extension FrameSink {
    mutating func varint(_ value: UInt64, _ field: StaticString) throws(FrameError) {
        guard value <= FrameLimits.maximumNumber else {
            throw FrameError(.unrepresentable, message: "\(field) is over 2^62 - 1")
        }
        uncheckedVarint(value)
    }

    mutating func string(_ text: String, limit: Int, _ field: StaticString) throws(FrameError) {
        let bytes = text.utf8
        try count(bytes.count, limit: limit, field)
        raw(bytes)
    }

    mutating func bytes(_ bytes: ByteBuffer, limit: Int, _ field: StaticString) throws(FrameError) {
        try count(bytes.readableBytes, limit: limit, field)
        raw(bytes)
    }

    /// The length of what follows.
    mutating func count(_ count: Int, limit: Int, _ field: StaticString) throws(FrameError) {
        guard count <= limit else {
            throw FrameError(.limitExceeded, message: "\(field) has \(count), the limit is \(limit)")
        }
        uncheckedVarint(UInt64(count))
    }

    /// A name that was checked when it was made.
    mutating func identifier(_ name: String) {
        let bytes = name.utf8
        uncheckedVarint(UInt64(bytes.count))
        raw(bytes)
    }

    /// As ``ChannelID/description``, without making that string.
    mutating func channel(_ channel: ChannelID) {
        switch channel {
        case .user(let user): identifier(user.description, kind: "user/")
        case .room(let room): identifier(room.description, kind: "room/")
        case .all(let broadcast): identifier(broadcast.description, kind: "all/")
        }
    }

    private mutating func identifier(_ name: String, kind: String) {
        uncheckedVarint(UInt64(kind.utf8.count + name.utf8.count))
        raw(kind.utf8)
        raw(name.utf8)
    }

    mutating func producer(_ producer: ProducerID) {
        fixed(producer.high)
        fixed(producer.low)
    }

    mutating func position(_ position: Position, _ field: StaticString) throws(FrameError) {
        fixed(position.epoch)
        try varint(position.offset, field)
    }
}

/// Counts what a body takes.
struct CountingSink: FrameSink {
    private(set) var size = 0

    mutating func byte(_ value: UInt8) { size += 1 }
    mutating func fixed(_ value: UInt64) { size += 8 }
    mutating func uncheckedVarint(_ value: UInt64) { size += Varint.size(value) }
    mutating func raw(_ text: String.UTF8View) { size += text.count }
    mutating func raw(_ bytes: ByteBuffer) { size += bytes.readableBytes }
}

/// Writes to the end of a buffer.
struct BufferSink: FrameSink {
    var buffer: ByteBuffer

    mutating func byte(_ value: UInt8) { buffer.writeInteger(value) }
    mutating func fixed(_ value: UInt64) { buffer.writeInteger(value) }
    mutating func uncheckedVarint(_ value: UInt64) { Varint.write(value, to: &buffer) }
    mutating func raw(_ text: String.UTF8View) { buffer.writeBytes(text) }
    mutating func raw(_ bytes: ByteBuffer) { buffer.writeImmutableBuffer(bytes) }
}
