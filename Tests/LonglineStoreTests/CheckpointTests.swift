import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineStore

/// How the write-ahead log gets into the database beside the writer.
@Suite struct CheckpointTests {
    private static let payload = String(repeating: "x", count: 8_000)

    private func open(
        _ path: String, _ limits: CheckpointLimits, faults: StoreFaults = StoreFaults(),
        fatal: @escaping @Sendable (StoreError) -> Void = { Issue.record($0) }
    ) throws -> SQLiteStore {
        var settings = configuration(path)
        settings.fatal = fatal
        return try SQLiteStore(
            settings, clock: TestClock().read, random: SeededRandom(seed: 1), faults: faults, checkpoints: limits)
    }

    private func logBytes(_ folder: TemporaryFolder) throws -> Int {
        let file = try FileManager.default.attributesOfItem(atPath: folder.path + "/longline.db-wal")
        return (file[.size] as? Int) ?? 0
    }

    /// Publishes as several users at a time, each without a pause; returns what each had acknowledged.
    private func publish(_ count: Int, by users: Int, to store: SQLiteStore) async -> [String: [Published]] {
        await withTaskGroup { group in
            for index in 0..<users {
                group.addTask { () -> (String, [Published]) in
                    var acknowledged: [Published] = []
                    do {
                        for id in 1...PublishID(count) {
                            let request = request("user\(index)", id: id, after: id - 1, Self.payload)
                            acknowledged.append(try await store.enter(request))
                        }
                    } catch {
                        Issue.record(error)
                    }
                    return ("user\(index)", acknowledged)
                }
            }
            return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    @Test("the log starts anew while writes never pause, and nothing is lost")
    func theLogStartsAnewWhileWritesNeverPauseAndNothingIsLost() async throws {
        let folder = try TemporaryFolder()
        let passes = Mutex(0)
        let faults = StoreFaults(beforeCheckpoint: { passes.withLock { $0 += 1 } })
        let limits = CheckpointLimits(pass: 50, restart: 100, wait: 400)
        var store = try open(folder.path, limits, faults: faults)
        let acknowledged = await publish(100, by: 8, to: store)
        // All that was written is more than three times as much.
        #expect(try logBytes(folder) < 500 * 4_120)
        #expect(passes.withLock { $0 } >= 4)
        try await store.close()
        #expect(try logBytes(folder) == 0)

        store = try open(folder.path, limits)
        for (user, published) in acknowledged {
            let log = try await store.all(inbox(user), pageBytes: 1 << 20).compactMap(\.entry)
            #expect(log.map(\.offset) == published.map(\.position.offset))
        }
        try await store.close()
    }

    @Test("a pass holds up no write", .timeLimit(.minutes(1))) func aPassHoldsUpNoWrite() async throws {
        let folder = try TemporaryFolder()
        let (entered, gate) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let faults = StoreFaults(beforeCheckpoint: {
            entered.signal()
            gate.wait()
        })
        let limits = CheckpointLimits(pass: 20, restart: 100_000, wait: 100_000)
        let store = try open(folder.path, limits, faults: faults)
        let before = await publish(20, by: 1, to: store)
        await withCheckedContinuation { (done: CheckedContinuation<Void, Never>) in
            DispatchQueue.global().async {
                entered.wait()
                done.resume()
            }
        }
        // The pass is under way, and stays so until all of these were acknowledged.
        for id in 21...60 as ClosedRange<PublishID> {
            try await store.enter(request("user0", id: id, after: id - 1, Self.payload))
        }
        for _ in 0..<100 { gate.signal() }
        #expect(before["user0"]?.count == 20)
        #expect(try await store.all(inbox("user0"), pageBytes: 1 << 20).count == 60)
        try await store.close()
    }

    @Test("a store closes beside another that reads an older state, and has everything when it is opened again")
    func aStoreClosesBesideAReader() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path, CheckpointLimits(closingPatience: 1))
        try await store.enter(request(id: 1))
        var reading = GRDB.Configuration()
        reading.allowsUnsafeTransactions = true
        let reader = try DatabaseQueue(path: folder.path + "/longline.db", configuration: reading)
        func entriesRead() async throws -> Int? {
            try await reader.writeWithoutTransaction { try Int.fetchOne($0, sql: "SELECT count(*) FROM entries") }
        }
        // As a backup that takes long.
        try await reader.writeWithoutTransaction { try $0.execute(sql: "BEGIN") }
        #expect(try await entriesRead() == 1)
        try await store.enter(request(id: 2))
        try await store.close()
        #expect(try await entriesRead() == 1)
        #expect(try logBytes(folder) > 0)
        let again = try open(folder.path, CheckpointLimits(closingPatience: 1))
        #expect(!again.wasRestored)
        #expect(try await again.all(inbox("alice")).count == 2)
        try await reader.writeWithoutTransaction { try $0.execute(sql: "ROLLBACK") }
        try reader.close()
        try await again.close()
        #expect(try logBytes(folder) == 0)
    }

    @Test("after a pass whose sync failed nothing is written and nothing is moved any more")
    func afterAPassWhoseSyncFailedNothingIsWrittenAndNothingIsMovedAnyMore() async throws {
        let folder = try TemporaryFolder()
        let fatal = Mutex(0)
        let passes = Mutex(0)
        let faults = StoreFaults(beforeCheckpoint: {
            passes.withLock { $0 += 1 }
            throw DatabaseError(resultCode: .SQLITE_IOERR_FSYNC)
        })
        let limits = CheckpointLimits(pass: 20, restart: 20, wait: 40)
        let store = try open(folder.path, limits, faults: faults) { _ in fatal.withLock { $0 += 1 } }
        var acknowledged = 0
        while fatal.withLock({ $0 }) == 0, acknowledged < 10_000 {
            let id = PublishID(acknowledged + 1)
            if await store.append([request(id: id, after: id - 1, Self.payload)]).first?.isEntered == true {
                acknowledged += 1
            }
        }
        let refused = await store.append([request(id: PublishID(acknowledged + 1), after: PublishID(acknowledged))])
        #expect(refused.first?.refused?.code == .overloaded)
        #expect(try await store.all(inbox("alice"), pageBytes: 1 << 20).count == acknowledged)
        try await store.close()
        #expect(fatal.withLock { $0 } == 1)
        #expect(passes.withLock { $0 } == 1)
        // The log is left as it is: it may hold the only copy.
        #expect(try logBytes(folder) > 20 * 4_096)
    }
}
