/// Bytes of a stream from the packet until `read`, in order. The peer's flow control window bounds it.
struct ReceiveBuffer: ~Copyable {
    private var queue = ByteQueue()
    /// Stream offset of the next byte to be read.
    private(set) var readOffset: UInt64 = 0
    /// Everything below this offset came in 0-RTT packets.
    private(set) var earlyEnd: UInt64 = 0
    /// The end was received; nothing follows what is buffered.
    var hasEnd = false
    /// The end was read.
    private(set) var endWasRead = false

    var count: Int { queue.count }
    var isEarly: Bool { readOffset < earlyEnd }

    mutating func append(_ bytes: UnsafeRawBufferPointer, early: Bool, pool: MemoryPool) {
        guard !bytes.isEmpty else { return }
        queue.append(bytes, pool: pool)
        pool.held += bytes.count
        if early { earlyEnd = readOffset + UInt64(count) }
    }

    /// The bytes in order; valid until the next change.
    var bytes: UnsafeRawBufferPointer { queue.bytes }

    /// Drops bytes that were read.
    /// - Returns: whether the end was read with them.
    mutating func consume(_ count: Int, pool: MemoryPool) -> Bool {
        if count > 0 {
            queue.removeFirst(count, pool: pool)
            pool.held -= count
        }
        readOffset += UInt64(count)
        if hasEnd, queue.isEmpty { endWasRead = true }
        return endWasRead
    }

    /// Forgets what is buffered.
    /// - Returns: how many bytes that were.
    mutating func discard(pool: MemoryPool) -> Int {
        let dropped = count
        readOffset += UInt64(dropped)
        pool.held -= dropped
        queue.removeAll(pool: pool)
        return dropped
    }
}
