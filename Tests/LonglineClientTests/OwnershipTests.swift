import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A client that gives its shared outbox up, and owns it again: to its app it is one client all the same.
@Suite("Ownership that comes and goes", .timeLimit(.minutes(1)))
struct OwnershipTests {
    private func storage(_ directory: TemporaryFolder, name: String = "shared.sqlite") throws -> SharedClientStorage {
        try SharedClientStorage(
            path: directory.file(name), takeOverAfter: .seconds(60), pollInterval: .milliseconds(10))
    }

    // MARK: Transitions

    @Test("a storage that contends while it gives up is the owner afterwards, or is not, and knows which")
    func contendBesideRelease() async throws {
        let directory = try TemporaryFolder()
        for round in 0..<100 {
            let storage = try storage(directory, name: "\(round).sqlite")
            #expect(try await storage.contend())
            async let contended = storage.contend()
            async let released: Void = storage.release()
            _ = try await (contended, released)
            let loads = (try? await storage.load()) != nil
            #expect(storage.isOwner == loads)
            // Whichever was last, it can be the owner again.
            #expect(try await storage.contend())
            _ = try await storage.load()
            try await storage.close()
        }
    }

    @Test("a client that is asked for something while it disconnects connects again", arguments: [true, false])
    func usedWhileItDisconnects(sends: Bool) async throws {
        let directory = try TemporaryFolder()
        for round in 0..<15 {
            let harness = try ClientHarness(storage: try storage(directory, name: "\(round).sqlite"))
            let client = harness.client
            try await client.connect()
            let first = try await client.send("first", to: .user("bob"))
            let user = Task {
                for index in 0..<10 {
                    if sends {
                        try await client.send("\(index)", to: .user("bob"))
                    } else {
                        #expect(try await client.status(of: first.send) != nil)
                    }
                }
            }
            await client.disconnect()
            try await user.value
            try await client.connect()
            _ = try await client.send("last", to: .user("bob")).acknowledged()
            let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
            #expect(entered == ["first"] + (sends ? (0..<10).map(String.init) : []) + ["last"])
            await client.disconnect()
        }
    }

    @Test("connections and disconnections that overtake each other leave a client that connects")
    func beside() async throws {
        let directory = try TemporaryFolder()
        let harness = try ClientHarness(storage: try storage(directory))
        for _ in 0..<15 {
            try await harness.client.connect()
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<2 {
                    group.addTask { await harness.client.disconnect() }
                    group.addTask { try? await harness.client.start() }
                }
            }
        }
        try await harness.client.connect()
        _ = try await harness.client.send("a", to: .user("bob")).acknowledged()
        await harness.client.disconnect()
        guard case .disconnected = harness.client.state else { return #expect(Bool(false), "\(harness.client.state)") }
    }

    @Test("who disconnects in standby ends the wait of connect()")
    func disconnectsInStandby() async throws {
        let directory = try TemporaryFolder()
        let owner = try storage(directory)
        #expect(try await owner.contend())
        let harness = try ClientHarness(storage: try storage(directory))
        async let connected: Void = harness.client.connect()
        _ = await harness.state { if case .standby = $0 { true } else { false } }
        await harness.client.disconnect()
        do {
            try await connected
            #expect(Bool(false), "connected")
        } catch let error as ClientError {
            #expect(error.code == .disconnected)
        }
        try await owner.close()
    }
}
