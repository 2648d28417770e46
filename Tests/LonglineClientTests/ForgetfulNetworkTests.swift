import LonglineServer
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// The whole client behind a relay that forgets who was silent, as NATs and firewalls do. The relay decides by its own clock: a
/// busy machine makes silences longer than asked for, and the client finds out later.
@Suite("Behind a network that forgets", .serialized, .timeLimit(.minutes(3)))
struct ForgetfulNetworkTests {
    private static let timeout = TimeAmount.milliseconds(3_000)

    @Test(
        "the heartbeat learns four fifths of the timeout in one session, whether the old port is heard again or not")
    func learns() async throws {
        // Side by side: most of it is waiting.
        async let shut: Void = learn(shutsPorts: true)
        async let open: Void = learn(shutsPorts: false)
        _ = try await (shut, open)
    }

    private func learn(shutsPorts: Bool) async throws {
        let service = try await LiveService { $0.minimumHeartbeat = .milliseconds(50) }
        let server = try SocketAddress(ipAddress: "127.0.0.1", port: service.port)
        let relay = try await Relay.open(
            to: server, forgetting: Relay.Forgetting(timeout: Self.timeout, shutsPorts: shutsPorts))
        let alice = try service.client("alice") { configuration in
            configuration.accessPoints = [AccessPoint(host: "127.0.0.1", port: relay.port)]
            var search = HeartbeatSearch()
            // What arrives within a second belongs together: only a longer silence says something.
            search.start = .milliseconds(1_300)
            search.share = 0.95
            search.maximum = .seconds(20)
            // What a busy machine got wrong is tried again soon.
            search.beatsUntilRetry = 2
            configuration.heartbeat = .learned(search, answerTimeout: .seconds(2))
            configuration.network = "relay"
        }
        try await alice.connect()
        let session = try await alice.nextConnection().session
        var statistics = await alice.statistics
        func isThere() -> Bool {
            let learned = TimeAmount(statistics.learnedHeartbeat ?? .zero)
            // The silence after which the network forgot is found by one that it did not survive.
            return learned.nanoseconds >= Self.timeout.nanoseconds * 4 / 5 && (!shutsPorts || statistics.migrations > 0)
        }
        var forgotten = 0
        while !(isThere() && forgotten > 0) {
            try await Task.sleep(for: .milliseconds(50))
            statistics = await alice.statistics
            forgotten = try await relay.forgotten()
        }
        #expect(statistics.connects == 1 && statistics.failedAttempts == 0)
        // What the service says reaches it, in the session that began before all that.
        let bob = try service.client("bob")
        try await bob.connect()
        _ = try await bob.send("still there", to: .user("alice")).acknowledged()
        #expect(await alice.receive(1).map(\.text) == ["still there"])
        #expect(try await alice.nextConnection().session == session)
        #expect(await alice.statistics.connects == 1)
        for client in [alice, bob] { await client.disconnect() }
        await relay.close()
        await service.stop()
    }
}
