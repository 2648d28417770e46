import Foundation

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// A store's folder on disk, held by one process at a time.
///
/// `longline.db` (with `-wal` and `-shm` beside it while the store is open), `store.lock` and `store.identity`.
struct StoreDirectory: Sendable {
    let path: String
    /// Keeps the lock for as long as the store lives.
    private let lock: FileLock

    var database: String { path + "/longline.db" }
    private var identityFile: String { path + "/store.identity" }

    /// Checks the folder and takes its lock.
    init(_ path: String) throws(StoreError) {
        self.path = path
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw StoreError(
                .unavailable, message: "the store's folder \(path) can't be read: \(Self.text(errno))",
                advice: "make the folder and let the server's user own it")
        }
        guard status.st_mode & S_IFMT == S_IFDIR else {
            throw StoreError(
                .unavailable, message: "\(path) isn't a folder",
                advice: "name a folder that the store may keep its files in")
        }
        guard access(path, W_OK | X_OK) == 0 else {
            throw StoreError(
                .unavailable, message: "the store's folder \(path) can't be written: \(Self.text(errno))",
                advice: "let the server's user own the folder, on a file system that isn't read-only")
        }
        lock = try FileLock(path + "/store.lock")
    }

    // MARK: Identity

    /// What tells this life of the database file from a copy: the identity that the database names, and the file's inode.
    func readIdentity() -> String? {
        guard let data = FileManager.default.contents(atPath: identityFile), data.count <= 256 else { return nil }
        return String(decoding: data, as: UTF8.self)
    }

    /// What the identity file must say for the database to be the one that was closed last.
    func expectedIdentity(_ identity: String) throws(StoreError) -> String {
        var status = stat()
        guard stat(database, &status) == 0 else {
            throw StoreError(.unavailable, message: "\(database): \(Self.text(errno))")
        }
        return "longline-store 1\nidentity \(identity)\ninode \(status.st_ino)\n"
    }

    /// Replaces the identity file, durably.
    func writeIdentity(_ identity: String) throws(StoreError) {
        let text = try expectedIdentity(identity)
        let temporary = identityFile + ".new"
        let failed = { (file: String) in
            StoreError(
                errno == ENOSPC || errno == EDQUOT ? .storageFull : .unavailable,
                message: "\(file): \(Self.text(errno))", advice: "the store's folder must be writable, with room in it")
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failed(temporary) }
        let isWritten = Array(text.utf8).withUnsafeBytes { bytes in
            write(descriptor, bytes.baseAddress, bytes.count) == bytes.count && fsync(descriptor) == 0
        }
        let writeError = isWritten ? nil : failed(temporary)
        close(descriptor)
        if let writeError { throw writeError }
        guard rename(temporary, identityFile) == 0 else { throw failed(identityFile) }
        let folder = open(path, O_RDONLY | O_CLOEXEC)
        guard folder >= 0 else { throw failed(path) }
        defer { close(folder) }
        guard fsync(folder) == 0 else { throw failed(path) }
    }

    func unlock() { lock.release() }

    static func text(_ code: CInt) -> String { String(cString: strerror(code)) }
}
