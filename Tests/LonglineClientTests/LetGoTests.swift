import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Clients that are let go", .timeLimit(.minutes(1)))
struct LetGoTests {
    /// Goes with the last that holds the client's configuration: the client, and all that works for it.
    private final class Canary: Sendable {
        let gone: AsyncStream<Never>.Continuation
        init(_ gone: AsyncStream<Never>.Continuation) { self.gone = gone }
        deinit { gone.finish() }
    }

    enum Life: CaseIterable {
        case unused, connected, disconnected, loggedOut, connecting, waitingToRetry, sending, moving, unwritable, asked
    }

    private func live(_ life: Life, _ harness: ClientHarness) async throws {
        let (client, service) = (harness.client, harness.service)
        switch life {
        case .unused: break
        case .connected: try await client.connect()
        case .disconnected:
            try await client.connect()
            await client.disconnect()
        case .loggedOut:
            try await client.connect()
            _ = try await client.logout()
        case .connecting:
            service.state.withLock { $0.answers = [.silence] }
            try await client.start()
            _ = await harness.state { if case .connecting = $0 { true } else { false } }
        case .waitingToRetry:
            service.state.withLock {
                $0.answers = Array(repeating: .fail(ClientError(.connectFailed, message: "no")), count: 100)
            }
            let states = client.states
            try await client.start()
            for await state in states { if case .waiting = state { break } }
        case .sending: _ = try await client.send("later", to: .room("a"))
        case .moving:
            service.state.withLock { $0.migrationOutlivesLink = true }
            try await client.connect()
            try await client.run { driver in driver.migrate(to: nil, cause: .noAnswer) { _ in } }
        case .unwritable:
            try await client.connect()
            try await harness.settle()
            (client.core.configuration.storage as? FaultyDisk)?.fail(true)
            await #expect(throws: ClientError.self) { try await client.send("x", to: .room("a")) }
            try await client.run { $0.keepAddressToken([1], for: AccessPoint(host: "one", port: 1)) }
        case .asked:
            try await client.connect()
            let entry = Entry(
                offset: 1, previous: 0, kind: .request, sender: try UserID("zoe"), device: try DeviceID("d"),
                producer: ProducerID(high: 9, low: 9), publishID: 1, recipient: nil,
                origin: Position(epoch: 5, offset: 1), time: 0, expiry: 0, payload: ByteBuffer(string: "?"))
            service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: .user(try UserID("alice")))
            // What the service said before this is done.
            _ = await client.statistics
            #expect(client.core.outlets.requests.count == 1)
            await client.disconnect()
        }
    }

    @Test("nothing of it stays in memory, whatever it was doing", arguments: Life.allCases)
    func nothingStays(_ life: Life) async throws {
        let (ends, end) = AsyncStream.makeStream(of: Never.self)
        do {
            let canary = Canary(end)
            let harness = try ClientHarness(
                storage: life == .unwritable ? FaultyDisk() : InMemoryClientStorage()
            ) { configuration in
                configuration.watchesNetwork = true
                let tokens = configuration.tokenProvider
                configuration.tokenProvider = {
                    withExtendedLifetime(canary) {}
                    return try await tokens()
                }
            }
            try await live(life, harness)
        }
        for await _ in ends {}
    }

    /// What a client is, with no driver to end its sequences.
    enum Driverless: CaseIterable { case unused, standby, disconnected, unreadable }

    @Test("its sequences end, also where there is no driver", arguments: Driverless.allCases)
    func sequencesEnd(_ life: Driverless) async throws {
        let directory = try TemporaryFolder()
        func shared() throws -> SharedClientStorage {
            try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
        }
        let owner = try shared()
        let storage: any ClientStorage
        switch life {
        case .unused: storage = InMemoryClientStorage()
        case .standby:
            #expect(try await owner.contend())
            storage = try shared()
        case .disconnected: storage = try shared()
        case .unreadable: storage = UnreadableStorage()
        }
        let states: AsyncStream<ConnectionState>
        let messages: MessageStream
        let requests: RequestStream
        do {
            let harness = try ClientHarness(storage: storage)
            (states, messages, requests) = (harness.client.states, harness.client.messages, harness.client.requests)
            switch life {
            case .unused: break
            case .standby:
                try await harness.client.start()
                _ = await harness.state { if case .standby = $0 { true } else { false } }
            case .disconnected:
                try await harness.client.connect()
                await harness.client.disconnect()
            case .unreadable:
                await #expect(throws: ClientError.self) { try await harness.client.connect() }
            }
        }
        for await _ in states {}
        for await _ in messages {}
        for await _ in requests {}
        try await owner.close()
    }

    @Test("who uses its parts when it is gone gets no new driver, and follows nothing any more")
    func partsLeft() async throws {
        let directory = try TemporaryFolder()
        let storage = try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
        let core = try ClientHarness(storage: storage).client.core
        let error = await #expect(throws: ClientError.self) { _ = try await core.handle() }
        #expect(error?.code == .disconnected)
        #expect(!storage.isOwner)
        let (sharing, tracker) = (try #require(core.sharing), SendTracker())
        sharing.follow([SendID(high: 1, low: 1): tracker])
        let ended = await #expect(throws: ClientError.self) { try await tracker.outcome.value() }
        #expect(ended?.code == .disconnected)
        #expect(sharing.followed.isEmpty)
        sharing.wantsConnection(true)
        #expect(!sharing.wantsConnection)
    }

    @Test("a message that comes while it ends, behind one that is being written, is told so")
    func sentAtTheEnd() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        let handle = try await harness.client.core.handle()
        try await harness.settle()
        storage.close()
        let first = Task { try await harness.client.send("first", to: .room("a")) }
        while storage.waiting == 0 { await Task.yield() }
        let submission = Submission(
            send: SendID(high: 1, low: 2), destination: .room(try RoomID("a")), timeToLive: 0, queuedAt: 0,
            payload: ByteBuffer(string: "second"))
        let error = await #expect(throws: ClientError.self) {
            _ = try await withCheckedThrowingContinuation { continuation in
                handle.run { driver in
                    driver.send(submission, tracker: SendTracker()) { continuation.resume(with: $0) }
                    driver.shutDown()
                }
            }
        }
        #expect(error?.code == .disconnected)
        storage.open()
        _ = try await first.value
    }
}

/// A storage that can't be read.
private struct UnreadableStorage: ClientStorage {
    func load() async throws -> StoredClientState { throw ClientError(.storage, message: "no") }
    func apply(_ changes: [StorageChange]) async throws {}
    func erase() async throws {}
}
