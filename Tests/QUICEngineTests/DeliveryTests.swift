import LonglineTestKit
import Testing

@testable import QUICEngine

/// Who asks is told when the peer has all of a stream, whatever the way in which it came.
@Suite struct DeliveryTests {
    @Test("an end that left by itself and is sent again with lost bytes is told, though the peer's side stays open")
    func anEndThatIsJoinedIsTold() throws {
        let world = try EngineWorld()
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
