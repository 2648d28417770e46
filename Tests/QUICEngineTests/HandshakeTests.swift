import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct HandshakeTests {
    @Test("client and server agree") func clientAndServerAgree() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let info = try #require(client.handshake)
        #expect(info.applicationProtocol == "test/1")
        #expect(!info.resumed)
        #expect(info.earlyData == .notAttempted)
        #expect(info.peerCertificates.count == 1)
        #expect(server.handshake?.serverName == "server.test")
        #expect(world.server.counters.handshakesCompleted == 1)
        #expect(world.server.handshakesInProgress == 0)
    }

    @Test("a stream carries bytes both ways and ends") func aStreamCarriesBytesBothWaysAndEnds() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        let stream = try client.open()
        let message = pattern(10_000)
        #expect(try client.send(message, on: stream, finish: true) == message.count)
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == message)
        world.simulation.run(for: .seconds(5)) { world.serverSide.streamsClosed.contains(stream) }
        #expect(world.clientSide.streamsClosed.contains(stream))
        #expect(client.streams.isEmpty)
        #expect(world.serverSide.connections[0].streams.isEmpty)
    }

    @Test("a close carries its code and reason") func aCloseCarriesItsCodeAndReason() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        client.close(code: 0x1234, reason: "done for today", now: world.network.now)
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.closed[client.handle] == .localApplication(code: 0x1234, reason: "done for today"))
        #expect(world.serverSide.closed[server.handle] == .peerApplication(code: 0x1234, reason: "done for today"))
        #expect(world.client.connectionCount == 0)
        #expect(world.server.connectionCount == 0)
        world.simulation.run(for: .seconds(10))
        #expect(world.client.routes.isEmpty)
        #expect(world.server.routes.isEmpty)
    }
}
