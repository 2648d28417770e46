import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

/// Whatever arrives: frames or a named error, never a trap, and never more held than one frame.
@Suite("Damaged and hostile bytes")
struct HostileInputTests {
    /// Reads all there is; nil where no error came.
    private func drain(_ bytes: ByteBuffer) -> (frames: [Frame], error: FrameError?) {
        var decoder = FrameDecoder()
        decoder.append(bytes)
        var frames: [Frame] = []
        do throws(FrameError) {
            while let frame = try decoder.next() { frames.append(frame) }
            return (frames, nil)
        } catch {
            #expect(error.code != .unrepresentable)
            #expect(!error.message.isEmpty)
            #expect(decoder.heldBytes == 0)
            return (frames, error)
        }
    }

    @Test("A lane that ends anywhere inside a frame is an error at its end", arguments: 0..<4 as Range<UInt64>)
    func truncation(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for frame in RandomFrames.one(ofEach: &random) {
            var whole = ByteBuffer()
            try FrameEncoder.encode(frame, into: &whole)
            for length in lengths(whole.readableBytes) {
                var decoder = FrameDecoder()
                decoder.append(try #require(whole.getSlice(at: 0, length: length)))
                #expect(try decoder.next() == nil)
                #expect(decoder.heldBytes <= length)
                let error = #expect(throws: FrameError.self) { try decoder.finish() }
                #expect(error?.code == .malformed)
            }
        }
    }

    /// Every length below a total, thinned out where frames are long.
    private func lengths(_ total: Int) -> [Int] {
        (1..<max(1, total)).filter { $0 < 300 || total - $0 < 50 || $0.isMultiple(of: 97) }
    }

    @Test("A frame whose body is cut short, with the length to match, is malformed", arguments: 0..<4 as Range<UInt64>)
    func shortBody(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for frame in RandomFrames.one(ofEach: &random) {
            let body = try body(of: frame)
            for length in [0] + lengths(body.readableBytes) where length < body.readableBytes {
                let cut = try #require(body.getSlice(at: body.readerIndex, length: length))
                let (frames, error) = drain(framed(type: frame.typeNumber, body: cut))
                #expect(frames.isEmpty, "\(frame.name) of \(length)")
                #expect(error?.code == .malformed, "\(frame.name) of \(length)")
            }
        }
    }

    @Test("A body that goes on after its last field is malformed", arguments: 0..<8 as Range<UInt64>)
    func longBody(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for frame in RandomFrames.one(ofEach: &random) {
            var body = try body(of: frame)
            guard body.readableBytes < FrameLimits.maximumBody else { continue }
            body.writeInteger(UInt8.random(in: 0...255, using: &random))
            #expect(drain(framed(type: frame.typeNumber, body: body)).error?.code == .malformed, "\(frame.name)")
        }
    }

    @Test("Any flipped bit yields a frame or a named error", arguments: 0..<6 as Range<UInt64>)
    func flips(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for frame in RandomFrames.one(ofEach: &random) {
            var bytes = ByteBuffer()
            try FrameEncoder.encode(frame, into: &bytes)
            for index in lengths(bytes.readableBytes) + [0] {
                let old = try #require(bytes.getInteger(at: index, as: UInt8.self))
                let bit = UInt8(1) << UInt8.random(in: 0...7, using: &random)
                bytes.setInteger(old ^ bit, at: index)
                for again in drain(bytes).frames { try expectRoundTrip(again) }
                bytes.setInteger(old, at: index)
            }
        }
    }

    /// What was read comes back when it is written and read again, unless it is more than a sender may send.
    private func expectRoundTrip(_ frame: Frame) throws {
        var bytes = ByteBuffer()
        do throws(FrameError) {
            try FrameEncoder.encode(frame, into: &bytes)
        } catch {
            #expect(error.code == .unrepresentable && bytes.readableBytes == 0, "\(frame.name): \(error)")
            return
        }
        guard try FrameDecoder.all(in: bytes) != [frame] else { return }
        Issue.record("\(frame) is another one behind a round trip")
    }

    @Test("Random bytes", arguments: seeds(0..<400))
    func garbage(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for _ in 0..<20 {
            for frame in drain(RandomFrames.bytes(&random, 400)).frames { try expectRoundTrip(frame) }
        }
    }

    @Test("Known types with random bodies", arguments: seeds(0..<400))
    func randomBodies(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for type in try RandomFrames.types() {
            for frame in drain(framed(type: type, body: RandomFrames.bytes(&random, 300))).frames {
                try expectRoundTrip(frame)
            }
        }
    }

    @Test("An error is final")
    func poisoned() throws {
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer(bytes: [0x3f, 0]))
        let first = #expect(throws: FrameError.self) { try decoder.next() }
        var valid = ByteBuffer()
        try FrameEncoder.encode(.ping(Ping(nonce: 1)), into: &valid)
        decoder.append(valid)
        #expect(decoder.heldBytes == 0)
        let second = #expect(throws: FrameError.self) { try decoder.next() }
        #expect(first == second)
        #expect(throws: FrameError.self) { try decoder.finish() }
    }

    @Test("A length over the limit is refused before any of the body came")
    func largeLength() {
        var decoder = FrameDecoder()
        decoder.append(ByteBuffer(bytes: [0x13, 0x80, 0x00, 0x40, 0x01]))
        let error = #expect(throws: FrameError.self) { try decoder.next() }
        #expect(error?.code == .tooLarge)
    }

    private func body(of frame: Frame) throws -> ByteBuffer {
        var bytes = ByteBuffer()
        try FrameEncoder.encode(frame, into: &bytes)
        for _ in ["type", "length"] {
            let first = try #require(bytes.getInteger(at: bytes.readerIndex, as: UInt8.self))
            bytes.moveReaderIndex(forwardBy: 1 << Int(first >> 6))
        }
        return bytes.slice()
    }

    private func framed(type: UInt64, body: ByteBuffer) -> ByteBuffer {
        // A longer form than needed, which fits every type.
        var bytes = ByteBuffer(integer: type | 3 << 62)
        bytes.writeInteger(UInt32(body.readableBytes) | 0x8000_0000)
        bytes.writeImmutableBuffer(body)
        return bytes
    }
}
