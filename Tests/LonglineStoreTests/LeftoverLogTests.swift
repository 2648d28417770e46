import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineStore

/// A write-ahead log that a process left behind is written to the disk again before anything is built on it.
@Suite struct LeftoverLogTests {
    /// F_OFD_SETLK, which the C library's headers have for programs of GNU's kind only.
    private static let setLockOfFile: CInt = 37
    private static let old = Date(timeIntervalSince1970: 1_000_000)

    /// Makes a file look as if it was written long ago.
    private func age(_ path: String) throws {
        try FileManager.default.setAttributes([.modificationDate: Self.old], ofItemAtPath: path)
    }

    private func isWritten(_ path: String) throws -> Bool {
        try FileManager.default.attributesOfItem(atPath: path)[.modificationDate] as? Date != Self.old
    }

    @Test("every byte is written over itself", arguments: [1, 4_120, (2 << 20) + 17])
    func everyByteIsWrittenOverItself(_ bytes: Int) throws {
        let folder = try TemporaryFolder()
        let log = folder.file("longline.db-wal")
        let content = Data((0..<bytes).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
        try content.write(to: URL(fileURLWithPath: log))
        try age(log)
        let synced = Mutex(0)
        let faults = StoreFaults(beforeLogSync: { synced.withLock { $0 += 1 } })
        #expect(try LeftoverLog.settle(besideDatabase: folder.file("longline.db"), faults) == bytes)
        #expect(try Data(contentsOf: URL(fileURLWithPath: log)) == content)
        #expect(try isWritten(log) && synced.withLock { $0 } == 1)
    }

    @Test("a database is in use as long as somebody has SQLite's lock on its index") func use() throws {
        let folder = try TemporaryFolder()
        let path = folder.file("control.db")
        #expect(try !LeftoverLog.isInUse(database: path))
        let index = open(try folder.write("control.db-shm", String(repeating: " ", count: 32_768)), O_RDWR)
        defer { close(index) }
        #expect(try !LeftoverLog.isInUse(database: path))
        var lock = flock()
        lock.l_type = CShort(F_RDLCK)
        (lock.l_start, lock.l_len) = (128, 1)
        // A lock of the open file: what belongs to this process as a whole is not told to it.
        #expect(fcntl(index, Self.setLockOfFile, &lock) == 0)
        #expect(try LeftoverLog.isInUse(database: path))
    }

    @Test("without a log, or with an empty one, nothing is done") func nothingToDo() throws {
        let folder = try TemporaryFolder()
        #expect(try LeftoverLog.settle(besideDatabase: folder.file("longline.db"), StoreFaults()) == 0)
        let log = try folder.write("longline.db-wal", "")
        try age(log)
        #expect(try LeftoverLog.settle(besideDatabase: folder.file("longline.db"), StoreFaults()) == 0)
        #expect(try !isWritten(log))
    }

    @Test("a database that is a link has its log beside the file itself") func links() throws {
        let folder = try TemporaryFolder()
        let disk = try TemporaryFolder()
        try disk.write("real.db", "database")
        let log = try disk.write("real.db-wal", "log")
        try age(log)
        try FileManager.default.createSymbolicLink(
            atPath: folder.file("longline.db"), withDestinationPath: disk.file("real.db"))
        #expect(try LeftoverLog.settle(besideDatabase: folder.file("longline.db"), StoreFaults()) == 3)
        #expect(try isWritten(log))
    }

    @Test("a store whose log can't be brought to the disk does not open, and has everything once it can")
    func aLogThatCantBeWrittenRefusesTheStart() async throws {
        let folder = try TemporaryFolder()
        let killed = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path))
        for id in 1...20 as ClosedRange<PublishID> { try await store.enter(request(id: id)) }
        for file in ["longline.db", "longline.db-wal", "store.identity"] {
            try FileManager.default.copyItem(atPath: folder.file(file), toPath: killed.file(file))
        }
        try await store.close()
        let log = try Data(contentsOf: URL(fileURLWithPath: killed.file("longline.db-wal")))
        #expect(!log.isEmpty)
        func open(_ faults: StoreFaults) throws -> SQLiteStore {
            try SQLiteStore(
                configuration(killed.path), clock: TestClock().read, random: SeededRandom(seed: 2), faults: faults)
        }
        let broken = StoreFaults(beforeLogSync: { throw DatabaseError(resultCode: .SQLITE_IOERR_FSYNC) })
        let error = #expect(throws: StoreError.self) { try open(broken) }
        #expect(error?.code == .unavailable && error?.message.contains("longline.db-wal") == true)
        #expect(error?.advice.isEmpty == false)
        #expect(try Data(contentsOf: URL(fileURLWithPath: killed.file("longline.db-wal"))) == log)
        let again = try open(StoreFaults())
        #expect(try await again.all(inbox("alice")).count == 20)
        try await again.close()
        // Closed in order, nothing is left to be written again.
        try await open(broken).close()
    }
}
