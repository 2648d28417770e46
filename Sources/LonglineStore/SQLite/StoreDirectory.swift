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

    var database: String { SQLiteStore.databasePath(in: path) }
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
        lock = try FileLock(Self.lockFile(path))
    }

    private static func lockFile(_ path: String) -> String { path + "/store.lock" }

    /// Whether a process has the lock of this folder.
    static func isLocked(_ path: String) -> Bool { FileLock.isHeld(lockFile(path)) }

    /// Whether the database is there, as a file without a byte.
    var hasEmptyDatabase: Bool {
        var status = stat()
        return stat(database, &status) == 0 && status.st_size == 0
    }

    /// Whether there is no file of the database.
    var lacksDatabase: Bool { access(database, F_OK) != 0 && errno == ENOENT }

    // MARK: Identity

    /// Whether a store was open here.
    var hasIdentity: Bool { access(identityFile, F_OK) == 0 }

    /// The inode of the database file: a copy has another.
    private func databaseInode() throws(StoreError) -> UInt64 {
        var status = stat()
        guard stat(database, &status) == 0 else {
            throw StoreError(.unavailable, message: "\(database): \(Self.text(errno))")
        }
        return UInt64(status.st_ino)
    }

    /// Whether the identity file says that the database with this identity is the one that was open here last.
    func isKnown(_ identity: String) throws(StoreError) -> Bool {
        guard !identity.isEmpty, let data = FileManager.default.contents(atPath: identityFile), data.count <= 256
        else { return false }
        let lines = Set(String(decoding: data, as: UTF8.self).split(separator: "\n").map(String.init))
        let inode = try databaseInode()
        return lines.isSuperset(of: ["longline-store 1", "identity \(identity)", "inode \(inode)"])
    }

    /// Replaces the identity file, durably.
    /// - Parameter identities: those that the database may have: one, or two while the database is about to change it.
    func writeIdentities(_ identities: [String]) throws(StoreError) {
        let names = identities.map { "identity \($0)\n" }.joined()
        let text = "longline-store 1\n\(names)inode \(try databaseInode())\n"
        let temporary = identityFile + ".new"
        let failed = { (file: String) in
            StoreError(
                errno == ENOSPC || errno == EDQUOT ? .storageFull : .unavailable,
                message: "\(file): \(Self.text(errno))", advice: "the store's folder must be writable, with room in it")
        }
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failed(temporary) }
        FolderOwner.takes(descriptor, in: path)
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
