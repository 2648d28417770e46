import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Why there is no connection, as a program is told.
@Suite("Why there is no connection", .timeLimit(.minutes(1)))
struct ConnectFailureTests {
    private let noHost = FakeService.Answer.fail(ClientError(.connectFailed, message: "no such host"))

    @Test("who waits for a connection for so long is told why there is none, and the client goes on to try")
    func within() async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop)
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = Array(repeating: noHost, count: 1_000) }
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { client.lastFailure != nil }
        let error = try await virtual.running {
            await #expect(throws: ClientError.self) { try await client.connect(within: .zero) }
        }
        #expect(error?.code == .connectFailed && error?.message == "no such host")
        service.state.withLock { $0.answers = [] }
        try await virtual.pass(.seconds(1)) { client.state.isConnected }
        #expect(client.lastFailure == nil)
        try await virtual.running {
            try await client.connect(within: .seconds(5))
            await client.disconnect()
        }
    }

    /// A client that waits for hours behind each attempt, of which nothing comes.
    private func patient(_ virtual: VirtualLoop, _ directory: TemporaryFolder, isShared: Bool) throws -> ClientHarness {
        let storage: any ClientStorage =
            try isShared
            ? SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
            : InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage, loop: virtual.loop) {
            $0.backOff = BackOffPolicy(base: .seconds(36_000), maximum: .seconds(36_000))
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
        }
        harness.service.state.withLock { $0.answers = Array(repeating: noHost, count: 100) }
        return harness
    }

    /// Returns once somebody waits for a connection, behind so many attempts.
    private func waits(_ harness: ClientHarness, _ virtual: VirtualLoop, after attempts: Int) async throws {
        let (client, service) = (harness.client, harness.service)
        try await virtual.pass(.zero) {
            guard case .waiting = client.state, service.state.withLock({ $0.requests.count }) == attempts else {
                return false
            }
            return try await client.core.ask { $0.connectWaiters.count } == 1
        }
    }

    @Test("who waits without an end comes once, too, with a shared outbox as with another", arguments: [true, false])
    func comesOnceWithoutEnd(isShared: Bool) async throws {
        let (virtual, directory) = (VirtualLoop(), try TemporaryFolder())
        let harness = try patient(virtual, directory, isShared: isShared)
        let client = harness.client
        for attempts in 1...3 {
            let connecting = Task { try await client.connect() }
            try await waits(harness, virtual, after: attempts)
            await virtual.pass(.seconds(5))
            #expect(harness.service.state.withLock { $0.requests.count } == attempts)
            connecting.cancel()
            await #expect(throws: CancellationError.self) { try await connecting.value }
            try await virtual.pass(.zero) { try await client.core.ask { $0.connectWaiters.isEmpty } }
        }
        try await virtual.running { await client.disconnect() }
    }

    @Test(
        "who waits for a connection for so long comes once: behind an attempt that failed back-off goes on",
        arguments: [true, false])
    func comesOnce(isShared: Bool) async throws {
        let (virtual, directory) = (VirtualLoop(), try TemporaryFolder())
        let harness = try patient(virtual, directory, isShared: isShared)
        let (client, service) = (harness.client, harness.service)
        let connecting = Task { try await client.connect(within: .seconds(5)) }
        try await waits(harness, virtual, after: 1)
        await virtual.pass(.seconds(5))
        let error = try await virtual.running {
            await #expect(throws: ClientError.self) { try await connecting.value }
        }
        #expect(error?.code == .connectFailed)
        #expect(service.state.withLock { $0.requests.count } == 1)
        // The next call is another one.
        let next = Task { try? await client.connect(within: .seconds(5)) }
        try await waits(harness, virtual, after: 2)
        await virtual.pass(.seconds(5))
        try await virtual.running {
            _ = await next.value
            await client.disconnect()
        }
        #expect(service.state.withLock { $0.requests.count } == 2)
    }

    @Test("where nothing has failed yet the time is over, and no more")
    func noFailure() async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop)
        let client = harness.client
        harness.service.state.withLock { $0.answers = [.silence] }
        let error = try await virtual.running {
            await #expect(throws: ClientError.self) { try await client.connect(within: .zero) }
        }
        #expect(error?.code == .timedOut)
        try await virtual.running { await client.disconnect() }
    }

    @Test("who waits for less time than the storage takes to open has begun the attempts all the same")
    func slowStorage() async throws {
        let virtual = VirtualLoop()
        let storage = GatedStorage()
        await storage.shut(.load)
        let harness = try ClientHarness(storage: storage, loop: virtual.loop)
        let client = harness.client
        let error = try await virtual.running {
            await #expect(throws: ClientError.self) { try await client.connect(within: .zero) }
        }
        #expect(error?.code == .timedOut)
        await storage.waitUntilHeld()
        #expect(harness.service.state.withLock { $0.requests.isEmpty })
        await storage.open()
        try await virtual.pass(.zero) { client.state.isConnected }
        try await virtual.running { await client.disconnect() }
    }

    @Test("who disconnects ends that wait as well")
    func disconnected() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [.silence] }
        let client = harness.client
        let connecting = Task { try await client.connect(within: .seconds(3_600)) }
        while harness.service.state.withLock({ $0.requests.isEmpty }) { await Task.yield() }
        await client.disconnect()
        let error = await #expect(throws: ClientError.self) { try await connecting.value }
        #expect(error?.code == .disconnected)
    }

    @Test("what failed is told also where the next attempt begins at once")
    func atOnce() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [noHost, .silence] }
        try await harness.client.start()
        while harness.service.state.withLock({ $0.requests.count }) < 2 { await Task.yield() }
        #expect(harness.client.lastFailure?.code == .connectFailed)
        await harness.client.disconnect()
    }

    @Test("a link that ends before it brought a session is one that did not come up")
    func noSession() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = Array(repeating: .silence, count: 100) }
        try await harness.client.start()
        while harness.service.state.withLock({ $0.connects.isEmpty }) { await Task.yield() }
        harness.service.cut()
        while harness.client.lastFailure == nil { await Task.yield() }
        #expect(harness.client.lastFailure?.code == .connectFailed)
        await harness.client.disconnect()
    }

    @Test("a service that refuses tells by which code, in the state and beside it")
    func refused() async throws {
        let harness = try ClientHarness()
        let close = Close(code: .credentialRevoked, reason: "revoked", retryAfter: 3_600_000)
        harness.service.state.withLock { $0.answers = [.close(close)] }
        try await harness.client.start()
        let state = await harness.state { if case .waiting = $0 { true } else { false } }
        guard case .waiting(let delay, let cause) = state else { return #expect(Bool(false), "the states ended") }
        #expect(delay >= .seconds(3_600) && cause.retryAfter == .seconds(3_600))
        #expect(cause.code == .notConnected && cause.closeCode == .credentialRevoked)
        #expect(harness.client.lastFailure?.closeCode == .credentialRevoked)
        await harness.client.disconnect()
    }

    @Test("a service that stops the client says why there as well, until the app connects again")
    func stopped() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [.close(Close(code: .forbidden))] }
        let error = await #expect(throws: ClientError.self) {
            try await harness.client.connect(within: .seconds(3_600))
        }
        #expect(error?.code == .stopped && harness.client.lastFailure?.closeCode == .forbidden)
        try await harness.client.connect()
        #expect(harness.client.lastFailure == nil)
        await harness.client.disconnect()
    }
}
