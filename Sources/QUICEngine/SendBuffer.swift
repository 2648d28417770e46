import CQUICShim

/// Bytes of a stream from `write` until they are acknowledged. ngtcp2 keeps pointers to what it was handed, so the bytes
/// lie in chunks that don't move, and a chunk is freed when all of it is acknowledged, or with the buffer.
///
/// ```
/// offset:  acknowledged <= handed over <= written
/// ```
final class SendBuffer {
    private struct Chunk {
        var base: UnsafeMutableRawPointer
        var capacity: Int
        /// Stream offset of its first byte.
        var offset: UInt64
        var count: Int
    }

    private static let smallestChunk = 512
    private static let largestChunk = 16 << 10

    private var chunks: [Chunk] = []
    /// Stream offsets.
    private(set) var acknowledged: UInt64 = 0
    private(set) var handedOver: UInt64 = 0
    private(set) var written: UInt64 = 0

    deinit {
        for chunk in chunks { chunk.base.deallocate() }
    }

    /// Bytes held.
    var count: Int { Int(written - acknowledged) }
    /// Bytes not yet handed to ngtcp2.
    var unsent: Int { Int(written - handedOver) }

    func append(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty {
            if chunks.last.map({ $0.count == $0.capacity }) ?? true {
                let size = min(max(rest.count, Self.smallestChunk), Self.largestChunk)
                chunks.append(
                    Chunk(
                        base: .allocate(byteCount: size, alignment: 16), capacity: size, offset: written, count: 0))
            }
            let last = chunks.count - 1
            let part = min(rest.count, chunks[last].capacity - chunks[last].count)
            (chunks[last].base + chunks[last].count).copyMemory(from: rest.baseAddress!, byteCount: part)
            chunks[last].count += part
            written += UInt64(part)
            rest = UnsafeRawBufferPointer(rebasing: rest[part...])
        }
    }

    /// Fills `vectors` with what isn't handed over yet.
    /// - Returns: how many vectors, and their bytes.
    func unsentVectors(_ vectors: UnsafeMutableBufferPointer<llq_vec>) -> (count: Int, bytes: Int) {
        var filled = 0
        var bytes = 0
        for chunk in chunks where chunk.offset + UInt64(chunk.count) > handedOver {
            guard filled < vectors.count else { break }
            let skip = handedOver > chunk.offset ? Int(handedOver - chunk.offset) : 0
            vectors[filled] = llq_vec(
                base: (chunk.base + skip).assumingMemoryBound(to: UInt8.self), length: chunk.count - skip)
            filled += 1
            bytes += chunk.count - skip
        }
        return (filled, bytes)
    }

    func handOver(_ count: Int) {
        handedOver += UInt64(count)
        assert(handedOver <= written)
    }

    func acknowledge(_ count: UInt64) {
        acknowledged += count
        assert(acknowledged <= handedOver)
        var done = 0
        while done < chunks.count, chunks[done].offset + UInt64(chunks[done].count) <= acknowledged {
            chunks[done].base.deallocate()
            done += 1
        }
        chunks.removeFirst(done)
    }

    /// Everything is to be handed over again: the peer refused it as 0-RTT.
    func rewind() {
        assert(acknowledged == 0)
        handedOver = 0
    }
}
