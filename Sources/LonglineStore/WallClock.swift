#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// The wall clock, where a store isn't given another one.
public enum WallClock {
    /// Milliseconds since 1970.
    public static let milliseconds: @Sendable () -> UInt64 = {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(max(now.tv_sec, 0)) * 1_000 + UInt64(max(now.tv_nsec, 0)) / 1_000_000
    }
}
