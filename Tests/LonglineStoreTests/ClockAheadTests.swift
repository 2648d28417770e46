import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// A wall clock that was ahead for a while.
@Suite struct ClockAheadTests {
    private static let day: UInt64 = 24 * 3_600_000

    /// Publishes while the clock is nine years ahead, and sets it right.
    private func publishAhead(_ store: AnyStore, _ clock: TestClock, id: PublishID) async throws -> UInt64 {
        let right = clock.now
        clock.advance(9 * 365 * Self.day)
        let ahead = clock.now
        try await store.enter(request(id: id))
        clock.set(right)
        return ahead
    }

    private func oldest(_ store: AnyStore) async throws -> ChannelSummary {
        try #require(try await store.channels(after: 0, limit: 1).channels.first)
    }

    @Test("a store that was restored while the clock was ahead is restored anew, by a clock that is right")
    func restoredAhead() async throws {
        let folder = try TemporaryFolder()
        let clock = TestClock()
        func open(seed: UInt64) throws -> SQLiteStore {
            try SQLiteStore(configuration(folder.path), clock: clock.read, random: SeededRandom(seed: seed))
        }
        var store = try open(seed: 1)
        try await store.enter(request(id: 1))
        try await store.close()
        let right = clock.now
        for (seed, ahead) in [(2, 9 * 365 * Self.day), (3, 0)] as [(UInt64, UInt64)] {
            clock.set(right + ahead)
            try FileManager.default.removeItem(atPath: folder.path + "/store.identity")
            store = try open(seed: seed)
            #expect(store.wasRestored && store.restoredAt == right + ahead)
            try await store.close()
        }
        // A clock that is behind takes nothing back by itself: what was revoked would be good again.
        clock.set(right - Self.day)
        store = try open(seed: 4)
        #expect(!store.wasRestored && store.restoredAt == right)
        try await store.close()
    }

    @Test("what is published behind an entry from the future expires by the clock", arguments: StoreKind.allCases)
    func expiry(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let ahead = try await publishAhead(store, clock, id: 1)
            try await store.enter(request(recipient: "bob", id: 2, timeToLive: 1_000))
            let entry = try #require(try await store.all(inbox("alice")).last?.entry)
            // Times still never go back along a channel.
            #expect(entry.time == ahead && entry.expiry == clock.now + 1_000)
            let copy = try #require(try await store.all(inbox("bob")).last?.entry)
            #expect(copy.expiry == entry.expiry)
            #expect(try await store.all(inbox("bob"), now: clock.now + 1_000).compactMap(\.entry).isEmpty)
        }
    }

    @Test("entries from the future age by the marks behind them", arguments: StoreKind.allCases)
    func age(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let rule = Retention(age: 10 * Self.day)
            func trimmed() async throws -> Int {
                guard rule.removesSome(of: try await oldest(store), now: clock.now) else { return 0 }
                return try await store.trim(inbox("alice"), keep: rule).entries
            }
            _ = try await publishAhead(store, clock, id: 1)
            let start = clock.now
            // The second marks the clock; the third comes within the hour.
            for id in 2...3 as ClosedRange<PublishID> { try await store.enter(request(id: id)) }
            #expect(try await oldest(store).oldest == start)
            clock.advance(6 * Self.day)
            #expect(try await trimmed() == 0)
            try await store.enter(request(id: 4))
            clock.advance(4 * Self.day)
            // Not yet older than the rule.
            #expect(try await trimmed() == 0)
            clock.advance(1)
            #expect(try await trimmed() == 2)
            #expect(try await oldest(store).oldest == start + 6 * Self.day)
            clock.advance(6 * Self.day)
            #expect(try await trimmed() == 2)
            for id in 5...6 as ClosedRange<PublishID> { try await store.enter(request(id: id)) }
            clock.advance(10 * Self.day + 1)
            // Nothing tells the age of the last one; it is reckoned from here.
            #expect(try await trimmed() == 1)
            clock.advance(10 * Self.day)
            #expect(try await trimmed() == 0)
            clock.advance(1)
            #expect(try await trimmed() == 1)
        }
    }

    @Test("an entry is no younger once its own time has come", arguments: StoreKind.allCases)
    func reached(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let rule = Retention(age: 30 * Self.day)
            let right = clock.now
            clock.advance(3 * Self.day)
            try await store.enter(request(id: 1))
            clock.set(right)
            try await store.enter(request(id: 2))
            clock.advance(30 * Self.day + 1)
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 2)
        }
    }

    @Test("entries that nothing was written behind age from when a trim meets them", arguments: StoreKind.allCases)
    func met(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let rule = Retention(age: Self.day)
            _ = try await publishAhead(store, clock, id: 1)
            #expect(rule.removesSome(of: try await oldest(store), now: clock.now))
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 0)
            #expect(try await !rule.removesSome(of: oldest(store), now: clock.now + Self.day))
            clock.advance(Self.day + 1)
            #expect(rule.removesSome(of: try await oldest(store), now: clock.now))
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 1)
        }
    }

    @Test("what was marked while the clock was ahead is marked again", arguments: StoreKind.allCases)
    func marksAhead(_ kind: StoreKind) async throws {
        let clock = TestClock()
        try await withStore(kind, clock: clock) { store async throws in
            let rule = Retention(age: Self.day)
            let right = clock.now
            _ = try await publishAhead(store, clock, id: 1)
            clock.advance(365 * Self.day)
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 0)
            clock.set(right)
            #expect(rule.removesSome(of: try await oldest(store), now: clock.now))
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 0)
            #expect(try await oldest(store).oldest == right)
            clock.advance(Self.day + 1)
            #expect(try await store.trim(inbox("alice"), keep: rule).entries == 1)
        }
    }

    @Test("marks of the clock are bounded, and tell less of what is long ago", arguments: StoreKind.allCases)
    func marksAreBounded(_ kind: StoreKind) throws {
        func check(_ tables: some StoreTables) throws {
            for time in 1...UInt64(ClockMark.most + 10) {
                _ = try tables.nextOffset()
                try tables.markClock(time)
            }
            #expect(try tables.clockMark(from: 1) == 1 && tables.clockMark(from: 2) == 3)
            #expect(try tables.clockMark(from: 1_000) == 1_001 && tables.clockMark(from: 1_002) == 1_002)
            #expect(try tables.lastClockMark() == UInt64(ClockMark.most + 10))
            // It was ahead: what came between counts as written now.
            try tables.markClock(500)
            #expect(try tables.clockMark(from: 600) == 500 && tables.clockMark(from: 498) == 499)
            #expect(try tables.clockMark(from: tables.lastOffset() + 1) == nil)
        }
        switch kind {
        case .memory: try check(MemoryTables(headBytes: 100))
        case .sqlite:
            let queue = try DatabaseQueue()
            try SQLiteSchema.migrator.migrate(queue)
            try queue.write { try check(SQLiteTables($0)) }
            try queue.close()
        }
    }

    @Test("the log says once that a channel is ahead of the clock") func warning() async throws {
        let folder = try TemporaryFolder()
        let clock = TestClock()
        let lines = RecordedLines()
        var settings = configuration(folder.path)
        settings.logger = lines.logger
        let store = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: 1))
        func said() -> Int { lines.lines.count { $0.message.contains("clock was ahead") } }
        try await store.enter(request(id: 1))
        clock.set(clock.now - 1_000)
        try await store.enter(request(id: 2))
        _ = try await publishAhead(store, clock, id: 3)
        #expect(said() == 0)
        for id in 4...6 as ClosedRange<PublishID> { try await store.enter(request(id: id)) }
        #expect(said() == 1)
        try await store.close()
    }
}
