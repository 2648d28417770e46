/// Appends big-endian numbers and length-prefixed bytes.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func append(_ value: UInt8) { bytes.append(value) }

    mutating func append(_ value: UInt64) {
        for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: value >> shift)) }
    }

    mutating func append(contentsOf more: [UInt8]) { bytes.append(contentsOf: more) }

    mutating func append(lengthPrefixed more: [UInt8]) {
        precondition(more.count <= 0xffff_ffff)
        for shift in stride(from: 24, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: more.count >> shift))
        }
        bytes.append(contentsOf: more)
    }
}

/// Reads what `ByteWriter` wrote; every read returns nil when too little is left.
struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { position == bytes.count }

    mutating func take(_ count: Int) -> [UInt8]? {
        guard count >= 0, bytes.count - position >= count else { return nil }
        defer { position += count }
        return Array(bytes[position..<position + count])
    }

    mutating func byte() -> UInt8? { take(1)?[0] }

    mutating func uint64() -> UInt64? { take(8)?.reduce(0) { $0 << 8 | UInt64($1) } }

    mutating func lengthPrefixed() -> [UInt8]? {
        guard let length = take(4)?.reduce(0, { $0 << 8 | Int($1) }) else { return nil }
        return take(length)
    }
}
