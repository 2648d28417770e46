import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct PathTests {
    @Test(arguments: 1...5)
    func `a client moves while data flows both ways`(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed))
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.network.conditions.loss = 0.02
        let stream = try client.open()
        let bytes = pattern(150_000, seed)
        let sender = Sender(bytes, on: stream, of: client)
        world.simulation.run(for: .milliseconds(60)) {
            try? sender.step()
            return false
        }
        #expect(!world.clientSide.finished.contains(stream))
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.settle()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        world.simulation.run(for: .seconds(60)) {
            try? sender.step()
            world.simulation.settle()
            return world.clientSide.finished.contains(stream)
        }
        #expect(world.clientSide.received[stream] == bytes, "seed \(seed): \(world.clientSide.closed)")
        #expect(client.path.local == EngineWorld.otherClientAddress)
        #expect(server.path.remote == EngineWorld.otherClientAddress)
        #expect(world.clientSide.paths.contains { $0.hasPrefix("validated 10.0.9.9") })
        #expect(world.clientSide.paths.contains { $0.hasPrefix("changed 10.0.9.9") })
    }

    @Test func `a client can move many times`() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        for round in 0..<12 {
            world.simulation.run(for: .seconds(1))
            let to = round.isMultiple(of: 2) ? EngineWorld.otherClientAddress : EngineWorld.clientAddress
            try client.migrate(to: to, now: world.network.now)
            let stream = try client.open()
            try client.send(pattern(3000, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(3000, round))
            #expect(client.path.local == to)
        }
    }

    @Test func `a NAT that rebinds is followed`() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1111)
        let rebound = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 2222)
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
        let (client, server) = try world.connected()
        #expect(server.path.remote == outside)
        let stream = try client.open()
        let bytes = pattern(120_000)
        let sender = Sender(bytes, on: stream, of: client)
        world.simulation.run(for: .milliseconds(60)) {
            try? sender.step()
            return false
        }
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: rebound)
        world.simulation.run(for: .seconds(60)) {
            try? sender.step()
            world.simulation.settle()
            return world.clientSide.finished.contains(stream)
        }
        #expect(world.clientSide.received[stream] == bytes)
        #expect(server.path.remote == rebound)
        #expect(world.serverSide.paths.contains { $0.hasPrefix("changed") && $0.contains("2222") })
    }

    @Test func `a move to where nothing answers fails and is reported`() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        world.network.setBlackhole(EngineWorld.otherClientAddress, true)
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(25)) { world.clientSide.paths.contains { $0.hasPrefix("failed") } }
        #expect(world.clientSide.paths.contains { $0.hasPrefix("failed 10.0.9.9") })
    }

    @Test func `moving is refused before the handshake and on a server`() throws {
        let world = try EngineWorld()
        let early = try world.connect()
        #expect(throws: QUICError.self) {
            try early.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        }
        let (_, server) = try world.connected()
        #expect(throws: QUICError.self) {
            try server.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        }
    }
}
