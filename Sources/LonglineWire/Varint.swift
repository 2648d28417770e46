import NIOCore

/// Variable-length integers (RFC 9000 section 16): the two highest bits of the first byte say 1, 2, 4 or 8 bytes.
enum Varint {
    /// The bytes that the shortest form takes.
    static func size(_ value: UInt64) -> Int {
        if value < 1 << 6 { return 1 }
        if value < 1 << 14 { return 2 }
        if value < 1 << 30 { return 4 }
        return 8
    }

    /// Writes the shortest form. The caller has checked that the value is at most ``FrameLimits/maximumNumber``.
    static func write(_ value: UInt64, to buffer: inout ByteBuffer) {
        assert(value <= FrameLimits.maximumNumber)
        switch size(value) {
        case 1: buffer.writeInteger(UInt8(truncatingIfNeeded: value))
        case 2: buffer.writeInteger(UInt16(truncatingIfNeeded: value) | 0x4000)
        case 4: buffer.writeInteger(UInt32(truncatingIfNeeded: value) | 0x8000_0000)
        default: buffer.writeInteger(value | 0xc000_0000_0000_0000)
        }
    }

    /// Looks at the varint at an index; any of the four forms is taken, the shortest or not.
    /// - Returns: the value and its length in bytes, or nil when the readable bytes end before it does.
    static func peek(_ buffer: ByteBuffer, at index: Int) -> (value: UInt64, length: Int)? {
        guard let first = buffer.getInteger(at: index, as: UInt8.self) else { return nil }
        switch first >> 6 {
        case 0: return (UInt64(first), 1)
        case 1: return buffer.getInteger(at: index, as: UInt16.self).map { (UInt64($0 & 0x3fff), 2) }
        case 2: return buffer.getInteger(at: index, as: UInt32.self).map { (UInt64($0 & 0x3fff_ffff), 4) }
        default: return buffer.getInteger(at: index, as: UInt64.self).map { ($0 & FrameLimits.maximumNumber, 8) }
        }
    }
}
