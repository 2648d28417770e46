import LonglineTestKit
import Testing

@testable import QUICEngine

/// Who asks is told when the peer has all of a stream, whatever the way in which it came.
@Suite struct DeliveryTests {
    @Test(
        "an end that left by itself and is sent again with lost bytes is told, though the peer's side stays open",
        arguments: [false, true])
    func anEndThatIsJoinedIsTold(afterRetry: Bool) throws {
        let world = try EngineWorld { server, _ in
            if afterRetry { server.retryThreshold = 0 }
        }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let stream = try client.open()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        try client.send(pattern(500), on: stream)
        world.simulation.run(for: .milliseconds(1))
        try client.send([], on: stream, finish: true)
        #expect(try !client.notifyDelivery(of: stream))
        world.simulation.run(for: .milliseconds(1))
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        world.simulation.run(for: .seconds(10)) { !world.clientSide.delivered.isEmpty }
        #expect(world.clientSide.delivered == [stream])
        #expect(world.serverSide.finished == [stream])
        #expect(try client.notifyDelivery(of: stream))
    }

    @Test("a stream's end is followed in the newest two packets that have it")
    func anEndIsFollowedInTheNewestTwoPackets() {
        var ends = JoinedEnds()
        let (first, second) = (QUICStreamID(rawValue: 0), QUICStreamID(rawValue: 4))
        for packet in 0..<10_000 as Range<UInt64> { ends.append(first, in: packet) }
        #expect(ends.count == 2)
        ends.append(second, in: 9999)
        ends.append(second, in: 10_001)
        ends.append(second, in: 10_001)
        #expect(ends.count == 4)
        #expect(ends.streams(in: 0...9997).isEmpty && ends.streams(in: 10_002...20_000).isEmpty)
        #expect(ends.streams(in: 9998...9998) == [first])
        #expect(ends.streams(in: 9999...10_000) == [first, second])
        #expect(ends.streams(in: 10_000...10_001) == [second])
        ends.remove(first)
        #expect(ends.streams(in: 0...9999) == [second] && ends.count == 2)
        ends.remove(second)
        #expect(ends.isEmpty)
    }

    @Test("a peer that acknowledges everything but the end makes us remember two packets of each stream")
    func aPeerThatAcknowledgesEverythingButTheEnd() throws {
        let world = try EngineWorld { _, client in client.transport.discoverPathMTU = false }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let streams = try (0..<2).map { _ in try client.open() }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        for stream in streams { try client.send(pattern(600), on: stream) }
        world.simulation.run(for: .milliseconds(1))
        for stream in streams { try client.send([], on: stream, finish: true) }
        world.simulation.run(for: .milliseconds(1))
        // Behind so many packets bytes and ends are lost at once, and go again together.
        for _ in 0..<4 {
            client.ping(now: world.network.now)
            world.simulation.run(for: .milliseconds(1))
        }
        world.network.setBlackhole(EngineWorld.clientAddress, false)
        // What has stream data is large.
        var dropped = 0
        world.network.filter = { bytes, path in
            guard path.local == EngineWorld.clientAddress, bytes.count > 500 else { return true }
            dropped += 1
            return false
        }
        for _ in 0..<1000 {
            for _ in 0..<4 {
                client.ping(now: world.network.now)
                world.simulation.run(for: .milliseconds(5))
            }
            #expect(client.joinedEnds.count <= 2 * streams.count)
        }
        #expect(dropped > 500)
        #expect(!client.joinedEnds.isEmpty)
        world.network.filter = nil
        world.simulation.run(for: .seconds(30)) { client.loneEnds == 0 }
        #expect(client.loneEnds == 0 && client.joinedEnds.isEmpty)
    }

    /// Streams of a few pieces, whose end goes with the last or later, while much is lost and the order changes.
    @Test("nothing is told too soon, and everything in the end", arguments: 1...30)
    func everythingIsToldInTheEnd(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed))
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(5))
        world.network.conditions.loss = 0.25
        world.network.conditions.reordering = 0.2
        world.network.conditions.jitter = .milliseconds(20)
        var random = SeededRandom(seed: UInt64(seed))
        var streams: [QUICStreamID] = []
        var told = 0
        func run(for time: QUICDuration, until done: () -> Bool = { false }) {
            world.simulation.run(for: time) {
                for stream in world.clientSide.delivered[told...] {
                    #expect(world.serverSide.finished.contains(stream), "seed \(seed): told too soon")
                }
                told = world.clientSide.delivered.count
                return done()
            }
        }
        func runAWhile() { run(for: .milliseconds(UInt64.random(in: 0...30, using: &random))) }
        for number in 0..<60 {
            let stream = try client.open(bidirectional: random.happens(0.5))
            streams.append(stream)
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                try client.send(pattern(Int.random(in: 1...4000, using: &random)), on: stream)
                runAWhile()
            }
            try client.send(
                random.happens(0.5) ? [] : pattern(Int.random(in: 1...3000, using: &random)), on: stream, finish: true)
            #expect(try !client.notifyDelivery(of: stream))
            if number % 2 == 0 { runAWhile() }
        }
        world.network.conditions.loss = 0
        run(for: .seconds(30)) { world.clientSide.delivered.count == streams.count }
        #expect(
            world.clientSide.delivered.sorted { $0.rawValue < $1.rawValue }
                == streams.sorted { $0.rawValue < $1.rawValue }, "seed \(seed)")
        #expect(client.loneEnds == 0 && client.joinedEnds.isEmpty)
    }
}
