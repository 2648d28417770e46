import GRDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Copies a database into a new file that names no identity: whoever opens it knows that it is a copy. Nobody else may read it.
///
/// A copy grows under another name and gets its own when it is complete and on disk, so that a process that is killed leaves nothing
/// that looks like a backup.
enum SQLiteBackup {
    /// Where a copy grows. What is left there of one that was killed gives way to the next.
    static func partial(_ path: String) -> String { path + ".partial" }

    /// A copy that fails leaves no file.
    static func copy(_ source: some DatabaseReader, to path: String, _ faults: StoreFaults) throws {
        guard inode(path) == nil else { throw exists(path) }
        let partial = partial(path)
        remove(partial)
        let inode = try makePrivateFile(partial)
        do {
            let copy = try DatabaseQueue(path: partial)
            do { try fill(copy, source, faults) } catch {
                try? copy.close()
                throw error
            }
            try copy.close()
            try publish(partial, inode, as: path)
        } catch {
            // Another backup's is its own affair.
            if self.inode(partial) == inode { remove(partial) }
            if let error = error as? DatabaseError, let ofCopy = failure(of: error, path) { throw ofCopy }
            throw error
        }
    }

    /// Copies the database at `database`, which another process may have open.
    static func copy(database: String, to path: String) throws {
        var settings = Configuration()
        settings.label = "longline.backup"
        settings.readonly = true
        settings.busyMode = .timeout(5)
        let source = try DatabaseQueue(path: database, configuration: settings)
        // It was read only: nothing hangs on how it closes.
        defer { try? source.close() }
        guard try source.read({ try $0.tableExists("store") }) else {
            throw StoreError(
                .unavailable, message: "\(database) is no store of Longline",
                advice: "name the folder that the store keeps its files in")
        }
        try copy(source, to: path, StoreFaults())
    }

    private static func fill(_ copy: DatabaseQueue, _ source: some DatabaseReader, _ faults: StoreFaults) throws {
        try source.backup(to: copy)
        try faults.duringBackup()
        try copy.inDatabase { db in
            try db.execute(sql: "PRAGMA journal_mode = DELETE")
            try db.execute(sql: "PRAGMA synchronous = FULL")
            try db.execute(sql: "UPDATE store SET identity = ''")
        }
    }

    /// What SQLite says that can only be about the copy: the store is read, and never written.
    private static func failure(of error: DatabaseError, _ path: String) -> StoreError? {
        let code = error.extendedResultCode
        if error.resultCode == .SQLITE_FULL {
            return StoreError(
                .storageFull, message: "\(path): \(error.message ?? "no space left")", advice: advice(ENOSPC))
        }
        // The disk's fault, or a quota or a limit on the size of files, for which SQLite has no code of its own.
        let writing: [ResultCode] = [
            .SQLITE_IOERR_WRITE, .SQLITE_IOERR_FSYNC, .SQLITE_IOERR_DIR_FSYNC, .SQLITE_IOERR_TRUNCATE,
        ]
        guard writing.contains(code) else { return nil }
        return StoreError(
            .unavailable, message: "\(path) can't be written: SQLite \(code)",
            advice: "check the disk that the copy goes to, and what limits this user's files")
    }

    // MARK: Files

    /// With what SQLite keeps beside it: a journal that is left there would be rolled back into the next copy.
    private static func remove(_ partial: String) {
        for file in ["", "-journal", "-wal", "-shm"] { unlink(partial + file) }
    }

    private static func inode(_ path: String) -> ino_t? {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_ino : nil
    }

    /// Makes an empty file that nobody else may read: never one that was there before.
    /// - Returns: its inode.
    private static func makePrivateFile(_ path: String) throws(StoreError) -> ino_t {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure(path, "can't be made", errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(path, "can't be made", errno) }
        return status.st_ino
    }

    /// Gives a copy its name, durably, and never that of a file that is there.
    private static func publish(_ partial: String, _ inode: ino_t, as path: String) throws(StoreError) {
        let descriptor = open(partial, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(partial, "can't be read", errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_ino == inode else {
            throw StoreError(
                .unavailable, message: "another backup to \(path) is under way", advice: "name another file")
        }
        guard fsync(descriptor) == 0 else { throw failure(partial, "can't be written", errno) }
        try name(partial, path)
        let code = syncFolder(of: path)
        guard code == 0 else {
            unlink(path)
            throw failure(path, "can't be kept", code)
        }
    }

    private static func name(_ partial: String, _ path: String) throws(StoreError) {
        if link(partial, path) == 0 {
            unlink(partial)
            return
        }
        switch errno {
        case EEXIST: throw exists(path)
        // No links on this file system: an empty file keeps others away from the name until it is replaced.
        case EPERM, EOPNOTSUPP, ENOSYS, EMLINK:
            let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw errno == EEXIST ? exists(path) : failure(path, "can't be made", errno) }
            close(descriptor)
            guard rename(partial, path) == 0 else {
                let code = errno
                unlink(path)
                throw failure(path, "can't be made", code)
            }
        case let code: throw failure(path, "can't be made", code)
        }
    }

    /// - Returns: 0, or the error's number. A file system that syncs no folders is not at fault.
    private static func syncFolder(of path: String) -> CInt {
        let folder = open(FolderOwner.folder(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard folder >= 0 else { return errno == EACCES ? 0 : errno }
        defer { close(folder) }
        guard fsync(folder) != 0 else { return 0 }
        return errno == EINVAL || errno == EOPNOTSUPP ? 0 : errno
    }

    private static func exists(_ path: String) -> StoreError {
        StoreError(.unavailable, message: "\(path) exists", advice: "name a file that doesn't exist yet")
    }

    private static func failure(_ path: String, _ what: String, _ code: CInt) -> StoreError {
        StoreError(
            code == ENOSPC || code == EDQUOT ? .storageFull : .unavailable,
            message: "\(path) \(what): \(StoreDirectory.text(code))", advice: advice(code))
    }

    private static func advice(_ code: CInt) -> String {
        code == ENOSPC || code == EDQUOT
            ? "make room on the disk that the copy goes to" : "name a file in a folder that this user may write to"
    }
}
