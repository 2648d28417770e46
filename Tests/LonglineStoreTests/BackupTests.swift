import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineStore

/// Copies of a store that goes on.
@Suite struct BackupTests {
    private func open(_ path: String, seed: UInt64 = 1, faults: StoreFaults = StoreFaults()) throws -> SQLiteStore {
        try SQLiteStore(
            configuration(path), clock: TestClock().read, random: SeededRandom(seed: seed), faults: faults)
    }

    @Test("a backup of a running store is complete, and known as a backup when it is put back")
    func aBackupOfARunningStoreIsCompleteAndKnownAsABackupWhenItIsPutBack() async throws {
        let folder = try TemporaryFolder()
        let database = folder.path + "/longline.db"
        let copy = folder.path + "/backup.db"
        var store = try open(folder.path)
        let kept = try await store.enter(request(id: 1, "kept"))
        try await store.backup(to: copy)
        await #expect(throws: StoreError.self) { try await store.backup(to: copy) }
        try await store.enter(request(id: 2, "lost"))
        try await store.close()
        #expect(!FileManager.default.fileExists(atPath: copy + "-wal"))

        // Into the same inode, as `cp` does.
        let handle = try #require(FileHandle(forWritingAtPath: database))
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(contentsOf: URL(fileURLWithPath: copy)))
        try handle.close()
        store = try open(folder.path, seed: 2)
        #expect(store.wasRestored)
        #expect(try await store.all(inbox("alice")).map(\.text) == ["kept"])
        let epoch = try #require(try await store.head(of: inbox("alice"))).position.epoch
        #expect(epoch != kept.position.epoch)
        let again = Published(
            id: 1, position: Position(epoch: epoch, offset: kept.position.offset), time: kept.time)
        #expect(try await store.append(request(id: 1, "kept")) == .duplicate(again))
        try await store.close()
    }

    @Test("a backup by another process, while the store goes on, is complete, private, and known as a backup")
    func aBackupByAnotherProcess() async throws {
        let folder = try TemporaryFolder()
        let place = try TemporaryFolder()
        let copy = place.path + "/longline.db"
        let store = try open(folder.path)
        for id in 1...50 as ClosedRange<UInt64> { try await store.enter(request(id: id, "m\(id)")) }
        // Nothing of it is in the database itself yet, all in the write-ahead log.
        try await SQLiteStore.backup(of: folder.path, to: copy)
        #expect(try FileManager.default.attributesOfItem(atPath: copy)[.posixPermissions] as? Int == 0o600)
        await #expect(throws: StoreError.self) { try await SQLiteStore.backup(of: folder.path, to: copy) }
        try await store.enter(request(id: 51, "later"))
        try await store.close()
        let restored = try open(place.path, seed: 2)
        #expect(restored.wasRestored)
        #expect(try await restored.all(inbox("alice")).map(\.text) == (1...50).map { "m\($0)" })
        try await restored.close()
    }

    @Test("a backup of what is no store says so, and leaves nothing there")
    func aBackupOfNothing() async throws {
        let folder = try TemporaryFolder()
        let copy = folder.path + "/copy.db"
        await #expect(throws: StoreError.self) { try await SQLiteStore.backup(of: folder.path, to: copy) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == [])
    }

    @Test("a backup that fails leaves no file, and can be made again")
    func aBackupThatFailsLeavesNoFile() async throws {
        let folder = try TemporaryFolder()
        let copy = folder.path + "/backup.db"
        let isFull = Mutex(true)
        let faults = StoreFaults(duringBackup: {
            if isFull.withLock({ $0 }) { throw DatabaseError(resultCode: .SQLITE_FULL) }
        })
        let store = try open(folder.path, faults: faults)
        try await store.enter(request(id: 1))
        let error = await #expect(throws: StoreError.self) { try await store.backup(to: copy) }
        #expect(error?.code == .storageFull)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).allSatisfy { !$0.hasPrefix("backup") })
        isFull.withLock { $0 = false }
        try await store.backup(to: copy)
        #expect(FileManager.default.fileExists(atPath: copy))
        try await store.close()
    }

    @Test("a backup whose disk can't be written blames the copy and not the store, and leaves no file")
    func aBackupThatCanNotBeWrittenBlamesTheCopy() async throws {
        let folder = try TemporaryFolder()
        let place = try TemporaryFolder()
        let copy = place.file("backup.db")
        // What a quota and a limit on the size of files lead to, with the words of a connection that did not fail.
        let faults = StoreFaults(duringBackup: {
            throw DatabaseError(resultCode: .SQLITE_IOERR_WRITE, message: "not an error")
        })
        let store = try open(folder.path, faults: faults)
        try await store.enter(request(id: 1))
        let error = await #expect(throws: StoreError.self) { try await store.backup(to: copy) }
        #expect(error?.code == .unavailable)
        #expect(error?.message == "\(copy) can't be written: SQLite 778 (disk I/O error)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: place.path) == [])
        try await store.close()
    }

    @Test("a backup has its name when it is complete, and what was left of one that was killed is replaced")
    func aBackupHasItsNameWhenItIsComplete() async throws {
        let folder = try TemporaryFolder()
        let place = try TemporaryFolder()
        let files = FileManager.default
        let copy = place.file("longline.db")
        let seen = Mutex<[[String]]>([])
        let faults = StoreFaults(duringBackup: {
            seen.withLock { $0.append((try? FileManager.default.contentsOfDirectory(atPath: place.path)) ?? []) }
        })
        let store = try open(folder.path, faults: faults)
        try await store.enter(request(id: 1, "kept"))
        // A journal is rolled back into the file that it lies beside.
        for name in ["longline.db.partial", "longline.db.partial-journal", "longline.db.partial-wal"] {
            try place.write(name, "left by one that was killed")
        }
        try await store.backup(to: copy)
        #expect(seen.withLock { $0 } == [["longline.db.partial"]])
        #expect(try files.contentsOfDirectory(atPath: place.path) == ["longline.db"])
        #expect(try files.attributesOfItem(atPath: copy)[.posixPermissions] as? Int == 0o600)
        try await store.close()
        let restored = try open(place.path, seed: 2)
        #expect(restored.wasRestored)
        #expect(try await restored.all(inbox("alice")).map(\.text) == ["kept"])
        try await restored.close()
    }

    @Test("a backup replaces no file that came while it was made, and takes no other's file for its own")
    func aBackupReplacesNothing() async throws {
        let folder = try TemporaryFolder()
        let place = try TemporaryFolder()
        let copy = place.file("copy.db")
        let way = Mutex("name")
        let faults = StoreFaults(duringBackup: {
            if way.withLock({ $0 }) == "name" {
                try place.write("copy.db", "another's")
            } else {
                // Another backup to the same name began.
                try FileManager.default.moveItem(atPath: copy + ".partial", toPath: place.file("away"))
                try place.write("copy.db.partial", "another's")
            }
        })
        let store = try open(folder.path, faults: faults)
        await #expect(throws: StoreError.self) { try await store.backup(to: copy) }
        #expect(try String(contentsOfFile: copy, encoding: .utf8) == "another's")
        #expect(try FileManager.default.contentsOfDirectory(atPath: place.path) == ["copy.db"])
        try FileManager.default.removeItem(atPath: copy)
        way.withLock { $0 = "partial" }
        await #expect(throws: (any Error).self) { try await store.backup(to: copy) }
        #expect(!FileManager.default.fileExists(atPath: copy))
        #expect(try String(contentsOfFile: copy + ".partial", encoding: .utf8) == "another's")
        try await store.close()
    }

    @Test("a database that is missing where a store was open is refused; without the identity it is a beginning")
    func aMissingDatabase() async throws {
        let folder = try TemporaryFolder()
        let store = try SQLiteStore(configuration(folder.path))
        try await store.enter(request(id: 1))
        try await store.close()
        let copy = folder.file("kept-elsewhere")
        try FileManager.default.moveItem(atPath: folder.file("longline.db"), toPath: copy)
        let error = #expect(throws: StoreError.self) { try SQLiteStore(configuration(folder.path)) }
        #expect(error?.code == .unavailable && error?.message.contains("is missing, but a store was open here") == true)
        // Nobody is told to remove what is not there.
        #expect(error?.advice.contains("remove store.identity, and longline.db") == true)
        #expect(error?.advice.hasSuffix("where they are") == true)
        // Nothing took its place: what is put back is there.
        #expect(!FileManager.default.fileExists(atPath: folder.file("longline.db")))
        try FileManager.default.moveItem(atPath: copy, toPath: folder.file("longline.db"))
        let again = try SQLiteStore(configuration(folder.path))
        #expect(!again.wasRestored)
        try await again.close()

        for file in ["longline.db", "store.identity"] { try FileManager.default.removeItem(atPath: folder.file(file)) }
        let new = try SQLiteStore(configuration(folder.path))
        #expect(!new.wasRestored)
        try await new.close()
    }

    @Test("an empty file where a store was open is refused, and where none was is a beginning that the log has")
    func anEmptyDatabase() async throws {
        let folder = try TemporaryFolder()
        var settings = configuration(folder.path)
        let lines = RecordedLines()
        settings.logger = lines.logger
        func said() -> Int { lines.lines.count { $0.message.contains("empty file") } }
        // As a first start leaves it that was killed.
        try folder.write("longline.db", "")
        var store = try SQLiteStore(settings)
        #expect(said() == 1 && !store.wasRestored)
        try await store.enter(request(id: 1))
        try await store.close()
        store = try SQLiteStore(settings)
        try await store.close()
        #expect(said() == 1)
        // As a copy leaves it that was killed and put back.
        try folder.write("longline.db", "")
        let error = #expect(throws: StoreError.self) { try SQLiteStore(settings) }
        #expect(error?.code == .unavailable && error?.advice.contains("store.identity") == true)
        #expect(try Data(contentsOf: URL(fileURLWithPath: folder.file("longline.db"))).isEmpty)
        try FileManager.default.removeItem(atPath: folder.file("store.identity"))
        store = try SQLiteStore(settings)
        #expect(said() == 2)
        try await store.close()
    }
}
