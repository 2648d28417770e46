import Foundation
import LonglineServer
import LonglineStore
import Synchronization

/// Says that somebody has a control database open: a lock that all who do share, for as long as they do.
///
/// Whoever has it alone, behind the ``OpeningLock``, knows that no other process has the file open, and none of this one either. The
/// kernel gives it up when the process ends, however it ends.
final class DatabaseUse: Sendable {
    private let descriptor: Mutex<CInt?>

    /// - Parameters:
    ///   - path: the lock's file, which is made where there is none.
    ///   - first: called where nobody else has the database open, before anybody else may.
    /// - Throws: ``ControlError/Code/storeUnavailable``, or what `first` throws.
    init(path: String, first: () throws -> Void) throws {
        let code = FolderOwner.create(path)
        guard code == 0 else { throw Self.failure(path, "made", code) }
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Self.failure(path, "opened", errno) }
        do {
            if try Self.locks(file, LOCK_EX, path) { try first() }
            // Nobody has it alone but behind the opening lock.
            guard try Self.locks(file, LOCK_SH, path) else { throw Self.failure(path, "locked", EWOULDBLOCK) }
        } catch {
            close(file)
            throw error
        }
        descriptor = Mutex(file)
    }

    private static func locks(_ file: CInt, _ kind: CInt, _ path: String) throws -> Bool {
        while flock(file, kind | LOCK_NB) != 0 {
            switch errno {
            case EINTR: continue
            case EWOULDBLOCK: return false
            default: throw failure(path, "locked", errno)
            }
        }
        return true
    }

    private static func failure(_ path: String, _ what: String, _ code: CInt) -> ControlError {
        ControlError(
            .storeUnavailable, message: "\(path) can't be \(what): \(String(cString: strerror(code)))",
            advice: "keep the folder on a local file system, and let the server's user own it")
    }

    /// The database is closed.
    func end() {
        descriptor.withLock { descriptor in
            if let descriptor { close(descriptor) }
            descriptor = nil
        }
    }

    deinit { end() }
}
