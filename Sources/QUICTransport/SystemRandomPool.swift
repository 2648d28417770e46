internal import Glibc

/// The system's random numbers, fetched some at a time: a handshake takes dozens, and each alone would cost a system call.
package struct SystemRandomPool: RandomNumberGenerator {
    private static let size = 32
    private var words: [UInt64] = []

    package init() {}

    package mutating func next() -> UInt64 {
        if let word = words.popLast() { return word }
        words = [UInt64](repeating: 0, count: Self.size)
        let wanted = Self.size * MemoryLayout<UInt64>.size
        // 256 bytes are the most it gives at once.
        let result = words.withUnsafeMutableBytes { getentropy($0.baseAddress, wanted) }
        guard result == 0 else {
            words.removeAll()
            var system = SystemRandomNumberGenerator()
            return system.next()
        }
        return words.removeLast()
    }
}
