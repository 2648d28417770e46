import LonglineWire
import NIOCore
import Testing

/// `Tests/Vectors` was written by an encoder of its own; whoever writes a client checks it against the same files.
@Suite("Test vectors")
struct VectorTests {
    struct FrameVector: Decodable {
        var name: String
        var frame: String
        var fields: [String: JSON]
        var hex: String
    }

    @Test("Frames: fields become the bytes, and the bytes the fields")
    func frames() throws {
        let vectors = try VectorFile<FrameVector>.load("frames.json")
        #expect(Set(vectors.map(\.frame)).count == 49, "every frame type has a vector")
        for vector in vectors {
            let frame = try Frame(vector.frame, Fields(vector.fields))
            #expect(frame.name == vector.frame)
            var encoded = ByteBuffer()
            try FrameEncoder.encode(frame, into: &encoded)
            #expect(encoded.hex == vector.hex, "\(vector.name)")
            #expect(try FrameDecoder.all(in: try ByteBuffer(hex: vector.hex)) == [frame], "\(vector.name)")
        }
    }

    struct NumberVector: Decodable {
        var value: String
        var hex: String
        var shortest: Bool
    }

    @Test("Numbers, in a frame that holds nothing else")
    func numbers() throws {
        for vector in try VectorFile<NumberVector>.load("varints.json") {
            let value = try #require(UInt64(vector.value))
            let body = try ByteBuffer(hex: vector.hex)
            var bytes = ByteBuffer(bytes: [0x1f, UInt8(body.readableBytes)])
            bytes.writeImmutableBuffer(body)
            let frame = Frame.acknowledge(Acknowledge(offset: value))
            #expect(try FrameDecoder.all(in: bytes) == [frame], "\(vector.hex)")
            guard vector.shortest else { continue }
            var encoded = ByteBuffer()
            try FrameEncoder.encode(frame, into: &encoded)
            #expect(encoded == bytes, "\(vector.value)")
        }
    }

    struct StreamVector: Decodable {
        var name: String
        var hex: String
        var frames: [String]
    }

    @Test("Lanes: several frames, skipped ones, long numbers")
    func streams() throws {
        for vector in try VectorFile<StreamVector>.load("streams.json") {
            let frames = try FrameDecoder.all(in: try ByteBuffer(hex: vector.hex))
            #expect(frames.map(\.name) == vector.frames, "\(vector.name)")
        }
    }

    struct TaggedVector: Decodable {
        struct Item: Decodable {
            var lane: String
            var frame: String
        }
        var name: String
        var hex: String
        var items: [Item]
    }

    @Test("Lane-tagged streams")
    func taggedStreams() throws {
        for vector in try VectorFile<TaggedVector>.load("tagged-streams.json") {
            var decoder = TaggedFrameDecoder()
            decoder.append(try ByteBuffer(hex: vector.hex))
            var seen: [String] = []
            while let item = try decoder.next() {
                switch item {
                case .frame(let frame, let lane): seen.append("\(lane) \(frame.name)")
                case .finished(let lane): seen.append("\(lane) FINISHED")
                }
            }
            try decoder.finish()
            #expect(seen == vector.items.map { "\($0.lane) \($0.frame)" }, "\(vector.name)")
        }
    }

    struct InvalidVector: Decodable {
        var name: String
        var tagged: Bool
        var hex: String
        var error: String
        var closeCode: UInt32
    }

    @Test("Invalid bytes get the named error and its close code, in one piece and byte by byte")
    func invalid() throws {
        for vector in try VectorFile<InvalidVector>.load("invalid.json") {
            let bytes = try ByteBuffer(hex: vector.hex)
            for pieces in [[bytes], bytes.readableBytesView.map { ByteBuffer(bytes: [$0]) }] {
                let (frames, error, incomplete) = outcome(of: pieces, tagged: vector.tagged)
                #expect(frames == 0, "\(vector.name)")
                #expect(incomplete == (vector.error == "incomplete"), "\(vector.name)")
                let wanted = vector.error == "incomplete" ? "malformed" : vector.error
                #expect(error?.code.rawValue == wanted, "\(vector.name): \(String(describing: error))")
                #expect(error?.closeCode.rawValue == vector.closeCode, "\(vector.name)")
                #expect(error?.close.code == error?.closeCode, "\(vector.name)")
            }
        }
    }

    struct BatchVector: Decodable {
        var name: String
        var hex: String
        var frames: [String]?
        var error: String?
        var closeCode: UInt32?
    }

    @Test("Batches: what is taken out, in order, or the named error and its close code")
    func batches() throws {
        let vectors = try VectorFile<BatchVector>.load("batches.json")
        #expect(vectors.count > 15)
        for vector in vectors {
            let frames = try FrameDecoder.all(in: try ByteBuffer(hex: vector.hex))
            guard frames.count == 1, case .batch(let batch) = frames[0] else {
                Issue.record("\(vector.name): not a batch")
                continue
            }
            do throws(FrameError) {
                let inside = try batch.frames().map { frame throws(FrameError) in
                    var bytes = ByteBuffer()
                    try FrameEncoder.encode(frame, into: &bytes)
                    return bytes.hex
                }
                #expect(inside == vector.frames, "\(vector.name)")
            } catch {
                #expect(error.code.rawValue == vector.error, "\(vector.name)")
                #expect(error.closeCode.rawValue == vector.closeCode, "\(vector.name)")
            }
        }
    }

    /// How many frames came out, the error, and whether it was only that the bytes ended too early.
    private func outcome(of pieces: [ByteBuffer], tagged: Bool) -> (Int, FrameError?, incomplete: Bool) {
        var frames = 0
        var plain = FrameDecoder()
        var lanes = TaggedFrameDecoder()
        do throws(FrameError) {
            for piece in pieces {
                if tagged {
                    lanes.append(piece)
                    while try lanes.next() != nil { frames += 1 }
                } else {
                    plain.append(piece)
                    while try plain.next() != nil { frames += 1 }
                }
            }
        } catch {
            return (frames, error, false)
        }
        do throws(FrameError) {
            if tagged { try lanes.finish() } else { try plain.finish() }
            return (frames, nil, false)
        } catch {
            return (frames, error, true)
        }
    }
}
