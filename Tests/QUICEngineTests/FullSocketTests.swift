import LonglineTestKit
import Testing

@testable import QUICEngine

/// Where a socket takes nothing for a while.
@Suite struct FullSocketTests {
    @Test("a full socket holds up its own connections and no others, and what it held leaves when there is room")
    func aFullSocketHoldsUpItsOwnConnections() throws {
        let world = try EngineWorld()
        let first = try world.connected().client
        let second = try world.connect(from: EngineWorld.otherClientAddress)
        world.simulation.run(for: .seconds(5)) { world.clientSide.confirmed.count == 2 }
        world.simulation.run(for: .seconds(1))
        var left = 0
        world.network.filter = { _, path in
            if path.local == EngineWorld.clientAddress { left += 1 }
            return true
        }
        world.client.setTakesPackets(false, at: EngineWorld.clientAddress)
        let held = try first.open()
        try first.send(pattern(1000, 1), on: held, finish: true)
        // Numbers of their own, so that the two can be told apart.
        _ = try second.open()
        let free = try second.open()
        try second.send(pattern(50_000, 2), on: free, finish: true)
        world.simulation.run(for: .seconds(2)) { world.serverSide.finished.contains(free) }
        #expect(world.serverSide.received == [free: pattern(50_000, 2)])
        #expect(left == 0)
        world.client.setTakesPackets(true, at: EngineWorld.clientAddress)
        world.simulation.run(for: .seconds(2)) { world.serverSide.finished.contains(held) }
        #expect(world.serverSide.received[held] == pattern(1000, 1))
        #expect(left > 0)
    }

    @Test("a connection behind a full socket leaves it by moving to another address")
    func aConnectionLeavesAFullSocket() throws {
        let world = try EngineWorld()
        let client = try world.connected().client
        world.simulation.run(for: .seconds(1))
        world.client.setTakesPackets(false, at: EngineWorld.clientAddress)
        let stream = try client.open()
        try client.send(pattern(50_000), on: stream, finish: true)
        world.simulation.run(for: .milliseconds(100))
        #expect(world.serverSide.received[stream] == nil)
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(5)) { world.serverSide.finished.contains(stream) }
        #expect(world.serverSide.received[stream] == pattern(50_000))
        #expect(world.clientSide.paths.contains { $0.hasPrefix("validated \(EngineWorld.otherClientAddress)") })
    }

    @Test("a connection behind a full socket keeps time, and is gone when it is over")
    func aConnectionBehindAFullSocketKeepsTime() throws {
        let world = try EngineWorld { _, client in client.transport.maxIdleTimeout = .seconds(3) }
        let client = try world.connected().client
        world.simulation.run(for: .seconds(1))
        world.client.setTakesPackets(false, at: EngineWorld.clientAddress)
        try client.send(pattern(1000), on: client.open())
        world.simulation.run(for: .seconds(10)) { world.clientSide.closed[client.handle] != nil }
        #expect(world.clientSide.closed[client.handle] == .idleTimeout)
        #expect(world.client.connectionCount == 0)
        world.client.setTakesPackets(true, at: EngineWorld.clientAddress)
        world.simulation.run(for: .seconds(1))
        _ = try world.connected()
    }
}
