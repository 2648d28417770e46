import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A machine whose addresses come and go with its containers, while all of its packets leave as before.
@Suite("Addresses that come and go", .timeLimit(.minutes(1)))
struct AddressChurnTests {
    private let virtual = VirtualLoop()
    private static let failure = FakeService.Answer.fail(ClientError(.connectFailed, message: "nobody there"))

    private func harness(_ answers: [FakeService.Answer] = []) throws -> ClientHarness {
        let harness = try ClientHarness(loop: virtual.loop) {
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
            $0.backOff = BackOffPolicy(base: .seconds(36_000), maximum: .seconds(36_000))
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(3_600), answerTimeout: .seconds(5))
        }
        harness.service.state.withLock { $0.answers = answers }
        return harness
    }

    private func attempts(_ harness: ClientHarness) -> Int { harness.service.state.withLock { $0.requests.count } }

    /// Another address comes, or goes.
    private func change(_ harness: ClientHarness, goes: Bool = false) async throws {
        let (few, many) = (["192.0.2.77"] as Set, ["192.0.2.77", "fe80::c0"] as Set)
        let change = try #require(AddressChange(from: goes ? many : few, to: goes ? few : many))
        let client = harness.client
        try await virtual.running { try await client.run { $0.addressesChanged(change) } }
    }

    /// From now on packets leave by this address, wherever they go.
    private func route(_ harness: ClientHarness, by address: String) async throws {
        let (client, local) = (harness.client, try SocketAddress(ipAddress: address, port: 0))
        try await virtual.running { try await client.run { $0.lookUpRoute = { _ in local } } }
    }

    private func waits(_ harness: ClientHarness, after attempts: Int) async throws {
        let (client, service) = (harness.client, harness.service)
        try await virtual.pass(.zero) {
            let isWaiting = try await client.core.ask { if case .waiting = $0.phase { true } else { false } }
            return isWaiting && service.state.withLock { $0.requests.count } == attempts
        }
    }

    @Test(
        "an attempt goes on where packets would leave as before, or where the server has answered",
        arguments: [false, true])
    func slowHandshake(isAnswered: Bool) async throws {
        let harness = try harness([.nobody])
        let (client, service) = (harness.client, harness.service)
        try await route(harness, by: "192.0.2.77")
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == 1 }
        if isAnswered {
            service.state.withLock { $0.packets = 1 }
            try await route(harness, by: "192.0.2.99")
        }
        for second in 0..<9 {
            try await change(harness, goes: second % 2 == 1)
            await virtual.pass(.seconds(1))
        }
        #expect(attempts(harness) == 1)
        try await virtual.running { await client.disconnect() }
    }

    @Test("a client that waits tries with each change of its routes, and with other changes now and then")
    func waiting() async throws {
        let harness = try harness(Array(repeating: Self.failure, count: 9))
        let client = harness.client
        try await route(harness, by: "192.0.2.77")
        try await virtual.running { try await client.start() }
        try await waits(harness, after: 1)
        // It may be a network all the same, of which no route tells.
        try await change(harness)
        try await waits(harness, after: 2)
        for second in 0..<8 {
            try await change(harness, goes: second % 2 == 0)
            await virtual.pass(.seconds(1))
        }
        #expect(attempts(harness) == 2)
        try await route(harness, by: "192.0.2.99")
        try await change(harness)
        try await waits(harness, after: 3)
        // The route follows its address.
        try await change(harness, goes: true)
        try await route(harness, by: "192.0.2.100")
        await virtual.pass(.milliseconds(999))
        #expect(attempts(harness) == 3)
        await virtual.pass(.milliseconds(1))
        try await waits(harness, after: 4)
        await virtual.pass(.seconds(6))
        #expect(attempts(harness) == 4)
        try await change(harness)
        try await waits(harness, after: 5)
        try await virtual.running { await client.disconnect() }
    }

    @Test("a path by which packets don't leave is asked once for many changes")
    func connected() async throws {
        let harness = try harness()
        let (client, service) = (harness.client, harness.service)
        try await route(harness, by: "192.0.2.99")
        try await virtual.running { try await client.connect() }
        // The first beat comes after 10 seconds at the earliest.
        for second in 0..<9 {
            try await change(harness, goes: second % 2 == 1)
            await virtual.pass(.seconds(1))
        }
        let pings = service.state.withLock { $0.frames.count { if case .ping = $0 { true } else { false } } }
        #expect(pings == 1)
        try await virtual.running { await client.disconnect() }
    }
}
