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

    /// Whether a process holds the lock.
    static func isHeld(_ path: String) -> Bool {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        // For the moment of the question it is taken, by as many as like to ask.
        defer { close(descriptor) }
        return flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK
    }

    /// Takes the lock, or says who can't have it.
    init(_ path: String) throws(StoreError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw StoreError(
                .unavailable, message: "\(path): \(StoreDirectory.text(errno))",
                advice: "let the server's user own the folder and the files in it")
        }
        FolderOwner.takes(descriptor, in: FolderOwner.folder(of: path))
        guard Self.take(descriptor) else {
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

    /// Whoever asks whether the lock is held has it for a moment: that is no reason not to start.
    /// - Parameter pause: passes the time between two tries.
    static func take(_ descriptor: CInt, pause: () -> Void = { _ = usleep(1_000) }) -> Bool {
        for _ in 0..<10 {
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return true }
            guard errno == EWOULDBLOCK else { return false }
            pause()
        }
        return flock(descriptor, LOCK_EX | LOCK_NB) == 0
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
