import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A user who comes while an attempt is under way.
@Suite("Users who come during an attempt", .timeLimit(.minutes(1)))
struct UserReturnTests {
    private let virtual = VirtualLoop()
    private static let failure = FakeService.Answer.fail(ClientError(.connectFailed, message: "nobody there"))

    private func harness(
        points: Int = 1, _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) throws -> ClientHarness {
        try ClientHarness(loop: virtual.loop) {
            $0.backOff = BackOffPolicy(base: .seconds(36_000), maximum: .seconds(36_000))
            $0.accessPoints = (1...points).map { AccessPoint(host: "node\($0)", port: 1) }
            change(&$0)
        }
    }

    enum Way: CaseIterable { case start, foreground }

    @Test(
        "nobody who came waits for back-off, whichever access points the attempt went to", arguments: Way.allCases,
        [1, 2])
    func connecting(way: Way, points: Int) async throws {
        let harness = try harness(points: points)
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = [.nobody] + Array(repeating: Self.failure, count: points - 1) }
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == 1 }
        try await virtual.running {
            switch way {
            case .start: try await client.start()
            case .foreground: try await client.setMode(.foreground)
            }
        }
        // The time of the attempt.
        try await virtual.pass(.seconds(10)) { client.state.isConnected }
        #expect(service.state.withLock { $0.requests.count } == points + 1)
        try await virtual.running { await client.disconnect() }
    }

    @Test("an app that asks in a loop begins five attempts at once, then one every 15 seconds", arguments: Way.allCases)
    func inALoop(way: Way) async throws {
        let harness = try harness()
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = Array(repeating: Self.failure, count: 100) }
        func come() async throws {
            try await virtual.running {
                switch way {
                case .start: try await client.start()
                case .foreground: try await client.setMode(.foreground)
                }
            }
        }
        func waits(after attempts: Int, _ time: TimeAmount = .zero) async throws {
            try await virtual.pass(time) {
                guard case .waiting = client.state else { return false }
                return service.state.withLock { $0.requests.count } == attempts
            }
        }
        try await virtual.running { try await client.start() }
        try await waits(after: 1)
        for attempts in 2...6 {
            try await come()
            try await waits(after: attempts)
        }
        // Each is due with a third of the time on top at most.
        for (attempts, seconds) in [(6, 14), (7, 9)] {
            for _ in 0..<seconds {
                try await come()
                await virtual.pass(.seconds(1))
            }
            #expect(service.state.withLock { $0.requests.count } == attempts)
            try await waits(after: attempts + 1, .seconds(6))
        }
        // Back-off is what they end, as before, once they have had time.
        await virtual.pass(.minutes(5))
        let before = service.state.withLock { $0.requests.count }
        try await come()
        try await waits(after: before + 1)
        try await virtual.running { await client.disconnect() }
    }

    @Test("who comes in a loop comes back when the first of these calls drew, however many there are")
    func firstDraw() async throws {
        let harness = try harness()
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = Array(repeating: Self.failure, count: 100) }
        func come() async throws -> NIODeadline? {
            try await virtual.running {
                try await client.start()
                return try await client.core.ask { $0.nextAttempt?.at }
            }
        }
        for attempts in 1...6 {
            _ = try await come()
            try await virtual.pass(.zero) {
                guard case .waiting = client.state else { return false }
                return service.state.withLock { $0.requests.count } == attempts
            }
        }
        let due = try #require(try await come())
        #expect(due - virtual.now >= EagerAttempts.interval)
        for _ in 0..<100 { #expect(try await come() == due) }
        // There is one to take before that, which the waiting one is.
        await virtual.pass(due - virtual.now - .nanoseconds(1))
        #expect(try await come() == due)
        #expect(service.state.withLock { $0.requests.count } == 6)
        try await virtual.pass(.nanoseconds(1)) { service.state.withLock { $0.requests.count } == 7 }
        try await virtual.running { await client.disconnect() }
    }

    @Test("who comes in a loop during attempts ends no more waits than others do")
    func inALoopDuringAttempts() async throws {
        let harness = try harness { $0.connectTimeout = .seconds(1) }
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = Array(repeating: .nobody, count: 100) }
        try await virtual.running { try await client.start() }
        // Six attempts of a second each: the first, and five for the user, the last of them in the sixth second.
        for attempts in 1...6 {
            try await virtual.pass(.zero) { service.state.withLock { $0.requests.count } == attempts }
            try await virtual.running { try await client.setMode(.foreground) }
            await virtual.pass(.seconds(1))
        }
        for _ in 7...15 {
            try await virtual.running { try await client.setMode(.foreground) }
            await virtual.pass(.seconds(1))
        }
        #expect(service.state.withLock { $0.requests.count } == 6)
        try await virtual.pass(.seconds(20)) { service.state.withLock { $0.requests.count } == 7 }
        try await virtual.running { await client.disconnect() }
    }

    @Test("who came still waits for no back-off when a change of addresses begins the attempt anew")
    func newAddress() async throws {
        let (calls, never) = (Counter(), Outcome<String>())
        let harness = try harness {
            $0.tokenProvider = {
                let call = calls.increment()
                if call == 1 { return try await never.value() }
                if call == 2 { throw ClientError(.timedOut, message: "no network") }
                return "token"
            }
        }
        let client = harness.client
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        let change = try #require(AddressChange(from: [], to: ["192.0.2.99"]))
        try await virtual.running {
            try await client.setMode(.foreground)
            try await client.run { $0.addressesChanged(change) }
        }
        try await virtual.pass(.zero) { client.state.isConnected }
        #expect(calls.count == 3)
        never.resolve(.success("late"))
        try await virtual.running { await client.disconnect() }
    }

    @Test("a token that a ticket does without is waited for three seconds of the attempt, however early the user came")
    func early() async throws {
        let (calls, token) = (Counter(), Outcome<String>())
        var state = StoredClientState()
        state.resumeTicket = StoredSecret(bytes: [1], expiry: 0)
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        let harness = try ClientHarness(storage: InMemoryClientStorage(state), control: control, loop: virtual.loop) {
            $0.backOff = BackOffPolicy(base: .seconds(36_000), maximum: .seconds(36_000))
            $0.accessPoints = [AccessPoint(host: "known", port: 1)]
            $0.control = [ControlService(url: "https://rt.example")]
            $0.tokenProvider = {
                _ = calls.increment()
                return try await token.value()
            }
        }
        let (client, service) = (harness.client, harness.service)
        service.state.withLock { $0.answers = [Self.failure] }
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { calls.count == 1 }
        try await virtual.pass(.seconds(3)) { if case .waiting = client.state { true } else { false } }
        // Past the rest behind a question in vain: the next attempt asks again.
        await virtual.pass(.seconds(31))
        try await virtual.running { try await client.start() }
        try await virtual.pass(.zero) { calls.count == 2 }
        try await virtual.running { try await client.setMode(.foreground) }
        await virtual.pass(.milliseconds(2_999))
        guard case .locating = client.state else { return #expect(Bool(false), "\(client.state)") }
        try await virtual.pass(.milliseconds(1)) { client.state.isConnected }
        #expect(service.state.withLock { $0.requests.map(\.accessPoint.host) } == ["known", "known"])
        token.resolve(.success("late"))
        try await virtual.running { await client.disconnect() }
    }
}
