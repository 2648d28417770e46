internal import NIOCore

/// Types of frames (RFC 9114 section 7.2, RFC 9218 section 7).
enum FrameType {
    static let data: UInt64 = 0x0
    static let headers: UInt64 = 0x1
    static let cancelPush: UInt64 = 0x3
    static let settings: UInt64 = 0x4
    static let pushPromise: UInt64 = 0x5
    static let goaway: UInt64 = 0x7
    static let maxPushID: UInt64 = 0xd
    static let priorityUpdateRequest: UInt64 = 0xf0700
    static let priorityUpdatePush: UInt64 = 0xf0701

    /// Types that HTTP/2 has and HTTP/3 forbids (RFC 9114 section 7.2.8).
    static func isReservedByHTTP2(_ type: UInt64) -> Bool { type == 0x2 || type == 0x6 || type == 0x8 || type == 0x9 }

    /// Whether the type is one that a control stream carries and a request stream doesn't.
    static func belongsOnControlStream(_ type: UInt64) -> Bool {
        switch type {
        case cancelPush, settings, goaway, maxPushID, priorityUpdateRequest, priorityUpdatePush: true
        default: false
        }
    }
}

/// Types of unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
enum StreamType {
    static let control: UInt64 = 0
    static let push: UInt64 = 1
    static let qpackEncoder: UInt64 = 2
    static let qpackDecoder: UInt64 = 3
}

/// A variable-length integer (RFC 9000 section 16) that comes in pieces.
struct VarintReader {
    private var value: UInt64 = 0
    /// Bytes still to come; 0: the first one is next.
    private var left = 0

    /// Whether some of it has come and some has not.
    var isPartial: Bool { left > 0 }

    /// Takes bytes from `offset` on, until the integer is complete.
    mutating func read(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) -> UInt64? {
        while offset < bytes.count {
            let byte = bytes[offset]
            offset += 1
            if left == 0 {
                left = (1 << Int(byte >> 6)) - 1
                value = UInt64(byte & 0x3f)
            } else {
                value = value << 8 | UInt64(byte)
                left -= 1
            }
            if left == 0 { return value }
        }
        return nil
    }
}

/// Where a stream of frames stands.
///
/// ```
///  header --type and length--> payload --all of it--> header
/// ```
struct FrameReader {
    private var varint = VarintReader()
    private var pendingType: UInt64?
    /// The type of the frame whose payload is next; nil: a header is next.
    private(set) var type: UInt64?
    /// Bytes of payload still to come.
    private(set) var left: UInt64 = 0

    /// Whether the stream may end here (RFC 9114 section 7.1).
    var isBetweenFrames: Bool { type == nil && pendingType == nil && !varint.isPartial }

    /// Takes bytes from `offset` on, until a frame's header is complete.
    /// - Returns: whether it is.
    mutating func readHeader(_ bytes: UnsafeRawBufferPointer, _ offset: inout Int) -> Bool {
        assert(type == nil, "a header comes after the payload before it")
        while let number = varint.read(bytes, &offset) {
            if let known = pendingType {
                pendingType = nil
                type = known
                left = number
                return true
            }
            pendingType = number
        }
        return false
    }

    /// Bytes of the payload were taken.
    mutating func took(_ count: Int) {
        assert(type != nil && UInt64(count) <= left, "no more is taken than the frame has")
        left -= UInt64(count)
        if left == 0 { type = nil }
    }
}

extension ByteBuffer {
    /// Appends a variable-length integer in its shortest form.
    mutating func writeVarint(_ value: UInt64) {
        switch value {
        case 0..<(1 << 6): writeInteger(UInt8(value))
        case 0..<(1 << 14): writeInteger(UInt16(value) | 0x4000)
        case 0..<(1 << 30): writeInteger(UInt32(value) | 0x8000_0000)
        default:
            assert(value < 1 << 62, "a varint has 62 bits")
            writeInteger(value | 0xc000_0000_0000_0000)
        }
    }

    /// Takes a variable-length integer; nil: the bytes don't hold one.
    mutating func readVarint() -> UInt64? {
        guard let first: UInt8 = getInteger(at: readerIndex) else { return nil }
        switch first >> 6 {
        case 0: return readInteger(as: UInt8.self).map { UInt64($0) }
        case 1: return readInteger(as: UInt16.self).map { UInt64($0 & 0x3fff) }
        case 2: return readInteger(as: UInt32.self).map { UInt64($0 & 0x3fff_ffff) }
        default: return readInteger(as: UInt64.self).map { $0 & 0x3fff_ffff_ffff_ffff }
        }
    }

    /// Appends a frame's type and length.
    mutating func writeFrameHeader(_ type: UInt64, length: Int) {
        writeVarint(type)
        writeVarint(UInt64(length))
    }
}
