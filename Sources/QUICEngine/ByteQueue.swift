/// Bytes in one piece of memory: appended behind, taken in front. Not thread-safe.
struct ByteQueue: ~Copyable {
    private static let smallest = 512

    private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private var start = 0
    private var end = 0

    deinit { memory.deallocate() }

    var count: Int { end - start }
    var isEmpty: Bool { end == start }
    var capacity: Int { memory.count }

    /// What is queued; valid until the next change.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[start..<end]) }

    mutating func append(_ source: UnsafeRawBufferPointer, pool: MemoryPool) {
        guard !source.isEmpty else { return }
        if memory.count - end < source.count { makeRoom(for: source.count, pool: pool) }
        UnsafeMutableRawBufferPointer(rebasing: memory[end...]).copyMemory(from: source)
        end += source.count
    }

    /// Drops bytes in front. An emptied queue gives its memory back, but for the smallest piece.
    mutating func removeFirst(_ count: Int, pool: MemoryPool) {
        precondition(count <= self.count, "no more can be taken than there is")
        start += count
        if start == end { removeAll(pool: pool) }
    }

    mutating func removeAll(pool: MemoryPool) {
        start = 0
        end = 0
        guard memory.count > Self.smallest else { return }
        pool.give(memory)
        memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }

    /// Drops all and keeps the memory.
    mutating func clear() {
        start = 0
        end = 0
    }

    private mutating func makeRoom(for additional: Int, pool: MemoryPool) {
        let count = self.count
        // Moving is paid for by the bytes that were taken since the last time.
        if memory.count - count >= additional, start >= count {
            memory.copyMemory(from: bytes)
        } else {
            var capacity = Self.smallest
            while capacity < count + additional { capacity *= 2 }
            let larger = pool.take(atLeast: capacity)
            larger.copyMemory(from: bytes)
            pool.give(memory)
            memory = larger
        }
        start = 0
        end = count
    }
}

/// Pieces of memory for the queues of one endpoint, and how much its connections hold. The large ones are kept and passed on, so that streams that move many
/// bytes use a few pieces that the CPU's cache knows. Not thread-safe.
final class MemoryPool {
    /// What one joined message of the kernel holds at most.
    static let pieceSize = 64 << 10
    private static let limit = 4

    private var pieces: [UnsafeMutableRawBufferPointer] = []
    /// Bytes that the connections hold for or from their applications, wherever they lie.
    @exclusivity(unchecked) var held = 0

    deinit {
        for piece in pieces { piece.deallocate() }
    }

    func take(atLeast count: Int) -> UnsafeMutableRawBufferPointer {
        if count > Self.pieceSize / 4, count <= Self.pieceSize {
            return pieces.popLast() ?? .allocate(byteCount: Self.pieceSize, alignment: 64)
        }
        return .allocate(byteCount: count, alignment: 64)
    }

    func give(_ memory: UnsafeMutableRawBufferPointer) {
        if memory.count == Self.pieceSize, pieces.count < Self.limit {
            pieces.append(memory)
        } else {
            memory.deallocate()
        }
    }
}
