import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineStore

/// Databases as earlier versions wrote them, recorded in `Tests/Fixtures/store-N.sql`: a released migration that is
/// changed by mistake does not change them.
@Suite struct StoreMigrationTests {
    private let hall = room("hall")

    private func open(_ folder: TemporaryFolder) throws -> SQLiteStore {
        try SQLiteStore(configuration(folder.path), clock: TestClock().read, random: SeededRandom(seed: 1))
    }

    /// A folder with the database of a version.
    private func oldStore(_ version: Int) throws -> TemporaryFolder {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let sql = try String(
            contentsOf: tests.appendingPathComponent("Fixtures/store-\(version).sql"), encoding: .utf8)
        let folder = try TemporaryFolder()
        let queue = try DatabaseQueue(path: folder.file("longline.db"))
        try queue.write { try $0.execute(sql: sql) }
        try queue.close()
        return folder
    }

    /// Tables and indexes as their statements say, whatever the white space; and the migrations.
    private func schema(_ folder: TemporaryFolder) throws -> [String] {
        let queue = try DatabaseQueue(path: folder.file("longline.db"))
        defer { try? queue.close() }
        return try queue.read { db in
            let statements = try String.fetchAll(db, sql: "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
            let migrations = try String.fetchAll(db, sql: "SELECT identifier FROM grdb_migrations")
            return (statements + migrations).map { $0.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
                .sorted()
        }
    }

    @Test("a store that an earlier version wrote gets the tables of a new one", arguments: 1...4)
    func tables(_ version: Int) async throws {
        let (old, new) = (try oldStore(version), try TemporaryFolder())
        #expect(try schema(old) != [])
        for folder in [old, new] { try await open(folder).close() }
        #expect(try schema(old) == schema(new))
    }

    @Test("a store that an earlier version wrote has what it had, and goes on", arguments: 1...4)
    func contents(_ version: Int) async throws {
        let folder = try oldStore(version)
        defer { withExtendedLifetime(folder) {} }
        let store = try open(folder)
        let bobs = try await store.all(inbox("bob"))
        #expect(bobs.map(\.text) == ["hi"] && bobs.first?.entry?.origin?.offset == 1)
        let texts = ["joined", "joined", "joined", "left", "in the hall", "edited", "reacted", "first "]
        let length = [5, 7, 8, 8][version - 1]
        #expect(try await store.all(roomKey("hall")).map(\.text) == Array(texts.prefix(length)))
        let roles = try await store.roles(of: hall, in: tenant)
        #expect(roles == [RoomMember(user: user("alice"), role: .owner), RoomMember(user: user("bob"), role: .member)])
        #expect(try await store.entitlements(of: user("carol"), in: tenant).last?.upTo == 6)
        #expect(try await store.generations(of: device("alice")) == RevocationGenerations(user: 2, device: 1))
        #expect(try await store.isRevoked(token: "token", in: tenant))
        if version >= 2 {
            #expect(try await store.settings(of: .user(user("carol")), for: user("bob"), in: tenant).isBlocked)
            let list = try await store.conversations(of: user("bob"), in: tenant, after: nil, limit: 9, now: 0).items
            #expect(list.first { $0.conversation == .user(user("alice")) }?.unread == 1)
            #expect(list.first { $0.conversation == .room(hall) }?.settings.mutedUntil == 5_000)
            // Who wrote before that was noted learns what arrives all the same.
            let end = try #require(try await store.head(of: inbox("bob"))).position
            let cursor = ChannelPosition(channel: .user(user("bob")), position: end)
            _ = try await store.advance(device("bob"), to: [cursor])
            let alices = try await store.conversations(of: user("alice"), in: tenant, after: nil, limit: 9, now: 0)
            #expect(alices.items.first { $0.conversation == .user(user("bob")) }?.peerDelivered == 1)
        }
        if version >= 3 {
            let rest = try await store.payload(of: 10, in: roomKey("hall"), from: 6, maximumBytes: 100)
            #expect(rest.map { String(buffer: $0) } == "rest")
            #expect(try await store.members(of: room("attic"), in: tenant) == [user("alice")])
            #expect(try await store.isErasurePending(of: user("zoe"), in: tenant))
        }

        // The ledger says what was acknowledged.
        let (lastID, offset) = [(1, 7), (2, 8), (3, 10), (3, 10)][version - 1] as (PublishID, Offset)
        let again = try #require(try await store.append(request(to: .room(hall), id: lastID)).published)
        #expect(again.position.offset == offset)
        var retraction = request(to: .room(hall), id: lastID + 1, "")
        retraction.publish.kind = .retract(Position(epoch: again.position.epoch, offset: 7))
        #expect(try await store.enter(retraction).position.offset > 1_024)
        // With its edit.
        let left = try await store.all(roomKey("hall")).compactMap(\.entry)
        #expect(!left.contains { $0.offset == 7 || $0.kind == .edited })
        try await store.close()
    }

    private func beginnings(_ folder: TemporaryFolder) throws -> [Int64] {
        let queue = try DatabaseQueue(path: folder.file("longline.db"))
        defer { try? queue.close() }
        return try queue.read { db in try Int64.fetchAll(db, sql: "SELECT \"begin\" FROM channels ORDER BY id") }
    }

    @Test("a channel of which nobody noted where it began begins at its first entry, where that is known")
    func beginningsOfChannels() async throws {
        let folder = try TemporaryFolder()
        try SQLiteFixture.schema(
            "copies that were withheld", folder.path,
            [
                "UPDATE store SET sequence = 1024",
                // One without a first entry, one with it, and one whose first entry was trimmed.
                """
                INSERT INTO channels (id, tenant, name, epoch, head, first, entries) VALUES
                    (1, 'acme', 'user/alice', 1, 0, 0, 0), (2, 'acme', 'user/bob', 1, 9, 0, 1),
                    (3, 'acme', 'user/carol', 1, 7, 7, 0)
                """,
                """
                INSERT INTO entries (offset, channel, previous, kind, sender, device, producer_high, producer_low,
                    publish_id, origin_epoch, origin_offset, time, expiry, payload)
                VALUES (9, 2, 0, 0, 'alice', 'phone', 1, 1, 1, 1, 8, 1, 0, x'6869')
                """,
            ])
        let store = try open(folder)
        // What bob has of alice's came from an inbox before hers.
        let epoch = try #require(try await store.head(of: inbox("bob"))).position.epoch
        var reaction = request("bob", recipient: "alice", id: 1, "+1")
        reaction.publish.kind = .react(Position(epoch: epoch, offset: 9))
        let outcome = try await store.append(reaction)
        #expect(outcome.isEntered && outcome.copy == nil)
        try await store.enter(request("dave", id: 1))
        try await store.close()
        let place = try #require(outcome.published).position.offset
        // A reaction that has no copy uses up the place of one.
        #expect(try beginnings(folder) == [1_024, 8, 0, Int64(place) + 1])
    }
    private func conversations(_ folder: TemporaryFolder) throws -> [String] {
        let queue = try DatabaseQueue(path: folder.file("longline.db"))
        defer { try? queue.close() }
        return try queue.read { db in try String.fetchAll(db, sql: "SELECT name FROM conversations ORDER BY name") }
    }

    @Test("what sweeps of earlier versions left of rooms that are gone goes with the next one")
    func readsOfRoomsThatAreGone() async throws {
        let folder = try TemporaryFolder()
        try SQLiteFixture.schema(
            "beginnings of channels", folder.path,
            [
                "UPDATE store SET sequence = 1024, removed_channel = 7",
                """
                INSERT INTO channels (id, tenant, name, epoch, head, entries, members, owners) VALUES
                    (1, 'acme', 'user/alice', 1, 3, 1, 0, 0), (2, 'acme', 'room/hall', 1, 5, 1, 1, 1)
                """,
                """
                INSERT INTO stints (tenant, user, room, after, joined, role) VALUES ('acme', 'alice', 2, 0, 5, 1)
                """,
                """
                INSERT INTO conversations (owner, name, last, time, incoming, unread, read, shared, muted_until, blocked)
                VALUES (1, 'room/gone', 0, 0, 0, 0, 4, 4, 0, 0), (1, 'room/hall', 0, 0, 0, 0, 5, 5, 0, 0),
                    (1, 'user/carol', 3, 1, 0, 0, 0, 0, 0, 0)
                """,
            ])
        let store = try open(folder)
        _ = try await store.sweep()
        try await store.close()
        #expect(try conversations(folder) == ["room/hall", "user/carol"])
    }
}
