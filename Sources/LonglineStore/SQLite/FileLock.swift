import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// An exclusive lock on a file, which the kernel gives up when the process ends, however it ends.
final class FileLock: Sendable {
    /// The open file; nil once it was released.
    private let descriptor: Mutex<CInt?>

    /// Takes the lock, or says who can't have it.
    init(_ path: String) throws(StoreError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw StoreError(
                .unavailable, message: "\(path): \(StoreDirectory.text(errno))",
                advice: "let the server's user own the folder and the files in it")
        }
        FolderOwner.takes(descriptor, in: FolderOwner.folder(of: path))
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            if code == EWOULDBLOCK {
                throw StoreError(
                    .unavailable, message: "another process has the store open (\(path) is locked)",
                    advice: "stop the other server, or give this one a folder of its own")
            }
            throw StoreError(
                .unavailable, message: "\(path) can't be locked: \(StoreDirectory.text(code))",
                advice: "keep the store on a local file system")
        }
        self.descriptor = Mutex(descriptor)
    }

    func release() {
        let open = descriptor.withLock { descriptor in
            defer { descriptor = nil }
            return descriptor
        }
        if let open { close(open) }
    }

    deinit { release() }
}
