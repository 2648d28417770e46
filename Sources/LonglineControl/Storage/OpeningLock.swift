import Foundation
import LonglineServer

/// Held while a folder's control database is opened: one process, and one thread of it, at a time.
///
/// GRDB's migrator reads which steps are done before it locks the database, and SQLite doesn't wait for another that changes a new
/// file's journal: who opened at the same moment would fail. The lock is the folder's own, so that nothing is left behind, and the
/// kernel gives it up when the process ends, however it ends.
struct OpeningLock: ~Copyable {
    private let descriptor: CInt

    /// Waits for the others.
    /// - Parameter patience: how long, until another one must be taken for stopped.
    init(folder: String, patience: Duration = .seconds(10)) throws(ControlError) {
        descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.failure(folder, "can't be opened") }
        let end = ContinuousClock.now + patience
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            switch errno {
            case EINTR: continue
            case EWOULDBLOCK where ContinuousClock.now < end: Thread.sleep(forTimeInterval: 0.01)
            case EWOULDBLOCK:
                close(descriptor)
                throw ControlError(
                    .storeUnavailable,
                    message: "another process has been opening the control database in \(folder) for \(patience)",
                    advice: "let it go on, or end it, when it is stopped")
            default:
                let error = Self.failure(folder, "can't be locked")
                close(descriptor)
                throw error
            }
        }
    }

    private static func failure(_ folder: String, _ what: String) -> ControlError {
        ControlError(
            .storeUnavailable, message: "\(folder) \(what): \(String(cString: strerror(errno)))",
            advice: "keep the folder on a local file system, and let the server's user own it")
    }

    deinit { close(descriptor) }
}
