import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineStore

/// What is on disk of ledgers and of the sequence of offsets, which the store writes less often than it changes.
@Suite struct LedgerStorageTests {
    private func open(_ path: String, seed: UInt64 = 1) throws -> SQLiteStore {
        try SQLiteStore(configuration(path), clock: TestClock().read, random: SeededRandom(seed: seed))
    }

    /// The files as a `kill -9` at this moment leaves them.
    private func killed(_ path: String) throws -> TemporaryFolder {
        let copy = try TemporaryFolder()
        for file in ["longline.db", "longline.db-wal", "store.identity"] {
            try FileManager.default.copyItem(atPath: path + "/" + file, toPath: copy.path + "/" + file)
        }
        return copy
    }

    private func number(_ sql: String, in path: String) throws -> Int {
        var settings = Configuration()
        settings.readonly = true
        let queue = try DatabaseQueue(path: path + "/longline.db", configuration: settings)
        defer { try? queue.close() }
        return try queue.read { try Int.fetchOne($0, sql: sql) ?? 0 }
    }

    @Test("an outbox goes on after a kill, and what was to be forgotten doesn't add up")
    func killedWithAnswersToForget() async throws {
        let limit = PublishLedger.remembered
        var folder = try TemporaryFolder()
        var store = try open(folder.path)
        var last: PublishID = 0
        var lives: [SQLiteStore] = []
        for life in 1...4 {
            // As many as fill the ledger, and then fewer than are forgotten together.
            let count = life == 1 ? limit + 200 : 200
            let ids = (last + 1)...(last + PublishID(count))
            let outcomes = await store.append(ids.map { request(id: $0) })
            #expect(outcomes.count { $0.isEntered } == count)
            last = ids.upperBound
            let newest = try #require(outcomes.last?.published)
            let answers = try number("SELECT count(*) FROM answers", in: folder.path)
            #expect((limit..<limit + 256).contains(answers))

            let copy = try killed(folder.path)
            lives.append(store)
            (folder, store) = (copy, try open(copy.path, seed: UInt64(life) + 1))
            // A copied folder is a restored one: the log has a new epoch, and the ledger is what it was.
            let again = try #require(try await store.append(request(id: last)).published)
            #expect(again.position.offset == newest.position.offset)
            #expect(try await store.append(request(id: last + 2)).refused?.lastID == last)
        }
        // Whoever looks for an answer finds those that are remembered, and no others.
        try await store.enter(request(id: last + 1))
        #expect(
            try await store.append(request(id: last + 1 - PublishID(limit))).refused?.code == .outcomeUnknown)
        #expect(try await store.append(request(id: last + 2 - PublishID(limit))).published != nil)
        #expect(try number("SELECT count(*) FROM answers", in: folder.path) == limit)
        try await store.close()
        for store in lives { try await store.close() }
    }

    @Test("many outboxes with something to forget leave a bounded rest on disk") func manyLedgers() throws {
        let folder = try TemporaryFolder()
        let queue = try DatabaseQueue(path: folder.path + "/longline.db")
        try SQLiteSchema.migrator.migrate(queue)
        let answers = try queue.write { db in
            var logic = StoreLogic(
                tables: SQLiteTables(db), limits: StoreLimits(), clock: TestClock().read, random: SeededRandom(seed: 1))
            logic.remembered = 2
            for number in 0..<600 {
                logic.tables.begin()
                for id in 1...4 as ClosedRange<PublishID> {
                    let outcome = try logic.append(request("user\(number)", id: id))
                    #expect(outcome.isEntered)
                }
                try logic.tables.flush()
            }
            return try Int.fetchOne(db, sql: "SELECT count(*) FROM answers") ?? 0
        }
        // Each ledger has two too many; with so many ledgers they go all the same.
        #expect((1_200..<1_200 + 2 * 257).contains(answers))
        try queue.close()
    }

    @Test("no offset comes twice, whenever the process ends") func offsets() async throws {
        let folder = try TemporaryFolder()
        let store = try open(folder.path)
        var drawn: Set<UInt64> = []
        for id in 1...5 as ClosedRange<PublishID> {
            let published = try await store.enter(request(id: id))
            #expect(drawn.insert(published.position.offset).inserted)
            #expect(try number("SELECT sequence FROM store", in: folder.path) >= Int(published.position.offset))
            let copy = try killed(folder.path)
            let next = try open(copy.path, seed: id + 1)
            let after = try await next.enter(request(id: id + 1))
            #expect(after.position.offset > published.position.offset)
            let head = try #require(try await next.head(of: inbox("alice")))
            #expect(head.position == after.position)
            try await next.close()
        }
        try await store.close()
    }

    @Test("a ledger that an earlier version wrote goes on") func migrated() async throws {
        let folder = try TemporaryFolder()
        let queue = try DatabaseQueue(path: folder.path + "/longline.db")
        try SQLiteSchema.migrator.migrate(queue, upTo: "deletions")
        let (high, low) = (Int64(bitPattern: producer.high), Int64(bitPattern: producer.low))
        try await queue.write { db in
            for statement in [
                "UPDATE store SET sequence = 7",
                "INSERT INTO channels (id, tenant, name, epoch, head, first, time, entries) VALUES (1, 'acme', 'user/alice', 5, 7, 6, 1, 2)",
                "INSERT INTO devices (id, tenant, user, device, seen, producers) VALUES (1, 'acme', 'alice', 'phone', 1, 1)",
                "INSERT INTO producers (id, device, high, low, seen) VALUES (1, 1, \(high), \(low), 1)",
                "INSERT INTO ledgers (producer, channel, last_id, remembered) VALUES (1, 1, 9, 2)",
            ] {
                try db.execute(sql: statement)
            }
            for (id, offset) in [(3, 6), (9, 7)] {
                try db.execute(
                    sql: "INSERT INTO answers VALUES (1, 1, ?, ?, 5, ?, 1)",
                    arguments: [id, Int64(bitPattern: UInt64(id) &+ 0xF000_0000_0000_0000), offset])
            }
        }
        try queue.close()
        let store = try open(folder.path)
        let epoch = try #require(try await store.head(of: inbox("alice"))).position.epoch
        let known = Published(id: 9, position: Position(epoch: epoch, offset: 7), time: 1)
        #expect(try await store.append(request(id: 9)) == .duplicate(known))
        #expect(try await store.append(request(id: 12, after: 10)).refused?.lastID == 9)
        #expect(try await store.enter(request(id: 10, after: 9)).position.offset == 8)
        #expect(try number("SELECT count(*) FROM ledgers", in: folder.path) == 1)
        try await store.close()
    }
}
