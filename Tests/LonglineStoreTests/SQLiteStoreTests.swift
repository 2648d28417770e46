import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineStore

/// What only the store on disk promises.
@Suite struct SQLiteStoreTests {
    private func open(
        _ path: String, clock: TestClock = TestClock(), seed: UInt64 = 1, faults: StoreFaults = StoreFaults(),
        _ change: (inout SQLiteStoreConfiguration) -> Void = { _ in }
    ) throws -> SQLiteStore {
        var settings = configuration(path)
        change(&settings)
        return try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: seed), faults: faults)
    }

    // MARK: Durability

    @Test("a store opened again has everything") func aStoreOpenedAgainHasEverything() async throws {
        let folder = try TemporaryFolder()
        var store = try open(folder.path)
        let first = try await store.enter(request(recipient: "bob", id: 1, "one"))
        _ = try await store.join(room("r"), by: device("alice"), create: true)
        try await store.enter(request(to: .room(room("r")), id: 2, after: 0, "two"))
        let inboxItems = try await store.all(inbox("bob"))
        let record = try await store.advance(
            device("alice"), to: [ChannelPosition(channel: .user(user("alice")), position: first.position)])
        #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 9) == .returning)
        try await store.revoke(device: device("alice"))
        let entitlements = try await store.entitlements(of: user("alice"), in: tenant)
        try await store.close()

        store = try open(folder.path, seed: 2)
        #expect(store.wasRestored == false)
        #expect(try await store.append(request(recipient: "bob", id: 1, "one")) == .duplicate(first))
        #expect(try await store.all(inbox("bob")) == inboxItems)
        #expect(try await store.entitlements(of: user("alice"), in: tenant) == entitlements)
        #expect(try await store.advance(device("alice"), to: []) == record)
        #expect(try await store.admit(device("alice"), producer: producer, connectNumber: 8) == .stale)
        #expect(try await store.generations(of: device("alice")) == RevocationGenerations(user: 0, device: 1))
        let next = try await store.enter(request(id: 3, after: 1))
        #expect(next.position.offset > entitlements.map(\.head.position.offset).max() ?? 0)
        try await store.close()
    }

    /// The files as they are at the moment of the acknowledgement are what a `kill -9` leaves. Power failure is what
    /// `synchronous` is for, which the next test checks.
    @Test("what was acknowledged is in the files at that moment") func whatWasAcknowledgedIsInTheFilesAtThatMoment()
        async throws
    {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        await withTaskGroup { group in
            for sender in 0..<8 {
                group.addTask {
                    do {
                        for id in 1...8 as ClosedRange<PublishID> {
                            let published = try await store.enter(request("user\(sender)", id: id, "\(id)"))
                            let copy = try TemporaryFolder()
                            for file in ["longline.db", "longline.db-wal"] {
                                try FileManager.default.copyItem(
                                    atPath: folder.path + "/" + file, toPath: copy.path + "/" + file)
                            }
                            let killed = try DatabaseQueue(path: copy.path + "/longline.db")
                            let count = try await killed.read { db in
                                try Int.fetchOne(
                                    db, sql: "SELECT count(*) FROM entries WHERE offset = ?",
                                    arguments: [published.position.offset])
                            }
                            #expect(count == 1, "user\(sender) \(id)")
                        }
                    } catch {
                        Issue.record(error)
                    }
                }
            }
        }
        try await store.close()
    }

    @Test("every commit is synced") func everyCommitIsSynced() async throws {
        let folder = try TemporaryFolder()
        let directory = try StoreDirectory(folder.path)
        let pool = try SQLiteOpening.open(directory, configuration(folder.path))
        try await pool.writeWithoutTransaction { db throws in
            #expect(try Int.fetchOne(db, sql: "PRAGMA synchronous") == 2)
            #expect(try String.fetchOne(db, sql: "PRAGMA journal_mode") == "wal")
            #expect(try Int.fetchOne(db, sql: "PRAGMA wal_autocheckpoint") == 0)
        }
        try pool.close()
    }

    // MARK: Group commit

    @Test("writes that wait share a transaction, and answer each caller")
    func writesThatWaitShareATransactionAndAnswerEachCaller() async throws {
        let folder = try TemporaryFolder()
        let commits = Mutex(0)
        let store = try open(folder.path, faults: StoreFaults(beforeCommit: { commits.withLock { $0 += 1 } }))
        let count = 400
        await withTaskGroup { group in
            for index in 0..<count {
                group.addTask {
                    let outcome = await store.append([request("user\(index)", id: 1, "\(index)")])
                    #expect(outcome.first?.isEntered == true)
                }
            }
        }
        #expect(commits.withLock { $0 } < count)
        for index in [0, count - 1] {
            #expect(try await store.all(inbox("user\(index)")).map(\.text) == ["\(index)"])
        }
        try await store.close()
    }

    @Test("one write that fails takes none with it that were handed over together, and they keep their order")
    func aWriteThatFailsTakesNoneWithIt() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        let other = try DatabaseQueue(path: folder.path + "/longline.db")
        try await other.write {
            try $0.execute(
                sql: """
                    CREATE TRIGGER bad BEFORE INSERT ON entries WHEN NEW.sender = 'mallory'
                        BEGIN SELECT RAISE(ABORT, 'bad'); END
                    """)
        }
        try other.close()
        var batch = (1...7).map { request(id: $0, "\($0)") }
        batch.insert(request("mallory", id: 1), at: 3)
        let outcomes = await store.append(batch)
        #expect(outcomes.map(\.isEntered) == [true, true, true, false, true, true, true, true])
        #expect(outcomes[3].refused?.code == .overloaded)
        #expect(outcomes.compactMap(\.published?.id) == Array(1...7))
        #expect(try await store.all(inbox("alice")).map(\.text) == (1...7).map { "\($0)" })
        try await store.close()
    }

    @Test("a full queue refuses, and loses nothing that it took") func aFullQueueRefusesAndLosesNothingThatItTook()
        async throws
    {
        let folder = try TemporaryFolder()
        let (entered, gate) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let isFirst = Mutex(true)
        let faults = StoreFaults(beforeCommit: {
            // The first transaction waits on its way to the disk until the queue is full.
            guard
                isFirst.withLock({ first in
                    defer { first = false }; return first
                })
            else { return }
            entered.signal()
            gate.wait()
        })
        let store = try open(folder.path, faults: faults) { $0.queueRequests = 3 }
        async let held = store.append([request("first", id: 1)])
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            DispatchQueue.global().async {
                entered.wait()
                done.resume()
            }
        }
        let outcomes = await withTaskGroup { group in
            for index in 0..<10 { group.addTask { await store.append([request("user\(index)", id: 1)]) } }
            var outcomes: [AppendOutcome] = []
            for _ in 0..<7 { outcomes += await group.next() ?? [] }
            #expect(outcomes.map(\.refused?.code) == Array(repeating: .overloaded, count: 7))
            #expect(outcomes.allSatisfy { $0.refused?.retryAfter ?? 0 > 0 })
            await #expect(throws: StoreError.self) {
                try await store.revoke(user: user("alice"), in: tenant)
            }
            gate.signal()
            return await group.reduce(into: []) { $0 += $1 }
        }
        #expect(outcomes.map(\.isEntered) == [true, true, true])
        #expect(await held.first?.isEntered == true)
        try await store.close()
    }

    @Test("a closed store refuses") func aClosedStoreRefuses() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        try await store.enter(request(id: 1))
        try await store.close()
        try await store.close()
        #expect(await store.append([request(id: 2)]).first?.refused != nil)
        let error = await #expect(throws: StoreError.self) { try await store.revoke(device: device("alice")) }
        #expect(error?.code == .closed)
        await #expect(throws: StoreError.self) { try await store.members(of: room("r"), in: tenant) }
    }

    // MARK: A disk that is full or fails

    @Test("a full disk refuses publishes with a retry, and reading goes on")
    func aFullDiskRefusesPublishesWithARetryAndReadingGoesOn() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path) { $0.maximumSize = 400 * 1_024 }
        let text = String(repeating: "x", count: 8_000)
        var id: PublishID = 0
        var refused: Refused?
        while refused == nil, id < 1_000 {
            id += 1
            refused = try await store.append(request(id: id, text)).refused
        }
        #expect(refused?.code == .storageFull)
        #expect(refused?.retryAfter ?? 0 > 0)
        #expect(try await store.all(inbox("alice"), pageBytes: 20_000).count == Int(id) - 1)
        let error = await #expect(throws: StoreError.self) {
            for number in 0..<100_000 {
                try await store.revoke(token: "\(number)-\(text)", in: tenant, until: 0)
            }
        }
        #expect(error?.code == .storageFull)
        // Room again: the same publish is entered, once.
        while try await store.trim(inbox("alice"), keep: Retention(entries: 1)).more {}
        try await store.enter(request(id: id, text))
        try await store.enter(request(id: id + 1, after: id, "next"))
        #expect(try await store.all(inbox("alice")).count == 3)
        try await store.close()
    }

    @Test("a full disk is said once, and room when something was written again")
    func aFullDiskIsSaidOnce() async throws {
        let folder = try TemporaryFolder()
        let lines = RecordedLines()
        let store = try open(folder.path) {
            $0.maximumSize = 400 * 1_024
            $0.logger = lines.logger
        }
        func said() -> [String] {
            lines.lines.map(\.message).filter { $0.hasPrefix("store is") || $0.hasPrefix("store has") }
        }
        let text = String(repeating: "x", count: 8_000)
        try await store.enter(request(id: 1, text))
        var id: PublishID = 1
        repeat { id += 1 } while try await store.append(request(id: id, text)).isEntered
        #expect(said() == ["store is full"])
        for _ in 0..<3 {
            // These succeed, and write nothing.
            _ = try await store.advance(device("alice"), to: [])
            #expect(try await store.append(request(id: 1, text)).published != nil)
            #expect(try await store.append(request(id: id + 5, text)).refused?.code == .outOfOrder)
            #expect(try await store.append(request(id: id, text)).refused?.code == .storageFull)
        }
        #expect(said() == ["store is full"])
        while try await store.trim(inbox("alice"), keep: Retention(entries: 1)).more {}
        try await store.enter(request(id: id, text))
        #expect(said() == ["store is full", "store has room again"])
        try await store.close()
    }

    @Test(
        "a commit that may be half on disk ends the process and is never acknowledged",
        arguments: [
            ResultCode.SQLITE_IOERR_FSYNC, .SQLITE_IOERR_WRITE, .SQLITE_CORRUPT,
        ])
    func aCommitThatMayBeHalfOnDiskEndsTheProcessAndIsNeverAcknowledged(_ code: ResultCode)
        async throws
    {
        let folder = try TemporaryFolder()
        let fatal = Mutex<[StoreError]>([])
        let isBroken = Mutex(false)
        let faults = StoreFaults(beforeCommit: {
            if isBroken.withLock({ $0 }) { throw DatabaseError(resultCode: code) }
        })
        let store = try open(folder.path, faults: faults) {
            $0.fatal = { error in fatal.withLock { $0.append(error) } }
        }
        try await store.enter(request(id: 1))
        isBroken.withLock { $0 = true }
        #expect(await store.append([request(id: 2)]).first?.refused?.code == .overloaded)
        #expect(fatal.withLock { $0.count } == 1)
        // Nothing is written any more, whatever the disk does.
        isBroken.withLock { $0 = false }
        #expect(await store.append([request(id: 2)]).first?.refused?.code == .overloaded)
        #expect(fatal.withLock { $0.count } == 1)
        #expect(try await store.all(inbox("alice")).count == 1)
        try await store.close()
    }

    @Test(
        "what a refused commit may have left in the log is written over, so that no kill brings it back",
        arguments: [
            (code: ResultCode.SQLITE_IOERR_SHMSIZE, refusal: RefusalCode.storageFull, isWrittenOver: true),
            (code: .SQLITE_NOMEM, refusal: .overloaded, isWrittenOver: true),
            // The last write itself did not fit.
            (code: .SQLITE_FULL, refusal: .storageFull, isWrittenOver: false),
        ])
    func whatARefusedCommitLeftIsWrittenOver(
        _ failing: (code: ResultCode, refusal: RefusalCode, isWrittenOver: Bool)
    ) async throws {
        let folder = try TemporaryFolder()
        let isBroken = Mutex(false)
        let faults = StoreFaults(beforeCommit: {
            if isBroken.withLock({ $0 }) { throw DatabaseError(resultCode: failing.code) }
        })
        let store = try open(folder.path, faults: faults)
        let reader = try DatabaseQueue(path: folder.path + "/longline.db")
        func sequence() async throws -> Int64 {
            try await reader.read { try Int64.fetchOne($0, sql: "SELECT sequence FROM store") ?? 0 }
        }
        let last = try await store.enter(request(id: 1)).position.offset
        let before = try await sequence()
        isBroken.withLock { $0 = true }
        #expect(try await store.append(request(id: 2)).refused?.code == failing.refusal)
        #expect(try await sequence() == before + (failing.isWrittenOver ? 1 : 0))
        #expect(try await store.all(inbox("alice")).count == 1)
        isBroken.withLock { $0 = false }
        #expect(try await store.enter(request(id: 2)).position.offset > last)
        try reader.close()
        try await store.close()
    }

    @Test("failures are told apart") func failuresAreToldApart() {
        func failure(_ code: ResultCode, commit: Bool = false, errno: CInt = 0) -> WriteFailure {
            WriteFailure(code, isCommit: commit, systemError: errno)
        }
        #expect(failure(.SQLITE_FULL) == .full)
        #expect(failure(.SQLITE_FULL, commit: true) == .full)
        #expect(failure(.SQLITE_IOERR_WRITE, commit: true, errno: ENOSPC) == .full)
        #expect(failure(.SQLITE_IOERR_WRITE, errno: EDQUOT) == .full)
        #expect(failure(.SQLITE_IOERR_WRITE, errno: EIO) == .fatal)
        #expect(failure(.SQLITE_IOERR_FSYNC) == .fatal)
        #expect(failure(.SQLITE_IOERR_FSYNC, errno: ENOSPC) == .fatal)
        #expect(failure(.SQLITE_CORRUPT) == .other)
        #expect(failure(.SQLITE_CORRUPT, commit: true) == .fatal)
        #expect(failure(.SQLITE_BUSY, commit: true) == .other)
        #expect(failure(.SQLITE_CONSTRAINT) == .other)
    }

    // MARK: Opening

    @Test("a second process is told who has the store") func aSecondProcessIsToldWhoHasTheStore() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        let error = #expect(throws: StoreError.self) { try open(folder.path) }
        #expect(error?.code == .unavailable)
        #expect(error?.message.contains(folder.path) == true && error?.advice.isEmpty == false)
        try await store.close()
        try await open(folder.path).close()
    }

    @Test("a folder that isn't there, isn't a folder or isn't a database is named")
    func aFolderThatIsntThereIsntAFolderOrIsntADatabaseIsNamed() throws {
        let folder = try TemporaryFolder()
        let missing = #expect(throws: StoreError.self) { try open(folder.path + "/none") }
        #expect(missing?.message.contains("/none") == true && missing?.advice.isEmpty == false)
        try Data("x".utf8).write(to: URL(fileURLWithPath: folder.path + "/file"))
        #expect(throws: StoreError.self) { try open(folder.path + "/file") }
        try Data(repeating: 0x41, count: 5_000).write(to: URL(fileURLWithPath: folder.path + "/longline.db"))
        let damaged = #expect(throws: StoreError.self) { try open(folder.path) }
        #expect(damaged?.code == .unavailable && damaged?.advice.isEmpty == false)
    }

    @Test("a database of a later version is left alone") func aDatabaseOfALaterVersionIsLeftAlone() async throws {
        let folder = try TemporaryFolder()
        try await open(folder.path).close()
        let queue = try DatabaseQueue(path: folder.path + "/longline.db")
        try await queue.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('9999')") }
        try queue.close()
        let error = #expect(throws: StoreError.self) { try open(folder.path) }
        #expect(error?.code == .versionTooNew)
    }

    @Test("deletions of a room are forgotten when they end no stay any more")
    func deletionsAreForgotten() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        let hall = try RoomID("hall")
        try await store.join(hall, by: device("bob"), create: true)
        for _ in 0..<5 {
            try await store.join(hall, by: device("alice"), create: true)
            let owner = try #require(try await store.roles(of: hall, in: tenant).first { $0.role == .owner }).user
            _ = try #require(try await store.act(hall, .delete, by: device(owner.description)).receipt)
        }
        try await store.close()
        let queue = try DatabaseQueue(path: folder.path + "/longline.db")
        let rows = try await queue.read { try Int.fetchOne($0, sql: "SELECT count(*) FROM deletions") }
        try queue.close()
        // That which ended bob's stay, and the last.
        #expect(rows == 2)
    }

    @Test("a crash while the identity changes is no restored backup")
    func aCrashWhileTheIdentityChangesIsNoRestoredBackup() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        let kept = try await store.enter(request(id: 1))
        try await store.close()
        // As it is between the file's first change and the database's, and between the database's and the file's second.
        let queue = try DatabaseQueue(path: folder.path + "/longline.db")
        let identity = try await queue.read { try String.fetchOne($0, sql: "SELECT identity FROM store") ?? "" }
        try queue.close()
        for identities in [[identity, "next"], ["last", identity]] {
            let directory = try StoreDirectory(folder.path)
            #expect(try directory.isKnown(identity))
            try directory.writeIdentities(identities)
            #expect(try directory.isKnown(identity))
            #expect(try !directory.isKnown("another"))
            directory.unlock()
        }
        let again = try open(folder.path, seed: 2)
        #expect(!again.wasRestored)
        #expect(try await again.head(of: inbox("alice"))?.position == kept.position)
        try await again.close()
    }

    // MARK: Restored backups

    @Test(
        "a restored backup starts new epochs, and keeps ledger and log",
        arguments: ["old file put back", "whole folder put back", "identity removed"])
    func aRestoredBackupStartsNewEpochsAndKeepsLedgerAndLog(_ way: String) async throws {
        let folder = try TemporaryFolder()
        let backup = try TemporaryFolder()
        let database = folder.path + "/longline.db"
        let files = FileManager.default
        var store = try open(folder.path)
        #expect(store.restoredAt == nil)
        let kept = try await store.enter(request(id: 1, "kept"))
        try await store.close()
        for file in ["longline.db", "store.identity"] {
            try files.copyItem(atPath: folder.path + "/" + file, toPath: backup.path + "/" + file)
        }
        store = try open(folder.path, seed: 2)
        #expect(store.wasRestored == false)
        let lost = try await store.enter(request(id: 2, "lost"))
        #expect(lost.position.epoch == kept.position.epoch)
        let cursor = ChannelPosition(channel: .user(user("alice")), position: lost.position)
        _ = try await store.advance(device("alice"), to: [cursor])
        try await store.close()

        switch way {
        case "old file put back":
            // Into the same inode, as `cp` does.
            let handle = try #require(FileHandle(forWritingAtPath: database))
            try handle.truncate(atOffset: 0)
            try handle.write(contentsOf: Data(contentsOf: URL(fileURLWithPath: backup.path + "/longline.db")))
            try handle.close()
        case "whole folder put back":
            for file in ["longline.db", "store.identity"] {
                // The old file stays under another name, so that its inode can't be given to the copy.
                try files.moveItem(atPath: folder.path + "/" + file, toPath: folder.path + "/old-" + file)
                try files.copyItem(atPath: backup.path + "/" + file, toPath: folder.path + "/" + file)
            }
        default:
            try files.removeItem(atPath: folder.path + "/store.identity")
        }
        store = try open(folder.path, seed: 3)
        #expect(store.wasRestored)
        let restoredAt = try #require(store.restoredAt)
        let head = try #require(try await store.head(of: inbox("alice")))
        #expect(head.position.epoch != kept.position.epoch)
        #expect(try await store.all(inbox("alice")).first?.text == "kept")
        // Sent again, it is acknowledged where it stands now: in the new life.
        let position = Position(epoch: head.position.epoch, offset: kept.position.offset)
        let again = Published(id: 1, position: position, time: kept.time)
        #expect(try await store.append(request(id: 1, "kept")) == .duplicate(again))
        // A cursor of the lost life is not one of this life.
        let record = try await store.advance(device("alice"), to: [cursor])
        #expect(record.cursors.isEmpty)
        try await store.close()
        store = try open(folder.path, seed: 4)
        #expect(store.wasRestored == false && store.restoredAt == restoredAt)
        #expect(try await store.head(of: inbox("alice")) == head)
        try await store.close()
    }

    @Test(
        "a copy from before the first channel is known as one", arguments: ["device", "user", "token", "none"])
    func aCopyFromBeforeTheFirstChannelIsKnownAsOne(_ what: String) async throws {
        let folder = try TemporaryFolder()
        var store = try open(folder.path)
        switch what {
        case "device": _ = try await store.admit(device("alice"), producer: producer, connectNumber: 1)
        case "user": try await store.revoke(user: user("alice"), in: tenant)
        case "token": try await store.revoke(token: "t", in: tenant, until: .max)
        default: break
        }
        try await store.close()
        try FileManager.default.removeItem(atPath: folder.path + "/store.identity")
        let clock = TestClock()
        store = try open(folder.path, clock: clock, seed: 2)
        // Of a store that nobody ever used nothing can be missing.
        #expect(store.wasRestored == (what != "none"))
        #expect(store.restoredAt == (what == "none" ? nil : clock.now))
        try await store.close()
    }
}
