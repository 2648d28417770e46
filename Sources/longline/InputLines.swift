import Foundation

/// Lines of standard input until its end, each read when it is asked for: what a pipe holds waits in the pipe.
///
/// Reading blocks a thread of its own: the cooperative pool has none to spare.
struct InputLines: AsyncSequence {
    struct AsyncIterator: AsyncIteratorProtocol {
        fileprivate let wanted: DispatchSemaphore
        fileprivate var lines: AsyncStream<String>.Iterator

        /// nil also when the task is cancelled, though a read still waits for somebody to type.
        mutating func next() async -> String? {
            wanted.signal()
            return await lines.next()
        }
    }

    func makeAsyncIterator() -> AsyncIterator {
        let wanted = DispatchSemaphore(value: 0)
        let (lines, continuation) = AsyncStream.makeStream(of: String.self)
        Thread.detachNewThread {
            while true {
                wanted.wait()
                guard let line = readLine() else { break }
                continuation.yield(line)
            }
            continuation.finish()
        }
        return AsyncIterator(wanted: wanted, lines: lines.makeAsyncIterator())
    }
}
