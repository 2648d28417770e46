import CQUICShim
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

    @Test("one address can't take all that connections may hold, and loses the connection that has most")
    func oneAddressIsBounded() throws {
        let world = try EngineWorld()
        world.server.maxReadMemoryPerAddress = 2_200_000
        let packets = CraftedPackets(of: world.client)
        var clients: [QUICEngineConnection] = []
        var servers: [QUICEngineConnection] = []
        // The first two have some 950 kB, the third has less, and with it they have too much.
        for streams in [4, 4, 3] as [UInt64] {
            let (client, server) = try world.connected()
            #expect(servers.allSatisfy { $0.closeReason == nil })
            clients.append(client)
            servers.append(server)
            try packets.send((0..<streams).flatMap { Frames.sparse(4 * $0, pieces: 31) }, on: client)
            world.simulation.run(for: .seconds(1))
            #expect(packets.isSent)
        }
        #expect(world.server.counters.connectionsEndedForMemory == 1)
        #expect(servers.filter { $0.closeReason == nil }.count == 2)
        #expect(servers[2].closeReason == nil)

        // Another address has a share of its own.
        let other = try world.connect(from: EngineWorld.otherClientAddress)
        world.simulation.run(for: .seconds(2)) { world.clientSide.confirmed.contains(other.handle) }
        try packets.send((0..<4).flatMap { Frames.sparse(4 * $0, pieces: 31) }, on: other)
        world.simulation.run(for: .seconds(1))
        #expect(packets.isSent && other.closeReason == nil)
        #expect(world.server.bufferedBytes > 2_300_000)
        #expect(world.server.counters.connectionsEndedForMemory == 1)

        for client in clients + [other] { client.close(code: 0, reason: "", now: world.network.now) }
        world.simulation.run(for: .seconds(2))
        #expect(world.server.readMemoryByAddress.isEmpty && world.server.bufferedBytes == 0)
    }

    /// Connections from one address, each with some 190 kB out of order for each of its streams.
    private func holding(
        streams: [UInt64], in world: EngineWorld
    ) throws -> [(client: QUICEngineConnection, server: QUICEngineConnection)] {
        let packets = CraftedPackets(of: world.client)
        let pairs = try streams.map { count in
            let pair = try world.connected()
            try packets.send((0..<count).flatMap { Frames.sparse(4 * $0, pieces: 31) }, on: pair.client)
            world.simulation.run(for: .seconds(1))
            #expect(packets.isSent && pair.server.countedReadMemory > 100_000)
            return pair
        }
        // Their clocks stand still while nothing comes.
        world.simulation.run(for: .seconds(5))
        return pairs
    }

    /// Has them hold one byte more than those of an address may.
    private func exceedShare(_ world: EngineWorld, of server: QUICEngineConnection) {
        let held = world.server.readMemoryByAddress[server.handshakeAddressKey]?.total ?? 0
        world.server.maxReadMemoryPerAddress = held - 1
        world.server.boundReadMemory(of: server.handshakeAddressKey, now: world.network.now)
    }

    @Test("those that have most go together, so that each next packet doesn't ask again who has")
    func thoseThatHaveMostGoTogether() throws {
        let world = try EngineWorld()
        let servers = try holding(streams: [UInt64](repeating: 1, count: 10), in: world).map { $0.server }
        _ = try world.connected()
        let address = servers[0].handshakeAddressKey
        #expect(world.server.readMemoryByAddress[address]?.holders == Set(servers.map(\.handle.rawValue)))
        let largest = servers.sorted {
            ($1.countedReadMemory, $0.handle.rawValue) < ($0.countedReadMemory, $1.handle.rawValue)
        }
        let timeouts = servers.map(\.probeTimeout)
        exceedShare(world, of: servers[0])
        // Two tenths are more than an eighth, and one isn't.
        #expect(largest.prefix(2).allSatisfy { $0.closeReason != nil })
        #expect(largest.dropFirst(2).allSatisfy { $0.closeReason == nil })
        #expect(world.server.counters.connectionsEndedForMemory == 2)
        #expect(world.server.readMemoryByAddress[address]?.holders.count == 8)
        // Their closing period begins now, and not when something last came.
        for (server, timeout) in zip(servers, timeouts) where server.closeReason != nil {
            let period = 3 * (timeout?.nanoseconds ?? 0)
            #expect(server.quietAfter == world.network.now.advanced(byNanoseconds: period))
        }
    }

    @Test("a connection that is closed and still sends isn't spared at its neighbours' cost")
    func aClosedConnectionIsNotSpared() throws {
        let world = try EngineWorld()
        let pairs = try holding(streams: [3, 2], in: world)
        pairs[0].server.close(code: 7, reason: "over", now: world.network.now)
        #expect(pairs[0].server.quietAfter == nil, "its close waits")
        exceedShare(world, of: pairs[0].server)
        #expect(pairs[0].server.quietAfter != nil && pairs[1].server.closeReason == nil)
        #expect(world.server.counters.connectionsEndedForMemory == 1)
        world.simulation.run(for: .seconds(1))
        #expect(pairs[0].client.closeReason == .peerApplication(code: 7, reason: "over"))
        #expect(pairs[1].client.closeReason == nil)
    }

    private static let stopCode: UInt64 = 0x1a2b

    /// The peer sees none of the STOP_SENDING frames with ``stopCode``, as one that means harm does: an honest one would reset.
    private func hideStops(of endpoint: QUICEndpoint) {
        let code = Frames.varint(Self.stopCode)
        endpoint.rewrite = { plaintext, header in
            guard let first = header.first, first & 0x80 == 0 else { return }
            for start in plaintext.indices where plaintext[start] == 0x05 && start + 1 < plaintext.count {
                let end = start + (plaintext[start + 1] < 0x40 ? 2 : 3) + code.count
                guard end <= plaintext.count, plaintext[end - code.count..<end].elementsEqual(code) else { continue }
                // PING, so that the packet is acknowledged, and PADDING.
                plaintext[start] = 0x01
                for index in start + 1..<end { plaintext[index] = 0 }
            }
        }
    }

    @Test("data behind a gap of streams that were stopped counts, too, or isn't kept", arguments: [true, false])
    func dataBehindAGapOfStoppedStreams(bidirectional: Bool) throws {
        let world = try EngineWorld()
        let packets = CraftedPackets(of: world.client)
        hideStops(of: world.server)
        let (client, server) = try world.connected()
        let streams = try (0..<30).map { _ in try client.open(bidirectional: bidirectional) }
        for stream in streams { try client.send([1], on: stream) }
        world.simulation.run(for: .seconds(1))
        for stream in streams { server.stopSending(stream, code: Self.stopCode) }
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.stops.isEmpty && world.serverSide.opened.count == streams.count)
        // 31 pieces of 8 KiB each: together more than the connection may hold. Its window doesn't end that, as each byte is given back.
        for start in stride(from: 0, to: streams.count, by: 3) where server.closeReason == nil {
            let frames = streams[start..<start + 3].flatMap { Frames.sparse($0.rawValue, pieces: 31) }
            try packets.send(frames, on: client)
            world.simulation.run(for: .milliseconds(100))
            #expect(packets.isSent)
            if start == 0 { #expect((world.server.bufferedBytes > 600_000) == Self.keepsStoppedStreams) }
        }
        guard Self.keepsStoppedStreams else {
            #expect(server.closeReason == nil && world.server.bufferedBytes < 600_000)
            return
        }
        guard case .localTransport(code: 0, _)? = server.closeReason else {
            Issue.record("\(String(describing: server.closeReason))")
            return
        }
        #expect(world.server.counters.connectionsEndedForMemory == 1)
        #expect(world.server.bufferedBytes == 0)
    }

    /// ngtcp2 0.12 does.
    private static let keepsStoppedStreams = llq_keeps_stopped_streams() != 0

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
