/// Address tokens that were taken, so that none is good twice (RFC 9000 section 8.1.4). Of each loop its own, and bounded: when it is
/// full the oldest is forgotten, so to use one of one's tokens again takes as many others.
struct UsedTokens {
    /// At least 1. A test lowers it, before the first token.
    var capacity = 1 << 16
    private var known: Set<UInt64> = []
    /// In the order in which they came, once it is full from `oldest` on and round its end.
    private var names: [UInt64] = []
    private var oldest = 0

    var count: Int { known.count }
    /// Bytes for the order.
    var orderSize: Int { names.capacity * MemoryLayout<UInt64>.stride }

    /// - Parameter token: one that was found to be genuine. It ends with random bytes, which name it.
    /// - Returns: whether it is new.
    mutating func insert(_ token: UnsafeRawBufferPointer) -> Bool {
        guard token.count >= 8 else { return false }
        let name = token.loadUnaligned(fromByteOffset: token.count - 8, as: UInt64.self)
        guard known.insert(name).inserted else { return false }
        guard names.count >= capacity else {
            // An array that grows by itself may become larger than is ever needed.
            if names.count == names.capacity { names.reserveCapacity(min(max(2 * names.count, 16), capacity)) }
            names.append(name)
            return true
        }
        known.remove(names[oldest])
        names[oldest] = name
        oldest = (oldest + 1) % names.count
        return true
    }
}
