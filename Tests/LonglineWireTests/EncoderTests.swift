import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@Suite("What can't be sent is said to the caller")
struct EncoderTests {
    private static let tooMany = FrameLimits.maximumNumber + 1

    private static func connect(
        versions: [UInt32] = [1], credential: Credential = .token("t"), cursors: Int = 0, agent: String = ""
    ) throws -> Frame {
        let cursor = ChannelPosition(channel: try ChannelID("user/a"), position: Position(epoch: 1, offset: 1))
        return .connect(
            Connect(
                versions: versions, credential: credential, producer: ProducerID(high: 1, low: 2), connectNumber: 1,
                cursorVersion: 0, cursors: Array(repeating: cursor, count: cursors), agent: agent))
    }

    private static func text(_ count: Int) -> String { String(repeating: "x", count: count) }

    private static var reasonOverLimit: Close {
        var close = Close(code: .normal)
        close.reason = text(257)
        return close
    }

    /// Values over a limit, and the error that names them.
    private static func overLimit() throws -> [(Frame, FrameError.Code)] {
        [
            (try connect(versions: []), .unrepresentable),
            (try connect(versions: Array(repeating: 1, count: 9)), .limitExceeded),
            (try connect(credential: .token(text(FrameLimits.maximumToken + 1))), .limitExceeded),
            (try connect(credential: .ticket(ByteBuffer(repeating: 0, count: 1025))), .limitExceeded),
            (try connect(cursors: FrameLimits.maximumCursors + 1), .limitExceeded),
            (.close(reasonOverLimit), .limitExceeded),
            (.close(Close(code: .normal, accessPoint: text(261))), .limitExceeded),
            (.close(Close(code: .normal, retryAfter: tooMany)), .unrepresentable),
            (.pong(Pong(nonce: 1, observedAddress: text(81))), .limitExceeded),
            (.acknowledge(Acknowledge(offset: tooMany)), .unrepresentable),
            (.refused(Refused(id: 1, code: RefusalCode(rawValue: 0))), .unrepresentable),
            (
                .publish(
                    Publish(
                        id: 1, tag: 1, after: 0, recipient: nil, timeToLive: 0,
                        payload: ByteBuffer(repeating: 0, count: FrameLimits.maximumPayload + 1))), .limitExceeded
            ),
        ]
    }

    @Test("A value over its limit throws, and the buffer is as it was")
    func limits() throws {
        for (frame, code) in try Self.overLimit() {
            var buffer = ByteBuffer(string: "before")
            let error = #expect(throws: FrameError.self) { try FrameEncoder.encode(frame, into: &buffer) }
            #expect(error?.code == code)
            #expect(error?.message.hasPrefix(frame.name) == true)
            #expect(buffer == ByteBuffer(string: "before"))
            #expect(throws: FrameError.self) { try FrameEncoder.encodedSize(frame) }
            #expect(throws: FrameError.self) { try TaggedFrameEncoder.encode(frame, lane: 3, into: &buffer) }
            #expect(buffer == ByteBuffer(string: "before"))
        }
    }

    @Test("Texts for logs are cut to their limit between two characters, so that they never keep a frame from leaving")
    func logTexts() throws {
        let fox = "🦊"
        let reason = Close(code: .normal, reason: "x" + String(repeating: fox, count: 100)).reason
        #expect(reason == "x" + String(repeating: fox, count: 63))
        #expect(Close(code: .normal, reason: Self.text(256)).reason == Self.text(256))
        guard case .connect(let connect) = try Self.connect(agent: String(repeating: "é", count: 40)) else {
            return #expect(Bool(false), "no CONNECT")
        }
        #expect(connect.agent == String(repeating: "é", count: 32))
    }

    @Test("A payload over the limit that fits a frame is read, so that the session can refuse it alone")
    func payloadOverLimit() throws {
        var body = ByteBuffer(bytes: [0, 1])
        body.writeInteger(UInt64(2))
        body.writeBytes([0, 0])
        let payload = ByteBuffer(repeating: 9, count: FrameLimits.maximumPayload + 100)
        body.writeInteger(UInt16(payload.readableBytes) | 0x4000)
        body.writeImmutableBuffer(payload)
        var bytes = ByteBuffer(bytes: [0x13])
        bytes.writeInteger(UInt16(body.readableBytes) | 0x4000)
        bytes.writeImmutableBuffer(body)
        let publish = Publish(id: 1, tag: 2, after: 0, recipient: nil, timeToLive: 0, payload: payload)
        #expect(try FrameDecoder.all(in: bytes) == [.publish(publish)])
    }
}

@Suite("Lanes on one stream")
struct TaggedFrameTests {
    @Test("Frames keep their lanes, whatever the pieces", arguments: seeds(0..<60))
    func roundTrip(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var items: [TaggedFrame] = []
        var bytes = ByteBuffer()
        for frame in RandomFrames.one(ofEach: &random) {
            let lane = random.next() & (FrameLimits.maximumTaggedLane >> UInt64.random(in: 0...60, using: &random))
            if random.happens(0.3) { try TaggedFrameEncoder.grease(lane: lane, using: &random, into: &bytes) }
            try TaggedFrameEncoder.encode(frame, lane: lane, into: &bytes)
            items.append(.frame(frame, lane: lane))
            if lane > 0, random.happens(0.3) {
                try TaggedFrameEncoder.encodeFinish(lane: lane, into: &bytes)
                items.append(.finished(lane: lane))
            }
        }
        let largest = [1, 10, 1000, 70_000].randomElement(using: &random) ?? 1
        var decoder = TaggedFrameDecoder()
        var seen: [TaggedFrame] = []
        while bytes.readableBytes > 0 {
            let length = min(bytes.readableBytes, Int.random(in: 1...largest, using: &random))
            let piece = bytes.readSlice(length: length)
            decoder.append(try #require(piece))
            while let item = try decoder.next() { seen.append(item) }
            #expect(decoder.heldBytes < FrameLimits.maximumBody + 24)
        }
        #expect(seen == items)
        try decoder.finish()
    }

    @Test("Lane 0 can't be finished, and a lane number has a limit")
    func limits() throws {
        var buffer = ByteBuffer()
        #expect(throws: FrameError.self) { try TaggedFrameEncoder.encodeFinish(lane: 0, into: &buffer) }
        #expect(throws: FrameError.self) {
            try TaggedFrameEncoder.encode(.ping(Ping(nonce: 1)), lane: FrameLimits.maximumTaggedLane + 1, into: &buffer)
        }
        #expect(buffer.readableBytes == 0)
        try TaggedFrameEncoder.encode(.ping(Ping(nonce: 1)), lane: FrameLimits.maximumTaggedLane, into: &buffer)
    }

    @Test("Random bytes", arguments: seeds(0..<200))
    func garbage(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        for _ in 0..<20 {
            var decoder = TaggedFrameDecoder()
            decoder.append(RandomFrames.bytes(&random, 200))
            do throws(FrameError) {
                while try decoder.next() != nil {}
            } catch {
                #expect(error.code != .unrepresentable && !error.message.isEmpty)
                #expect(decoder.heldBytes == 0)
            }
        }
    }
}
