import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// What a sweep leaves on disk, step by step.
@Suite struct SweepStorageTests {
    private static let tables = [
        "presence", "devices", "producers", "answers", "ledgers", "revoked_tokens", "channels", "cursors", "stints",
        "conversations", "deletions",
    ]

    private func counts(_ path: String) throws -> [String: Int] {
        var settings = Configuration()
        settings.readonly = true
        let queue = try DatabaseQueue(path: path + "/longline.db", configuration: settings)
        defer { try? queue.close() }
        return try queue.read { db in
            var counts: [String: Int] = [:]
            for table in Self.tables { counts[table] = try Int.fetchOne(db, sql: "SELECT count(*) FROM \(table)") ?? 0 }
            return counts
        }
    }

    private func withStore(_ rows: Int, _ body: (SQLiteStore, TestClock, String) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        let clock = TestClock()
        var settings = configuration(folder.path)
        settings.limits.trimEntries = rows
        let store = try SQLiteStore(settings, clock: clock.read, random: SeededRandom(seed: 1))
        do { try await body(store, clock, folder.path) } catch {
            try await store.close()
            throw error
        }
        try await store.close()
    }

    /// Users with several devices and outboxes each, who were in a room and wrote into it and to each other.
    private func fill(_ store: SQLiteStore, users: Int) async throws {
        for index in 0..<users {
            let name = "user\(index)"
            let hall = "room\(index)"
            _ = try await store.join(room(hall), by: device(name), create: true)
            for outbox in 1...3 as ClosedRange<UInt64> {
                let producer = ProducerID(high: outbox, low: 1)
                for id in 1...4 as ClosedRange<PublishID> {
                    try await store.enter(request(name, to: .room(room(hall)), id: id, producer: producer))
                    try await store.enter(request(name, recipient: "user\(index + 1)", id: id, producer: producer))
                }
            }
            for channel in [ChannelID.room(room(hall)), .user(user(name))] {
                let key = ChannelKey(tenant: tenant, channel: channel)
                let head = try #require(try await store.head(of: key)).position
                try await store.move(device(name), to: [ChannelPosition(channel: channel, position: head)])
            }
            _ = try await store.leave(room(hall), by: device(name))
            try await store.note([
                PresenceNote(tenant: tenant, user: user(name), lastSeen: 1, visibility: .everything)
            ])
            try await store.revoke(token: "t\(index)", in: tenant, until: 1)
        }
    }

    private func trimAll(_ store: SQLiteStore) async throws {
        for channel in try await store.channels(after: 0, limit: 1_000).channels {
            while try await store.trim(channel.key, keep: Retention(entries: 0)).more {}
        }
    }

    @Test("no step removes much, whatever hangs together, and nothing is left in the end")
    func stepsAreBounded() async throws {
        let rows = 5
        try await withStore(rows) { store, clock, path in
            try await fill(store, users: 12)
            try await trimAll(store)
            clock.advance(store.limits.unseen + 3_600_000)
            // A store that somebody still uses.
            try await store.enter(request("alive", id: 1))
            let before = try counts(path)
            #expect(before["answers"] == 12 * 24 + 1 && before["producers"] == 12 * 3 + 1)
            var report = SweepReport()
            var steps = 0
            var last = before.values.reduce(0, +)
            repeat {
                report.add(try await store.sweep(from: report.next))
                steps += 1
                try #require(steps < 1_000, "it comes to an end")
                let left = try counts(path).values.reduce(0, +)
                #expect(last - left <= 2 * rows, "step \(steps)")
                last = left
            } while report.next != nil
            #expect(report.devices == 12 && report.producers == 0 && report.tokens == 12)
            // The users' inboxes, that of the last one's friend, and the rooms. Stays of rooms that are gone hold none.
            report.add(try await store.sweep())
            #expect(report.channels == 12 + 1 + 12)
            let left = try counts(path).filter { $0.value > 0 }
            #expect(
                left == ["devices": 1, "producers": 1, "answers": 1, "ledgers": 1, "channels": 1, "conversations": 1])
        }
    }

    @Test("what a user read in rooms that are gone goes with them, in bounded steps")
    func whatWasReadGoesInBoundedSteps() async throws {
        let rows = 2
        try await withStore(rows) { store, clock, path in
            let names = (0..<7).map { "room\($0)" }
            try await store.enter(request(recipient: "bob", id: 1))
            for name in names {
                let channel = ChannelID.room(room(name))
                _ = try await store.join(room(name), by: device("alice"), create: true)
                let place = try await store.enter(request(to: channel, id: 1)).position
                let mark = ReadMark(conversation: channel, position: place, isPrivate: false)
                _ = try await store.markRead([ReadNote(tenant: tenant, user: user("alice"), mark: mark)])
            }
            #expect(try counts(path)["conversations"] == 7 + 2)
            for name in names.dropLast() {
                _ = try await store.leave(room(name), by: device("alice"))
                while try await store.trim(roomKey(name), keep: Retention(entries: 0)).more {}
            }
            clock.advance(store.limits.unseen + 1)
            try await store.enter(request(recipient: "bob", id: 2))
            var place: SweepPlace?
            var last = try counts(path)["conversations", default: 0]
            repeat {
                place = try await store.sweep(from: place).next
                let left = try counts(path)["conversations", default: 0]
                #expect(last - left <= rows)
                last = left
            } while place != nil
            // That of the room that is there, and the two sides of what was said to bob.
            #expect(last == 1 + 2)
            #expect(try counts(path)["stints"] == 1)
        }
    }

    @Test("a device that comes back during a sweep has the outboxes that are left, and no others")
    func aDeviceComesBackDuringASweep() async throws {
        try await withStore(2) { store, clock, path in
            // More outboxes than one step removes.
            for outbox in 1...5 as ClosedRange<UInt64> {
                _ = try await store.admit(device("alice"), producer: ProducerID(high: outbox, low: 1), connectNumber: 1)
            }
            clock.advance(store.limits.unseen + 1)
            var place: SweepPlace?
            repeat { place = try await store.sweep(from: place).next } while try counts(path)["producers"] == 5
            #expect(try counts(path)["producers"] == 3)
            try await store.enter(request(id: 1))
            while let next = place { place = try await store.sweep(from: next).next }
            let left = try counts(path)
            #expect(left["devices"] == 1 && left["producers"] == 1)
            // As many as a device may have: the count is what is there.
            for outbox in 10..<UInt64(10 + store.limits.producersPerDevice - 1) {
                _ = try await store.admit(device("alice"), producer: ProducerID(high: outbox, low: 1), connectNumber: 1)
            }
            await #expect(throws: StoreError.self) {
                try await store.admit(device("alice"), producer: ProducerID(high: 1, low: 9), connectNumber: 1)
            }
        }
    }

    @Test("a channel made while a sweep is under way has nothing of one that is gone")
    func aNewChannelHasNothingOfAnOldOne() async throws {
        try await withStore(100) { store, clock, path in
            try await store.enter(request(id: 1))
            let old = try #require(try await store.join(room("old"), by: device("alice"), create: true))
            for id in 1...3 as ClosedRange<PublishID> {
                try await store.enter(request(to: .room(room("old")), id: id))
            }
            try await store.move(device("alice"), to: [ChannelPosition(channel: .room(room("old")), position: old)])
            _ = try await store.leave(room("old"), by: device("alice"))
            while try await store.trim(roomKey("old"), keep: Retention(entries: 0)).more {}
            clock.advance(store.limits.unseen + 1)
            try await store.enter(request(id: 2))
            var report = SweepReport()
            repeat { report.add(try await store.sweep(from: report.next)) } while report.channels == 0
            // Its row is gone, and it had the highest number; what names it is there.
            #expect(try counts(path)["cursors"] == 1 && report.next != nil)
            _ = try #require(try await store.join(room("new"), by: device("bob"), create: true))
            let record = try await store.advance(device("alice"), to: [])
            #expect(record.cursors.isEmpty)
            let channels = try await store.entitlements(of: user("alice"), in: tenant).map(\.channel)
            #expect(channels == [.user(user("alice"))])
            _ = try await store.join(room("new"), by: device("alice"), create: true)
            try await store.enter(request(to: .room(room("new")), id: 1))
            while report.next != nil { report.add(try await store.sweep(from: report.next)) }
            let left = try counts(path)
            #expect(left["cursors"] == 0 && left["stints"] == 2 && left["ledgers"] == 2 && left["answers"] == 3)
            #expect(try await store.members(of: room("new"), in: tenant).count == 2)
            #expect(try await store.append(request(to: .room(room("new")), id: 3)).refused?.lastID == 1)
        }
    }

    @Test("a channel that is gone with its user's account leaves its number to nobody")
    func numbersAreNotUsedAgain() async throws {
        try await withStore(100) { store, _, path in
            func numbers() throws -> [Int64] {
                let queue = try DatabaseQueue(path: path + "/longline.db")
                defer { try? queue.close() }
                return try queue.read { try Int64.fetchAll($0, sql: "SELECT id FROM channels") }
            }
            var seen: Set<Int64> = []
            for _ in 0..<3 {
                try await store.enter(request(id: 1))
                let number = try #require(try numbers().first)
                #expect(seen.insert(number).inserted)
                while !(try await store.erase(user: user("alice"), in: tenant)).isDone {}
            }
        }
    }
}
