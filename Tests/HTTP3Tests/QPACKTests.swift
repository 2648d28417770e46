import CHTTP3Shim
import HTTPTypes
import NIOCore
import Testing

@testable import HTTP3

@Suite("QPACK")
struct QPACKTests {
    /// Two coders that talk to each other without streams.
    private struct Pair {
        let encoder: FieldEncoder
        let decoder: FieldDecoder
        var instructions = ByteBuffer()

        init(capacity: Int = 4096, blocked: Int = 100) throws {
            encoder = try #require(FieldEncoder())
            decoder = try #require(FieldDecoder(capacity: capacity, blockedStreams: blocked))
            encoder.allow(peerCapacity: UInt64(capacity), blockedStreams: UInt64(blocked), ownCapacity: capacity)
        }

        mutating func encode(_ fields: HTTPFields, stream: UInt64) throws -> ByteBuffer {
            var lines = FieldLines()
            lines.append(name: ":status", value: "200")
            try lines.append(fields, isTrailer: false)
            var frame = ByteBuffer()
            #expect(encoder.encode(lines, for: stream, usesTable: true, into: &frame, instructions: &instructions))
            #expect(frame.readVarint() == FrameType.headers)
            #expect(frame.readVarint() == UInt64(frame.readableBytes))
            return frame
        }

        mutating func deliverInstructions() throws {
            try instructions.withUnsafeReadableBytes { try decoder.read($0) }
            instructions.clear()
            var answer = ByteBuffer()
            decoder.takeInstructions(into: &answer)
            try answer.withUnsafeReadableBytes { try encoder.read($0) }
        }

        func decode(_ section: ByteBuffer, stream: UInt64) throws -> FieldDecoder.Outcome {
            try section.withUnsafeReadableBytes { try decoder.decode($0, stream: stream, limit: 1 << 16) }
        }
    }

    private let fields: HTTPFields = [
        .server: "a server with a name that is worth an entry", .contentType: "text/html",
    ]

    @Test("What was sent once is an index from then on")
    func repetition() throws {
        var pair = try Pair()
        var sizes: [Int] = []
        for stream in UInt64(0)..<5 {
            let section = try pair.encode(fields, stream: stream * 4)
            sizes.append(section.readableBytes)
            try pair.deliverInstructions()
            guard case .decoded = try pair.decode(section, stream: stream * 4) else {
                Issue.record("not decoded")
                return
            }
            var reader = MessageReader()
            #expect(try reader.response(pair.decoder.section).response.headerFields == fields)
            try pair.deliverInstructions()
        }
        #expect(sizes.allSatisfy { $0 < 12 }, "\(sizes)")
    }

    @Test("A section that is ahead of its table entries waits for them, and is decoded then")
    func blocked() throws {
        var pair = try Pair()
        let section = try pair.encode(fields, stream: 0)
        guard case .blocked(var waiting) = try pair.decode(section, stream: 0) else {
            Issue.record("not blocked")
            return
        }
        guard case .blocked(let again) = try pair.decoder.resume(&waiting, stream: 0, limit: 1 << 16) else {
            Issue.record("not blocked any more")
            return
        }
        waiting = again
        try pair.deliverInstructions()
        guard case .decoded = try pair.decoder.resume(&waiting, stream: 0, limit: 1 << 16) else {
            Issue.record("not decoded")
            return
        }
        #expect(pair.decoder.section.count == 3)
    }

    @Test("As many sections as may wait go on with one entry, and each is acknowledged")
    func manyBlocked() throws {
        let count = 12_000
        let decoder = try #require(FieldDecoder(capacity: 4096, blockedStreams: count))
        // Required insert count 1 is written as 2, the base is the count, and the line is the first entry.
        let section: [UInt8] = [2, 0, 0x80]
        var waiting: [BlockedSection] = []
        for number in 0..<count {
            let outcome = try section.withUnsafeBytes {
                try decoder.decode($0, stream: UInt64(number) * 4, limit: 4096)
            }
            if case .blocked(let one) = outcome { waiting.append(one) }
        }
        #expect(waiting.count == count)
        let instructions = RawPeer.integer(4096, prefix: 5, flags: 0x20) + [0x41, 0x61, 0x01, 0x62]
        try instructions.withUnsafeBytes { try decoder.read($0) }
        var decoded = 0
        for number in waiting.indices {
            let outcome = try decoder.resume(&waiting[number], stream: UInt64(number) * 4, limit: 4096)
            if case .decoded = outcome { decoded += 1 }
        }
        #expect(decoded == count)
        var answer = ByteBuffer()
        decoder.takeInstructions(into: &answer)
        #expect(answer.readableBytes >= count)
    }

    @Test(
        "A peer that announces another capacity than ours, or a huge one, is understood",
        arguments: [64, 100, 220, 65_536])
    func capacities(capacity: Int) throws {
        let encoder = try #require(FieldEncoder())
        let decoder = try #require(FieldDecoder(capacity: capacity, blockedStreams: 10))
        encoder.allow(peerCapacity: UInt64(capacity), blockedStreams: 10, ownCapacity: 4096)
        for stream in UInt64(0)..<400 {
            var lines = FieldLines()
            lines.append(name: ":status", value: "200")
            try lines.append([.server: "server \(stream)", .userAgent: "agent"], isTrailer: false)
            var frame = ByteBuffer()
            var instructions = ByteBuffer()
            #expect(encoder.encode(lines, for: stream, usesTable: true, into: &frame, instructions: &instructions))
            try instructions.withUnsafeReadableBytes { try decoder.read($0) }
            _ = (frame.readVarint(), frame.readVarint())
            guard
                case .decoded = try frame.withUnsafeReadableBytes({
                    try decoder.decode($0, stream: stream, limit: 4096)
                })
            else {
                Issue.record("not decoded")
                return
            }
            var answer = ByteBuffer()
            decoder.takeInstructions(into: &answer)
            try answer.withUnsafeReadableBytes { try encoder.read($0) }
        }
    }

    @Test("A peer whose table would need too much memory of ours gets sections without one")
    func hugeCapacity() throws {
        let encoder = try #require(FieldEncoder())
        encoder.allow(peerCapacity: (1 << 62) - 1, blockedStreams: (1 << 62) - 1, ownCapacity: 4096)
        var lines = FieldLines()
        try lines.append(fields, isTrailer: false)
        var frame = ByteBuffer()
        var instructions = ByteBuffer()
        #expect(encoder.encode(lines, for: 0, usesTable: true, into: &frame, instructions: &instructions))
        #expect(instructions.readableBytes == 0)
    }

    @Test("Bytes at random, and good ones with bits flipped, do no harm to coders", arguments: 0..<20)
    func mutated(seed: UInt64) throws {
        var random = Generator(state: seed)
        for _ in 0..<100 {
            var pair = try Pair(capacity: 512, blocked: 4)
            for stream in UInt64(0)..<6 {
                var section = try pair.encode(
                    [.server: "s\(UInt8.random(in: 0...3, using: &random))", .userAgent: "agent"], stream: stream * 4)
                var instructions = pair.instructions
                pair.instructions.clear()
                mutate(&section, &random)
                mutate(&instructions, &random)
                do {
                    try instructions.withUnsafeReadableBytes { try pair.decoder.read($0) }
                    if case .blocked(let waiting) = try pair.decode(section, stream: stream * 4) {
                        pair.decoder.cancel(stream: stream * 4, waiting)
                    }
                    var reader = MessageReader()
                    _ = try? reader.response(pair.decoder.section)
                    _ = try? reader.request(pair.decoder.section)
                    var answer = ByteBuffer()
                    pair.decoder.takeInstructions(into: &answer)
                    mutate(&answer, &random)
                    try answer.withUnsafeReadableBytes { try pair.encoder.read($0) }
                } catch is Violation {
                    break
                }
            }
        }
    }

    private func mutate(_ buffer: inout ByteBuffer, _ random: inout Generator) {
        guard buffer.readableBytes > 0, Bool.random(using: &random) else { return }
        for _ in 0...Int.random(in: 0...2, using: &random) {
            let index = buffer.readerIndex + Int.random(in: 0..<buffer.readableBytes, using: &random)
            buffer.setInteger(UInt8.random(in: 0...255, using: &random), at: index)
        }
        if Int.random(in: 0..<8, using: &random) == 0 { buffer.writeBytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) }
    }

    /// A sequence that a seed replays.
    private struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var value = state
            value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
            return value ^ value >> 31
        }
    }
}
