import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@Suite("Frames come back as they were sent")
struct RoundTripTests {
    @Test("Every frame, whatever its fields", arguments: seeds(0..<300))
    func everyFrame(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        for frame in RandomFrames.one(ofEach: &random) {
            var buffer = ByteBuffer()
            try FrameEncoder.encode(frame, into: &buffer)
            #expect(try FrameEncoder.encodedSize(frame) == buffer.readableBytes, "\(frame.name)")
            var decoder = FrameDecoder()
            decoder.append(buffer)
            #expect(try decoder.next() == frame)
            #expect(try decoder.next() == nil)
            try decoder.finish()
        }
    }

    @Test("The largest fields fit a frame")
    func largest() throws {
        for frame in RandomFrames.largest() {
            var buffer = ByteBuffer()
            try FrameEncoder.encode(frame, into: &buffer)
            var decoder = FrameDecoder()
            decoder.append(buffer)
            #expect(try decoder.next() == frame)
        }
    }

    @Test("Frames follow one another in one buffer, and encoding appends")
    func sequence() throws {
        var random = SeededRandom(seed: 1)
        let frames = RandomFrames.one(ofEach: &random)
        var buffer = ByteBuffer()
        for frame in frames { try FrameEncoder.encode(frame, into: &buffer) }
        #expect(try FrameDecoder.all(in: buffer) == frames)
    }

    @Test(
        "Every number keeps its value",
        arguments: [
            0, 1, 63, 64, 16_383, 16_384, 1_073_741_823, 1_073_741_824, FrameLimits.maximumNumber,
        ] as [UInt64])
    func numbers(value: UInt64) throws {
        let frame = Frame.acknowledge(Acknowledge(offset: value))
        var buffer = ByteBuffer()
        try FrameEncoder.encode(frame, into: &buffer)
        #expect(try FrameDecoder.all(in: buffer) == [frame])
    }
}
