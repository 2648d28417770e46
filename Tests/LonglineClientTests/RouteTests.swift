import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Routes that lead elsewhere while a connection is up, as where a VPN comes up: its own address stays, and nothing comes by it any more.
///
/// The fake service's links begin at 192.0.2.77, and the route to it begins at 127.0.0.1.
@Suite("Routes that change", .timeLimit(.minutes(1)))
struct RouteTests {
    private let virtual = VirtualLoop()

    private func harness(from local: SocketAddress? = nil) throws -> ClientHarness {
        try ClientHarness(loop: virtual.loop) {
            // The service's limits make it 20 seconds, and the first beat comes after 10 at the earliest.
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(3_600), answerTimeout: .seconds(5))
            $0.localAddress = local
        }
    }

    private func pings(_ harness: ClientHarness) -> Int {
        harness.service.state.withLock { $0.frames.count { if case .ping = $0 { true } else { false } } }
    }

    /// Another address comes.
    private func change(_ harness: ClientHarness) async throws {
        let change = try #require(AddressChange(from: ["192.0.2.77"], to: ["192.0.2.77", "10.8.0.2"]))
        let client = harness.client
        try await virtual.running { try await client.run { $0.addressesChanged(change) } }
    }

    @Test(
        "a path by which packets don't leave any more is asked, and left for the one by which they do, in the same session",
        arguments: [nil, "192.0.2.77"])
    func routeElsewhere(pinned: String?) async throws {
        let harness = try harness(from: pinned.map { try SocketAddress(ipAddress: $0, port: 0) })
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.connect() }
        service.silence()
        try await change(harness)
        // Until the routes are there, and until an answer would be.
        await virtual.pass(.seconds(1))
        await virtual.pass(.seconds(5))
        guard case .connected(let info) = client.state else { return #expect(Bool(false), "\(client.state)") }
        #expect(info.localAddress == (pinned == nil ? "127.0.0.1:0" : "192.0.2.77:2000"))
        #expect(service.state.withLock { $0.migrations } == 1)
        #expect(service.state.withLock { $0.requests.count } == 1)
        try await virtual.running { await client.disconnect() }
    }

    @Test("what nothing answered in one network is no reason to come back without the ticket in the next")
    func silentNetwork() async throws {
        let harness = try ClientHarness(loop: virtual.loop) {
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
            $0.backOff = BackOffPolicy(base: .seconds(3_600), maximum: .seconds(3_600))
        }
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.connect() }
        service.state.withLock { $0.answers = [.nobody, .nobody] }
        service.cut()
        for attempts in [2, 3] {
            try await virtual.pass(.zero) { if case .waiting = client.state { true } else { false } }
            try await virtual.running { try await client.start() }
            try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == attempts }
            // The time of an attempt.
            await virtual.pass(.seconds(10))
        }
        try await virtual.pass(.zero) { if case .waiting = client.state { true } else { false } }
        try await change(harness)
        try await virtual.pass(.zero) { client.state.isConnected }
        let tls = Array("tls".utf8)
        #expect(service.state.withLock { $0.requests.map(\.sessionTicket) } == [nil, tls, tls, tls])
        try await virtual.running { await client.disconnect() }
    }

    @Test("an attempt without an answer starts again where routes lead elsewhere, once it is two seconds old")
    func anotherFamily() async throws {
        let harness = try harness()
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = [.nobody] }
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == 1 }
        let local = try SocketAddress(ipAddress: "10.8.0.2", port: 0)
        try await virtual.running { try await client.run { $0.lookUpRoute = { _ in local } } }
        try await change(harness)
        await virtual.pass(.seconds(1))
        await virtual.pass(.milliseconds(999))
        #expect(service.state.withLock { $0.requests.count } == 1, "what is on its way may be an answer")
        try await virtual.pass(.milliseconds(1)) { client.state.isConnected }
        #expect(service.state.withLock { $0.requests.count } == 2)
        try await virtual.running { await client.disconnect() }
    }

    @Test("a path that answers is kept, and one that the route leads to isn't asked")
    func kept() async throws {
        let harness = try harness()
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.connect() }
        try await change(harness)
        await virtual.pass(.seconds(1))
        await virtual.pass(.seconds(5))
        #expect(pings(harness) == 1)
        #expect(service.state.withLock { $0.migrations } == 0)
        try await virtual.running { try await client.migrate(to: SocketAddress(ipAddress: "127.0.0.1", port: 0)) }
        // The address is asked for once more, behind the move.
        await virtual.pass(.seconds(1))
        let before = pings(harness)
        try await change(harness)
        await virtual.pass(.seconds(1))
        #expect(pings(harness) == before)
        try await virtual.running { await client.disconnect() }
    }
}
