@testable import QUICEngine

/// Frames as they are on the wire (RFC 9000 section 19).
enum Frames {
    static func varint(_ value: UInt64) -> [UInt8] {
        let (length, prefix): (Int, UInt8) =
            switch value {
            case 0..<1 << 6: (1, 0)
            case 1 << 6..<1 << 14: (2, 0x40)
            case 1 << 14..<1 << 30: (4, 0x80)
            default: (8, 0xc0)
            }
        var bytes = (0..<length).reversed().map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        bytes[0] |= prefix
        return bytes
    }

    static func numbers(_ values: UInt64...) -> [UInt8] { values.flatMap { varint($0) } }

    static func stream(_ id: UInt64, at offset: UInt64, _ data: [UInt8], fin: Bool = false) -> [UInt8] {
        numbers(fin ? 0x0f : 0x0e, id, offset, UInt64(data.count)) + data
    }

    static func newToken(_ token: [UInt8]) -> [UInt8] { numbers(0x07, UInt64(token.count)) + token }

    /// One byte in each of the 8 KiB behind the first of a stream, which never comes: ngtcp2 takes a piece of memory for each.
    static func sparse(_ id: UInt64, pieces: UInt64) -> [UInt8] {
        (1...pieces).flatMap { stream(id, at: $0 << 13, [1]) }
    }
}

/// What a peer that holds the keys sends in place of its datagrams: packets are acknowledged as ever, so it forgets nothing.
final class CraftedPackets {
    private var frames: [UInt8]?
    private static let size = 1100

    /// Before the endpoint's connections are made.
    init(of endpoint: QUICEndpoint) {
        endpoint.rewrite = { [weak self] plaintext, header in
            guard let self, let frames, let first = header.first, first & 0x80 == 0, plaintext.count >= Self.size
            else { return }
            self.frames = nil
            for index in plaintext.indices { plaintext[index] = index < frames.count ? frames[index] : 0 }
        }
    }

    var isSent: Bool { frames == nil }

    /// The next packet has these frames, and PADDING behind them.
    func send(_ frames: [UInt8], on connection: QUICEngineConnection) throws {
        precondition(frames.count <= Self.size, "they fit")
        self.frames = frames
        guard try connection.offer([UInt8](repeating: 0, count: Self.size), id: 0) else {
            throw EngineWorld.Failure("no room for a datagram")
        }
    }
}
