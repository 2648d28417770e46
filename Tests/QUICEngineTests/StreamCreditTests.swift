import LonglineTestKit
import Testing

@testable import QUICEngine

/// When a peer may open another stream in place of one that is over: once the owner has taken the last event of that and read it.
@Suite struct StreamCreditTests {
    private func fourStreams() throws -> EngineWorld {
        try EngineWorld { server, _ in
            server.transport.maxBidirectionalStreams = 4
            server.transport.maxUnidirectionalStreams = 4
        }
    }

    /// Opens as many streams as the peer allows and abandons each before it carried anything.
    private func openAndAbandon(_ client: QUICEngineConnection, bidirectional: Bool) throws -> Int {
        var count = 0
        while count < 100, let stream = try client.openStream(bidirectional: bidirectional) {
            // On the wire the latest is the first.
            if bidirectional { client.stopSending(stream, code: 1) }
            client.reset(stream, code: 1)
            count += 1
        }
        return count
    }

    @Test(
        "a peer that resets what it opens gets no others before the events of those are taken",
        arguments: [true, false])
    func aPeerIsNotAheadOfTheOwner(bidirectional: Bool) throws {
        let world = try fourStreams()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        world.serverHost.takesEvents = false
        var opened = 0
        for _ in 0..<10 {
            opened += try openAndAbandon(client, bidirectional: bidirectional)
            world.simulation.run(for: .milliseconds(500))
        }
        #expect(opened == 4)
        #expect(server.streams.isEmpty)
        #expect(world.server.waitingEventCount <= 20)
        world.serverHost.takesEvents = true
        // What is owed comes then, each time, and no more.
        for _ in 0..<5 {
            world.simulation.run(for: .seconds(1))
            #expect(try openAndAbandon(client, bidirectional: bidirectional) == 4)
        }
        #expect(server.closeReason == nil)
    }

    @Test(
        "a stream for which there is no credit yet ends the connection, whatever ngtcp2 allows",
        arguments: [true, false])
    func aPeerThatTakesCreditAhead(bidirectional: Bool) throws {
        let world = try fourStreams()
        let packets = CraftedPackets(of: world.client)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        world.serverHost.takesEvents = false
        #expect(try openAndAbandon(client, bidirectional: bidirectional) == 4)
        world.simulation.run(for: .seconds(1))
        #expect(server.closeReason == nil)
        // The fifth.
        try packets.send(Frames.stream(bidirectional ? 16 : 18, at: 0, [1]), on: client)
        world.simulation.run(for: .seconds(1))
        #expect(packets.isSent)
        guard case .localTransport(0x04, _)? = server.closeReason else {
            Issue.record("no STREAM_LIMIT_ERROR: \(String(describing: server.closeReason))")
            return
        }
    }

    @Test("a stream's credit comes with the later of its last event and the read of its end", arguments: [true, false])
    func creditComesWithTheLater(readsFirst: Bool) throws {
        let world = try fourStreams()
        world.serverSide.reads = false
        let (client, server) = try world.connected()
        world.serverHost.takesEvents = false
        var streams: [QUICStreamID] = []
        for _ in 0..<4 {
            let stream = try client.open(bidirectional: false)
            try client.send([1], on: stream, finish: true)
            streams.append(stream)
        }
        world.simulation.run(for: .seconds(1))
        let steps: [() -> Void] = [
            { for stream in streams { world.serverSide.drain(stream, of: server) } },
            { world.serverHost.takesEvents = true },
        ]
        for step in readsFirst ? steps : steps.reversed() {
            #expect(client.streamsLeft(bidirectional: false) == 0)
            step()
            world.simulation.run(for: .seconds(1))
        }
        #expect(server.streams.isEmpty)
        #expect(client.streamsLeft(bidirectional: false) == 4)
    }
}
