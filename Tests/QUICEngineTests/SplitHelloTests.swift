import LonglineTestKit
import Testing

@testable import QUICEngine

/// A first flight of which the server doesn't see the beginning first.
@Suite struct SplitHelloTests {
    /// A world whose ClientHello needs two datagrams, as one with post-quantum key shares does: a token that is none leaves
    /// little room in the first.
    private func splitWorld() throws -> EngineWorld {
        let world = try EngineWorld()
        world.clientConfiguration.addressToken = [UInt8](repeating: 1, count: 900)
        return world
    }

    private func isConfirmed(_ client: QUICEngineConnection, in world: EngineWorld, within time: QUICDuration) -> Bool {
        world.simulation.run(for: time) { world.clientSide.confirmed.contains(client.handle) }
    }

    /// Loses the client's first datagram.
    /// - Returns: where it is kept.
    private func loseFirst(of world: EngineWorld) -> () -> [UInt8]? {
        var first: [UInt8]?
        world.network.filter = { bytes, path in
            guard first == nil, path.local == EngineWorld.clientAddress else { return true }
            first = bytes
            return false
        }
        return { first }
    }

    @Test("a client whose first Initial of two is lost shows its address and goes on")
    func aClientWhoseFirstInitialIsLostGoesOn() throws {
        let world = try splitWorld()
        _ = loseFirst(of: world)
        let client = try world.connect()
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.retriesSent == 1)
        // Nothing is left of it at the server.
        #expect(world.server.connectionCount == 0 && world.server.routes.isEmpty && world.server.lingering.count == 0)
        #expect(world.server.handshakesInProgress == 0)
        #expect(isConfirmed(client, in: world, within: .milliseconds(1500)))
        #expect(world.server.counters.retriesSent == 1)
    }

    @Test("a client whose first Initial of two is overtaken goes on, and nothing is left of the attempt before")
    func aClientWhoseFirstInitialIsOvertakenGoesOn() throws {
        let world = try splitWorld()
        let first = loseFirst(of: world)
        let client = try world.connect()
        world.simulation.run(for: .milliseconds(3))
        let late = try #require(first())
        world.network.send(
            late, on: QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress), ecn: .notECT)
        #expect(isConfirmed(client, in: world, within: .milliseconds(1500)))
        #expect(world.server.counters.retriesSent == 1)
        world.simulation.run(for: .seconds(20))
        #expect(world.server.handshakesInProgress == 0)
        #expect(client.closeReason == nil)
    }

    @Test("a first datagram that begins nothing doesn't stand in the way of what its client repeats")
    func aFirstDatagramThatBeginsNothingDoesNotStandInTheWay() throws {
        let world = try EngineWorld()
        var isChanged = false
        world.client.rewrite = { plaintext, _ in
            guard !isChanged else { return }
            isChanged = true
            // PADDING, but for one PING.
            for index in plaintext.indices { plaintext[index] = index == 0 ? 1 : 0 }
        }
        let client = try world.connect()
        world.simulation.run(for: .milliseconds(15))
        #expect(world.server.counters.connectionsAccepted == 1)
        #expect(world.server.connectionCount == 0 && world.server.routes.isEmpty && world.server.lingering.count == 0)
        // The client repeats it after its first probe timeout.
        #expect(isConfirmed(client, in: world, within: .milliseconds(1500)))
    }
}
