/// Frames, field lines and instructions of HTTP/3 by an input's choices: plausible for the most part, and 0 is valid.
struct HTTP3Choices {
    typealias Field = (name: String, value: [UInt8])

    var input: FuzzInput

    // MARK: Numbers

    static func varint(_ value: UInt64) -> [UInt8] {
        switch value {
        case 0..<(1 << 6): [UInt8(value)]
        case 0..<(1 << 14): bigEndian(value | 0x4000, 2)
        case 0..<(1 << 30): bigEndian(value | 0x8000_0000, 4)
        default: bigEndian(value & (1 << 62 - 1) | 0xc000_0000_0000_0000, 8)
        }
    }

    private static func bigEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }

    /// An integer of QPACK (RFC 7541 section 5.1).
    static func integer(_ value: Int, prefix: Int, flags: UInt8) -> [UInt8] {
        let largest = 1 << prefix - 1
        guard value >= largest else { return [flags | UInt8(value)] }
        var bytes = [flags | UInt8(largest)]
        var rest = value - largest
        while rest >= 128 {
            bytes.append(UInt8(rest & 127) | 128)
            rest >>= 7
        }
        return bytes + [UInt8(rest)]
    }

    static func frame(_ type: UInt64, _ payload: [UInt8]) -> [UInt8] {
        varint(type) + varint(UInt64(payload.count)) + payload
    }

    /// Small for the most part, sometimes as large as can be.
    mutating func number() -> UInt64 {
        let byte = input.byte()
        switch byte {
        case 0..<200: return UInt64(byte)
        case 200..<230: return UInt64(input.number())
        case 230..<240: return UInt64(input.number()) << 16
        case 240..<250: return (1 << 62) - 1 - UInt64(byte - 240)
        default: return 1 << UInt64(30 + 6 * (byte - 250))
        }
    }

    /// Bytes of a body or a value: few for the most part, sometimes more than buffers hold.
    mutating func size() -> Int {
        let byte = Int(input.byte())
        return byte < 200 ? byte : (byte - 199) * 1300
    }

    /// Copied rather than made: each step of a loop costs, where everything is watched.
    private static let patterns = (0..<(80 << 10)).map { UInt8(truncatingIfNeeded: $0) }

    mutating func pattern(_ count: Int) -> [UInt8] {
        let first = Int(input.byte())
        return Array(Self.patterns[first..<min(first + count, Self.patterns.count)])
    }

    /// A code of HTTP/3, or another.
    mutating func code() -> UInt64 {
        let byte = input.byte()
        return byte < 128 ? 0x100 + UInt64(byte % 17) : byte < 200 ? 0x200 + UInt64(byte % 3) : number()
    }

    /// A type that means nothing.
    mutating func unknownType() -> UInt64 { 0x21 + 0x1f * UInt64(input.byte()) }

    // MARK: Fields

    private static let methods = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "CONNECT", "B AD", "", "get"]
    private static let schemes = ["https", "http", "ftp", "", "ht tp"]
    private static let authorities = ["a", "b.test:443", "", "user@a", "a b"]
    private static let paths = ["/", "/x?y=z", "*", "", "x", "/\u{7f}", "/é"]
    private static let statuses = ["200", "204", "304", "404", "103", "100", "101", "20", "2000", "099", "abc", ""]
    private static let names = [
        "content-length", "priority", "host", "te", "cookie", "x-a", "accept", "user-agent", "x-b", "content-type",
        "connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "Upper", "", "a b", "é", "a:b",
        ":status", ":protocol", ":method", ":path", ":authority", ":x", ":", "expect", "date", "x\u{0}",
    ]
    private static let values = [
        "0", "5", "10", "100", "a", "u=1, i", "u=9", "trailers", "gzip", "-1", "5, 5", "18446744073709551616",
        "text/plain", "", " a ", "a\nb", "a\u{0}", "é", "a\tb", "9999999999999999999",
        "user@a", "a b",
    ]

    private mutating func pick(_ list: [String]) -> String { list[Int(input.byte()) % list.count] }

    /// One choice for each that is mostly the first of the list; nil: left out.
    private mutating func pseudo(_ list: [String]) -> String? {
        let byte = Int(input.byte())
        return byte >= 250 ? nil : byte < 160 ? list[0] : list[byte % list.count]
    }

    mutating func request() -> [Field] {
        var fields: [Field] = []
        let byte = Int(input.byte())
        let method = byte < 200 ? Self.methods[byte % 5] : byte < 250 ? Self.methods[byte % Self.methods.count] : nil
        for (name, value) in [
            (":method", method), (":scheme", pseudo(Self.schemes)), (":authority", pseudo(Self.authorities)),
            (":path", pseudo(Self.paths)),
        ] {
            if let value { fields.append((name, Array(value.utf8))) }
        }
        return fields + more()
    }

    mutating func response() -> [Field] {
        let byte = Int(input.byte())
        let status = byte < 160 ? Self.statuses[byte % 6] : Self.statuses[byte % Self.statuses.count]
        return (byte == 255 ? [] : [(":status", Array(status.utf8))]) + more()
    }

    /// Lines behind the pseudo-header fields.
    mutating func more() -> [Field] {
        var fields: [Field] = []
        for _ in 0..<(input.byte() % 8) {
            let kind = input.byte()
            // Most lines are good ones, else no section would be.
            let name = kind < 160 ? Self.names[Int(kind) % 10] : Self.names[Int(kind) % Self.names.count]
            let value: [UInt8]
            switch input.byte() {
            case let byte where byte < 180:
                value = Array(Self.values[Int(byte) % (name == "content-length" ? 4 : 9)].utf8)
            case let byte where byte < 235: value = Array(Self.values[Int(byte) % Self.values.count].utf8)
            case let byte where byte < 245: value = input.bytes(Int(byte - 230))
            default: value = [UInt8](repeating: 0x61, count: size())
            }
            fields.append((name, value))
        }
        return fields
    }

    // MARK: Sections

    /// All lines as literals, without the dynamic table (RFC 9204 section 4.5).
    static func literal(_ fields: [Field]) -> [UInt8] {
        var bytes: [UInt8] = [0, 0]
        for (name, value) in fields {
            bytes += integer(name.utf8.count, prefix: 3, flags: 0x20) + Array(name.utf8)
            bytes += integer(value.count, prefix: 7, flags: 0) + value
        }
        return bytes
    }

    /// A section of representations that refer to tables, whatever is in them.
    mutating func references() -> [UInt8] {
        var bytes = Self.integer(Int(input.byte()), prefix: 8, flags: 0)
        bytes += Self.integer(Int(input.byte() & 31), prefix: 7, flags: input.byte() & 0x80)
        for _ in 0..<(1 + input.byte() % 8) {
            let index = Int(input.byte())
            let line: [UInt8] =
                switch input.byte() % 6 {
                case 0: Self.integer(index, prefix: 6, flags: 0xc0)
                case 1: Self.integer(index & 15, prefix: 6, flags: 0x80)
                case 2: Self.integer(index & 15, prefix: 4, flags: 0x10)
                case 3: Self.integer(index, prefix: 4, flags: 0x50) + [1, 0x61]
                case 4: Self.integer(index & 7, prefix: 3, flags: 0) + [1, 0x61]
                default: Self.integer(index & 15, prefix: 4, flags: 0x40) + [0x81, 0x1f]
                }
            // An index of one byte may unfold to kilobytes.
            let times = input.byte()
            for _ in 0..<(times < 240 ? 1 : 1 << min(Int(times - 240), 11)) { bytes += line }
        }
        return bytes
    }

    /// Changes a byte, cuts bytes off, or adds some; mostly nothing.
    mutating func damage(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = bytes
        switch input.byte() {
        case 240..<246 where !bytes.isEmpty: bytes[input.number() % bytes.count] = input.byte()
        case 246..<251: bytes.removeLast(min(bytes.count, Int(input.byte())))
        case 251...255: bytes += input.bytes(Int(input.byte()))
        default: break
        }
        return bytes
    }

    // MARK: Frames

    /// What a control stream carries, and what it must not.
    mutating func controlFrame() -> [UInt8] {
        switch input.byte() % 12 {
        case 0, 1: return Self.frame(0x4, settings())
        case 2, 3: return Self.frame(0x7, Self.varint(number()))
        case 4: return Self.frame(0xd, Self.varint(number()))
        case 5: return Self.frame(0x3, Self.varint(number()))
        case 6, 7: return Self.frame(0xf0700, Self.varint(number() & ~3) + priority())
        case 8: return Self.frame(0xf0701, Self.varint(number()) + priority())
        case 9: return Self.frame(unknownType(), pattern(size()))
        case 10: return Self.frame(UInt64(input.byte() % 16), input.bytes(Int(input.byte() % 20)))
        default: return Self.varint(number()) + Self.varint(number()) + input.bytes(Int(input.byte() % 20))
        }
    }

    private mutating func priority() -> [UInt8] {
        let text = pick(["u=0", "u=7, i", "", "i", "u=3;a=b", "u=", "\"", "u=1,u=2", "i=?0"])
        return damage(Array(text.utf8))
    }

    /// A few settings: those that are known, or others.
    mutating func settings() -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<(input.byte() % 6) {
            let byte = input.byte()
            let identifier: UInt64 = byte < 180 ? [0x1, 0x6, 0x7, 0x8, 0x33, 0x21][Int(byte) % 6] : UInt64(byte % 64)
            bytes += Self.varint(identifier)
            bytes += Self.varint(identifier == 0x1 ? [4096, 64, 63, 1 << 20][Int(input.byte()) % 4] : number())
        }
        return bytes
    }

    /// What a request stream carries besides sections, and what it must not.
    mutating func requestFrame() -> [UInt8] {
        switch input.byte() % 10 {
        case 0...3: return Self.frame(0x0, pattern(size()))
        case 4: return Self.frame(unknownType(), pattern(size()))
        case 5:
            // A frame that is longer than what follows, or shorter.
            let length = number()
            return Self.varint(UInt64(input.byte() & 1)) + Self.varint(length) + pattern(size())
        case 6: return Self.frame(UInt64(input.byte() % 16), input.bytes(Int(input.byte() % 20)))
        case 7: return Self.frame([0x4, 0x7, 0xd, 0x3, 0xf0700, 0x5][Int(input.byte() % 6)], Self.varint(number()))
        default: return input.bytes(Int(input.byte()))
        }
    }

    // MARK: Instructions

    /// What an encoder says (RFC 9204 section 4.3).
    mutating func encoderInstruction() -> [UInt8] {
        let index = Int(input.byte())
        let value = [UInt8](repeating: 0x61, count: size())
        let text = Self.integer(value.count, prefix: 7, flags: 0) + value
        switch input.byte() % 7 {
        case 0: return Self.integer([4096, 100, 0, 4097, 64, 1 << 20][index % 6], prefix: 5, flags: 0x20)
        case 1: return Self.integer(index % 99, prefix: 6, flags: 0xc0) + text
        case 2: return Self.integer(index & 7, prefix: 6, flags: 0x80) + text
        case 3: return [0x43, 0x78, 0x2d, 0x61] + text
        case 4: return Self.integer(index & 15, prefix: 5, flags: 0)
        case 5: return Self.integer(index, prefix: 5, flags: 0x40) + text
        default: return input.bytes(Int(input.byte() % 30))
        }
    }

    /// What a decoder says (RFC 9204 section 4.4).
    mutating func decoderInstruction() -> [UInt8] {
        let value = Int(number() & 0xffff_ffff)
        switch input.byte() % 4 {
        case 0: return Self.integer(value, prefix: 7, flags: 0x80)
        case 1: return Self.integer(value, prefix: 6, flags: 0x40)
        case 2: return Self.integer(value, prefix: 6, flags: 0)
        default: return input.bytes(Int(input.byte() % 30))
        }
    }
}
