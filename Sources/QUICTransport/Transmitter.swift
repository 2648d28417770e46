internal import NIOCore
internal import QUICEngine

/// Takes runs of datagrams from an engine into pooled buffers.
///
/// Many runs share one buffer, written in one go and sliced afterwards: a slice taken earlier would make the next write
/// copy the whole buffer. A buffer is used again once the sockets let go of its slices, the last one first, because the
/// CPU's cache still knows it; if they still hold it, a new one takes its place.
struct Transmitter {
    /// The largest run: what fits one UDP message of either IP version.
    private static let maximumRun = 65_000
    private static let bufferSize = 2 * 65_536

    private struct Run {
        var transmit: QUICTransmit
        var offset: Int
    }

    private var pool: [ByteBuffer] = []
    private var current = ByteBuffer()
    private var runs: [Run] = []

    /// Takes what the engine wants to send, as far as it fits one buffer.
    /// - Returns: whether the engine has nothing more to send now.
    mutating func fill(from engine: QUICEndpoint, now: QUICInstant) -> Bool {
        runs.removeAll(keepingCapacity: true)
        var buffer = takeBuffer()
        var drained = false
        var found: [Run] = runs
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: Self.bufferSize) { memory in
            var used = 0
            while memory.count - used >= Self.maximumRun {
                let space = UnsafeMutableRawBufferPointer(rebasing: memory[used..<used + Self.maximumRun])
                guard let transmit = engine.pollTransmit(into: space, now: now) else {
                    drained = true
                    break
                }
                assert(transmit.length > 0 && transmit.length <= space.count, "a run lies in its buffer")
                found.append(Run(transmit: transmit, offset: used))
                used += transmit.length
            }
            return used
        }
        runs = found
        current = buffer
        return drained
    }

    /// Visits the runs of the last ``fill(from:now:)``, in order, and lets go of their buffer.
    mutating func forEachRun(_ body: (QUICTransmit, ByteBuffer) -> Void) {
        for run in runs {
            guard let bytes = current.getSlice(at: run.offset, length: run.transmit.length) else { continue }
            body(run.transmit, bytes)
        }
        runs.removeAll(keepingCapacity: true)
        pool.append(current)
        current = ByteBuffer()
    }

    private mutating func takeBuffer() -> ByteBuffer {
        guard var buffer = pool.popLast() else { return ByteBufferAllocator().buffer(capacity: Self.bufferSize) }
        // Keeps the memory if nobody else holds it, else allocates anew.
        buffer.clear(minimumCapacity: Self.bufferSize)
        return buffer
    }
}
