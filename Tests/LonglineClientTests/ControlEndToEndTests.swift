import LonglineKeys
import LonglineTestKit
import LonglineWire
import Testing

@testable import LonglineClient

@Suite("With a real control layer", .timeLimit(.minutes(2)))
struct ControlEndToEndTests {
    @Test(
        "a client that knows only the control layer connects and exchanges messages; with the control layer gone a restarted one still does"
    )
    func whole() async throws {
        let service = try await ControlledService()
        let clock = MovedClock()
        let directory = try TemporaryFolder()
        let path = directory.file("alice.sqlite")
        let storage = try SQLiteClientStorage(path: path)
        let (alice, bob) = (
            try service.client("alice", storage: storage, clock: clock.clock),
            try service.client("bob", storage: InMemoryClientStorage())
        )
        try await alice.connect()
        try await bob.connect()
        _ = try await alice.send("hello", to: .user("bob")).acknowledged()
        #expect(await bob.receive(1).map(\.text) == ["hello"])
        var statistics = await alice.statistics
        #expect(statistics.accessAnswers == 1 && statistics.controlTransport == .https)

        // HTTP/3's port is known from the first answer, which is over by now.
        await alice.disconnect()
        clock.pass(301)
        try await alice.connect()
        statistics = await alice.statistics
        #expect(statistics.accessAnswers == 2 && statistics.controlTransport == .http3)
        #expect(statistics.failedAccessQuestions == 0)
        await alice.disconnect()
        try storage.close()

        try await service.stopControl()
        clock.pass(301)
        let kept = try SQLiteClientStorage(path: path)
        let restarted = try service.client("alice", storage: kept, clock: clock.clock) {
            $0.connectTimeout = .seconds(1)
        }
        try await restarted.connect()
        _ = try await restarted.send("again", to: .user("bob")).acknowledged()
        #expect(await bob.receive(1).map(\.text) == ["again"])
        statistics = await restarted.statistics
        #expect(statistics.accessSource == .lastAnswer && statistics.failedAccessQuestions == 1)
        await restarted.disconnect()
        try kept.close()
        await bob.disconnect()
        try await service.stop()
    }

    @Test(
        "with the service's keys its answers are believed over both ways, across a rotation for who has both keys, and not by who has others"
    )
    func verified() async throws {
        let service = try await ControlledService()
        let old = try await service.keySet()
        let clock = MovedClock()
        let directory = try TemporaryFolder()
        let storage = try SQLiteClientStorage(path: directory.file("alice.sqlite"))
        let alice = try service.client("alice", storage: storage, clock: clock.clock) { $0.controlKeys = old }
        try await alice.connect()
        #expect(await alice.statistics.controlTransport == .https)
        await alice.disconnect()
        clock.pass(301)
        try await alice.connect()
        var statistics = await alice.statistics
        #expect(statistics.controlTransport == .http3 && statistics.accessAnswers == 2)
        #expect(statistics.untrustedAccessAnswers == 0 && statistics.failedAccessQuestions == 0)
        await alice.disconnect()

        // An impostor's keys.
        let stranger = try service.client("bob", storage: InMemoryClientStorage()) {
            $0.controlKeys = JSONWebKeySet(keys: [SigningKey.generate(.edDSA).verificationKey])
        }
        try await stranger.start()
        for await state in stranger.states {
            guard case .waiting(_, let cause) = state else { continue }
            #expect(cause.code == .controlAnswerUntrusted)
            #expect((cause.cause as? AuthenticationError)?.code == .keyUnknown)
            break
        }
        await stranger.disconnect()

        try await service.rotate(keep: 1, algorithm: .es256)
        let both = try await service.keySet()
        #expect(both.keys.count == 2)
        clock.pass(301)
        // Who has the old key alone goes on by the last answer.
        try await alice.connect()
        statistics = await alice.statistics
        #expect(statistics.accessSource == .lastAnswer && statistics.untrustedAccessAnswers == 2)
        await alice.disconnect()
        let updated = try service.client("alice", storage: storage, clock: clock.clock) { $0.controlKeys = both }
        try await updated.connect()
        statistics = await updated.statistics
        #expect(statistics.accessSource == .answer && statistics.untrustedAccessAnswers == 0)
        await updated.disconnect()
        try storage.close()
        try await service.stop()
    }
}
