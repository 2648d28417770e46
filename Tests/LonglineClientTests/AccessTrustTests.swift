import Logging
import LonglineKeys
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Answers of the control layer that can't be trusted", .timeLimit(.minutes(1)))
struct AccessTrustTests {
    private static let service = ControlService(url: "https://rt.example")

    private func harness(
        _ control: FakeControl, _ keys: JSONWebKeySet, storage: any ClientStorage = InMemoryClientStorage(),
        clock: DriverClock = .system, fixed: [AccessPoint] = [], token: String = AccessSigner.token(),
        lines: RecordedLines = RecordedLines()
    ) throws -> ClientHarness {
        var configuration = LonglineClient.Configuration(
            control: [Self.service], accessPoints: fixed, storage: storage
        ) { token }
        configuration.controlKeys = keys
        configuration.backOff = BackOffPolicy(base: .milliseconds(1), maximum: .milliseconds(4))
        configuration.watchesNetwork = false
        configuration.logger = lines.logger
        return try ClientHarness(storage: storage, clock: clock, control: control) { $0 = configuration }
    }

    private func hosts(_ harness: ClientHarness) -> [String] {
        harness.service.state.withLock { $0.requests.map(\.accessPoint.host) }
    }

    @Test("a signed answer is used and kept; each question has a nonce of its own, the same over both ways")
    func good() async throws {
        let (signer, storage, clock) = (try AccessSigner(), InMemoryClientStorage(), MovedClock())
        let control = FakeControl { way, _ in way.transport == .http3 ? .failure : signer.points(["best"]) }
        let harness = try harness(control, AccessSigner.trust(signer), storage: storage, clock: clock.clock)
        try await harness.client.connect()
        try await harness.settle()
        #expect(hosts(harness) == ["best"])
        #expect(await storage.load().access?.user == (try UserID("ann")))
        #expect(await harness.client.statistics.untrustedAccessAnswers == 0)
        await harness.client.disconnect()
        clock.pass(301)
        try await harness.client.connect()
        let nonces = control.state.withLock { $0.nonces }
        #expect(nonces.count == 3 && nonces[0] == nonces[1] && nonces[1] != nonces[2])
        await harness.client.disconnect()
    }

    @Test("without keys nothing is verified, and the question has no nonce")
    func withoutKeys() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["best"]) }
        let harness = try ClientHarness(control: control) { $0.control = [Self.service] }
        try await harness.client.connect()
        #expect(control.state.withLock { $0.nonces } == [nil])
        await harness.client.disconnect()
    }

    @Test("one over HTTP/3 is passed over for HTTPS, counted, and logged without the token")
    func otherWay() async throws {
        let (signer, evil, lines) = (try AccessSigner(), try AccessSigner(), RecordedLines())
        let control = FakeControl { way, _ in
            way.transport == .http3 ? evil.points(["evil"]) : signer.points(["best"])
        }
        let harness = try harness(control, AccessSigner.trust(signer), lines: lines)
        try await harness.client.connect()
        #expect(hosts(harness) == ["best"])
        let statistics = await harness.client.statistics
        #expect(statistics.untrustedAccessAnswers == 1 && statistics.accessAnswers == 1)
        #expect(statistics.failedAccessQuestions == 0)
        let said = lines.all
        let refusals = said.filter { $0.contains("an answer of the control layer was refused") }
        #expect(refusals.count == 1 && refusals.allSatisfy { $0.hasPrefix("warning") && $0.contains("keyUnknown") })
        let secret = AccessSigner.token().split(separator: ".")[1]
        #expect(!said.contains { $0.contains(secret) || $0.contains("evil") })
        await harness.client.disconnect()
    }

    @Test("the last good answer stays, on disk and in use, whatever comes instead")
    func lastGood() async throws {
        let (signer, evil, storage, clock) = (
            try AccessSigner(), try AccessSigner(), InMemoryClientStorage(), MovedClock()
        )
        let control = FakeControl { _, _ in signer.points(["best"]) }
        let first = try harness(control, AccessSigner.trust(signer), storage: storage, clock: clock.clock)
        try await first.client.connect()
        try await first.settle()
        await first.client.disconnect()
        let kept = await storage.load().access
        #expect(kept != nil)

        let replayed = Array(kept?.answer ?? [])
        let bad: [FakeControl.Answer] = [
            evil.points(["evil"]), signer.points(["bobs"], of: ["acme", "bob", "phone"]), FakeControl.points(["bare"]),
            .reply(ControlReply(status: 200, body: replayed)),
        ]
        for answer in bad {
            clock.pass(1_000)
            control.answer { _, _ in answer }
            let harness = try harness(control, AccessSigner.trust(signer), storage: storage, clock: clock.clock)
            try await harness.client.connect()
            try await harness.settle()
            #expect(hosts(harness) == ["best"])
            let statistics = await harness.client.statistics
            #expect(statistics.untrustedAccessAnswers == 2, "once by each way")
            #expect(statistics.accessSource == .lastAnswer)
            #expect(statistics.failedAccessQuestions == 1 && statistics.accessAnswers == 0)
            #expect(await storage.load().access == kept)
            await harness.client.disconnect()
        }
    }

    @Test("without a good one the app's own access points are used, and without those it waits and says why")
    func nothing() async throws {
        let (signer, evil) = (try AccessSigner(), try AccessSigner())
        let control = FakeControl { _, _ in evil.points(["evil"]) }
        let fixed = try harness(control, AccessSigner.trust(signer), fixed: [AccessPoint(host: "own", port: 9)])
        try await fixed.client.connect()
        #expect(hosts(fixed) == ["own"])
        await fixed.client.disconnect()

        let storage = InMemoryClientStorage()
        control.answer { way, _ in way.transport == .http3 ? .failure : evil.points(["evil"]) }
        let waiting = try harness(control, AccessSigner.trust(signer), storage: storage)
        try await waiting.client.start()
        let state = await waiting.state { if case .waiting = $0 { true } else { false } }
        guard case .waiting(_, let cause) = state else { return #expect(Bool(false), "it never waits") }
        #expect(cause.code == .controlAnswerUntrusted)
        #expect(cause.cause is AuthenticationError, "the rule that it broke, not what the other way came to")
        control.answer { _, _ in signer.points(["best"]) }
        try await waiting.client.connect()
        #expect(hosts(waiting) == ["best"])
        await waiting.client.disconnect()
    }

    @Test("a token that doesn't say whose it is: nobody is asked, as no answer could be believed")
    func opaque() async throws {
        let signer = try AccessSigner()
        let control = FakeControl { _, _ in signer.points(["best"]) }
        let harness = try harness(
            control, AccessSigner.trust(signer), fixed: [AccessPoint(host: "own", port: 9)], token: "opaque")
        try await harness.client.connect()
        #expect(hosts(harness) == ["own"] && control.asked == 0)
        await harness.client.disconnect()
    }

    @Test("after an update of the app that drops a key, what that key signed is not used, and a warning says so")
    func dropped() async throws {
        let (old, new, storage, lines) = (
            try AccessSigner(), try AccessSigner(), InMemoryClientStorage(), RecordedLines()
        )
        let control = FakeControl { _, _ in old.points(["old"]) }
        let before = try harness(control, AccessSigner.trust(old), storage: storage)
        try await before.client.connect()
        try await before.settle()
        await before.client.disconnect()

        // With overlap the answer stays good.
        control.answer { _, _ in .failure }
        let between = try harness(control, AccessSigner.trust(old, new), storage: storage)
        try await between.client.connect()
        #expect(hosts(between) == ["old"] && control.asked == 1)
        await between.client.disconnect()

        control.answer { _, _ in new.points(["new"]) }
        let after = try harness(control, AccessSigner.trust(new), storage: storage, lines: lines)
        try await after.client.connect()
        #expect(hosts(after) == ["new"])
        #expect(lines.all.contains { $0.contains("last answer is not used") })
        await after.client.disconnect()
    }

    @Test("what was said for another device of the same user is forgotten when a token tells that")
    func anotherDevice() async throws {
        let (signer, storage) = (try AccessSigner(), InMemoryClientStorage())
        let control = FakeControl { _, token in
            token == AccessSigner.token()
                ? signer.points(["phones"]) : signer.points(["tablets"], of: ["acme", "ann", "tablet"])
        }
        let first = try harness(control, AccessSigner.trust(signer), storage: storage)
        try await first.client.connect()
        try await first.settle()
        await first.client.disconnect()
        // As an older version left it, which took no note of whose device it was.
        var state = await storage.load()
        (state.resumeTicket, state.device) = (nil, nil)
        let next = try harness(
            control, AccessSigner.trust(signer), storage: InMemoryClientStorage(state),
            token: AccessSigner.token(device: "tablet"))
        try await next.client.connect()
        #expect(hosts(next) == ["tablets"])
        await next.client.disconnect()
    }
}
