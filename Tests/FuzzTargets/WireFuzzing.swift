import LonglineWire
import NIOCore

/// Frames of the session protocol: the pieces in which bytes arrive must make no difference, and what was read must come
/// out the same when it is written and read again.
enum WireFuzzing {
    private struct Outcome: Equatable {
        var items: [TaggedFrame] = []
        var error: FrameError?
    }

    static func run(_ input: FuzzInput) throws {
        var input = input
        let flags = input.byte()
        let piece = Int(input.byte()) + 1
        let bytes = input.all()
        let tagged = flags & 1 != 0
        let whole = try read(bytes, piece: max(1, bytes.count), tagged: tagged)
        let inPieces = try read(bytes, piece: piece, tagged: tagged)
        guard whole.items == inPieces.items, whole.error?.code == inPieces.error?.code else {
            throw FuzzFinding("whole: \(whole); in pieces of \(piece): \(inPieces)")
        }
        for item in whole.items {
            try checkRoundTrip(item)
            if case .frame(.batch(let batch), _) = item { try checkBatch(batch) }
        }
    }

    /// What comes out of a batch is what it announced, or nothing.
    private static func checkBatch(_ batch: Batch) throws {
        let frames: [Frame]
        do throws(FrameError) { frames = try batch.frames() } catch { return }
        let bytes = frames.reduce(0) { $0 + ((try? FrameEncoder.encodedSize($1)) ?? 0) }
        guard frames.count == batch.count, bytes <= batch.length, batch.length <= FrameLimits.maximumBatch else {
            throw FuzzFinding("\(batch) holds \(frames.count) frames of \(bytes) bytes")
        }
    }

    private static func read(_ bytes: [UInt8], piece: Int, tagged: Bool) throws -> Outcome {
        var plain = FrameDecoder()
        var multiplexed = TaggedFrameDecoder()
        var outcome = Outcome()
        do throws(FrameError) {
            for start in stride(from: 0, to: bytes.count, by: piece) {
                let part = ByteBuffer(bytes: bytes[start..<min(start + piece, bytes.count)])
                if tagged {
                    multiplexed.append(part)
                    while let item = try multiplexed.next() { outcome.items.append(item) }
                } else {
                    plain.append(part)
                    while let frame = try plain.next() { outcome.items.append(.frame(frame, lane: 0)) }
                }
            }
            if tagged { try multiplexed.finish() } else { try plain.finish() }
        } catch {
            outcome.error = error
        }
        // A frame and what stands before it: tag, type and length are varints.
        let held = tagged ? multiplexed.heldBytes : plain.heldBytes
        guard held < FrameLimits.maximumBody + 3 * 8 else { throw FuzzFinding("\(held) bytes are held back") }
        return outcome
    }

    private static func checkRoundTrip(_ item: TaggedFrame) throws {
        var buffer = ByteBuffer()
        do throws(FrameError) {
            switch item {
            case .frame(let frame, let lane): try TaggedFrameEncoder.encode(frame, lane: lane, into: &buffer)
            case .finished(let lane): try TaggedFrameEncoder.encodeFinish(lane: lane, into: &buffer)
            }
        } catch {
            // A sender may send less than a receiver takes.
            guard error.code == .unrepresentable, buffer.readableBytes == 0 else {
                throw FuzzFinding("\(item) can't be written: \(error)")
            }
            return
        }
        var decoder = TaggedFrameDecoder()
        decoder.append(buffer)
        let again = try decoder.next()
        guard again == item else { throw FuzzFinding("\(item) came back as \(String(describing: again))") }
        try decoder.finish()
    }
}
