import LonglineServer
import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Signals between clients over a real server, in QUIC datagrams.
@Suite("Signals end to end", .serialized, .timeLimit(.minutes(2)))
struct SignalEndToEndTests {
    @Test("typing reaches the room and the other user in datagrams, and nobody hears it twice")
    func typing() async throws {
        let service = try await LiveService()
        let clients = try ["alice", "bob", "carol"].map { try service.client($0) }
        for client in clients {
            try await client.connect()
            try await client.join(RoomID("tea"))
        }
        // Every server loop knows of a join once its message comes.
        let heard = clients[1...].map(\.signals)
        _ = try await clients[0].send("here", to: .room("tea")).acknowledged()
        for client in clients[1...] {
            for await message in client.messages where message.kind == .message { break }
        }
        #expect(try await clients[0].signal(.typing, to: .room("tea"), lifetime: .seconds(6)))
        for stream in heard {
            let signal = try #require(await stream.first())
            #expect(signal.kind == .typing && signal.sender.description == "alice")
            #expect(signal.channel.description == "room/tea" && signal.lifetime <= .seconds(6))
        }
        let back = clients[0].signals
        #expect(try await clients[1].signal(.app(9), ByteBuffer(string: "psst"), to: .user("alice")))
        let answer = try #require(await back.first())
        #expect(String(buffer: answer.payload) == "psst")
        let statistics = try #require(await service.statistics())
        #expect(statistics.signalDatagrams == 3 && statistics.signalsOnLane == 0 && statistics.signalsRelayed == 2)
        for client in clients { await client.disconnect() }
        await service.stop()
    }

    @Test("with a third of the datagrams lost, some signals are lost, none is doubled, and messages all come in order")
    func loss() async throws {
        let service = try await LiveService { $0.signalsPerSecond = 10_000 }
        let chance = Mutex((random: SeededRandom(seed: 7), lost: 0))
        let relay = try await Relay.open(to: SocketAddress(ipAddress: "127.0.0.1", port: service.port)) { _, _, _ in
            chance.withLock { chance in
                guard Double.random(in: 0..<1, using: &chance.random) < 0.3 else { return .pass }
                chance.lost += 1
                return .lose
            }
        }
        let point = AccessPoint(host: "127.0.0.1", port: relay.port)
        func client(_ name: String) throws -> LonglineClient {
            try service.client(name) {
                $0.accessPoints = [point]
                $0.serverName = "localhost"
            }
        }
        let (alice, bob) = (try client("alice"), try client("bob"))
        try await alice.connect()
        try await bob.connect()
        let signals = bob.signals
        let count = 100
        let listener = Task {
            var seen: [String] = []
            for await signal in signals {
                let text = String(buffer: signal.payload)
                if text == "end" { break }
                seen.append(text)
            }
            return seen
        }
        let texts = (0..<count).map { "\($0)" }
        async let received = bob.receive(count)
        for (index, text) in texts.enumerated() {
            // Different kinds, so that none takes another's place.
            try await alice.signal(
                .app(UInt8(index)), ByteBuffer(string: text), to: .user("bob"), lifetime: .seconds(60))
            _ = try await alice.send(text, to: .user("bob")).acknowledged()
        }
        #expect(await received.map(\.text) == texts)
        // The listener ends with a signal that gets through.
        let ender = Task {
            while !Task.isCancelled {
                try await alice.signal(.app(127), ByteBuffer(string: "end"), to: .user("bob"))
                try await Task.sleep(for: .milliseconds(20))
            }
        }
        let seen = await listener.value
        ender.cancel()
        #expect(Set(seen).count == seen.count, "none came twice")
        #expect(Set(seen).isSubset(of: Set(texts)))
        #expect(seen.count > count / 10 && seen.count < count, "\(seen.count) of \(count)")
        #expect(chance.withLock(\.lost) > 0)
        for client in [alice, bob] { await client.disconnect() }
        await relay.close()
        await service.stop()
    }
}

/// Presence between clients over a real server.
@Suite("Presence end to end", .serialized, .timeLimit(.minutes(2)))
struct PresenceEndToEndTests {
    @Test("a change shows, a move and a return within the grace do not, and last seen survives the server's restart")
    func presence() async throws {
        let service = try await LiveService {
            $0.presenceGrace = .seconds(60)
            $0.presenceInterval = .milliseconds(1)
            $0.presenceDelay = .milliseconds(10)
            $0.drainSpread = .milliseconds(500)
        }
        let (alice, bob) = (try service.client("alice"), try service.client("bob"))
        let name = try UserID("alice")
        try await bob.connect()
        try await bob.watch([name])
        #expect(bob.presence(of: name)?.state == .offline && bob.presence(of: name)?.lastSeen == nil)
        var changes = bob.presenceChanges.makeAsyncIterator()
        _ = await changes.next()
        try await alice.connect()
        #expect(await changes.next()?.state == .online)
        // Another port, and another link with 0-RTT: the next that is told is the background.
        try await alice.rebind()
        await alice.disconnect()
        try await alice.connect()
        #expect(try await alice.nextConnection().earlyData)
        try await alice.setMode(.background)
        let away = try #require(await changes.next())
        #expect(away.state == .away && away.lastSeen != nil)
        await alice.disconnect()
        await service.stop()
        try await service.start()
        _ = try await bob.nextConnection()
        let gone = try #require(await changes.next())
        #expect(gone.state == .offline && gone.lastSeen == away.lastSeen)
        // Asked for again by itself.
        try await alice.setMode(.foreground)
        try await alice.connect()
        #expect(await changes.next()?.state == .online)
        try await alice.setVisibility(.nothing)
        #expect(await changes.next() == Presence(user: name, state: .offline, lastSeen: nil, isCurrent: true))
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }
}

extension AsyncStream {
    /// The next element.
    fileprivate func first() async -> Element? {
        for await element in self { return element }
        return nil
    }
}
