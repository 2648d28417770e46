import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@Suite("Bytes in pieces")
struct DecoderTests {
    /// Frames with skipped ones between them.
    private func stream(_ random: inout SeededRandom) throws -> (frames: [Frame], bytes: ByteBuffer) {
        let frames = RandomFrames.one(ofEach: &random).shuffled(using: &random)
        var bytes = ByteBuffer()
        for frame in frames {
            if random.happens(0.5) { FrameEncoder.grease(using: &random, into: &bytes) }
            try FrameEncoder.encode(frame, into: &bytes)
        }
        return (frames, bytes)
    }

    @Test("The pieces don't matter", arguments: seeds(0..<120))
    func fragments(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var (frames, bytes) = try stream(&random)
        let largest = [1, 2, 7, 100, 1200, 5_000, 70_000].randomElement(using: &random) ?? 1
        var decoder = FrameDecoder()
        var seen: [Frame] = []
        while bytes.readableBytes > 0 {
            let length = min(bytes.readableBytes, Int.random(in: 1...largest, using: &random))
            let piece = bytes.readSlice(length: length)
            decoder.append(try #require(piece))
            // A host may append more than once before it asks.
            if random.happens(0.1) { continue }
            while let frame = try decoder.next() { seen.append(frame) }
            #expect(decoder.heldBytes < FrameLimits.maximumBody + 16)
        }
        while let frame = try decoder.next() { seen.append(frame) }
        #expect(seen == frames)
        try decoder.finish()
    }

    @Test("An empty piece changes nothing")
    func empty() throws {
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer())
        #expect(try decoder.next() == nil)
        try decoder.finish()
    }

    @Test("A small payload does not keep the read buffer it came in; a large one shares it")
    func payloadStorage() throws {
        for (size, shares) in [(10, false), (1_000, false), (15_000, true)] {
            var read = ByteBuffer()
            read.reserveCapacity(32 * 1024)
            let publish = Publish(
                id: 1, tag: 2, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(repeating: 1, count: size))
            try FrameEncoder.encode(.publish(publish), into: &read)
            guard case .publish(let seen) = try #require(try FrameDecoder.all(in: read).first) else {
                Issue.record("not a publish")
                return
            }
            #expect(seen.payload.readableBytes == size)
            #expect((seen.payload.storageCapacity >= 32 * 1024) == shares, "\(size)")
            #expect(seen.payload.storageCapacity <= max(32 * 1024, 4 * size))
        }
    }

    @Test("A long skipped frame is not kept while it comes")
    func skipped() throws {
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer(bytes: [0x2a, 0x80, 0x00, 0x40, 0x00]))
        for _ in 0..<16 {
            #expect(try decoder.next() == nil)
            #expect(decoder.heldBytes == 0)
            #expect(throws: FrameError.self) { try decoder.finish() }
            decoder.append(ByteBuffer(repeating: 0, count: 1024))
        }
        #expect(try decoder.next() == nil)
        try decoder.finish()
    }
}

@Suite("Room to grow")
struct GreaseTests {
    @Test("Grease has an even type of its own form, and receivers pass over it", arguments: seeds(0..<200))
    func grease(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var bytes = ByteBuffer()
        FrameEncoder.grease(using: &random, into: &bytes)
        let first = try #require(bytes.getInteger(at: 0, as: UInt8.self))
        let last = try #require(bytes.getInteger(at: (1 << Int(first >> 6)) - 1, as: UInt8.self))
        #expect(last & 0x3f == 0x2a)
        let ping = Frame.ping(Ping(nonce: seed))
        try FrameEncoder.encode(ping, into: &bytes)
        #expect(try FrameDecoder.all(in: bytes) == [ping])
    }

    @Test("A type that is not known is skipped when it is even, and refused when it is odd")
    func types() throws {
        let known = Set(try RandomFrames.types())
        #expect(known.count == 49)
        for type in 0..<64 as Range<UInt8> {
            var decoder = FrameDecoder()
            // One byte that no known frame can consist of.
            decoder.append(ByteBuffer(bytes: [type, 1, 0xff]))
            let isKnown = known.contains(UInt64(type))
            if type.isMultiple(of: 2), !isKnown {
                #expect(try decoder.next() == nil)
                try decoder.finish()
            } else {
                let error = #expect(throws: FrameError.self) { try decoder.next() }
                #expect(error?.code == (isKnown ? .malformed : .unknownType))
            }
        }
    }

    @Test("Codes of later versions keep their range's meaning")
    func codes() {
        #expect(CloseCode(rawValue: 1999).policy == .backOff)
        #expect(CloseCode(rawValue: 2999).policy == .redirect)
        #expect(CloseCode(rawValue: 3999).policy == .newToken)
        #expect(CloseCode(rawValue: 4999).policy == .upgrade)
        #expect(CloseCode(rawValue: 5999).policy == .stop)
        #expect(CloseCode(rawValue: 6000).policy == .backOff)
        #expect(!RefusalCode(rawValue: 999).isTemporary)
    }
}

extension RandomFrames {
    static func types() throws -> [UInt64] {
        var random = SeededRandom(seed: 0)
        return one(ofEach: &random).map(\.typeNumber)
    }
}
