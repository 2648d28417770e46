import LonglineTestKit
import Testing

@testable import QUICEngine

/// Where a connection may go, and where it is told to.
@Suite struct MigrationTests {
    /// A megabyte's worth of proof that the connection works where it is.
    private func exchange(_ world: EngineWorld, _ client: QUICEngineConnection, _ salt: Int = 0) throws {
        let stream = try client.open()
        try client.send(pattern(40_000, salt), on: stream, finish: true)
        world.simulation.run(for: .seconds(30)) { world.clientSide.finished.contains(stream) }
        let isWhole = world.clientSide.received[stream] == pattern(40_000, salt)
        #expect(isWhole)
    }

    @Test("a client goes to the address its server prefers, and moves on from there")
    func aClientGoesToTheAddressItsServerPrefers() throws {
        let world = try EngineWorld { server, _ in
            server.preferredAddresses = [EngineWorld.otherServerAddress, EngineWorld.serverAddress6]
        }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2)) { client.path.remote == EngineWorld.otherServerAddress }
        #expect(client.path.remote == EngineWorld.otherServerAddress)
        #expect(world.clientSide.paths.contains { $0.hasPrefix("changed") })
        try exchange(world, client)
        #expect(server.path.local == EngineWorld.otherServerAddress)
        // The address of the handshake may go away now.
        world.simulation.run(for: .seconds(1))
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        try exchange(world, client, 1)
        #expect(
            server.path == QUICPath(local: EngineWorld.otherServerAddress, remote: EngineWorld.otherClientAddress))
        client.close(code: 1, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(10))
        #expect(world.server.routes.isEmpty)
    }

    @Test("a preferred address that doesn't answer, or isn't wanted, changes nothing", arguments: [true, false])
    func aPreferredAddressThatDoesntAnswerChangesNothing(wanted: Bool) throws {
        let world = try EngineWorld { server, client in
            server.preferredAddresses = [EngineWorld.otherServerAddress]
            client.usesPreferredAddress = wanted
        }
        if wanted { world.network.setBlackhole(EngineWorld.otherServerAddress, true) }
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        try exchange(world, client)
        world.simulation.run(for: .seconds(10))
        try exchange(world, client, 1)
        #expect(client.path.remote == EngineWorld.serverAddress)
        #expect(world.clientSide.paths.contains { $0.hasPrefix("failed") } == wanted)
    }

    @Test("a client goes to no preferred address of the other family") func noPreferredAddressOfTheOtherFamily() throws
    {
        let world = try EngineWorld { server, _ in server.preferredAddresses = [EngineWorld.otherServerAddress] }
        world.serverSide.echoes = true
        let client = try world.connect(from: EngineWorld.clientAddress6, to: EngineWorld.serverAddress6)
        world.simulation.run(for: .seconds(5)) { world.clientSide.confirmed.contains(client.handle) }
        try exchange(world, client)
        world.simulation.run(for: .seconds(10))
        #expect(client.path == QUICPath(local: EngineWorld.clientAddress6, remote: EngineWorld.serverAddress6))
        #expect(world.clientSide.paths.isEmpty)
    }

    @Test("preferred addresses need a port and one family each") func preferredAddressesAreChecked() throws {
        let world = try EngineWorld()
        for addresses in [
            [EngineWorld.serverAddress, EngineWorld.otherServerAddress],
            [QUICSocketAddress(ipv4: (10, 0, 0, 1), port: 0)],
        ] {
            world.serverConfiguration.server?.preferredAddresses = addresses
            #expect(throws: QUICError.self) { try world.restartServer() }
        }
    }

    @Test(
        "a peer that uses up connection IDs is sent away and may come again, however slowly it does",
        arguments: [2, 8] as [UInt64])
    func aPeerThatUsesUpConnectionIDsIsSentAway(secondsPerMove: UInt64) throws {
        let world = try EngineWorld()
        world.server.maxGivenIDs = 20
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        // Each move takes an ID and retires the one before.
        let addresses = [EngineWorld.otherClientAddress, EngineWorld.clientAddress]
        for move in 0..<60 where server.closeReason == nil {
            try client.migrate(to: addresses[move % 2], now: world.network.now)
            client.ping(now: world.network.now)
            world.simulation.run(for: .seconds(secondsPerMove))
        }
        guard case .localTransport(0, _)? = server.closeReason, case .peerTransport(0, _)? = client.closeReason else {
            Issue.record("\(String(describing: server.closeReason)) \(String(describing: client.closeReason))")
            return
        }
        _ = try world.connected()
    }

    @Test("a policy keeps a connection from paths it refuses") func aPolicyKeepsAConnectionFromPaths() throws {
        let world = try EngineWorld { server, _ in
            server.pathPolicy = { new, current in
                new.remote != EngineWorld.otherClientAddress && current.remote != EngineWorld.otherClientAddress
            }
        }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(20)) { world.clientSide.paths.contains { $0.hasPrefix("failed") } }
        #expect(world.clientSide.paths.contains { $0.hasPrefix("failed 10.0.9.9") })
        #expect(world.server.counters.datagramsFromRefusedPaths > 0)
        #expect(server.path.remote == EngineWorld.clientAddress)
        #expect(client.path.local == EngineWorld.clientAddress, "it went back")
        // Where the policy says nothing against it a NAT is followed.
        try exchange(world, client)
        world.network.setNAT(
            EngineWorld.clientAddress, appearsAs: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 2222))
        try exchange(world, client, 1)
        #expect(server.path.remote.port == 2222)
    }

    @Test("a server may forbid that clients move by themselves") func aServerMayForbidMoving() throws {
        let world = try EngineWorld { server, _ in server.transport.allowsActiveMigration = false }
        world.network.setNAT(
            EngineWorld.clientAddress, appearsAs: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1111))
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        let error = #expect(throws: QUICError.self) {
            try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        }
        #expect(error?.code == .migrationNotPossible)
        world.network.setNAT(
            EngineWorld.clientAddress, appearsAs: QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 2222))
        try exchange(world, client)
        #expect(server.path.remote.port == 2222)
    }

    @Test("a client that moves again before it has arrived ends up where it wanted last", arguments: 1...5)
    func aClientMovesAgainBeforeItHasArrived(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed))
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        world.network.conditions.loss = 0.1
        // There and back, and there again, within half a round trip each.
        for address in [EngineWorld.otherClientAddress, EngineWorld.clientAddress, EngineWorld.otherClientAddress] {
            try client.migrate(to: address, now: world.network.now)
            world.simulation.run(for: .milliseconds(10))
        }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        try exchange(world, client, seed)
        #expect(client.path.local == EngineWorld.otherClientAddress)
        #expect(server.path.remote == EngineWorld.otherClientAddress)
    }
}
