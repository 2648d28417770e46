/// Address tokens that were taken, so that none is good twice (RFC 9000 section 8.1.4). Of each loop its own, and bounded: when it is
/// full the oldest is forgotten, so to use one of one's tokens again takes as many others.
struct UsedTokens {
    /// A test lowers it.
    var capacity = 1 << 16
    private var known: Set<UInt64> = []
    private var order = FIFO<UInt64>()

    var count: Int { known.count }

    /// - Parameter token: one that was found to be genuine. It ends with random bytes, which name it.
    /// - Returns: whether it is new.
    mutating func insert(_ token: UnsafeRawBufferPointer) -> Bool {
        guard token.count >= 8 else { return false }
        let name = token.loadUnaligned(fromByteOffset: token.count - 8, as: UInt64.self)
        guard known.insert(name).inserted else { return false }
        order.append(name)
        if order.count > capacity, let oldest = order.popFirst() { known.remove(oldest) }
        return true
    }
}
