#if canImport(Musl)
    import Musl
#else
    import Glibc
#endif

/// What a store takes on its disk, and what is left there; in bytes.
public struct StoreDiskUse: Hashable, Sendable {
    /// What the store's files take, its write-ahead log among them.
    public var used: UInt64
    /// What this process may still write there; the store's own limit does not count.
    public var free: UInt64

    /// Both figures.
    public init(used: UInt64, free: UInt64) {
        self.used = used
        self.free = free
    }
}

extension SQLiteStore {
    /// What the store takes, and what is left; nil when the system does not say. Looks at the file system, which takes a moment.
    public var diskUse: StoreDiskUse? {
        var system = statvfs()
        guard statvfs(directory.path, &system) == 0 else { return nil }
        var used: UInt64 = 0
        for suffix in ["", "-wal", "-shm"] {
            var status = stat()
            if stat(directory.database + suffix, &status) == 0 { used += UInt64(clamping: status.st_size) }
        }
        return StoreDiskUse(used: used, free: UInt64(system.f_bavail) &* UInt64(system.f_frsize))
    }
}
