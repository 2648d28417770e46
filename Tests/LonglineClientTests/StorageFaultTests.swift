import CSyncFaults
import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Disks that are full, files that somebody locks, files that can't be written: each by its name, and nothing that waits is lost.
@Suite("Storage faults", .timeLimit(.minutes(1)))
struct StorageFaultTests {
    /// Which of the two storages, with the connection to its file.
    private func open(_ kind: RestartTests.Kind, _ path: String) throws -> (any ClientStorage, DatabaseQueue) {
        switch kind {
        case .alone:
            let storage = try SQLiteClientStorage(path: path)
            return (storage, try storage.opened())
        case .shared:
            let storage = try SharedClientStorage(path: path, pollInterval: .milliseconds(10))
            return (storage, storage.database)
        }
    }

    @Test(
        "a full disk refuses what has no room, by name, and what had room is sent",
        arguments: RestartTests.Kind.allCases)
    func full(kind: RestartTests.Kind) async throws {
        let directory = try TemporaryFolder()
        let (storage, database) = try open(kind, directory.file("client.sqlite"))
        let harness = try ClientHarness(storage: storage)
        let notices = harness.client.notices
        var kept = [try await harness.client.send("0", to: .user("bob"))]
        try await database.writeWithoutTransaction { database in
            let pages = try Int.fetchOne(database, sql: "PRAGMA page_count") ?? 0
            try database.execute(sql: "PRAGMA max_page_count = \(pages + 20)")
        }
        var refusal: ClientError?
        while refusal == nil, kept.count < 100 {
            let payload = ByteBuffer(string: "\(kept.count) " + String(repeating: "x", count: 10_000))
            do { kept.append(try await harness.client.send(payload, to: .user("bob"))) } catch {
                refusal = error as? ClientError
            }
        }
        #expect(refusal?.code == .storage && refusal?.message == "the disk is full")
        #expect(refusal?.advice == "make room on the disk")
        var told: ClientError?
        for await notice in notices {
            if case .storageFailed(let error) = notice {
                told = error
                break
            }
        }
        #expect(told?.message == "the disk is full")
        #expect(try await harness.client.outbox().map(\.send) == kept.map(\.send))
        try await harness.client.start()
        try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA max_page_count = 100000") }
        kept.append(try await harness.client.send("last", to: .user("bob")))
        for receipt in kept { _ = try await receipt.acknowledged() }
        let entered = harness.service.state.withLock { $0.entered.map { $0.publish.id } }
        #expect(entered.count == kept.count && entered == entered.sorted())
        #expect(harness.service.state.withLock { $0.refusals.isEmpty })
        await harness.client.disconnect()
    }

    #if os(Linux)
        @Test(
            "what the disk failed to sync at its end is not there for a later process", .serialized,
            arguments: RestartTests.Kind.allCases)
        func syncFailed(kind: RestartTests.Kind) async throws {
            let directory = try TemporaryFolder()
            let path = directory.file("client.sqlite")
            let (storage, _) = try open(kind, path)
            if let shared = storage as? SharedClientStorage { #expect(try await shared.contend()) }
            let row = StoredPublish(
                id: 1, tag: 2, after: 0, channel: .room(try RoomID("a")), recipient: nil, timeToLive: 0, queuedAt: 5,
                payload: ByteBuffer(string: "x"), send: SendID(high: 1, low: 1), attempted: false)
            #expect(sync_faults_set(path + "-wal", EIO, 1) == 1)
            let error = await #expect(throws: ClientError.self) { try await storage.apply([.insert(row), .lastID(1)]) }
            #expect(sync_faults_clear() == 1)
            #expect(error?.code == .storage)
            // What the next process finds when this one ends now.
            let image = directory.file("image.sqlite")
            for suffix in ["", "-wal"] {
                try FileManager.default.copyItem(atPath: path + suffix, toPath: image + suffix)
            }
            let (later, _) = try open(kind, image)
            if let shared = later as? SharedClientStorage { #expect(try await shared.contend()) }
            let found = try await later.load()
            #expect(found.outbox.isEmpty && found.lastID == 0)
            // This one goes on.
            try await storage.apply([.insert(row), .lastID(1)])
            #expect(try await storage.load().outbox == [row])
        }
    #endif

    @Test("a file that can't be written says so", arguments: RestartTests.Kind.allCases)
    func readOnly(kind: RestartTests.Kind) async throws {
        let directory = try TemporaryFolder()
        let (storage, database) = try open(kind, directory.file("client.sqlite"))
        if let shared = storage as? SharedClientStorage { #expect(try await shared.contend()) }
        try await database.writeWithoutTransaction { try $0.execute(sql: "PRAGMA query_only = 1") }
        let error = await #expect(throws: ClientError.self) { try await storage.apply([.lastID(1)]) }
        #expect(error?.code == .storage && error?.message.hasSuffix("client.sqlite can't be written") == true)
        #expect(error?.advice.contains("permissions") == true)
    }

    @Test(
        "who waits for a locked file holds up no thread of the pool and no event loop, and gets through when it is free"
    )
    func locked() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let harness = try ClientHarness(storage: try SharedClientStorage(path: path, pollInterval: .milliseconds(10)))
        _ = try await harness.client.outbox()
        let first = try await harness.client.send("0", to: .user("bob"))
        let locker = try Locker(path)
        try await locker.lock()
        let arrived = Counter()
        try await withThrowingTaskGroup(of: SendReceipt.self) { group in
            // More than the pool has threads.
            for index in 1...64 {
                group.addTask {
                    defer { _ = arrived.increment() }
                    return try await harness.client.send("\(index)", to: .user("bob"))
                }
            }
            // A task and the client's loop get their turns meanwhile, and readers see the file as it was.
            for _ in 0..<100 { await Task.yield() }
            #expect(await harness.client.statistics.waiting >= 1)
            #expect(try await harness.client.outbox().map(\.send) == [first.send])
            #expect(arrived.increment() == 1, "none has arrived")
            try await locker.unlock()
            for try await receipt in group { #expect(receipt.state == .queued) }
        }
        #expect(try await harness.client.outbox().count == 65)
        await harness.client.disconnect()
    }

    @Test("a file that stays locked is given up by name, and the message with it")
    func lockedForLong() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        let storage = try SharedClientStorage(
            path: path, takeOverAfter: .seconds(60), pollInterval: .milliseconds(10), holdsLock: true, patience: 0.05)
        let harness = try ClientHarness(storage: storage)
        _ = try await harness.client.send("0", to: .user("bob"))
        let locker = try Locker(path)
        try await locker.lock()
        let error = await #expect(throws: ClientError.self) { try await harness.client.send("1", to: .user("bob")) }
        #expect(error?.code == .storage && error?.message.contains("locked") == true)
        try await locker.unlock()
        let kept = try await harness.client.send("2", to: .user("bob"))
        try await harness.client.connect()
        _ = try await kept.acknowledged()
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == ["0", "2"])
        await harness.client.disconnect()
    }

    @Test("a storage opens without holding up the caller's thread while another one has the file locked")
    func openedElsewhere() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        try await SharedClientStorage.open(path: path).close()
        let locker = try Locker(path)
        try await locker.lock()
        // Reading the layout needs no lock; it opens at once.
        let shared = try await SharedClientStorage.open(path: path)
        let error = await #expect(throws: ClientError.self) { try await SQLiteClientStorage.open(path: path) }
        #expect(error?.code == .storageInUse)
        try await locker.unlock()
        try await shared.close()
    }

    @Test("a look whose turn comes when the file was closed is told so", arguments: RestartTests.Kind.allCases)
    func lookBehindClose(kind: RestartTests.Kind) async throws {
        let directory = try TemporaryFolder()
        let (storage, database) = try open(kind, directory.file("client.sqlite"))
        switch storage {
        case let storage as SharedClientStorage:
            _ = try await storage.version()
            try await storage.close()
            let error = await #expect(throws: ClientError.self) { try await storage.version() }
            #expect(error?.code == .storage)
        case let storage as SQLiteClientStorage: try storage.close()
        default: break
        }
        await #expect(throws: (any Error).self) { try await storage.load() }
        // As one that waited for the connection while it was closed.
        #expect(throws: DatabaseError.self) {
            try database.writeWithoutTransaction { database in
                try SQLiteClientStorage.inTransaction(database, .deferred) { try SQLiteClientStorage.readState($0) }
            }
        }
    }
}

/// Another process that begins to write, and hangs.
private struct Locker {
    private let database: DatabaseQueue

    init(_ path: String) throws {
        var configuration = Configuration()
        configuration.allowsUnsafeTransactions = true
        database = try DatabaseQueue(path: path, configuration: configuration)
    }

    func lock() async throws { try await database.writeWithoutTransaction { try $0.execute(sql: "BEGIN IMMEDIATE") } }
    func unlock() async throws { try await database.writeWithoutTransaction { try $0.execute(sql: "COMMIT") } }
}
