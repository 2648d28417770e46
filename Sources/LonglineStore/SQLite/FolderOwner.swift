#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What root makes in a service's folder belongs to whoever the folder belongs to: the service can't read root's private files.
///
/// Where it can't be given away, as in a container without that right, it stays root's: SQLite does as much with its own files.
package enum FolderOwner {
    /// Gives away a file in a folder. Does nothing unless this process is root's.
    /// - Parameter descriptor: the open file; a name could be made to lead elsewhere meanwhile.
    package static func takes(_ descriptor: CInt, in folder: String) {
        guard geteuid() == 0 else { return }
        let parent = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard parent >= 0 else { return }
        defer { close(parent) }
        var owner = stat()
        guard fstat(parent, &owner) == 0, owner.st_uid != 0 else { return }
        _ = fchown(descriptor, owner.st_uid, owner.st_gid)
    }

    /// As ``takes(_:in:)``, of a folder that was made in this one.
    package static func takes(folder path: String, in folder: String) {
        guard geteuid() == 0 else { return }
        // Whom the folder belongs to may have put a link in its place.
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        takes(descriptor, in: folder)
    }

    /// Makes an empty file, unless there is one. That isn't opened: closing a database gives up the locks that this process's SQLite
    /// has on it.
    /// - Returns: 0, or the error's number.
    package static func create(_ path: String, mode: UInt32 = 0o600) -> CInt {
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode_t(mode))
        guard descriptor >= 0 else { return errno == EEXIST ? 0 : errno }
        takes(descriptor, in: folder(of: path))
        close(descriptor)
        return 0
    }

    /// The folder that a path's last name is in.
    package static func folder(of path: String) -> String {
        path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    }
}
