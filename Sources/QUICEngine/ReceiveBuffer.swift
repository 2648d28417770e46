/// Bytes of a stream from the packet until `read`, in order. The peer's flow control window bounds it.
struct ReceiveBuffer {
    private var chunks = FIFO<[UInt8]>()
    /// Bytes of the first chunk that were read.
    private var consumed = 0
    private(set) var count = 0
    /// Stream offset of the next byte to be read.
    private(set) var readOffset: UInt64 = 0
    /// Everything below this offset came in 0-RTT packets.
    private(set) var earlyEnd: UInt64 = 0
    /// The end was received; nothing follows what is buffered.
    var hasEnd = false
    /// The end was read.
    private(set) var endWasRead = false

    var isEarly: Bool { readOffset < earlyEnd }

    mutating func append(_ bytes: [UInt8], early: Bool) {
        guard !bytes.isEmpty else { return }
        count += bytes.count
        if early { earlyEnd = readOffset + UInt64(count) }
        chunks.append(bytes)
    }

    mutating func read(into target: UnsafeMutableRawBufferPointer) -> StreamRead {
        var copied = 0
        while copied < target.count, let chunk = chunks.first {
            let part = min(target.count - copied, chunk.count - consumed)
            chunk.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: target[copied..<copied + part])
                    .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[consumed..<consumed + part]))
            }
            copied += part
            consumed += part
            if consumed == chunk.count {
                _ = chunks.popFirst()
                consumed = 0
            }
        }
        count -= copied
        readOffset += UInt64(copied)
        if hasEnd, count == 0 { endWasRead = true }
        return StreamRead(count: copied, finished: endWasRead)
    }

    /// Forgets what is buffered.
    /// - Returns: how many bytes that were.
    mutating func discard() -> Int {
        defer {
            readOffset += UInt64(count)
            count = 0
            consumed = 0
            chunks.removeAll()
        }
        return count
    }
}
