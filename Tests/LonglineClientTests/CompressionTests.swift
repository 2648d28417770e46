import LonglineServer
import LonglineWire
import Testing

@testable import LonglineClient

/// Catch-ups between real clients and a real server over QUIC on loopback.
@Suite("Compressed catch-ups", .serialized, .timeLimit(.minutes(2)))
struct CompressionTests {
    private func catchUp(_ compression: Compression, serverCompresses: Bool = true) async throws -> ServerStatistics? {
        let service = try await LiveService { $0.compressesCatchUps = serverCompresses }
        let alice = try service.client("alice")
        let bob = try service.client("bob") { $0.compression = compression }
        try await alice.connect()
        let texts = (0..<300).map { "message \($0) of those that bob missed while he was away" }
        for text in texts.dropLast() { try await alice.send(text, to: .user("bob")) }
        _ = try await alice.send(texts[299], to: .user("bob")).acknowledged()
        try await bob.connect()
        #expect(await bob.receive(300).map(\.text) == texts)
        let statistics = await service.statistics()
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
        return statistics
    }

    @Test("what was missed comes compressed to a client that asks for it, whole and in order")
    func on() async throws {
        let statistics = try #require(try await catchUp(.on()))
        #expect(statistics.batches > 0)
        #expect(statistics.batchBytesSaved > 10_000)
        #expect(statistics.delivered >= 300)
    }

    @Test("nothing is compressed for another client, of an excepted channel, or where the server does not")
    func off() async throws {
        let inbox = ChannelID.user(try UserID("bob"))
        for (compression, serverCompresses) in [(.off, true), (.on(except: [inbox]), true), (.on(), false)]
            as [(Compression, Bool)]
        {
            #expect(try await catchUp(compression, serverCompresses: serverCompresses)?.batches == 0)
        }
    }

    @Test("as many channels are excepted as the service takes")
    func exceptions() async throws {
        let service = try await LiveService()
        let channels = Set(try (0...64).map { ChannelID.room(try RoomID("r\($0)")) })
        #expect(throws: ClientError.self) {
            try service.client("bob") { $0.compression = .on(except: channels) }
        }
        let bob = try service.client("bob") { $0.compression = .on(except: Set(channels.prefix(64))) }
        try await bob.connect()
        await bob.disconnect()
        await service.stop()
    }
}
