import LonglineTestKit
import Testing

@testable import QUICEngine

/// What one connection may cost, and how often it is acknowledged.
@Suite struct LimitTests {
    @Test("all unread streams together hold no more than the connection's window") func unreadStreamsHoldTheWindow()
        throws
    {
        let world = try EngineWorld { server, client in
            server.transport.connectionWindow = 100_000
            server.transport.streamWindow = 60_000
            client.transport.streamSendBuffer = 100_000
        }
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        for _ in 0..<10 { try client.send(pattern(80_000), on: client.open(), finish: true) }
        world.simulation.run(for: .seconds(10))
        let held = world.serverSide.opened.map { server.readableBytes($0) }
        #expect(held.reduce(0, +) == 100_000)
        #expect(held.allSatisfy { $0 <= 60_000 })
        // What is read makes room.
        world.serverSide.reads = true
        for _ in 0..<400 {
            for stream in world.serverSide.opened { world.serverSide.drain(stream, of: server) }
            world.simulation.run(for: .milliseconds(50))
        }
        #expect(world.serverSide.finished.count == 10)
    }

    @Test("what a stream's own flow control holds back is told from what waits for the connection's")
    func heldBackByPeer() throws {
        let world = try EngineWorld { server, _ in
            server.transport.connectionWindow = 16 << 10
            server.transport.streamWindow = 10_000
        }
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        let streams = [try client.open(), try client.open()]
        for stream in streams {
            try client.send(pattern(20_000), on: stream)
            world.simulation.run(for: .seconds(1))
        }
        #expect(streams.map { client.unsentBytes($0) } == [10_000, 30_000 - (16 << 10)])
        #expect(streams.map { client.isHeldBackByPeer($0) } == [true, false])
        world.serverSide.reads = true
        for _ in 0..<10 {
            for stream in streams { world.serverSide.drain(stream, of: server) }
            world.simulation.run(for: .seconds(1))
        }
        #expect(streams.map { client.isHeldBackByPeer($0) } == [false, false])
    }

    @Test("what a peer doesn't acknowledge is bounded over all streams, and all writers go on when it does")
    func unacknowledgedBytesAreBounded() throws {
        let world = try EngineWorld { _, client in
            client.transport.streamSendBuffer = 50_000
            client.transport.connectionSendBuffer = 120_000
        }
        let (client, _) = try world.connected()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        let bytes = pattern(90_000)
        var streams: [QUICStreamID] = []
        var sent: [QUICStreamID: Int] = [:]
        for _ in 0..<8 {
            let stream = try client.open(bidirectional: false)
            streams.append(stream)
            sent[stream] = try client.send(bytes, on: stream)
        }
        #expect(streams.map { sent[$0] ?? 0 } == [50_000, 50_000, 20_000, 0, 0, 0, 0, 0])
        #expect(streams.allSatisfy { client.writableBytes($0) == 0 })
        #expect(client.statistics(now: world.network.now).sendBufferBytes == 120_000)
        // A stream that is given up makes room once nothing of it is needed any more, and so does what arrives.
        client.reset(streams[0], code: 1)
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        for _ in 0..<400 {
            world.simulation.run(for: .milliseconds(20))
            for stream in streams.dropFirst() where world.clientSide.writable.contains(stream) {
                let done = sent[stream] ?? 0
                if done < bytes.count {
                    sent[stream] = done + (try client.send(Array(bytes[done...]), on: stream, finish: true))
                }
            }
            #expect(client.sendBufferBytes <= 120_000)
        }
        for stream in streams.dropFirst() { #expect(world.serverSide.received[stream] == bytes, "\(stream)") }
        #expect(client.sendBufferBytes == 0)
    }

    @Test(
        "an endpoint whose connections hold too much takes no more of them and lets none send more, until they hold less"
    )
    func anEndpointIsBoundedInAll() throws {
        let limit = 250_000
        let world = try EngineWorld(maxBufferedBytes: limit) { server, client in
            server.transport.connectionWindow = 100_000
            server.transport.streamWindow = 100_000
            client.transport.streamSendBuffer = 400_000
        }
        world.serverSide.reads = false
        var servers: [QUICEngineConnection] = []
        for _ in 0..<3 {
            let (client, server) = try world.connected()
            try client.send(pattern(300_000), on: client.open())
            world.simulation.run(for: .seconds(5))
            servers.append(server)
        }
        #expect(world.server.bufferedBytes == 300_000)
        let refused = try world.connect()
        world.simulation.run(for: .seconds(2))
        #expect(world.clientSide.closed[refused.handle] != nil)
        #expect(world.server.counters.connectionsRefusedForMemory > 0)

        // What is read makes no room for the same peer's next bytes as long as all hold too much.
        let stream = world.serverSide.opened[0]
        world.serverSide.drain(stream, of: servers[0], limit: 20_000)
        world.simulation.run(for: .seconds(5))
        #expect(world.server.bufferedBytes == 280_000)
        #expect(world.server.counters.windowsWithheld == 1)
        // Below the limit it does again, for what was read before, too.
        world.serverSide.drain(stream, of: servers[0], limit: 40_000)
        world.simulation.run(for: .seconds(5))
        #expect(world.server.bufferedBytes == 300_000)
        #expect(servers[0].readableBytes(stream) == 100_000)
        #expect(world.server.counters.windowsWithheld == 1)

        // All comes through, and nothing is held in the end.
        world.serverSide.reads = true
        for _ in 0..<400 where world.serverSide.received[stream]?.count != 900_000 {
            for server in servers { world.serverSide.drain(stream, of: server) }
            world.simulation.run(for: .milliseconds(50))
        }
        #expect(world.serverSide.received[stream]?.count == 900_000)
        #expect(world.server.bufferedBytes == 0)
        let again = try world.connected()
        #expect(again.client.handshake != nil)
    }

    @Test("an endpoint that was full is free again when its connections end, though their peers were kept waiting")
    func anEndpointThatWasFullIsFreeWhenItsConnectionsEnd() throws {
        let world = try EngineWorld(maxBufferedBytes: 250_000) { server, client in
            server.transport.connectionWindow = 100_000
            server.transport.streamWindow = 100_000
            client.transport.streamSendBuffer = 400_000
        }
        world.serverSide.reads = false
        try fill(world)
        #expect(world.server.bufferedBytes == 294_000 && world.server.counters.windowsWithheld == 3)
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        world.simulation.run(for: .seconds(120))
        #expect(world.serverSide.closed.count == 3)
        world.forget()
        #expect(world.server.bufferedBytes == 0)
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        #expect(try world.connected().client.handshake != nil)
    }

    /// Three connections whose bytes nobody reads but for a few, when all together hold too much for more.
    private func fill(_ world: EngineWorld) throws {
        var servers: [QUICEngineConnection] = []
        for _ in 0..<3 {
            let (client, server) = try world.connected()
            try client.send(pattern(300_000), on: client.open())
            world.simulation.run(for: .seconds(5))
            servers.append(server)
        }
        for (stream, server) in zip(world.serverSide.opened, servers) {
            world.serverSide.drain(stream, of: server, limit: 2_000)
        }
    }

    @Test("what a connection holds is held no more once it is gone, sent, received and datagrams")
    func whatAConnectionHoldsGoesWithIt() throws {
        let world = try EngineWorld()
        world.serverSide.reads = false
        try holdSome(in: world)
        world.simulation.run(for: .seconds(60))
        #expect(world.clientSide.closed.count == 1 && world.serverSide.closed.count == 1)
        world.forget()
        #expect(world.client.bufferedBytes == 0 && world.server.bufferedBytes == 0)
    }

    private func holdSome(in world: EngineWorld) throws {
        let (client, _) = try world.connected()
        try client.send(pattern(50_000), on: client.open())
        world.simulation.run(for: .seconds(1))
        #expect(world.server.bufferedBytes == 50_000)
        #expect(world.client.bufferedBytes == 0)
        // Datagrams count until they are taken.
        for number in 0..<5 as Range<UInt64> { #expect(try client.offer(pattern(100), id: number)) }
        world.simulation.run(for: .seconds(1))
        #expect(world.server.bufferedBytes == 50_000 && world.serverSide.datagrams.count == 5)
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        try client.send(pattern(30_000), on: client.open())
        #expect(world.client.bufferedBytes == 30_000)
    }

    /// Packets that a server sends while 400 come in, one each millisecond, over a path of 200 ms each way.
    private func acknowledgements(threshold: Int, delay: UInt64) throws -> UInt64 {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(200)
        let world = try EngineWorld(conditions: conditions) { server, _ in
            server.transport.ackThreshold = threshold
            server.transport.maxAckDelay = .milliseconds(delay)
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let before = server.statistics(now: world.network.now).packetsSent
        for number in 1...400 as ClosedRange<UInt64> {
            #expect(try client.offer([1], id: number))
            world.simulation.run(for: .milliseconds(1))
        }
        world.simulation.run(for: .seconds(5)) { world.clientSide.datagramsAcknowledged.count == 400 }
        #expect(world.clientSide.datagramsAcknowledged.count == 400)
        return server.statistics(now: world.network.now).packetsSent - before
    }

    @Test("fewer acknowledgements leave where that is asked for") func fewerAcknowledgementsLeave() throws {
        #expect(try (180...230).contains(acknowledgements(threshold: 2, delay: 25)))
        #expect(try (38...55).contains(acknowledgements(threshold: 10, delay: 25)))
    }

    @Test("no acknowledgement is held back longer than that is asked for") func noAcknowledgementIsHeldBackLonger()
        throws
    {
        #expect(try (36...55).contains(acknowledgements(threshold: 1000, delay: 10)))
        #expect(try (14...25).contains(acknowledgements(threshold: 1000, delay: 25)))
    }
}
