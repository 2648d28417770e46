import LonglineSession
import LonglineWire
import NIOCore
import NIOEmbedded
import Synchronization
import Testing

@testable import LonglineClient

/// A client that waits for its next attempt while its user comes back.
@Suite("Returns before back-off is over", .timeLimit(.minutes(1)))
struct EagerReturnTests {
    private static let failure = ClientError(.connectFailed, message: "no network")

    private func harness(_ virtual: VirtualLoop, _ answers: [FakeService.Answer]) throws -> ClientHarness {
        let loop = virtual.loop
        let clock = DriverClock(now: { virtual.now }, wall: { 1_700_000_000_000 })
        let harness = try ClientHarness(clock: clock, loop: loop) {
            $0.backOff = BackOffPolicy(base: .seconds(1), maximum: .seconds(36_000))
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
        }
        harness.service.state.withLock { $0.answers = answers }
        return harness
    }

    /// Returns once so many attempts failed, and the client waits for the next one.
    private func waits(_ harness: ClientHarness, _ virtual: VirtualLoop, after attempts: Int) async throws {
        try await virtual.pass(.zero) {
            let isWaiting = try await harness.client.core.ask { if case .waiting = $0.phase { true } else { false } }
            return isWaiting && harness.service.state.withLock { $0.requests.count } == attempts
        }
    }

    /// Has an attempt begin without waiting for back-off, as often as a test likes.
    private func begin(_ attempt: Int, of client: LonglineClient, _ virtual: VirtualLoop) async throws {
        try await virtual.running {
            if attempt == 1 { try await client.start() } else { try await client.run { $0.connectNow() } }
        }
    }

    enum Way: CaseIterable { case connect, start, foreground }

    @Test("connect() and the foreground end the wait", arguments: Way.allCases)
    func ends(_ way: Way) async throws {
        let virtual = VirtualLoop()
        let harness = try harness(virtual, [.fail(Self.failure)])
        let client = harness.client
        try await virtual.running { try await client.start() }
        try await waits(harness, virtual, after: 1)
        try await virtual.running {
            switch way {
            case .connect: try await client.connect()
            case .start: try await client.start()
            case .foreground: try await client.setMode(.foreground)
            }
        }
        try await virtual.pass(.zero) { client.state.isConnected }
        #expect(harness.service.state.withLock { $0.requests.count } == 2)
        try await virtual.running { await client.disconnect() }
    }

    enum Reason: CaseIterable { case app, address }

    @Test("no reason brings a client back before the time that the service asked for", arguments: Reason.allCases)
    func floor(_ reason: Reason) async throws {
        let virtual = VirtualLoop()
        let failures = 12
        let harness = try harness(
            virtual,
            Array(repeating: .fail(Self.failure), count: failures)
                + [.close(Close(code: .overloaded, retryAfter: 5_000))])
        let client = harness.client
        for attempt in 1...failures + 1 {
            try await begin(attempt, of: client, virtual)
            try await waits(harness, virtual, after: attempt)
        }
        // Back-off would be up to an hour by now.
        let next = try await virtual.running { try await client.core.ask { $0.nextAttempt } }
        #expect(try #require(next).at - virtual.now > .seconds(7))
        let change = try #require(AddressChange(from: [], to: ["192.0.2.99"]))
        try await virtual.running {
            switch reason {
            case .app: try await client.start()
            case .address: try await client.run { $0.addressesChanged(change) }
            }
        }
        await virtual.pass(.milliseconds(4_999))
        #expect(harness.service.state.withLock { $0.requests.count } == failures + 1)
        // A part of back-off's first bound comes on top.
        try await virtual.pass(.milliseconds(1_001)) { client.state.isConnected }
        try await virtual.running { await client.disconnect() }
    }

    @Test("in another network back-off begins anew, though not with each of many changes")
    func newNetwork() async throws {
        let virtual = VirtualLoop()
        let failures = 12
        let harness = try harness(virtual, Array(repeating: .fail(Self.failure), count: failures + 2))
        let client = harness.client
        for attempt in 1...failures {
            try await begin(attempt, of: client, virtual)
            try await waits(harness, virtual, after: attempt)
        }
        // There is an address, and no route or resolver yet. Then comes the other family's.
        for (step, address) in ["fe80::1", "192.0.2.99"].enumerated() {
            let change = try #require(AddressChange(from: [], to: [address]))
            let local = try SocketAddress(ipAddress: address, port: 0)
            try await virtual.running {
                try await client.run {
                    $0.lookUpRoute = { _ in local }
                    $0.addressesChanged(change)
                }
            }
            try await waits(harness, virtual, after: failures + step + 1)
            #expect(try await virtual.running { try await client.core.ask { $0.plan.round } } == step + 1)
        }
        // Back-off's second bound, and not an hour.
        try await virtual.pass(.seconds(2)) { client.state.isConnected }
        try await virtual.running { await client.disconnect() }
    }

    @Test("what became due while the machine slept is done with the next thing that happens")
    func slept() async throws {
        let virtual = VirtualLoop()
        let loop = virtual.loop
        let slept = Mutex(TimeAmount.zero)
        let clock = DriverClock(now: { virtual.now + slept.withLock { $0 } }, wall: { 1_700_000_000_000 })
        let harness = try ClientHarness(clock: clock, loop: loop) {
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(20), answerTimeout: .seconds(5))
        }
        let client = harness.client
        try await virtual.running { try await client.connect() }
        await virtual.pass(.seconds(1))
        @Sendable func pings() -> Int {
            harness.service.state.withLock { $0.frames.count { if case .ping = $0 { true } else { false } } }
        }
        let before = pings()
        // The first beat is drawn when half of its time is over.
        for seconds in [Int64(20), 40] {
            slept.withLock { $0 = .seconds(seconds) }
            try await virtual.running { try await client.run { $0.pump() } }
            await virtual.pass(.zero)
        }
        try await virtual.pass(.zero) { pings() > before }
        try await virtual.running { await client.disconnect() }
    }

    @Test("an access point whose flows are lost behind the accepted connect is left for the next one")
    func lostFlows() async throws {
        let virtual = VirtualLoop()
        let loop = virtual.loop
        let clock = DriverClock(now: { virtual.now }, wall: { 1_700_000_000_000 })
        let harness = try ClientHarness(clock: clock, loop: loop) {
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(20), answerTimeout: .seconds(5))
        }
        harness.service.state.withLock { state in
            state.answers = [.acceptThenSilence, .acceptThenSilence]
            state.migrationFails = true
        }
        try await virtual.running { try await harness.client.connect() }
        @Sendable func hosts() -> [String] { harness.service.state.withLock { $0.requests.map(\.accessPoint.host) } }
        // Each time it takes longer to notice than a session has to last.
        while hosts().count < 3 { await virtual.pass(.seconds(1)) }
        #expect(hosts() == ["one", "one", "two"])
        try await virtual.running { await harness.client.disconnect() }
    }

    @Test("the path is asked each time that the app says it is in front")
    func askedInFront() async throws {
        let harness = try ClientHarness {
            $0.heartbeat = HeartbeatPolicy(interval: .seconds(3_600), answerTimeout: .seconds(60))
        }
        try await harness.client.connect()
        for _ in 0..<2 { try await harness.client.setMode(.foreground) }
        // A join's answer comes behind everything that was said before it.
        try await harness.client.join(RoomID("room"))
        let (pings, modes) = harness.service.state.withLock { state in
            (state.frames.count { if case .ping = $0 { true } else { false } }, state.modes)
        }
        #expect(pings == 2)
        #expect(modes.isEmpty)
        await harness.client.disconnect()
    }
}
