import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct PathTests {
    @Test("a client moves while data flows both ways", arguments: 1...5)
    func aClientMovesWhileDataFlowsBothWays(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed))
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.network.conditions.loss = 0.02
        let stream = try client.open()
        let bytes = pattern(150_000, seed)
        let sender = Sender(bytes, on: stream, of: client)
        world.simulation.run(for: .milliseconds(60)) {
            try? sender.step()
            return false
        }
        #expect(!world.clientSide.finished.contains(stream))
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.settle()
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        world.simulation.run(for: .seconds(60)) {
            try? sender.step()
            world.simulation.settle()
            return world.clientSide.finished.contains(stream)
        }
        #expect(world.clientSide.received[stream] == bytes, "seed \(seed): \(world.clientSide.closed)")
        #expect(client.path.local == EngineWorld.otherClientAddress)
        #expect(server.path.remote == EngineWorld.otherClientAddress)
        #expect(world.clientSide.paths.contains { $0.hasPrefix("validated 10.0.9.9") })
        #expect(world.clientSide.paths.contains { $0.hasPrefix("changed 10.0.9.9") })
    }

    @Test("a client can move many times") func aClientCanMoveManyTimes() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        for round in 0..<12 {
            world.simulation.run(for: .seconds(1))
            let to = round.isMultiple(of: 2) ? EngineWorld.otherClientAddress : EngineWorld.clientAddress
            try client.migrate(to: to, now: world.network.now)
            let stream = try client.open()
            try client.send(pattern(3000, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(3000, round))
            #expect(client.path.local == to)
        }
    }

    @Test("a NAT that rebinds is followed") func aNATThatRebindsIsFollowed() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1111)
        let rebound = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 2222)
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
        let (client, server) = try world.connected()
        #expect(server.path.remote == outside)
        let stream = try client.open()
        let bytes = pattern(120_000)
        let sender = Sender(bytes, on: stream, of: client)
        world.simulation.run(for: .milliseconds(60)) {
            try? sender.step()
            return false
        }
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: rebound)
        world.simulation.run(for: .seconds(60)) {
            try? sender.step()
            world.simulation.settle()
            return world.clientSide.finished.contains(stream)
        }
        #expect(world.clientSide.received[stream] == bytes)
        #expect(server.path.remote == rebound)
        #expect(world.serverSide.paths.contains { $0.hasPrefix("changed") && $0.contains("2222") })
    }

    @Test("a NAT that rebinds again and again is followed", arguments: [0, 3, 30, 300])
    func aNATThatRebindsAgainAndAgainIsFollowed(pause: Int) throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        for round in 0..<40 {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: UInt16(1000 + round))
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            client.ping(now: world.network.now)
            let stream = try client.open()
            try client.send(pattern(100, round), on: stream, finish: true)
            // Also where the client's spare connection IDs are used up.
            world.simulation.run(for: .seconds(2)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(100, round), "round \(round)")
            try #require(client.closeReason == nil && server.closeReason == nil, "\(world.clientSide.closed)")
            if pause > 0 { world.simulation.run(for: .milliseconds(UInt64(pause))) }
            #expect(server.path.remote == outside)
        }
        // After all that it moves itself.
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        let stream = try client.open()
        try client.send(pattern(100), on: stream, finish: true)
        world.simulation.run(for: .seconds(20)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(100), "\(world.clientSide.closed)")
        #expect(server.path.remote == EngineWorld.otherClientAddress)
    }

    @Test("an answer to PATH_CHALLENGE is padded, also one that leaves with stream data")
    func anAnswerToPathChallengeIsPadded() throws {
        let world = try EngineWorld()
        var sizes: [Int] = []
        world.client.rewrite = { plaintext, header in
            guard let first = header.first, first & 0x80 == 0, plaintext.first == 0x1b else { return }
            sizes.append(header.count + plaintext.count + 16)
        }
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        let stream = try client.open()
        // What is sent back comes with the challenge, and has the client send more at once.
        world.clientHost.onEvent = { [unowned world] connection, event in
            world.clientSide.handle(event, on: connection)
            if case .streamReadable = event { _ = try? connection.send(pattern(700), on: stream) }
        }
        for port in 1000..<1010 as Range<UInt16> {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: port)
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            try client.send(pattern(700), on: stream)
            world.simulation.run(for: .milliseconds(300))
        }
        #expect(sizes.count >= 10 && sizes.allSatisfy { $0 >= 1_200 }, "\(sizes)")
        #expect(!client.isClosed)
    }

    @Test("a client that moves while its NAT's rebinding is validated is followed", arguments: [true, false])
    func aClientThatMovesWhileItsNATsRebindingIsValidatedIsFollowed(answersReach: Bool) throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        for port in [1111, 2222] as [UInt16] {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: port)
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            client.ping(now: world.network.now)
            world.simulation.run(for: .seconds(1)) { server.path.remote == outside }
            #expect(server.path.remote == outside)
        }
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        // What the server says after its first challenges is lost for a while: what it retired stays unacknowledged.
        var answers = 0
        world.network.filter = { _, path in
            guard !answersReach, path.remote == EngineWorld.otherClientAddress else { return true }
            answers += 1
            return answers <= 2
        }
        world.simulation.run(for: .seconds(8))
        world.network.filter = nil
        let stream = try client.open()
        try client.send(pattern(100), on: stream, finish: true)
        world.simulation.run(for: .seconds(20)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(100), "\(world.clientSide.closed)")
        #expect(client.closeReason == nil && server.closeReason == nil)
    }

    @Test("a NAT that goes back to its old port is followed") func aNATThatGoesBackToItsOldPortIsFollowed() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        for port in [1111, 2222, 1111, 2222, 1111] as [UInt16] {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: port)
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            client.ping(now: world.network.now)
            let before = world.serverSide.paths.count
            // A small packet allows small probes only: once one is answered a full-sized one goes out, and path MTU
            // discovery with it.
            world.simulation.run(for: .seconds(1)) {
                world.serverSide.paths.dropFirst(before).contains { $0.hasPrefix("validated") }
            }
            #expect(server.path.remote == outside)
        }
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(3000))
    }

    @Test("a client that enters a tunnel right after a rebinding is still connected behind it")
    func aClientThatEntersATunnelRightAfterARebindingIsStillConnectedBehindIt() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        for port in [1111, 2222] as [UInt16] {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: port)
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            client.ping(now: world.network.now)
            let before = world.serverSide.paths.count
            world.simulation.run(for: .seconds(1)) {
                world.serverSide.paths.dropFirst(before).contains { $0.hasPrefix("validated") }
            }
            world.network.setBlackhole(EngineWorld.clientAddress, true)
            world.simulation.run(for: .seconds(15))
            world.network.setBlackhole(EngineWorld.clientAddress, false)
            let stream = try client.open()
            try client.send(pattern(3000), on: stream, finish: true)
            world.simulation.run(for: .seconds(10)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(3000), "\(world.serverSide.closed.values)")
            #expect(server.path.remote == outside)
        }
    }

    /// A server's connection whose client moved, and is gone for good then.
    private func lostClient() throws -> (world: EngineWorld, server: QUICEngineConnection) {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: 1111)
        world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
        client.ping(now: world.network.now)
        world.simulation.run(for: .seconds(1)) { world.serverSide.paths.contains { $0.hasPrefix("validated") } }
        world.network.setBlackhole(EngineWorld.clientAddress, true)
        return (world, server)
    }

    @Test("a client that is gone for good ends a connection without a path after the idle timeout")
    func aClientThatIsGoneEndsAConnectionWithoutAPath() throws {
        let (world, server) = try lostClient()
        world.simulation.run(for: .seconds(20))
        #expect(!server.isClosed)
        world.simulation.run(for: .seconds(15))
        #expect(server.closeReason == .idleTimeout)
        #expect(world.server.deadlines.count == 0)
    }

    /// ngtcp2 0.12 gives up the path, and the connection waits for the client then; 1.11 does by itself what is expected here.
    @Test("a client that is gone for good doesn't live on by what others send to its connection")
    func strangersKeepNoConnectionWithoutAPath() throws {
        let (world, server) = try lostClient()
        let id = try #require(server.localIDs.last)
        let garbage = [0x40] + id.bytes + [UInt8](repeating: 0, count: 30)
        let path = QUICPath(local: EngineWorld.serverAddress, remote: EngineWorld.otherClientAddress)
        for _ in 0..<8 {
            world.simulation.run(for: .seconds(5))
            garbage.withUnsafeBytes { world.server.receive($0, path: path, ecn: .notECT, now: world.network.now) }
        }
        #expect(server.closeReason == .idleTimeout)
    }

    @Test(
        "a NAT that rebinds forty times at once is followed within two seconds",
        arguments: zip([1, 20, 100, 1, 20, 100, 1, 20, 100], [0, 0, 0, 1, 1, 1, 15, 15, 15] as [UInt64]))
    func aNATThatRebindsFortyTimesAtOnceIsFollowed(delay: Int, pause: UInt64) throws {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(UInt64(delay))
        let world = try EngineWorld(conditions: conditions)
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(3))
        for storm in 0..<3 {
            var outside = EngineWorld.clientAddress
            for round in 0..<40 {
                outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: UInt16(1000 + 40 * storm + round))
                world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
                client.ping(now: world.network.now)
                world.simulation.settle()
                world.simulation.run(for: .milliseconds(pause))
            }
            let stream = try client.open()
            try client.send(pattern(3000, storm), on: stream, finish: true)
            world.simulation.run(for: .seconds(2)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.finished.contains(stream), "storm \(storm)")
            #expect(server.path.remote == outside, "storm \(storm)")
            try #require(!client.isClosed && !server.isClosed, "\(world.clientSide.closed) \(world.serverSide.closed)")
        }
        // After all that it moves itself. What waits for its turn is only this; the client goes back meanwhile.
        for _ in 0..<15 where server.path.remote != EngineWorld.otherClientAddress {
            if client.path.local != EngineWorld.otherClientAddress {
                try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
            }
            client.ping(now: world.network.now)
            world.simulation.run(for: .seconds(1))
        }
        #expect(server.path.remote == EngineWorld.otherClientAddress)
        let stream = try client.open()
        try client.send(pattern(100), on: stream, finish: true)
        world.simulation.run(for: .seconds(2)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(100), "\(world.clientSide.closed)")
    }

    @Test("a client that gives no connection ID to spare is followed through its NAT's rebindings")
    func aClientThatGivesNoConnectionIDToSpareIsFollowed() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let thrift = Thrift(of: world.client, withholds: { true })
        let (client, server) = try world.connected()
        for round in 0..<30 {
            world.simulation.run(for: .milliseconds([12_000, 1_000, 10, 0][round % 4]))
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: UInt16(1000 + round))
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            let stream = try client.open()
            try client.send(pattern(100, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(2)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == pattern(100, round), "round \(round)")
            #expect(server.path.remote == outside)
        }
        #expect(thrift.withheld >= 6)
    }

    @Test("a client without connection IDs to spare that comes back to an address it left does no harm")
    func aClientWithoutIDsThatComesBackDoesNoHarm() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        _ = Thrift(of: world.client, withholds: { true })
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        for round in 0..<24 {
            let outside = QUICSocketAddress(ipv4: (192, 0, 2, 1), port: UInt16(1000 + round % 3))
            world.network.setNAT(EngineWorld.clientAddress, appearsAs: outside)
            client.ping(now: world.network.now)
            // Until a small probe is answered a full-sized one goes out, and path MTU discovery with it.
            world.simulation.run(for: .milliseconds(60))
            if round % 5 == 4 {
                let other = client.path.local == EngineWorld.clientAddress
                try? client.migrate(
                    to: other ? EngineWorld.otherClientAddress : EngineWorld.clientAddress, now: world.network.now)
                world.simulation.run(for: .milliseconds(60))
            }
        }
        let stream = try client.open()
        try client.send(pattern(100), on: stream, finish: true)
        for _ in 0..<20 where !world.clientSide.finished.contains(stream) {
            client.ping(now: world.network.now)
            world.simulation.run(for: .seconds(1))
        }
        #expect(world.clientSide.received[stream] == pattern(100), "\(world.clientSide.closed)")
        #expect(!client.isClosed && !server.isClosed)
    }

    @Test("a packet that comes late under a retired connection ID ends nothing")
    func aPacketThatComesLateUnderARetiredConnectionIDEndsNothing() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        // A packet is held up on the old path.
        var held: [UInt8]?
        world.network.filter = { bytes, path in
            guard path.local == EngineWorld.clientAddress, held == nil else { return true }
            held = bytes
            return false
        }
        client.ping(now: world.network.now)
        world.simulation.settle()
        world.network.filter = nil
        let late = try #require(held)
        let old = late[1..<1 + world.server.layout.length].withUnsafeBytes { ConnectionID($0) }
        #expect(server.localIDs.contains(old))
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(5)) { !server.localIDs.contains(old) }
        #expect(!server.localIDs.contains(old), "the client retired its old ID")

        let oldPath = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        world.network.send(late, on: oldPath, ecn: .notECT)
        world.simulation.run(for: .milliseconds(500))
        world.network.send(late, on: oldPath, ecn: .notECT)
        world.simulation.run(for: .milliseconds(100))
        #expect(world.server.counters.statelessResetsSent == 0)
        #expect(world.server.counters.unknownConnectionIDs == 0)
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(3000))
        #expect(client.closeReason == nil && server.closeReason == nil)

        // Not for ever: a client that still uses the ID after that has lost its way.
        world.simulation.run(for: .seconds(5))
        world.network.send(late, on: oldPath, ecn: .notECT)
        world.simulation.run(for: .milliseconds(100))
        #expect(world.server.counters.statelessResetsSent == 1)
        #expect(server.retiredIDs == 0)
    }

    @Test("a peer that retires connection IDs all the time fills no table")
    func aPeerThatRetiresConnectionIDsAllTheTimeFillsNoTable() throws {
        let world = try EngineWorld()
        let (_, server) = try world.connected()
        let before = world.server.routes.count
        var random = SeededRandom(seed: 3)
        for _ in 0..<1000 {
            let id = (0..<8).map { _ in UInt8(truncatingIfNeeded: random.next()) }.withUnsafeBytes { ConnectionID($0) }
            world.server.addRoute(id, to: server)
            world.server.removeRoute(id, of: server)
        }
        #expect(world.server.routes.count == before + QUICEndpoint.maxRetiredIDs)
        world.simulation.run(for: .seconds(5))
        #expect(world.server.routes.count == before)
        #expect(server.retiredIDs == 0)
    }

    @Test("what is left of closed connections is bounded") func whatIsLeftOfClosedConnectionsIsBounded() throws {
        // So short a path that three handshakes take less than the three probe timeouts for which something is left.
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(1)
        let world = try EngineWorld(conditions: conditions)
        world.server.maxClosedConnections = 3
        for _ in 0..<6 {
            let (client, _) = try world.connected()
            client.close(code: 1, reason: "", now: world.network.now)
            world.simulation.run(for: .milliseconds(2))
        }
        #expect(world.server.connectionCount == 0)
        var left: Set<ObjectIdentifier> = []
        for route in world.server.routes.values where route.connection == nil { left.insert(ObjectIdentifier(route)) }
        #expect(left.count == 3)
        world.simulation.run(for: .seconds(10))
        #expect(world.server.routes.isEmpty)
        #expect(world.server.lingering.count == 0)
    }

    @Test("IPv6 carries a connection and lets it move") func ipv6CarriesAConnectionAndLetsItMove() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let client = try world.connect(from: EngineWorld.clientAddress6, to: EngineWorld.serverAddress6)
        world.simulation.run(for: .seconds(5)) { world.clientSide.confirmed.contains(client.handle) }
        let server = try #require(world.serverSide.connections.first)
        #expect(server.path == QUICPath(local: EngineWorld.serverAddress6, remote: EngineWorld.clientAddress6))
        world.simulation.run(for: .seconds(1))
        for (round, address) in [EngineWorld.clientAddress6, EngineWorld.otherClientAddress6].enumerated() {
            if address != client.path.local { try client.migrate(to: address, now: world.network.now) }
            let stream = try client.open()
            let bytes = pattern(50_000, round)
            try client.send(bytes, on: stream, finish: true)
            world.simulation.run(for: .seconds(10)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.received[stream] == bytes)
            #expect(client.path == QUICPath(local: address, remote: EngineWorld.serverAddress6))
            #expect(server.path.remote == address)
        }
        #expect(world.clientSide.paths.contains { $0.hasPrefix("validated") })
    }

    @Test("a move to where nothing answers fails and is reported") func aMoveToWhereNothingAnswersFailsAndIsReported()
        throws
    {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(1))
        world.network.setBlackhole(EngineWorld.otherClientAddress, true)
        try client.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        world.simulation.run(for: .seconds(25)) { world.clientSide.paths.contains { $0.hasPrefix("failed") } }
        #expect(world.clientSide.paths.contains { $0.hasPrefix("failed 10.0.9.9") })
        // And the connection goes on where it was.
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        world.simulation.run(for: .seconds(10)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.finished.contains(stream))
        #expect(client.path.local == EngineWorld.clientAddress)
    }

    @Test("moving is refused before the handshake and on a server") func movingIsRefusedBeforeTheHandshakeAndOnAServer()
        throws
    {
        let world = try EngineWorld()
        let early = try world.connect()
        #expect(throws: QUICError.self) {
            try early.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        }
        let (_, server) = try world.connected()
        #expect(throws: QUICError.self) {
            try server.migrate(to: EngineWorld.otherClientAddress, now: world.network.now)
        }
    }
}
