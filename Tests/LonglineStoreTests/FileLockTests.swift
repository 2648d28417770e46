import LonglineTestKit
import Testing

@testable import LonglineStore

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

@Suite("The lock of a store's folder")
struct FileLockTests {
    /// An open file of the same path; `flock` tells two of them apart as it does two processes.
    private func descriptor(_ path: String) throws -> CInt {
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        try #require(descriptor >= 0)
        return descriptor
    }

    @Test("whoever asks whether it is held keeps nobody from taking it, and who has it does")
    func asked() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("store.lock")
        let (asker, taker) = (try descriptor(path), try descriptor(path))
        defer {
            close(asker)
            close(taker)
        }
        // As one who asks has it for a moment.
        try #require(flock(asker, LOCK_SH | LOCK_NB) == 0)
        var pauses = 0
        var isTaken = FileLock.take(taker) { pauses += 1 }
        #expect(!isTaken && pauses > 3)
        pauses = 0
        isTaken = FileLock.take(taker) {
            pauses += 1
            if pauses == 3 { _ = flock(asker, LOCK_UN) }
        }
        #expect(isTaken && pauses == 3)
        #expect(FileLock.isHeld(path))
        #expect(flock(taker, LOCK_UN) == 0)
        #expect(!FileLock.isHeld(path))
    }
}
