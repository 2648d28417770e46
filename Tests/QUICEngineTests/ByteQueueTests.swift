import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite("Buffers")
struct ByteQueueTests {
    @Test("A byte queue gives out what was put in, in order, whatever the pieces", arguments: 0..<8)
    func byteQueue(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let pool = MemoryPool()
        var queue = ByteQueue()
        var model: [UInt8] = []
        for _ in 0..<2_000 {
            if Bool.random(using: &random) {
                let piece = (0..<Int.random(in: 0...3_000, using: &random)).map { _ in UInt8.random(in: 0...255) }
                piece.withUnsafeBytes { queue.append($0, pool: pool) }
                model += piece
            } else {
                let count = Int.random(in: 0...min(model.count, 6_000), using: &random)
                #expect(Array(queue.bytes.prefix(count)) == Array(model.prefix(count)), "seed \(seed)")
                if count > 0 { queue.removeFirst(count, pool: pool) }
                model.removeFirst(count)
            }
            #expect(queue.count == model.count, "seed \(seed)")
            #expect(queue.capacity <= 4 * max(model.count, 64 << 10), "seed \(seed): memory follows the content")
        }
    }

    @Test("A send buffer hands over and frees what it was given, in order", arguments: 0..<8)
    func sendBuffer(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let buffer = SendBuffer()
        var unsent: [UInt8] = []
        var next: UInt8 = 0
        var alive: [WeakOwner] = []
        for _ in 0..<3_000 {
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                let piece = (0..<Int.random(in: 0...5_000, using: &random)).map { _ in
                    next &+= 1
                    return next
                }
                if Bool.random(using: &random) {
                    let owned = OwnedBytes(piece)
                    alive.append(WeakOwner(owner: owned))
                    buffer.append(UnsafeRawBufferPointer(owned.memory), of: owned)
                } else {
                    piece.withUnsafeBytes { buffer.append($0) }
                }
                unsent += piece
            case 1:
                let wanted = Int.random(in: 1...8_000, using: &random)
                let handed = withUnsafeTemporaryAllocation(of: llq_vec.self, capacity: 16) { vectors in
                    let (count, bytes) = buffer.unsentVectors(vectors, enough: wanted)
                    let all = vectors[..<count].flatMap { Array(UnsafeBufferPointer(start: $0.base, count: $0.length)) }
                    #expect(all.count == bytes && all == Array(unsent.prefix(bytes)), "seed \(seed)")
                    #expect(bytes >= min(wanted, unsent.count) || count == 16, "seed \(seed)")
                    return min(bytes, wanted)
                }
                buffer.handOver(handed)
                unsent.removeFirst(handed)
            default:
                let inFlight = buffer.count - buffer.unsent
                buffer.acknowledge(UInt64(Int.random(in: 0...inFlight, using: &random)))
            }
            #expect(buffer.unsent == unsent.count, "seed \(seed)")
        }
        if seed.isMultiple(of: 2) {
            buffer.handOver(unsent.count)
        } else {
            #expect(buffer.dropUnsent() == unsent.count, "seed \(seed)")
            #expect(buffer.unsent == 0 && buffer.dropUnsent() == 0, "seed \(seed)")
        }
        buffer.acknowledge(UInt64(buffer.count))
        #expect(
            alive.allSatisfy { $0.owner == nil },
            "seed \(seed): nobody's bytes are held once they are acknowledged or dropped")
    }
}

/// Bytes that become something else when nobody holds them.
private final class OwnedBytes {
    let memory: UnsafeMutableRawBufferPointer

    init(_ bytes: [UInt8]) {
        memory = .allocate(byteCount: bytes.count, alignment: 1)
        memory.copyBytes(from: bytes)
    }

    deinit {
        for index in memory.indices { memory[index] = 0xee }
        memory.deallocate()
    }
}

private struct WeakOwner {
    weak var owner: OwnedBytes?
}
