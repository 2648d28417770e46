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
        let directory = try TemporaryDirectory()
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
}
