#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What a process that ended without closing its store left of the write-ahead log.
///
/// After a sync that failed, the kernel may hold pages that never reached the disk, and call them clean. Whoever reads the log then
/// finds them, no later sync writes them, and a power failure takes them and all that was acknowledged behind them. Written once
/// more they are dirty, and a sync says whether the disk has them.
package enum LeftoverLog {
    private static let step = 1 << 20

    /// As ``settle(besideDatabase:_:)`` of a store does.
    @discardableResult
    package static func settle(besideDatabase database: String) throws(StoreError) -> Int {
        try settle(besideDatabase: database, StoreFaults())
    }

    /// Writes a log's bytes over themselves, and returns when they are on disk. Does nothing where there is no log, or an empty one.
    ///
    /// To be called before SQLite opens the database. The file's bytes are the same at every moment.
    /// - Parameter database: where the database lies, or a link to it: the log is beside the file itself.
    /// - Returns: the log's length, in bytes.
    /// - Throws: ``StoreError/Code/unavailable`` or ``StoreError/Code/storageFull``, with advice.
    static func settle(besideDatabase database: String, _ faults: StoreFaults) throws(StoreError) -> Int {
        let path = resolved(database) + "-wal"
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return 0 }
            throw failure(path, errno)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(path, errno) }
        guard status.st_size > 0 else { return 0 }
        let code = rewrite(descriptor)
        guard code == 0 else { throw failure(path, code) }
        do { try faults.beforeLogSync() } catch { throw failure(path, EIO) }
        guard fsync(descriptor) == 0 else { throw failure(path, errno) }
        return Int(status.st_size)
    }

    /// Whether another process has a database open in write-ahead mode: SQLite has a lock on the wal-index as long as it does.
    ///
    /// Nothing of this process may have it open. Closing a file drops all of a process's locks on it.
    /// - Throws: ``StoreError/Code/unavailable``.
    package static func isInUse(database: String) throws(StoreError) -> Bool {
        let path = resolved(database) + "-shm"
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT { return false }
            throw failure(path, errno)
        }
        defer { close(descriptor) }
        var lock = flock()
        lock.l_type = CShort(F_WRLCK)
        lock.l_whence = CShort(SEEK_SET)
        (lock.l_start, lock.l_len) = (useLock, 1)
        guard fcntl(descriptor, F_GETLK, &lock) == 0 else { throw failure(path, errno) }
        return lock.l_type != CShort(F_UNLCK)
    }

    /// The byte that every connection has locked, behind those of the index's own eight locks (SQLite's file format, section 2.3.2.2).
    private static let useLock: off_t = 128

    /// - Returns: 0, or the error's number.
    private static func rewrite(_ descriptor: CInt) -> CInt {
        withUnsafeTemporaryAllocation(byteCount: step, alignment: 16) { buffer in
            var place = 0
            while true {
                let count = pread(descriptor, buffer.baseAddress, step, off_t(place))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return count == 0 ? 0 : errno }
                var written = 0
                while written < count {
                    let more = pwrite(
                        descriptor, buffer.baseAddress?.advanced(by: written), count - written, off_t(place + written))
                    if more < 0, errno == EINTR { continue }
                    guard more > 0 else { return more == 0 ? EIO : errno }
                    written += more
                }
                place += count
            }
        }
    }

    private static func resolved(_ path: String) -> String {
        guard let real = realpath(path, nil) else { return path }
        defer { free(real) }
        return String(cString: real)
    }

    private static func failure(_ path: String, _ code: CInt) -> StoreError {
        let isFull = code == ENOSPC || code == EDQUOT
        let advice =
            switch code {
            case ENOSPC, EDQUOT: "make room on the disk"
            case EACCES, EPERM, EROFS: "let the server's user own the folder and the files in it"
            default: "check the disk, and keep the files: what was acknowledged may be in this one alone"
            }
        return StoreError(
            isFull ? .storageFull : .unavailable,
            message: "the write-ahead log \(path) can't be written again: \(StoreDirectory.text(code))", advice: advice)
    }
}
