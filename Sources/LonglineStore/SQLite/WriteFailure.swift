import GRDB

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// What a failed transaction means.
enum WriteFailure: Hashable {
    /// The disk, a quota or a size limit is full. Nothing was stored, and reading goes on.
    case full
    /// It isn't known what is on the disk: a failed sync may have dropped pages that the kernel now calls clean, and a second
    /// sync would succeed without them. Only a new process that reads the files again knows.
    case fatal
    /// Nothing was stored, for another reason.
    case other

    /// - Parameters:
    ///   - isCommit: whether COMMIT itself failed.
    ///   - systemError: the `errno` of the connection's last file operation.
    init(_ code: ResultCode, isCommit: Bool, systemError: CInt) {
        switch code.primaryResultCode {
        case .SQLITE_FULL: self = .full
        case .SQLITE_NOMEM: self = .other
        case .SQLITE_BUSY, .SQLITE_LOCKED, .SQLITE_INTERRUPT: self = .other
        case .SQLITE_IOERR:
            if code == .SQLITE_IOERR_FSYNC || code == .SQLITE_IOERR_DIR_FSYNC {
                self = .fatal
            } else if code == .SQLITE_IOERR_SHMSIZE || systemError == ENOSPC || systemError == EDQUOT {
                self = .full
            } else {
                self = .fatal
            }
        default: self = isCommit ? .fatal : .other
        }
    }
}
