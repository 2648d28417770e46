import Foundation
import LonglineServer
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// Databases put back from a backup, on either side, against a real service: nothing is lost silently, nothing is entered twice, and
/// all that is owed arrives.
@Suite("Restored from a backup, end to end", .serialized, .timeLimit(.minutes(2)))
struct BackupTests {
    private let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    private func texts(_ prefix: String, _ range: Range<Int>) -> [String] { range.map { "\(prefix)\($0)" } }

    private func send(_ texts: [String], from client: LonglineClient, to user: String) async throws {
        for text in texts { _ = try await client.send(text, to: .user(user)).acknowledged() }
    }

    /// What a copy of the file holds now; with its log, as the client may still have it open.
    private func copy(_ path: String, as name: String) throws -> String {
        let copy = folder.file(name)
        for suffix in ["", "-wal"] where FileManager.default.fileExists(atPath: path + suffix) {
            try FileManager.default.copyItem(atPath: path + suffix, toPath: copy + suffix)
        }
        return copy
    }

    private func client(_ service: LiveService, _ user: String, file: String) throws -> LonglineClient {
        let storage = try SQLiteClientStorage(path: file)
        return try service.client(user) { $0.storage = storage }
    }

    @Test("a client's file: what the backup lacks comes again and is marked, what it sends anew is entered once")
    func clientFile() async throws {
        let service = try await LiveService()
        let bob = try service.client("bob")
        try await bob.connect()
        let first = try client(service, "alice", file: folder.file("alice.sqlite"))
        try await first.connect()
        try await send(texts("a", 0..<5), from: first, to: "bob")
        try await send(texts("b", 0..<5), from: bob, to: "alice")
        #expect(await first.receive(5).map(\.text) == texts("b", 0..<5))
        await first.disconnect()
        let backup = try copy(folder.file("alice.sqlite"), as: "backup.sqlite")
        try await first.connect()
        try await send(texts("a", 5..<10), from: first, to: "bob")
        try await send(texts("b", 5..<10), from: bob, to: "alice")
        #expect(await first.receive(5).map(\.text) == texts("b", 5..<10))
        await first.disconnect()

        let second = try client(service, "alice", file: backup)
        try await second.connect()
        // These carry IDs that were used with other tags: the client takes a new producer, and sends them under it.
        try await send(texts("a", 10..<15), from: second, to: "bob")
        try await send(texts("b", 10..<12), from: bob, to: "alice")
        let again = await second.receive(7)
        #expect(again.map(\.text) == texts("b", 5..<12))
        #expect(again.prefix(5).allSatisfy { $0.redelivered })
        #expect(await second.statistics.gaps == 0)
        #expect(await bob.receive(15).map(\.text) == texts("a", 0..<15))
        for client in [second, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a client's file: what it sends anew is entered, whichever channels the lost numbers were used in")
    func clientFileOfTwoChannels() async throws {
        let service = try await LiveService()
        let room = try RoomID("r")
        let first = try client(service, "alice", file: folder.file("alice.sqlite"))
        try await first.connect()
        try await first.join(room)
        try await send(["0"], from: first, to: "bob")
        await first.disconnect()
        let backup = try copy(folder.file("alice.sqlite"), as: "backup.sqlite")
        try await first.connect()
        try await send(["1"], from: first, to: "bob")
        _ = try await first.send("2", to: .room(room)).acknowledged()
        try await send(["3"], from: first, to: "bob")
        await first.disconnect()

        let second = try client(service, "alice", file: backup)
        try await second.connect()
        // Its number was used in the other channel; in this one it is below the last.
        _ = try await second.send("new", to: .room(room)).acknowledged()
        let page = try await second.history(of: .room(room), limit: 50)
        #expect(page.messages.filter { $0.kind == .message }.map(\.text) == ["2", "new"])
        await second.disconnect()
        await service.stop()
    }

    @Test("the server's store: devices are told of a gap, what the backup holds is there, and outboxes go on")
    func serverStore() async throws {
        // A token of the moment after the restore counts, not only one of half a minute later.
        let service = try await LiveService(clockSkew: .zero)
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        try await send(texts("a", 0..<5), from: alice, to: "bob")
        #expect(await bob.receive(5).map(\.text) == texts("a", 0..<5))
        await bob.disconnect()
        await service.stop()
        let backup = folder.file("longline.db")
        try await service.withStore { try await $0.backup(to: backup) }
        try await service.start()
        try await bob.connect()
        try await send(texts("a", 5..<10), from: alice, to: "bob")
        #expect(await bob.receive(5).map(\.text) == texts("a", 5..<10))
        await service.stop()
        // One more is written while there is no service: the ledger that comes back knows nothing of the five before it.
        let waiting = try await alice.send("a10", to: .user("bob"))
        try service.restore(backup)
        try await service.start()
        _ = try await waiting.acknowledged()
        var seen: [Message] = []
        for await message in bob.messages {
            message.confirm()
            seen.append(message)
            if message.text == "a10" { break }
        }
        // The log begins a new epoch: what the backup holds comes again, marked; what it lacks was received already.
        #expect(seen.map(\.text) == texts("a", 0..<5) + ["a10"])
        #expect(seen.first?.gapBefore != nil && seen.dropFirst().allSatisfy { $0.gapBefore == nil })
        #expect(seen.prefix(5).allSatisfy { $0.redelivered })
        #expect(await bob.statistics.gaps == 1)
        // Nothing stands in the log twice.
        let page = try await bob.history(of: .user(try UserID("bob")), limit: 50)
        #expect(page.messages.map(\.text) == texts("a", 0..<5) + ["a10"])
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("two clients of one device on copies of one file: each takes the place of the other, and no message is two")
    func copiedFile() async throws {
        let service = try await LiveService()
        let bob = try service.client("bob")
        try await bob.connect()
        let first = try client(service, "alice", file: folder.file("alice.sqlite"))
        try await first.connect()
        try await send(["0"], from: first, to: "bob")
        await first.disconnect()
        let second = try client(service, "alice", file: try copy(folder.file("alice.sqlite"), as: "copy.sqlite"))
        var texts = ["0"]
        for round in 1...3 {
            for (name, client) in [("first", first), ("second", second)] {
                try await client.connect()
                try await send(["\(name) \(round)"], from: client, to: "bob")
                texts.append("\(name) \(round)")
            }
            // A later link of the device: whoever had the place stops, and does not fight for it.
            var states = first.states.makeAsyncIterator()
            while case .some(let state) = await states.next() {
                guard case .stopped(let code, _) = state else { continue }
                #expect(code == .replaced)
                break
            }
        }
        #expect(await bob.receive(texts.count).map(\.text) == texts)
        for client in [first, second, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test(
        "a client that lost everything but its device ID gets all that its user may read, marked, and sends under a new outbox"
    )
    func everythingLost() async throws {
        let service = try await LiveService()
        let bob = try service.client("bob")
        try await bob.connect()
        let first = try service.client("alice")
        try await first.connect()
        try await send(texts("a", 0..<3), from: first, to: "bob")
        try await send(texts("b", 0..<5), from: bob, to: "alice")
        #expect(await first.receive(5).map(\.text) == texts("b", 0..<5))
        await first.disconnect()
        try await send(texts("b", 5..<8), from: bob, to: "alice")

        let second = try service.client("alice") { $0.ownMessages = .delivered }
        try await second.connect()
        try await send(["a3"], from: second, to: "bob")
        let seen = await second.receive(12)
        #expect(Set(seen.map(\.text)) == Set(texts("a", 0..<4) + texts("b", 0..<8)))
        #expect(seen.filter { $0.sender.description == "bob" }.map(\.text) == texts("b", 0..<8))
        #expect(
            seen.filter { $0.text < "a3" || $0.text.hasPrefix("b") && $0.text < "b5" }.allSatisfy { $0.redelivered })
        #expect(await second.statistics.gaps == 0)
        #expect(await bob.receive(4).map(\.text) == texts("a", 0..<4))
        for client in [second, bob] { await client.disconnect() }
        await service.stop()
    }
}
