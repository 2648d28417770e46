import Foundation
import NIOCore

/// A file that is open for reading, closed when nobody has it any more. Every call looks at the disk.
final class OpenFile: Sendable {
    let size: Int64
    let tag: EntityTag
    private let descriptor: Int32

    /// - Parameter path: of a regular file that is no symbolic link.
    init(_ path: String) throws {
        // Without O_NONBLOCK a pipe that has no writer would hold this thread for good, before anybody sees what it is.
        descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else { throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw POSIXError(.EINVAL)
        }
        size = Int64(status.st_size)
        tag = EntityTag(status)
    }

    deinit { close(descriptor) }

    /// Bytes from an offset on; none behind the end.
    func read(from offset: Int64, count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var code: Int32 = 0
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { memory in
            let length = pread(descriptor, memory.baseAddress, count, off_t(offset))
            if length < 0 { code = errno }
            return max(length, 0)
        }
        guard code == 0 else { throw POSIXError(POSIXErrorCode(rawValue: code) ?? .EIO) }
        return buffer
    }
}
