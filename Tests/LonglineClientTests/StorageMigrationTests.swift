import Foundation
import GRDB
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Files that other versions wrote.
@Suite("Storage layouts", .timeLimit(.minutes(1)))
struct StorageMigrationTests {
    /// A file as a version of the layout left it.
    private func oldFile(_ directory: TemporaryFolder, _ version: Int = 1) throws -> String {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let sql = try String(
            contentsOf: tests.appendingPathComponent("Fixtures/client-storage-\(version).sql"), encoding: .utf8)
        let path = directory.file("client.sqlite")
        let database = try DatabaseQueue(path: path)
        try database.write { try $0.execute(sql: sql) }
        try database.close()
        return path
    }

    @Test("what an old version kept is there, and is published as it would have been")
    func old() async throws {
        let directory = try TemporaryFolder()
        let storage = try SQLiteClientStorage(path: try oldFile(directory))
        let state = try await storage.load()
        #expect(state.producer == ProducerID(high: 1, low: .max - 1))
        #expect(state.lastID == 9 && state.connectNumber == 64 && state.cursorVersion == 4)
        #expect(state.user?.description == "alice" && state.resumeTicket?.bytes == [1, 2])
        #expect(state.outbox.map(\.id) == [7, 9] && state.outbox.map(\.after) == [6, 0])
        #expect(state.outbox.map(\.tag) == [.max - 4, 11])
        #expect(state.outbox.map { String(buffer: $0.payload) } == ["old", "room"])
        // Nobody knows whether they left, so they count as if they had; each has a name.
        #expect(state.outbox.allSatisfy { $0.attempted })
        #expect(Set(state.outbox.map(\.send)).count == 2)
        let hall = ChannelID.room(try RoomID("hall"))
        #expect(state.cursors == [hall: Position(epoch: 77, offset: 3)])
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        _ = try await harness.client.send("new", to: .user("bob")).acknowledged()
        let entered = harness.service.state.withLock { $0.entered }
        #expect(entered.map(\.publish.id).sorted() == [7, 9, 10])
        #expect(entered.allSatisfy { $0.producer == state.producer })
        await harness.client.disconnect()
        try storage.close()
    }

    @Test("processes that open a new file, or one of an old version, at one moment all get it", arguments: [nil, 1, 2])
    func openedAtOnce(version: Int?) async throws {
        for _ in 0..<20 {
            let directory = try TemporaryFolder()
            let path = if let version { try oldFile(directory, version) } else { directory.file("client.sqlite") }
            let storages = try await withThrowingTaskGroup(of: SharedClientStorage.self) { group in
                for _ in 0..<4 { group.addTask { try await SharedClientStorage.open(path: path) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            // It is one file, with all that was in it.
            let owner = try #require(storages.first)
            #expect(try await owner.contend())
            for other in storages.dropFirst() { #expect(try await !other.contend()) }
            #expect(try await owner.load().outbox.count == (version == nil ? 0 : 2))
            for storage in storages { try await storage.close() }
        }
    }

    @Test(
        "what the second version kept is there too: networks, and messages that name others", arguments: [false, true])
    func second(isShared: Bool) async throws {
        let directory = try TemporaryFolder()
        let path = try oldFile(directory, 2)
        let storage: any ClientStorage =
            if isShared { try SharedClientStorage(path: path, pollInterval: .milliseconds(10)) } else {
                try SQLiteClientStorage(path: path)
            }
        let harness = try ClientHarness(storage: storage)
        let waiting = try await harness.client.outbox()
        let target = Position(epoch: .max, offset: 8)
        #expect(waiting.map(\.kind) == [.edit(target), .react(Position(epoch: 77, offset: 9))])
        #expect(waiting.map(\.state) == [.sent, .sent] && waiting.allSatisfy { !$0.isCancellable })
        if let shared = storage as? SharedClientStorage { #expect(try await shared.contend()) }
        let state = try await storage.load()
        #expect(state.networks == [StoredNetwork(name: "app:home", lived: 60_000, died: 120_000, lastUse: 5)])
        #expect(state.cursors == [.user(try UserID("alice")): target] && state.addressTokens == ["one:1": [7]])
        #expect(state.outcomes.isEmpty && state.connectNumber == 64)
        let receipt = try #require(try await harness.client.receipt(for: waiting[1].send))
        try await harness.client.connect()
        #expect(try await receipt.acknowledged().id == 4)
        let producers = harness.service.state.withLock { Set($0.entered.map(\.producer)) }
        #expect(producers == [ProducerID(high: 1, low: .max - 1)])
        await harness.client.disconnect()
    }

    @Test(
        "what the third version kept is there, and the control layer's answer has a place from then on",
        arguments: [false, true])
    func third(isShared: Bool) async throws {
        let directory = try TemporaryFolder()
        let path = try oldFile(directory, 3)
        let access = StoredAccess(
            answer: AccessAnswerTests.json(), control: "https://rt.example", user: try UserID("alice"),
            receivedAt: .max)
        let routes = [
            StoredControlRoute(url: "https://one.example", http3Port: 4433, httpsFirstUntil: .max),
            StoredControlRoute(url: "https://rt.example"),
        ]
        for isFirst in [true, false] {
            let storage: any ClientStorage =
                if isShared { try SharedClientStorage(path: path, pollInterval: .milliseconds(10)) } else {
                    try SQLiteClientStorage(path: path)
                }
            if let shared = storage as? SharedClientStorage { #expect(try await shared.contend()) }
            let state = try await storage.load()
            #expect(state.outbox.map(\.id) == [5] && state.outbox.allSatisfy { !$0.attempted })
            #expect(state.user?.description == "alice" && state.resumeTicket?.bytes == [1, 2])
            #expect(state.access == (isFirst ? nil : access) && state.controlRoutes == (isFirst ? [] : routes))
            if isFirst {
                try await storage.apply([.access(nil), .access(access), .controlRoutes(Array(routes.reversed()))])
            } else {
                try await storage.apply([.controlRoutes([])])
                #expect(try await storage.load().controlRoutes.isEmpty)
                try await storage.erase()
            }
            try await (storage as? SharedClientStorage)?.close()
            try (storage as? SQLiteClientStorage)?.close()
        }
        let storage = try SQLiteClientStorage(path: path)
        #expect(try await storage.load() == StoredClientState())
        try storage.close()
    }

    @Test("names given to old rows stay", arguments: [1, 2])
    func namesStay(version: Int) async throws {
        let directory = try TemporaryFolder()
        let path = try oldFile(directory, version)
        let first = try SQLiteClientStorage(path: path)
        let names = try await first.load().outbox.map(\.send)
        try first.close()
        let second = try SQLiteClientStorage(path: path)
        #expect(try await second.load().outbox.map(\.send) == names)
        try second.close()
    }

    @Test("a file of a later version is refused by name, and left as it is")
    func later() throws {
        let directory = try TemporaryFolder()
        let path = try oldFile(directory)
        try SQLiteClientStorage(path: path).close()
        let database = try DatabaseQueue(path: path)
        try database.write { try $0.execute(sql: "INSERT INTO grdb_migrations VALUES ('of a later version')") }
        try database.close()
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        let error = #expect(throws: ClientError.self) { try SQLiteClientStorage(path: path) }
        #expect(error?.code == .storageTooNew)
        #expect(error?.advice == "upgrade the app; what waits in the file is kept")
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
    }
}
