import Foundation
import Logging
import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Clocks that a test moves.
final class MovedClock: Sendable {
    private let moved = Mutex((now: TimeAmount.zero, wall: Int64(0)))

    var clock: DriverClock {
        DriverClock(
            now: { DriverClock.system.now() + self.moved.withLock { $0.now } },
            wall: { UInt64(Int64(DriverClock.system.wall()) + self.moved.withLock { $0.wall }) })
    }

    /// Time passes.
    func pass(_ seconds: Int64) {
        moved.withLock {
            $0.now = $0.now + .seconds(seconds)
            $0.wall += seconds * 1_000
        }
    }

    /// Somebody sets the device's clock.
    func setWall(_ seconds: Int64) { moved.withLock { $0.wall += seconds * 1_000 } }
}

@Suite("Where to connect, as the control layer says", .timeLimit(.minutes(1)))
struct AccessTests {
    private static let control = ControlService(url: "https://rt.example")

    private func harness(
        _ control: FakeControl, storage: any ClientStorage = InMemoryClientStorage(), clock: DriverClock = .system,
        fixed: [AccessPoint] = [], _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) throws -> ClientHarness {
        try ClientHarness(storage: storage, clock: clock, control: control) {
            $0.accessPoints = fixed
            $0.control = [Self.control]
            change(&$0)
        }
    }

    private func hosts(_ harness: ClientHarness) -> [String] {
        harness.service.state.withLock { $0.requests.map(\.accessPoint.host) }
    }

    /// The link is lost, and the client is connected again.
    private func reconnect(_ harness: ClientHarness) async throws {
        await harness.lose()
        try await harness.client.connect()
    }

    /// A token that names its user.
    static func token(_ user: String) -> String {
        let claims = Data(#"{"sub":"\#(user)"}"#.utf8).base64EncodedString().filter { $0 != "=" }
        return "e30.\(claims).c2ln"
    }

    @Test(
        "the first connect asks, tells by a state, and connects to the best with the same token; while the answer is fresh nobody asks"
    )
    func asks() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["best", "next"]) }
        let harness = try harness(control)
        let states = harness.client.states
        try await harness.client.connect()
        try await reconnect(harness)
        #expect(hosts(harness) == ["best", "best"] && control.asked == 1 && harness.tokens.count == 1)
        #expect(control.state.withLock { $0.tokens } == ["token-1"])
        var seen: [String] = []
        for await state in states {
            if case .locating(1) = state { seen.append("locating") }
            if case .connecting(1, AccessPoint(host: "best", port: 1)) = state { seen.append("connecting") }
            if case .connected = state { break }
        }
        #expect(seen == ["locating", "connecting"])
        let statistics = await harness.client.statistics
        #expect(statistics.accessAnswers == 1 && statistics.failedAccessQuestions == 0)
        #expect(statistics.accessSource == .answer && statistics.controlTransport == .http3)
        #expect(statistics.accessAge ?? .seconds(-1) >= .zero)
        await harness.client.disconnect()
    }

    @Test("the answer outlives the process, for its lifetime; then it is asked for again")
    func restarts() async throws {
        let (storage, clock) = (InMemoryClientStorage(), MovedClock())
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        for asked in [1, 1, 2] {
            let harness = try harness(control, storage: storage, clock: clock.clock)
            try await harness.client.connect()
            try await harness.settle()
            #expect(control.asked == asked && hosts(harness) == ["best"])
            await harness.client.disconnect()
            clock.pass(160)
        }
        // Set back, the clock says nothing about the answer's age.
        clock.setWall(-10_000)
        let harness = try harness(control, storage: storage, clock: clock.clock)
        try await harness.client.connect()
        #expect(control.asked == 3)
        await harness.client.disconnect()
    }

    @Test("a control layer that is down: the last answer is used, however old, and not asked for with each attempt")
    func down() async throws {
        let (storage, clock) = (InMemoryClientStorage(), MovedClock())
        let control = FakeControl { _, _ in FakeControl.points(["best", "next"]) }
        let first = try harness(control, storage: storage, clock: clock.clock)
        try await first.client.connect()
        try await first.settle()
        await first.client.disconnect()
        clock.pass(40 * 86_400)
        control.answer { _, _ in .failure }
        let harness = try harness(control, storage: storage, clock: clock.clock)
        harness.service.state.withLock { $0.answers = [.fail(ClientError(.connectFailed, message: "dead"))] }
        try await harness.client.connect()
        #expect(hosts(harness) == ["best", "next"])
        #expect(control.asked == 3, "once by each way")
        let statistics = await harness.client.statistics
        #expect(statistics.accessSource == .lastAnswer && statistics.failedAccessQuestions == 1)
        #expect(statistics.accessAge ?? .zero >= .seconds(40 * 86_400))
        // Once it rested, it is asked again, and its answer counts.
        control.answer { _, _ in FakeControl.points(["new"]) }
        clock.pass(31)
        try await reconnect(harness)
        #expect(hosts(harness).last == "new")
        #expect(await harness.client.statistics.accessSource == .answer)
        await harness.client.disconnect()
    }

    @Test("who had no network comes back to where the control layer said, without asking it again")
    func noNetwork() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["a", "b"]) }
        let harness = try harness(control) {
            $0.backOff = BackOffPolicy(base: .seconds(3_600), maximum: .seconds(3_600))
        }
        try await harness.client.connect()
        let dead = FakeService.Answer.fail(ClientError(.connectFailed, message: "no route"))
        harness.service.state.withLock { $0.answers = [dead, dead] }
        await harness.lose()
        for attempts in [2, 3] {
            try await harness.client.run { $0.connectNow() }
            while hosts(harness).count < attempts { await Task.yield() }
            _ = await harness.state { if case .waiting = $0 { true } else { false } }
        }
        let change = try #require(AddressChange(from: [], to: ["192.0.2.99"]))
        try await harness.client.run { $0.addressesChanged(change) }
        _ = await harness.state { $0.isConnected }
        #expect(hosts(harness) == ["a", "a", "b", "a"])
        #expect(control.asked == 1)
        await harness.client.disconnect()
    }

    @Test("who finds no route on the way back needs no fresh answer once there is a network again either")
    func returnFailsFirst() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["best"], lifetime: 0, safe: false) }
        let harness = try harness(control) {
            $0.backOff = BackOffPolicy(base: .seconds(3_600), maximum: .seconds(3_600))
        }
        try await harness.client.connect()
        harness.service.state.withLock { $0.answers = [.fail(ClientError(.connectFailed, message: "no route"))] }
        let states = harness.client.states
        let gone = try #require(AddressChange(from: ["192.0.2.77"], to: []))
        try await harness.client.run { $0.addressesChanged(gone) }
        for await state in states { if case .waiting = state { break } }
        let new = try #require(AddressChange(from: [], to: ["192.0.2.78"]))
        try await harness.client.run { $0.addressesChanged(new) }
        _ = await harness.state { $0.isConnected }
        #expect(hosts(harness) == ["best", "best", "best"])
        #expect(control.asked == 1)
        // Of an app that connects anew the client may have been away for long.
        await harness.client.disconnect()
        try await harness.client.connect()
        #expect(control.asked == 2)
        await harness.client.disconnect()
    }

    @Test("with no answer at all the client waits, says why, and goes on to ask")
    func nothing() async throws {
        let control = FakeControl { _, _ in .failure }
        let harness = try harness(control)
        try await harness.client.start()
        let state = await harness.state { if case .waiting = $0 { true } else { false } }
        guard case .waiting(_, let cause) = state else { return #expect(Bool(false), "it never waits") }
        #expect(cause.code == .controlUnavailable)
        control.answer { _, _ in FakeControl.points(["best"]) }
        try await harness.client.connect()
        #expect(hosts(harness) == ["best"])
        #expect(await harness.client.statistics.failedAttempts >= 1)
        await harness.client.disconnect()
    }

    @Test("the app's own access points are the last resort: without an answer, and behind those of an answer")
    func lastResort() async throws {
        let own = AccessPoint(host: "own", port: 9)
        let control = FakeControl { _, _ in .failure }
        let harness = try harness(control, fixed: [own])
        try await harness.client.connect()
        #expect(hosts(harness) == ["own"])
        #expect(await harness.client.statistics.accessSource == .fixed)
        await harness.client.disconnect()

        control.answer { _, _ in FakeControl.points(["a", "b"]) }
        let other = try self.harness(control, fixed: [own])
        let dead = FakeService.Answer.fail(ClientError(.connectFailed, message: "dead"))
        other.service.state.withLock { $0.answers = [dead, dead] }
        try await other.client.connect()
        #expect(hosts(other) == ["a", "b", "own"])
        await other.client.disconnect()
    }

    @Test("a control layer that wants to be left alone is, also when the network comes back meanwhile")
    func retryAfter() async throws {
        let control = FakeControl { _, _ in .reply(ControlReply(status: 503, retryAfter: "1000")) }
        let harness = try harness(control)
        try await harness.client.start()
        let state = await harness.state { if case .waiting = $0 { true } else { false } }
        guard case .waiting(let delay, let cause) = state else { return #expect(Bool(false), "it never waits") }
        #expect(delay >= .seconds(1_000) && cause.retryAfter == .seconds(1_000))
        try await harness.client.run { driver in driver.connectNow() }
        try await harness.settle()
        #expect(control.asked == 2, "once by each way")
        await harness.client.disconnect()
    }

    @Test("a refused token is worth one other; when that is refused too, it is as when the service refuses it")
    func refusedToken() async throws {
        let control = FakeControl { _, token in
            token == "token-1" ? .reply(ControlReply(status: 401)) : FakeControl.points(["best"])
        }
        let harness = try harness(control)
        try await harness.client.connect()
        #expect(harness.tokens.count == 2)
        #expect(harness.service.state.withLock { $0.connects.map(\.credential) } == [.token("token-2")])
        await harness.client.disconnect()

        control.answer { _, _ in .reply(ControlReply(status: 401)) }
        let other = try self.harness(control) { $0.stopsOnRefusedToken = true }
        let error = await #expect(throws: ClientError.self) { try await other.client.connect() }
        #expect(error?.code == .stopped && error?.closeCode == .credentialInvalid)
        #expect(other.tokens.count == 2 && hosts(other).isEmpty)
    }

    @Test(
        "where one control layer refuses the token and no other one answers, another token is tried, and nothing is decided"
    )
    func refusedByOne() async throws {
        let control = FakeControl { way, token in
            if way.control.url != Self.control.url { return .failure }
            return token == "token-1" ? .reply(ControlReply(status: 401)) : FakeControl.points(["best"])
        }
        let services = [Self.control, ControlService(url: "https://other.example")]
        let harness = try harness(control) { $0.control = services }
        try await harness.client.connect()
        #expect(harness.tokens.count == 2)
        await harness.client.disconnect()

        control.answer { way, _ in
            way.control.url == Self.control.url ? .reply(ControlReply(status: 401)) : .failure
        }
        let other = try self.harness(control) {
            $0.control = services
            $0.stopsOnRefusedToken = true
        }
        try await other.client.start()
        _ = await other.state { if case .waiting = $0 { true } else { false } }
        #expect(other.tokens.count == 2)
        await other.client.disconnect()
    }

    @Test("a node that shuts down: the control layer is asked anew before its lifetime is over, and its answer counts")
    func drained() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["a", "b"]) }
        let harness = try harness(control)
        try await harness.client.connect()
        control.answer { _, _ in FakeControl.points(["c", "a"]) }
        await harness.lose { $0.send(.close(Close(code: .shuttingDown))) }
        try await harness.client.connect()
        #expect(hosts(harness) == ["a", "c"] && control.asked == 2)
        await harness.client.disconnect()
    }

    @Test("with a token of another user the client goes nowhere, not even where the control layer sends that one")
    func anotherUser() async throws {
        let user = Mutex("ann")
        var configuration = LonglineClient.Configuration(control: [Self.control]) {
            Self.token(user.withLock { $0 })
        }
        configuration.watchesNetwork = false
        configuration.logger.logLevel = .critical
        let control = FakeControl { _, token in FakeControl.points([token == Self.token("ann") ? "anns" : "bobs"]) }
        let harness = try ClientHarness(control: control) { $0 = configuration }
        try await harness.client.connect()
        user.withLock { $0 = "bob" }
        harness.service.state.withLock { $0.answers = [.close(Close(code: .ticketRejected))] }
        await harness.lose()
        let error = await #expect(throws: ClientError.self) { try await harness.client.connect() }
        #expect(error?.code == .otherUser)
        #expect(hosts(harness) == ["anns", "anns"], "the second time with the ticket")
        await harness.client.disconnect()
    }

    @Test("back-off and heartbeat are the service's, unless the app set its own")
    func applied() async throws {
        let more = #"""
            ,"heartbeat":{"initial":33000,"answer_timeout":4000,"minimum":5000,"idle_timeout":600000},
            "back_off":{"base":7,"maximum":70,"reset_after":700}
            """#
        let control = FakeControl { _, _ in FakeControl.points(["best"], more: more) }
        for own in [false, true] {
            var configuration = LonglineClient.Configuration(control: [Self.control]) { "token" }
            configuration.watchesNetwork = false
            configuration.logger.logLevel = .critical
            if own {
                configuration.backOff = BackOffPolicy(base: .milliseconds(1), maximum: .milliseconds(2))
                configuration.heartbeat = HeartbeatPolicy(interval: .seconds(11))
            }
            let harness = try ClientHarness(control: control) { $0 = configuration }
            try await harness.client.connect()
            let used: (BackOffPolicy, HeartbeatPolicy) = try await withCheckedThrowingContinuation { done in
                Task {
                    try await harness.client.run {
                        done.resume(returning: ($0.plan.policy, $0.session.heartbeatPolicy))
                    }
                }
            }
            #expect(used.0.base == .milliseconds(own ? 1 : 7) && used.0.maximum == .milliseconds(own ? 2 : 70))
            #expect(used.1.search?.start == (own ? nil : .seconds(33)))
            #expect(used.1.interval == .seconds(own ? 11 : 33))
            #expect(used.1.answerTimeout == .seconds(own ? 5 : 4))
            await harness.client.disconnect()
        }
    }

    @Test(
        "where connections can't move, a change of network opens another one at once, with what the last left",
        arguments: [true, false])
    func migrationSafe(isSafe: Bool) async throws {
        let control = FakeControl { _, _ in FakeControl.points(["best"], lifetime: 0, safe: isSafe) }
        let harness = try harness(control)
        try await harness.client.connect()
        if isSafe {
            try await harness.client.rebind()
        } else {
            let error = await #expect(throws: ClientError.self) { try await harness.client.rebind() }
            #expect(error?.code == .migrationFailed)
            // It may be over before anybody asks for the state.
            let states = harness.client.states
            try await harness.client.run { driver in
                AddressChange(from: ["192.0.2.77"], to: ["192.0.2.78"]).map { driver.addressesChanged($0) }
            }
            for await state in states { if case .connecting = state { break } }
            try await harness.client.connect()
        }
        let state = harness.service.state.withLock { $0 }
        #expect(state.migrations == (isSafe ? 1 : 0))
        #expect(state.requests.map(\.earlyData) == (isSafe ? [false] : [false, true]))
        #expect(control.asked == 1, "to come back by another path needs no fresh answer")
        await harness.client.disconnect()
    }

    @Test("a logout leaves nothing of the answer")
    func logout() async throws {
        let storage = InMemoryClientStorage()
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        let harness = try harness(control, storage: storage)
        try await harness.client.connect()
        try await harness.settle()
        #expect(await storage.load().access?.control == "https://rt.example")
        #expect(await storage.load().controlRoutes == [StoredControlRoute(url: "https://rt.example", http3Port: 443)])
        try await harness.client.logout()
        #expect(await storage.load() == StoredClientState())
    }

    @Test("a disconnect takes the question back")
    func takenBack() async throws {
        let control = FakeControl { _, _ in .silence }
        let harness = try harness(control)
        try await harness.client.start()
        _ = await harness.state { if case .locating = $0 { true } else { false } }
        while control.asked == 0 { await Task.yield() }
        await harness.client.disconnect()
        while control.state.withLock({ $0.cancelled.count < $0.asked.count }) { await Task.yield() }
        guard case .disconnected = harness.client.state else {
            Issue.record("the state is \(harness.client.state)")
            return
        }
    }
}
