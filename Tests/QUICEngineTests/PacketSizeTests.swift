import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// Paths that take less, under a live connection, than discovery found (RFC 8899 section 4.3).
@Suite struct PacketSizeTests {
    private struct Sides {
        let world: EngineWorld
        let client: QUICEngineConnection
        let sender: QUICEngineConnection
        let sending: PeerRecord
        let receiving: PeerRecord
        /// The largest datagram after discovery.
        let found: Int

        func seconds(_ count: UInt64, until isDone: () -> Bool = { false }) {
            world.simulation.run(for: .seconds(count), until: isDone)
        }

        /// Sends so much on a stream of its own, and waits until it is there.
        func transfer(_ count: Int, within limit: UInt64) throws -> Bool {
            let stream = try sender.open(bidirectional: false)
            try sender.send(pattern(count), on: stream, finish: true)
            seconds(limit) { receiving.finished.contains(stream) }
            return receiving.received[stream] == pattern(count)
        }
    }

    /// A connection whose discovery is done. The server keeps it alive.
    private func connected(serverSends: Bool = false, afterRetry: Bool = false) throws -> Sides {
        let world = try EngineWorld { server, client in
            if afterRetry { server.retryThreshold = 0 }
            server.transport.keepAliveInterval = .seconds(1)
            server.transport.streamSendBuffer = 4 << 20
            client.transport.streamSendBuffer = 4 << 20
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let sender = serverSends ? server : client
        let found = try #require(sender.maxDatagramSize)
        #expect(found > 1250, "discovery found more")
        return Sides(
            world: world, client: client, sender: sender, sending: serverSends ? world.serverSide : world.clientSide,
            receiving: serverSends ? world.clientSide : world.serverSide, found: found)
    }

    @Test("what is sent arrives although the path takes less than before", arguments: [true, false])
    func whatIsSentArrives(serverSends: Bool) throws {
        let sides = try connected(serverSends: serverSends)
        sides.world.network.conditions.maxDatagramSize = 1280
        #expect(try sides.transfer(100_000, within: 20))
        sides.seconds(5)
        let size = try #require(sides.sender.maxDatagramSize)
        #expect(size < 1200 && sides.sending.datagramSizes.last == size)
        // Another path begins anew.
        sides.world.network.conditions.maxDatagramSize = 1500
        try sides.client.migrate(to: EngineWorld.otherClientAddress, now: sides.world.network.now)
        sides.seconds(10)
        #expect(sides.sender.maxDatagramSize == sides.found)
    }

    @Test("the size that was found stays after a Retry") func theSizeStaysAfterARetry() throws {
        let sides = try connected(afterRetry: true)
        #expect(sides.world.server.counters.retriesSent == 1)
        #expect(llq_conn_next_packet(sides.client.shim) <= sides.client.packetsSent)
        #expect(try sides.transfer(1 << 20, within: 60))
        sides.seconds(5)
        var largest = 0
        sides.world.network.filter = { bytes, _ in
            largest = max(largest, bytes.count)
            return true
        }
        #expect(try sides.transfer(100_000, within: 20))
        #expect(largest > 1200)
        #expect(sides.sender.maxDatagramSize == sides.found)
        #expect(try sides.sender.offer(pattern(sides.found), id: 1))
        sides.seconds(2)
        #expect(sides.sending.datagramsAcknowledged == [1])
        #expect(sides.receiving.datagrams == [pattern(sides.found)])
    }

    @Test("a transfer goes on when the path takes less in its midst", arguments: [true, false])
    func aTransferGoesOn(serverSends: Bool) throws {
        let sides = try connected(serverSends: serverSends)
        let stream = try sides.sender.open(bidirectional: false)
        try sides.sender.send(pattern(3 << 20), on: stream, finish: true)
        sides.seconds(60) { (sides.receiving.received[stream]?.count ?? 0) > 1 << 20 }
        #expect(!sides.receiving.finished.contains(stream))
        sides.world.network.conditions.maxDatagramSize = 1280
        sides.seconds(60) { sides.receiving.finished.contains(stream) }
        let isWhole = sides.receiving.received[stream] == pattern(3 << 20)
        #expect(isWhole)
    }

    @Test("datagrams find out, too, and a size that failed is tried again seldom") func datagramsFindOut() throws {
        let sides = try connected()
        var large = 0
        sides.world.network.conditions.maxDatagramSize = 1280
        sides.world.network.filter = { bytes, _ in
            if bytes.count > 1280 { large += 1 }
            return true
        }
        var id = UInt64(0)
        /// Offers the largest datagrams, nothing else.
        func offer(for seconds: UInt64) throws {
            for _ in 0..<seconds * 2 {
                id += 1
                let size = try #require(sides.sender.maxDatagramSize)
                _ = try sides.sender.offer(pattern(size), id: id)
                sides.world.simulation.run(for: .milliseconds(500))
            }
        }
        try offer(for: 8)
        let small = try #require(sides.sender.maxDatagramSize)
        #expect(small < 1200)
        #expect(sides.sending.datagramsAcknowledged.last.map { $0 + 5 > id } == true)
        large = 0
        try offer(for: 1800)
        #expect((1...8).contains(large), "after 10, 20 … 320, 600 and 600 seconds")
        #expect(sides.sending.datagramsLost.count < 60)
        #expect(sides.sending.datagramsAcknowledged.last.map { $0 + 5 > id } == true)
        // The path is as it was.
        sides.world.network.conditions.maxDatagramSize = 1500
        try offer(for: 610)
        #expect(sides.sender.maxDatagramSize == sides.found)
        large = 0
        try offer(for: 20)
        #expect(large > 30)
        #expect(sides.sender.closeReason == nil)
    }

    @Test("largest datagrams that arrive don't speak for a stream's fuller packets") func datagramsProveNothing() throws
    {
        let sides = try connected()
        var largest = 0
        sides.world.network.filter = { bytes, _ in
            largest = max(largest, bytes.count)
            return true
        }
        #expect(try sides.sender.offer(pattern(sides.found), id: 0))
        sides.seconds(1)
        let fits = largest
        #expect(try sides.transfer(50_000, within: 20))
        #expect(largest > fits, "a stream's packets are larger")
        sides.world.network.conditions.maxDatagramSize = fits
        let stream = try sides.sender.open(bidirectional: false)
        try sides.sender.send(pattern(100_000), on: stream, finish: true)
        var id = UInt64(0)
        while id < 6_000, !sides.receiving.finished.contains(stream) {
            id += 1
            let size = try #require(sides.sender.maxDatagramSize)
            _ = try sides.sender.offer(pattern(size), id: id)
            sides.world.simulation.run(for: .milliseconds(10))
        }
        #expect(sides.sending.datagramsAcknowledged.count > 1)
        #expect(sides.receiving.received[stream] == pattern(100_000))
    }

    @Test("a size is given up by packets that are smaller than those it was doubted for") func smallerPacketsFindOut()
        throws
    {
        let sides = try connected()
        sides.world.network.conditions.maxDatagramSize = 1240
        #expect(try sides.transfer(100_000, within: 20))
        // From now on nothing but datagrams, each larger than what the path takes while they are allowed to be.
        for id in UInt64(1)...240 {
            let size = try #require(sides.sender.maxDatagramSize)
            _ = try sides.sender.offer(pattern(min(size, 1230)), id: id)
            sides.world.simulation.run(for: .milliseconds(500))
        }
        #expect(sides.sending.datagramsLost.count < 30)
        #expect(sides.sending.datagramsAcknowledged.count > 200)
    }

    @Test("an outage costs nobody the size that was found", arguments: [true, false])
    func anOutageCostsNobodyTheSize(serverSends: Bool) throws {
        let sides = try connected(serverSends: serverSends)
        let sizes = sides.sending.datagramSizes
        sides.world.network.setBlackhole(EngineWorld.serverAddress, true)
        let stream = try sides.sender.open(bidirectional: false)
        try sides.sender.send(pattern(1 << 20), on: stream, finish: true)
        sides.seconds(8)
        #expect(try sides.sender.offer(pattern(sides.found), id: 1))
        sides.world.network.setBlackhole(EngineWorld.serverAddress, false)
        sides.seconds(20) { sides.receiving.finished.contains(stream) }
        let isWhole = sides.receiving.received[stream] == pattern(1 << 20)
        #expect(isWhole)
        sides.seconds(2)
        #expect(sides.sending.datagramsAcknowledged == [1])
        #expect(sides.sending.datagramSizes == sizes)
        // It is used again.
        var largest = 0
        sides.world.network.filter = { bytes, _ in
            largest = max(largest, bytes.count)
            return true
        }
        #expect(try sides.transfer(50_000, within: 20))
        #expect(largest > sides.found)
    }

    @Test("loss makes no path smaller", arguments: 1...10)
    func lossMakesNoPathSmaller(seed: Int) throws {
        var conditions = NetworkConditions.rough
        conditions.loss = 0.15
        let world = try EngineWorld(seed: UInt64(seed)) { _, client in client.transport.streamSendBuffer = 4 << 20 }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.conditions = conditions
        let stream = try client.open(bidirectional: false)
        try client.send(pattern(400_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(120)) { world.serverSide.finished.contains(stream) }
        #expect(world.serverSide.finished.contains(stream))
        #expect(world.clientSide.datagramSizes == world.clientSide.datagramSizes.sorted())
    }
}
