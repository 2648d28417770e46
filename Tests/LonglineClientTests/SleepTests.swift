import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A machine that sleeps: the loop's time stands still then, the client's goes on.
@Suite("Times that pass asleep", .timeLimit(.minutes(1)))
struct SleepTests {
    private let virtual = VirtualLoop()
    private let harness: ClientHarness
    private let sleep: Sleep

    private final class Sleep: Sendable {
        private let time = Mutex(TimeAmount.zero)
        var total: TimeAmount { time.withLock { $0 } }
        func pass(_ more: TimeAmount) { time.withLock { $0 = $0 + more } }
    }

    init() throws {
        let (virtual, sleep) = (virtual, Sleep())
        self.sleep = sleep
        let clock = DriverClock(now: { virtual.now + sleep.total }, wall: { 1_700_000_000_000 })
        harness = try ClientHarness(clock: clock, loop: virtual.loop) {
            $0.backOff = BackOffPolicy(base: .seconds(3_600), maximum: .seconds(3_600))
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(20), answerTimeout: .seconds(5))
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
        }
    }

    /// What tells a client that the machine is awake.
    enum Sign: CaseIterable { case packet, addresses, call }

    private func show(_ sign: Sign) async throws {
        switch sign {
        case .packet: harness.service.send(.pong(Pong(nonce: 0, observedAddress: "198.51.100.1:1")))
        case .addresses:
            // One of another interface is gone: nothing to move for.
            let change = try #require(AddressChange(from: ["10.0.0.9", "192.0.2.77"], to: ["192.0.2.77"]))
            let handle = try await harness.client.core.handle()
            handle.loop.execute { handle.driver.value.addressesChanged(change) }
        case .call: _ = try await virtual.running { await harness.client.statistics }
        }
        await virtual.pass(.zero)
    }

    private var attempts: Int { harness.service.state.withLock { $0.requests.count } }

    @Test("a request whose deadline passed asleep ends when the machine is awake", arguments: Sign.allCases)
    func request(_ sign: Sign) async throws {
        let client = harness.client
        try await virtual.running { try await client.connect() }
        let code = Mutex<ClientError.Code?>(nil)
        let asking = Task {
            let error = await #expect(throws: ClientError.self) {
                try await client.request(to: UserID("bob"), text: "?", deadline: .seconds(60))
            }
            code.withLock { $0 = error?.code }
        }
        try await virtual.pass(.zero) { try await client.core.ask { $0.requestWaiters.count == 1 } }
        sleep.pass(.seconds(30))
        try await show(sign)
        #expect(code.withLock { $0 } == nil, "there is time left")
        await virtual.pass(.seconds(29))
        #expect(code.withLock { $0 } == nil)
        sleep.pass(.seconds(2))
        try await show(sign)
        try await virtual.running { await asking.value }
        #expect(code.withLock { $0 } == .timedOut)
        try await virtual.running { await client.disconnect() }
    }

    @Test(
        "the wait for the next attempt that was over asleep ends when the machine is awake",
        arguments: [Sign.addresses, .call])
    func wait(_ sign: Sign) async throws {
        harness.service.state.withLock { $0.answers = [.fail(ClientError(.connectFailed, message: "no network"))] }
        let client = harness.client
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { if case .waiting = client.state { true } else { false } }
        sleep.pass(.seconds(3_601))
        try await show(sign)
        #expect(attempts == 2)
        try await virtual.running { await client.disconnect() }
    }

    @Test(
        "who comes while an attempt is under way that leads nowhere waits for no other",
        arguments: [TimeAmount.zero, .seconds(3_600)])
    func attempt(slept: TimeAmount) async throws {
        harness.service.state.withLock { $0.answers = [.nobody] }
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == 1 }
        sleep.pass(slept)
        try await virtual.running { try await client.setMode(.foreground) }
        // Its time is over asleep, or awake.
        try await virtual.pass(slept > .zero ? .zero : .seconds(10)) { client.state.isConnected }
        #expect(attempts == 2)
        try await virtual.running { await client.disconnect() }
    }

    @Test(
        "a session that died asleep is found within an answer's time when the machine is awake",
        arguments: [Sign.addresses, .call])
    func session(_ sign: Sign) async throws {
        harness.service.state.withLock { state in
            state.answers = [.acceptThenSilence]
            state.migrationFails = true
        }
        let client = harness.client
        try await virtual.running { try await client.connect() }
        // Its first heartbeat is drawn when half of the time is over.
        await virtual.pass(.seconds(11))
        sleep.pass(.seconds(3_600))
        try await show(sign)
        await virtual.pass(.seconds(5))
        #expect(attempts == 2)
        try await virtual.running { await client.disconnect() }
    }
}
