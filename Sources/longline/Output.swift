#if canImport(Musl)
    import Musl
#elseif canImport(Glibc)
    import Glibc
#endif

/// Standard output took no more: its disk is full, or whoever read it is gone.
struct OutputError: Error, CustomStringConvertible {
    /// What write(2) said.
    let code: Int32

    /// Nobody reads any more, as behind `| head`: no reason to complain.
    var isClosedPipe: Bool { code == EPIPE }

    var description: String { "standard output can't be written: \(String(cString: strerror(code)))" }
}

/// Standard output and standard error, which may be full or closed like any file. Nothing waits in a buffer.
enum Output {
    /// Writes to standard output.
    static func write(_ bytes: some Sequence<UInt8>) throws(OutputError) { try write(bytes, to: STDOUT_FILENO) }

    /// Writes to standard error. What can't be written is dropped: there is nobody left to tell.
    static func report(_ bytes: some Sequence<UInt8>) { try? write(bytes, to: STDERR_FILENO) }

    /// Writes a line to standard error, as ``report(_:)-(Sequence<UInt8>)`` does.
    static func report(_ line: String) { report("\(line)\n".utf8) }

    private static func write(_ bytes: some Sequence<UInt8>, to descriptor: Int32) throws(OutputError) {
        var rest = Array(bytes)[...]
        while !rest.isEmpty {
            if let count = try put(rest, to: descriptor) {
                rest = rest.dropFirst(count)
            } else {
                // Someone who has the same terminal or pipe set it not to block.
                var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                _ = poll(&ready, 1, -1)
            }
        }
    }

    /// Writes as much as is taken at once.
    /// - Returns: how much; nil: there is no room, and the descriptor does not wait for it.
    static func put(_ bytes: some Sequence<UInt8>, to descriptor: Int32) throws(OutputError) -> Int? {
        let bytes = Array(bytes)
        while true {
            let (count, code) = bytes.withUnsafeBytes { buffer in
                // errno is read before anything else can change it.
                let count = putBytes(descriptor, buffer)
                return (count, count < 0 ? errno : 0)
            }
            if count >= 0 { return count }
            if code == EAGAIN { return nil }
            guard code == EINTR else { throw OutputError(code: code) }
        }
    }

    private static func putBytes(_ descriptor: Int32, _ buffer: UnsafeRawBufferPointer) -> Int {
        #if canImport(Musl)
            Musl.write(descriptor, buffer.baseAddress, buffer.count)
        #else
            Glibc.write(descriptor, buffer.baseAddress, buffer.count)
        #endif
    }
}
