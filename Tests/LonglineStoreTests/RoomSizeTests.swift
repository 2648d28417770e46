import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineStore

/// Rooms fan out on read: what a publish writes has nothing to do with who is in the room.
@Suite struct RoomSizeTests {
    private struct Written: Equatable {
        /// Rows of all tables that came.
        var rows = 0
        /// Pages that went to the write-ahead log.
        var pages = 0
    }

    private func written(_ path: String) throws -> Written {
        var settings = Configuration()
        settings.readonly = true
        let queue = try DatabaseQueue(path: path + "/longline.db", configuration: settings)
        defer { try? queue.close() }
        let rows = try queue.read { db in
            let tables = try String.fetchAll(db, sql: "SELECT name FROM sqlite_master WHERE type = 'table'")
            return try tables.reduce(0) { sum, table in
                sum + (try Int.fetchOne(db, sql: "SELECT count(*) FROM \"\(table)\"") ?? 0)
            }
        }
        let log = try FileManager.default.attributesOfItem(atPath: path + "/longline.db-wal")
        return Written(rows: rows, pages: ((log[.size] as? Int) ?? 0) / 4_120)
    }

    /// What 20 publishes wrote into a room of so many members.
    private func publishing(members: Int) async throws -> Written {
        let folder = try TemporaryFolder()
        // The log is left to grow.
        let checkpoints = CheckpointLimits(pass: .max, restart: .max, wait: .max)
        let store = try SQLiteStore(
            configuration(folder.path), clock: TestClock().read, random: SeededRandom(seed: 1),
            faults: StoreFaults(), checkpoints: checkpoints)
        try await store.join(room("r"), by: device("u0"), create: true)
        try await withThrowingTaskGroup { group in
            for number in 1..<members {
                group.addTask { try await store.join(room("r"), by: device("u\(number)"), create: false) }
            }
            try await group.waitForAll()
        }
        func publish(_ ids: ClosedRange<PublishID>) async throws {
            for id in ids { try await store.enter(request("u0", to: .room(room("r")), id: id, after: id - 1)) }
        }
        // The first makes the ledger.
        try await publish(1...5)
        let before = try written(folder.path)
        try await publish(6...25)
        let after = try written(folder.path)
        try await store.close()
        return Written(rows: after.rows - before.rows, pages: after.pages - before.pages)
    }

    @Test("a publish writes as much for 3 members as for 3,000", .timeLimit(.minutes(3)))
    func aPublishWritesAsMuchForThreeMembersAsForThreeThousand() async throws {
        let small = try await publishing(members: 3)
        let large = try await publishing(members: 3_000)
        #expect(small.rows >= 20 && small.rows <= 60)
        #expect(large.rows == small.rows)
        // A page of an index may be split where it is fuller.
        #expect(abs(large.pages - small.pages) <= 10, "\(small.pages) and \(large.pages) pages")
    }
}
