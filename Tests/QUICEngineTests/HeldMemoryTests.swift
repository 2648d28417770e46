import LonglineTestKit
import Testing

@testable import QUICEngine

/// What a peer makes us hold by sending things out of order, or such that nobody asked for.
@Suite struct HeldMemoryTests {
    @Test("data behind a gap counts among what the connections of an endpoint hold")
    func dataBehindAGapCounts() throws {
        let limit = 2_500_000
        let world = try EngineWorld(maxBufferedBytes: limit)
        let packets = CraftedPackets(of: world.client)
        var clients: [QUICEngineConnection] = []
        for number in 1...3 {
            let (client, server) = try world.connected()
            clients.append(client)
            #expect(world.server.bufferedBytes < number * 1_000_000)
            // Less than the connection's window of 1 MiB: 4 bytes for each KiB that it costs.
            try packets.send((0..<4).flatMap { Frames.sparse(4 * $0, pieces: 31) }, on: client)
            world.simulation.run(for: .seconds(1))
            #expect(packets.isSent && server.closeReason == nil)
            #expect(world.server.bufferedBytes > number * 900_000)
        }
        let refused = try world.connect()
        world.simulation.run(for: .seconds(2))
        #expect(world.clientSide.closed[refused.handle] != nil)
        #expect(world.server.counters.connectionsRefusedForMemory > 0)
        // It goes with the connections.
        for client in clients { client.close(code: 0, reason: "", now: world.network.now) }
        world.simulation.run(for: .seconds(2))
        #expect(world.server.bufferedBytes == 0)
        _ = try world.connected()
    }

    @Test("a connection that has large windows may fill them out of order")
    func aConnectionThatHasLargeWindowsMayFillThem() throws {
        let world = try EngineWorld { server, _ in
            server.transport.maxBidirectionalStreams = 1000
            server.transport.connectionWindow = 1 << 30
            server.transport.streamWindow = 1 << 30
        }
        let packets = CraftedPackets(of: world.client)
        let (client, server) = try world.connected()
        for stream in 0..<100 as Range<UInt64> {
            try packets.send(Frames.sparse(4 * stream, pieces: 100), on: client)
            world.simulation.run(for: .milliseconds(50)) { packets.isSent }
        }
        world.simulation.run(for: .seconds(1))
        #expect(server.closeReason == nil)
        #expect(world.server.bufferedBytes > 100 * 100 << 13)
    }

    @Test("address tokens beyond reason are told to nobody, and of many at once only the last")
    func addressTokensBeyondReason() throws {
        let world = try EngineWorld()
        let packets = CraftedPackets(of: world.server)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        let before = world.clientSide.tokens.count
        func flood(_ number: UInt8) throws {
            try packets.send((0..<250).flatMap { Frames.newToken([number, UInt8($0)]) }, on: server)
            world.simulation.run(for: .milliseconds(200)) { packets.isSent }
            world.simulation.run(for: .milliseconds(20))
        }
        try flood(1)
        #expect(world.clientSide.tokens.count == before + 1)
        #expect(world.clientSide.tokens.last?.suffix(2) == [1, 249])
        for number in 2...40 as ClosedRange<UInt8> { try flood(number) }
        #expect(world.clientSide.tokens.count <= 16)
        #expect(client.closeReason == nil)
    }
}
