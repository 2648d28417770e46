import LonglineWire
import NIOCore
import NIOEmbedded
import Testing

@testable import LonglineClient

/// Token providers that give no answer.
@Suite("Token providers that hang", .timeLimit(.minutes(1)))
struct TokenTests {
    private func harness(
        _ calls: Counter, loop: (any EventLoop)? = nil, user: UserID? = nil, control: FakeControl? = nil
    ) throws -> ClientHarness {
        func change(_ configuration: inout LonglineClient.Configuration) {
            configuration.user = user
            // One attempt is all that a test waits for.
            configuration.backOff = BackOffPolicy(base: .seconds(3600), maximum: .seconds(3600))
            configuration.accessPoints = [AccessPoint(host: "one", port: 1)]
            configuration.tokenProvider = {
                _ = calls.increment()
                try await Task.sleep(for: .seconds(86_400))
                return "never"
            }
        }
        guard let loop else { return try ClientHarness(control: control, change) }
        return try ClientHarness(control: control, loop: loop, change)
    }

    @Test("a provider that hangs is a failed attempt after a minute, and the app is told")
    func attempt() async throws {
        let (virtual, calls) = (VirtualLoop(), Counter())
        let harness = try harness(calls, loop: virtual.loop)
        try await virtual.running { try await harness.client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        await virtual.pass(.seconds(59))
        guard case .connecting = harness.client.state else { return #expect(Bool(false), "\(harness.client.state)") }
        try await virtual.pass(.seconds(1)) { if case .waiting = harness.client.state { true } else { false } }
        if case .waiting(_, let reason) = harness.client.state { #expect(reason.contains("gave no answer in")) }
        try await virtual.running { await harness.client.disconnect() }
    }

    @Test("a new address asks anew, as the provider's own question may have gone with the old one")
    func newAddress() async throws {
        let calls = Counter()
        let harness = try harness(calls)
        try await harness.client.start()
        while calls.count < 1 { await Task.yield() }
        let change = try #require(AddressChange(from: [], to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(change) }
        while calls.count < 2 { await Task.yield() }
        guard case .connecting(let attempt, _) = harness.client.state else {
            return #expect(Bool(false), "\(harness.client.state)")
        }
        #expect(attempt == 1, "it is the same attempt to the app")
        await harness.client.disconnect()
    }

    @Test("a direct message that waits to know its user ends with a disconnection", arguments: [true, false])
    func unknownUser(disconnects: Bool) async throws {
        let (virtual, calls) = (VirtualLoop(), Counter())
        let client = try harness(calls, loop: virtual.loop).client
        let sending = Task { try await client.send("a", to: .user("bob")) }
        try await virtual.pass(.zero) { calls.count == 1 }
        if disconnects {
            try await virtual.running { await client.disconnect() }
        } else {
            await virtual.pass(.seconds(60))
        }
        let error = try await virtual.running { await #expect(throws: ClientError.self) { try await sending.value } }
        #expect(error?.code == (disconnects ? .disconnected : .tokenProvider))
        // The next one asks again.
        let next = Task { try await client.send("b", to: .user("bob")) }
        try await virtual.pass(.zero) { calls.count == 2 }
        try await virtual.running { await client.disconnect() }
        _ = try await virtual.running { await #expect(throws: ClientError.self) { try await next.value } }
    }
}
