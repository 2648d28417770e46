import Foundation

#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// Lines of standard input until its end, each read when it is asked for: what a pipe holds waits in the pipe.
///
/// Reading blocks a thread of its own: the cooperative pool has none to spare.
struct InputLines: AsyncSequence {
    struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let wanted: DispatchSemaphore
        fileprivate var lines: AsyncStream<[UInt8]>.Iterator

        /// A line's bytes, which may be no text; nil also when the task is cancelled, though a read still waits for somebody to type.
        mutating func next() async -> [UInt8]? {
            wanted.signal()
            return await lines.next()
        }
    }

    func makeAsyncIterator() -> AsyncIterator {
        let wanted = DispatchSemaphore(value: 0)
        let (lines, continuation) = AsyncStream.makeStream(of: [UInt8].self)
        Thread.detachNewThread {
            var reader = LineReader(descriptor: STDIN_FILENO)
            while true {
                wanted.wait()
                guard let line = reader.next() else { break }
                continuation.yield(line)
            }
            continuation.finish()
        }
        return AsyncIterator(wanted: wanted, lines: lines.makeAsyncIterator())
    }
}

/// The lines of a file or a pipe.
struct LineReader {
    let descriptor: Int32
    /// What was read and not given out.
    private var rest: ArraySlice<UInt8> = []

    init(descriptor: Int32) { self.descriptor = descriptor }

    /// Waits for the next line.
    /// - Returns: it without its end, LF or CR LF, which the last one need not have; nil: there is none any more.
    mutating func next() -> [UInt8]? {
        var searched = rest.startIndex
        while true {
            if let end = rest[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                let line = rest[..<end]
                rest = rest[(end + 1)...]
                return Array(line.last == UInt8(ascii: "\r") ? line.dropLast() : line)
            }
            searched = rest.endIndex
            guard fill() else {
                defer { rest = [] }
                return rest.isEmpty ? nil : Array(rest)
            }
        }
    }

    /// Reads what is there, or waits until there is something.
    /// - Returns: false at the end, and where nothing can be read.
    private mutating func fill() -> Bool {
        var chunk = [UInt8](repeating: 0, count: 1 << 14)
        while true {
            let (count, code) = DescriptorInput.read(descriptor, into: &chunk)
            if count > 0 {
                rest += chunk[..<count]
                return true
            }
            guard code == EINTR || code == EAGAIN else { return false }
            // Someone who has the same terminal or pipe set it not to block.
            var ready = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            if code == EAGAIN { _ = poll(&ready, 1, -1) }
        }
    }
}
