import CQUICShim

/// Bytes of a stream from `write` until they are acknowledged. ngtcp2 keeps pointers to what it was handed, so the bytes
/// lie in chunks that don't move, and a chunk is freed when all of it is acknowledged, or with the buffer.
///
/// ```
/// offset:  acknowledged <= handed over <= written
/// ```
/// Without exclusivity checks: it calls nobody.
final class SendBuffer {
    private struct Chunk {
        var base: UnsafeMutableRawPointer
        var capacity: Int
        /// Stream offset of its first byte.
        var offset: UInt64
        var count: Int
        /// Whose memory it is, where the bytes stayed where the application had them; nil: ours.
        var owner: AnyObject?

        var end: UInt64 { offset + UInt64(count) }
    }

    private static let smallestChunk = 512
    private static let largestChunk = 64 << 10

    /// Those below `first` are freed, those below `firstUnsent` handed over.
    @exclusivity(unchecked) private var chunks: [Chunk] = []
    @exclusivity(unchecked) private var first = 0
    @exclusivity(unchecked) private var firstUnsent = 0
    /// Stream offsets.
    @exclusivity(unchecked) private(set) var acknowledged: UInt64 = 0
    @exclusivity(unchecked) private(set) var handedOver: UInt64 = 0
    @exclusivity(unchecked) private(set) var written: UInt64 = 0

    deinit {
        for chunk in chunks[first...] where chunk.owner == nil { chunk.base.deallocate() }
    }

    /// Bytes held.
    var count: Int { Int(written - acknowledged) }
    /// Bytes not yet handed to ngtcp2.
    var unsent: Int { Int(written - handedOver) }

    func append(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while let source = rest.baseAddress, !rest.isEmpty {
            if chunks.count == first || chunks[chunks.count - 1].count == chunks[chunks.count - 1].capacity {
                let size = min(max(rest.count, Self.smallestChunk), Self.largestChunk)
                chunks.append(
                    Chunk(
                        base: .allocate(byteCount: size, alignment: 16), capacity: size, offset: written, count: 0))
            }
            let last = chunks.count - 1
            let part = min(rest.count, chunks[last].capacity - chunks[last].count)
            (chunks[last].base + chunks[last].count).copyMemory(from: source, byteCount: part)
            chunks[last].count += part
            written += UInt64(part)
            rest = UnsafeRawBufferPointer(rebasing: rest[part...])
        }
    }

    /// Takes bytes without a copy: they stay where they are, unchanged, as long as their owner is held.
    func append(_ bytes: UnsafeRawBufferPointer, of owner: AnyObject) {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return }
        // The last chunk takes no more bytes, so that those behind these follow them.
        if chunks.count > first { chunks[chunks.count - 1].capacity = chunks[chunks.count - 1].count }
        chunks.append(
            Chunk(
                base: UnsafeMutableRawPointer(mutating: base), capacity: bytes.count, offset: written,
                count: bytes.count, owner: owner))
        written += UInt64(bytes.count)
    }

    /// Fills `vectors` with what isn't handed over yet, until they are worth `enough` bytes.
    /// - Returns: how many vectors, and their bytes.
    func unsentVectors(
        _ vectors: UnsafeMutableBufferPointer<llq_vec>, enough: Int
    ) -> (count: Int, bytes: Int) {
        var filled = 0
        var bytes = 0
        var index = firstUnsent
        while index < chunks.count, filled < vectors.count, bytes < enough {
            let chunk = chunks[index]
            let skip = handedOver > chunk.offset ? Int(handedOver - chunk.offset) : 0
            if chunk.count > skip {
                vectors[filled] = llq_vec(
                    base: (chunk.base + skip).assumingMemoryBound(to: UInt8.self), length: chunk.count - skip)
                filled += 1
                bytes += chunk.count - skip
            }
            index += 1
        }
        return (filled, bytes)
    }

    func handOver(_ count: Int) {
        handedOver += UInt64(count)
        assert(handedOver <= written)
        // A chunk with room is not passed: more may be written into it.
        while firstUnsent < chunks.count, chunks[firstUnsent].end <= handedOver,
            chunks[firstUnsent].count == chunks[firstUnsent].capacity
        {
            firstUnsent += 1
        }
    }

    func acknowledge(_ count: UInt64) {
        acknowledged += count
        assert(acknowledged <= handedOver)
        while first < chunks.count, chunks[first].end <= acknowledged {
            if chunks[first].owner == nil { chunks[first].base.deallocate() }
            chunks[first].owner = nil
            first += 1
        }
        // Freed entries are removed once they are the larger part, or all.
        if first == chunks.count {
            chunks.removeAll(keepingCapacity: chunks.capacity <= 4)
            first = 0
            firstUnsent = 0
        } else if first > 16, first > chunks.count / 2 {
            chunks.removeFirst(first)
            firstUnsent = max(firstUnsent - first, 0)
            first = 0
        } else {
            firstUnsent = max(firstUnsent, first)
        }
    }

    /// Gives up what isn't handed over: nothing more is to be sent, and nothing is appended any more.
    /// - Returns: how many bytes that were.
    func dropUnsent() -> Int {
        let dropped = unsent
        guard dropped > 0 else { return 0 }
        written = handedOver
        while chunks.count > first, chunks[chunks.count - 1].offset >= written {
            let chunk = chunks.removeLast()
            if chunk.owner == nil { chunk.base.deallocate() }
        }
        firstUnsent = min(firstUnsent, chunks.count)
        // The last one goes with its last acknowledged byte.
        if chunks.count > first {
            let last = chunks.count - 1
            chunks[last].count = Int(written - chunks[last].offset)
            chunks[last].capacity = chunks[last].count
        }
        // Of a chunk that was cut all may be acknowledged.
        acknowledge(0)
        return dropped
    }

    /// Everything is to be handed over again: the peer refused it as 0-RTT.
    func rewind() {
        assert(acknowledged == 0)
        handedOver = 0
        firstUnsent = 0
    }
}
