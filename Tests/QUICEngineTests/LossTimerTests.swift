import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

/// Whatever is lost, and with whatever else, a timer finds out: nobody waits for ever, and the congestion window doesn't
/// stay full.
@Suite struct LossTimerTests {
    /// Returns which were taken.
    @discardableResult
    private func offer(
        _ count: Int, of size: Int, from first: UInt64, on connection: QUICEngineConnection
    ) throws -> [UInt64] {
        try (first..<first + UInt64(count)).filter { try connection.offer(pattern(size, Int($0)), id: $0) }
    }

    @Test("datagrams that are all lost in a tunnel don't stop a connection", arguments: [true, false])
    func datagramsThatAreLostDontStopAConnection(byServer: Bool) throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let (sender, record) = byServer ? (server, world.serverSide) : (client, world.clientSide)
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        // More than a congestion window, and nothing else.
        var taken: [UInt64] = []
        for round in 0..<20 {
            taken += try offer(5, of: 1_000, from: UInt64(round * 5), on: sender)
            world.simulation.run(for: .milliseconds(50))
        }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        let stream = try sender.open()
        try sender.send(pattern(3000), on: stream, finish: true)
        let other = byServer ? world.clientSide : world.serverSide
        world.simulation.run(for: .seconds(10)) { other.finished.contains(stream) }
        #expect(other.received[stream] == pattern(3000))
        world.simulation.run(for: .seconds(5))
        let told = record.datagramsLost + record.datagramsAcknowledged
        #expect(told.sorted() == taken, "each is told of once")
        #expect(record.datagramsLost.count > 10)
    }

    @Test("a datagram that is lost with nothing behind it is reported")
    func aDatagramThatIsLostWithNothingBehindItIsReported() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        for id in 0..<5 as Range<UInt64> {
            world.network.setBlackhole(EngineWorld.clientAddress, true)
            try offer(1, of: 100, from: id, on: client)
            world.simulation.run(for: .milliseconds(5))
            world.network.setBlackhole(EngineWorld.clientAddress, false)
            world.simulation.run(for: .seconds(2))
            #expect(world.clientSide.datagramsLost == Array(0...id))
        }
        #expect(world.clientSide.datagramsAcknowledged.isEmpty)
    }

    @Test("datagrams in packets with stream data are reported, too", arguments: 1...13)
    func datagramsInPacketsWithStreamDataAreReported(seed: Int) throws {
        // The last three begin with a Retry.
        let world = try EngineWorld(seed: UInt64(seed)) { server, _ in
            if seed > 10 { server.retryThreshold = 0 }
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        var random = SeededRandom(seed: UInt64(seed))
        let stream = try client.open()
        var taken: [UInt64] = []
        for id in 0..<200 as Range<UInt64> {
            taken += try offer(1, of: 60, from: id, on: client)
            try client.send(pattern(200), on: stream)
            if random.happens(0.1) {
                world.network.setBlackhole(EngineWorld.clientAddress, random.happens(0.5))
            }
            world.simulation.run(for: .milliseconds(UInt64.random(in: 0...60, using: &random)))
        }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.simulation.run(for: .seconds(10))
        let told = world.clientSide.datagramsLost + world.clientSide.datagramsAcknowledged
        #expect(told.sorted() == taken, "seed \(seed): each is told of once")
        #expect(!world.clientSide.datagramsLost.isEmpty && !world.clientSide.datagramsAcknowledged.isEmpty)
        #expect(world.clientSide.datagramsAcknowledged.count <= world.serverSide.datagrams.count)
        #expect(!client.isClosed && !server.isClosed)
    }

    @Test("pings that are all lost in a tunnel don't stop a connection")
    func pingsThatAreLostDontStopAConnection() throws {
        let world = try EngineWorld { server, client in
            server.transport.maxIdleTimeout = .seconds(600)
            client.transport.maxIdleTimeout = .seconds(600)
        }
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        for _ in 0..<1_000 {
            client.ping(now: world.network.now)
            world.simulation.run(for: .milliseconds(100))
        }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        client.ping(now: world.network.now)
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(120)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(3000))
    }

    @Test(
        "what is lost at the limit of an address that is not validated is sent again",
        arguments: Array(stride(from: 4_000, to: 8_000, by: 250)))
    func whatIsLostAtTheLimitOfAnAddressIsSentAgain(upload: Int) throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        // The client has a new address, to which nothing gets through. The server may send three times the upload there,
        // which fills its window, and then as much more as its probes take.
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1000))
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        let stream = try server.open()
        let sender = Sender(pattern(100_000), on: stream, of: server)
        try sender.step()
        try client.send(pattern(upload), on: client.open(), finish: true)
        world.simulation.run(for: .milliseconds(30))
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        world.simulation.run(for: .seconds(2))
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.network.filter = nil
        for _ in 0..<60 where !world.clientSide.finished.contains(stream) {
            client.ping(now: world.network.now)
            try sender.step()
            world.simulation.run(for: .seconds(1))
        }
        #expect(world.clientSide.received[stream] == pattern(100_000))
    }

    /// A server that has sent many packets with what sets the timer, and a client that may open four streams, each way.
    private func worldWithPings() throws -> (
        EngineWorld, client: QUICEngineConnection, server: QUICEngineConnection, Hook
    ) {
        let world = try EngineWorld { server, _ in server.transport.maxUnidirectionalStreams = 4 }
        let hook = Hook()
        world.client.rewrite = { plaintext, header in
            guard let first = header.first, first & 0x80 == 0, plaintext.count >= 600, let frames = hook.frames else {
                return
            }
            hook.frames = nil
            for index in plaintext.indices { plaintext[index] = index < frames.count ? frames[index] : 0 }
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(4))
        for id in 0..<300 as Range<UInt64> {
            server.ping(now: world.network.now)
            _ = try server.offer([1], id: id)
            world.simulation.run(for: .milliseconds(20))
        }
        return (world, client, server, hook)
    }

    private final class Hook { var frames: [UInt8]? }

    @Test("what sets the timer says nothing to the peer") func whatSetsTheTimerSaysNothing() throws {
        let (world, client, server, _) = try worldWithPings()
        #expect(llq_conn_streams_left(client.shim, 0) == 4)
        // The limit rises with each stream that ends, and by no more.
        for _ in 0..<100 {
            try client.send([1], on: client.open(bidirectional: false), finish: true)
            server.ping(now: world.network.now)
            world.simulation.run(for: .milliseconds(100))
        }
        #expect(world.serverSide.finished.count == 100)
        #expect(llq_conn_streams_left(client.shim, 0) == 4)
    }

    @Test(
        "a peer that opens more streams than it was told is closed, whatever ngtcp2 believes",
        arguments: [(14, true), (14, false), (18, true), (18, false), (500, true), (1_000, false)])
    func aPeerThatOpensMoreStreamsThanItWasToldIsClosed(stream: UInt64, byData: Bool) throws {
        let (world, client, server, hook) = try worldWithPings()
        let id = [0x40 | UInt8(stream >> 8), UInt8(stream & 0xff)]
        hook.frames = byData ? [0x0a] + id + [1, 7] : [0x04] + id + [0, 0]
        try client.send(pattern(900), on: client.open(), finish: false)
        world.simulation.run(for: .seconds(1))
        #expect(hook.frames == nil)
        if stream < 4 * 4 + 2 {
            #expect(server.closeReason == nil)
            #expect(world.serverSide.opened == [QUICStreamID(rawValue: stream)])
        } else {
            guard case .localTransport(let code, _)? = server.closeReason else {
                Issue.record("\(String(describing: server.closeReason))")
                return
            }
            #expect(code == 0x04, "STREAM_LIMIT_ERROR")
            #expect(world.serverSide.opened.isEmpty)
        }
    }
}
