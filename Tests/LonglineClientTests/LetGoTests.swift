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
}
