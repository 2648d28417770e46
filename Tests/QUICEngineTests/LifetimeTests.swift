import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct LifetimeTests {
    @Test("silence ends a connection on both sides") func silenceEndsAConnectionOnBothSides() throws {
        let world = try EngineWorld { server, client in
            server.transport.maxIdleTimeout = .seconds(5)
            client.transport.maxIdleTimeout = .seconds(60)
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(20))
        #expect(world.clientSide.closed[client.handle] == .idleTimeout)
        #expect(world.serverSide.closed[server.handle] == .idleTimeout)
        #expect(throws: QUICError.self) { try client.openStream(bidirectional: true) }
        #expect(world.client.nextDeadline == nil)
        #expect(world.server.routes.isEmpty)
    }

    @Test("keep-alive holds a connection and starts after the handshake only")
    func keepAliveHoldsAConnectionAndStartsAfterTheHandshakeOnly() throws {
        let world = try EngineWorld { server, client in
            server.transport.maxIdleTimeout = .seconds(5)
            client.transport.keepAliveInterval = .seconds(2)
        }
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(60))
        #expect(!client.isClosed)
        #expect(client.packetsSent > 20)
    }

    @Test("times that are longer than any are without an end") func timesWithoutAnEnd() throws {
        for longest in [QUICDuration.seconds(.max), .milliseconds(.max), .microseconds(.max)] {
            #expect(longest == .nanoseconds(.max))
        }
        #expect(QUICDuration.seconds(18_446_744_073).nanoseconds == 18_446_744_073_000_000_000)
        let world = try EngineWorld { server, client in
            server.transport.maxIdleTimeout = .seconds(.max)
            server.transport.handshakeTimeout = .seconds(.max)
            server.transport.keepAliveInterval = .seconds(.max)
            client.transport = server.transport
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(60))
        let (fromClient, fromServer) = (client.packetsSent, server.packetsSent)
        world.simulation.run(for: .seconds(86_400))
        #expect(!client.isClosed && !server.isClosed)
        #expect(client.packetsSent == fromClient && server.packetsSent == fromServer)
        world.clientConfiguration.transport.initialRTT = .seconds(.max)
        let error = #expect(throws: QUICError.self) { try world.connect() }
        #expect(error?.code == .invalidConfiguration)
    }

    @Test("a handshake nobody answers times out") func aHandshakeNobodyAnswersTimesOut() throws {
        let world = try EngineWorld()
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        let client = try world.connect()
        world.simulation.run(for: .seconds(30))
        #expect(world.clientSide.closed[client.handle] == .handshakeTimeout)
        #expect(world.client.counters.handshakesFailed == 1)
    }

    @Test("what was written before a close still arrives") func whatWasWrittenBeforeACloseStillArrives() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        let stream = try client.open()
        try client.send(pattern(3000), on: stream, finish: true)
        client.close(code: 1, reason: "bye", now: world.network.now)
        world.simulation.run(for: .seconds(1))
        #expect(world.serverSide.received[stream] == pattern(3000))
        #expect(world.serverSide.closed[server.handle] == .peerApplication(code: 1, reason: "bye"))
    }

    @Test("a lost close is repeated when the peer goes on") func aLostCloseIsRepeatedWhenThePeerGoesOn() throws {
        let world = try EngineWorld()
        let (client, server) = try world.connected()
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        server.close(code: 9, reason: "gone", now: world.network.now)
        world.simulation.settle()
        world.network.filter = nil
        let stream = try client.open()
        try client.send([1], on: stream)
        world.simulation.run(for: .seconds(2)) { world.clientSide.closed[client.handle] != nil }
        #expect(world.clientSide.closed[client.handle] == .peerApplication(code: 9, reason: "gone"))
    }

    @Test("a close is repeated in no more than three times the bytes that came for its connection")
    func aRepeatedCloseIsBounded() throws {
        let world = try EngineWorld()
        let (_, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        let id = try #require(server.localIDs.first)
        var sent = 0
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { sent += bytes.count }
            return false
        }
        server.close(code: 9, reason: String(repeating: "x", count: 900), now: world.network.now)
        world.simulation.settle()
        let size = sent
        #expect(size > 900)
        sent = 0
        // They need not be the client's.
        let datagram = [0x40] + id.bytes + [UInt8](repeating: 0, count: 20)
        let path = QUICPath(local: EngineWorld.serverAddress, remote: EngineWorld.otherClientAddress)
        for count in 1...128 {
            datagram.withUnsafeBytes { world.server.receive($0, path: path, ecn: .notECT, now: world.network.now) }
            world.simulation.settle()
            #expect(sent <= 3 * count * datagram.count)
        }
        #expect(sent > size)
    }

    @Test("who lost a close with a long reason hears its code with the next small packet", arguments: [true, false])
    func aRepeatedCloseIsBrief(byApplication: Bool) throws {
        let world = try EngineWorld { _, client in client.transport.discoverPathMTU = false }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(1))
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        let reason = String(repeating: "x", count: 900)
        if byApplication {
            server.close(code: 9, reason: reason, now: world.network.now)
        } else {
            server.advance(to: world.network.now)
            server.endWithoutError(reason)
        }
        world.simulation.settle()
        var sent = 0
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { sent += bytes.count }
            return true
        }
        client.ping(now: world.network.now)
        world.simulation.run(for: .milliseconds(200)) { client.closeReason != nil }
        let expected: QUICCloseReason =
            byApplication ? .peerApplication(code: 9, reason: "") : .peerTransport(code: 0, reason: "")
        #expect(client.closeReason == expected)
        #expect(sent > 0 && sent < 200)
    }

    @Test("a close before the handshake's end is repeated in whole: its client may have no key for a part of it")
    func aCloseBeforeTheHandshakesEndIsNotBrief() throws {
        let world = try EngineWorld()
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        var route: ConnectionRoute?
        world.serverHost.onEvent = { [unowned world] connection, event in
            guard case .accepted = event else { return }
            route = connection.route
            connection.close(code: 9, reason: String(repeating: "x", count: 300), now: world.network.now)
        }
        _ = try world.connect()
        world.simulation.run(for: .milliseconds(100)) { route?.close != nil }
        let close = try #require(route?.close?.packet)
        // A long header, and behind its packets the one with the reason.
        #expect(close.bytes[0] & 0x80 != 0 && close.bytes.count > 300)
        #expect(close.brief.isEmpty)
    }

    @Test("a restarted server resets what it doesn't know") func aRestartedServerResetsWhatItDoesntKnow() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        try world.restartServer()
        let stream = try client.open()
        try client.send(pattern(100), on: stream)
        world.simulation.run(for: .seconds(3)) { world.clientSide.closed[client.handle] != nil }
        #expect(world.clientSide.closed[client.handle] == .statelessReset)
        #expect(world.server.counters.statelessResetsSent >= 1)
        #expect(world.client.counters.statelessResetsReceived == 1)
    }

    @Test("a reset token that another connection's peer named, too, stays when the first one's is retired")
    func aResetTokenOfAnotherConnectionStays() throws {
        let world = try EngineWorld()
        let (first, _) = try world.connected()
        let (second, _) = try world.connected()
        let token = [UInt8](repeating: 7, count: 16)
        first.learn(resetToken: token)
        second.learn(resetToken: token)
        world.client.removeResetToken(token, of: first)
        #expect(world.client.resetTokenOwners[token] === second)
        world.client.removeResetToken(token, of: second)
        #expect(world.client.resetTokenOwners[token] == nil)
    }

    @Test("stateless resets are limited and never larger than what they answer")
    func statelessResetsAreLimitedAndNeverLargerThanWhatTheyAnswer() throws {
        let world = try EngineWorld()
        var sizes: [Int] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { sizes.append(bytes.count) }
            return true
        }
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        for index in 0..<500 {
            world.network.send([0x40] + pattern(29, index), on: path, ecn: .notECT)
        }
        world.simulation.run(for: .milliseconds(500))
        #expect(world.server.counters.unknownConnectionIDs == 500)
        #expect(sizes.count <= 200 && !sizes.isEmpty)
        #expect(sizes.allSatisfy { $0 < 30 })
    }

    @Test("garbage costs a counter") func garbageCostsACounter() throws {
        let world = try EngineWorld()
        let (client, _) = try world.connected()
        var random = SeededRandom(seed: 4)
        let path = QUICPath(local: EngineWorld.otherClientAddress, remote: EngineWorld.serverAddress)
        for _ in 0..<2000 {
            let count = Int(random.next() % 1400)
            world.network.send(
                (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }, on: path, ecn: .notECT)
        }
        world.network.send([], on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        let counters = world.server.counters
        #expect(counters.garbageDatagrams + counters.unknownConnectionIDs + counters.versionNegotiationsSent >= 1990)
        #expect(world.server.connectionCount == 1)
        #expect(!client.isClosed)
    }

    @Test("only authenticated packets count as the peer's") func onlyAuthenticatedPacketsCountAsThePeers() throws {
        let world = try EngineWorld()
        var fromServer: [UInt8] = []
        var fromClient: [UInt8] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { fromServer = bytes } else { fromClient = bytes }
            return true
        }
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(5))
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        let before = (
            client: client.statistics(now: world.network.now), server: server.statistics(now: world.network.now)
        )
        #expect(before.client.packetsReceived > 0 && before.server.packetsReceived > 0)
        var random = SeededRandom(seed: 9)
        var bytes = 0
        // The attacker saw a connection ID, and sends under it from the peer's address.
        for _ in 0..<100 {
            for (seen, path) in [(fromClient, path), (fromServer, QUICPath(local: path.remote, remote: path.local))] {
                let rest = (0..<40 + Int(random.next() % 1000)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
                let forged = Array(seen.prefix(1 + world.server.layout.length)) + rest
                if seen == fromClient { bytes += forged.count }
                world.network.send(forged, on: path, ecn: .notECT)
            }
        }
        world.simulation.run(for: .milliseconds(100))
        let after = (
            client: client.statistics(now: world.network.now), server: server.statistics(now: world.network.now)
        )
        #expect(after.server.datagramsReceived == before.server.datagramsReceived + 100)
        #expect(after.server.bytesReceived == before.server.bytesReceived + UInt64(bytes))
        #expect(after.client.datagramsReceived == before.client.datagramsReceived + 100)
        #expect(after.server.packetsReceived == before.server.packetsReceived)
        #expect(after.client.packetsReceived == before.client.packetsReceived)
        client.ping(now: world.network.now)
        world.simulation.run(for: .milliseconds(100))
        #expect(server.packetsReceived > after.server.packetsReceived)
        #expect(client.packetsReceived > after.client.packetsReceived)
    }

    @Test(
        "an unknown version is answered with ours, and never with itself",
        arguments: [0xbaba_baba, 0x1a2a_3a4a, 0x5a6a_7a8a] as [UInt32])
    func anUnknownVersionIsAnsweredWithOurs(version: UInt32) throws {
        let world = try EngineWorld()
        var answer: [UInt8] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { answer = bytes }
            return true
        }
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        let tried = stride(from: 24, through: 0, by: -8).map { UInt8(truncatingIfNeeded: version >> UInt32($0)) }
        let header = [0xc0] + tried + [8, 1, 2, 3, 4, 5, 6, 7, 8, 0]
        world.network.send(header + pattern(1200), on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        #expect(answer.count > 15)
        #expect(Array(answer[1..<5]) == [0, 0, 0, 0])
        #expect(Array(answer.suffix(4)) == [0, 0, 0, 1])
        // A client must ignore an answer that names the version it tried (RFC 9000 section 6.2).
        #expect(answer.suffix(from: 15).firstRange(of: tried) == nil)
        #expect(world.server.counters.versionNegotiationsSent == 1)
    }

    @Test("IPv6 hosts of one network count as one") func ipv6HostsOfOneNetworkCountAsOne() throws {
        let world = try EngineWorld { server, _ in server.maxHandshakesPerAddress = 2 }
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress6 }
        for address in [EngineWorld.clientAddress6, EngineWorld.otherClientAddress6] {
            for _ in 0..<2 { _ = try world.connect(from: address, to: EngineWorld.serverAddress6) }
        }
        world.simulation.run(for: .milliseconds(50))
        #expect(world.server.handshakesInProgress == 2)
        #expect(world.server.counters.retriesSent == 2)
        let elsewhere = try #require(
            QUICSocketAddress(ipv6: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 8), port: 7))
        _ = try world.connect(from: elsewhere, to: EngineWorld.serverAddress6)
        world.simulation.run(for: .milliseconds(50))
        #expect(world.server.handshakesInProgress == 3)
    }

    @Test("half-open handshakes are limited per address and in all")
    func halfOpenHandshakesAreLimitedPerAddressAndInAll() throws {
        let world = try EngineWorld { server, _ in
            server.maxHandshakesPerAddress = 3
            server.maxHandshakes = 5
        }
        // Clients that never answer.
        world.network.filter = { _, path in path.local != EngineWorld.serverAddress }
        for _ in 0..<10 { _ = try world.connect() }
        world.simulation.run(for: .milliseconds(50))
        #expect(world.server.handshakesInProgress == 3)
        #expect(world.server.counters.retriesSent == 7)
        for _ in 0..<10 { _ = try world.connect(from: EngineWorld.otherClientAddress) }
        world.simulation.run(for: .milliseconds(50))
        #expect(world.server.handshakesInProgress == 5)
        #expect(world.server.counters.connectionsRefused > 0)
        world.simulation.run(for: .seconds(60))
        #expect(world.server.handshakesInProgress == 0)
        #expect(world.server.connectionCount == 0)
    }

    @Test("a host that owns its address can't shut others out with half-open handshakes")
    func aHostThatOwnsItsAddressShutsNobodyOut() throws {
        let world = try EngineWorld { server, _ in
            server.maxHandshakesPerAddress = 3
            server.maxHandshakes = 20
            server.maxValidatedHandshakesPerAddress = 8
        }
        // One client answers Retries and reads nothing else.
        world.network.filter = { bytes, path in
            path.remote != EngineWorld.clientAddress || bytes[0] & 0xf0 == 0xf0
        }
        for _ in 0..<40 { _ = try world.connect() }
        world.simulation.run(for: .milliseconds(200))
        #expect(world.server.counters.retriesSent >= 5)
        #expect(world.server.handshakesInProgress == 8)
        #expect(world.server.counters.connectionsRefused > 0)
        let other = try world.connect(from: EngineWorld.otherClientAddress)
        world.simulation.run(for: .seconds(2)) { other.handshake != nil }
        #expect(other.handshake != nil)
    }

    @Test("connections are limited per address, and room comes back") func connectionsAreLimitedPerAddress() throws {
        let world = try EngineWorld { server, _ in server.maxConnectionsPerAddress = 2 }
        let (first, _) = try world.connected()
        _ = try world.connected()
        let refused = try world.connect()
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.closed[refused.handle] == .peerTransport(code: 2, reason: ""))
        #expect(world.server.counters.connectionsRefused == 1)
        let elsewhere = try world.connect(from: EngineWorld.otherClientAddress)
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.confirmed.contains(elsewhere.handle))
        first.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(1))
        _ = try world.connected()
        #expect(world.server.connectionsByAddress.values.sorted() == [1, 2])
    }

    @Test("a server that is full or draining refuses at once") func aServerThatIsFullOrDrainingRefusesAtOnce() throws {
        let world = try EngineWorld()
        world.server.acceptsConnections = false
        let client = try world.connect()
        world.simulation.run(for: .seconds(1))
        #expect(world.clientSide.closed[client.handle] == .peerTransport(code: 2, reason: ""))
    }

    @Test("keep-alive doesn't go with 0-RTT into a network that doesn't answer")
    func keepAliveDoesntGoWith0RTTIntoANetworkThatDoesntAnswer() throws {
        let world = try EngineWorld(tickets: true) { $1.transport.keepAliveInterval = .milliseconds(20) }
        let (first, _) = try world.connected()
        world.simulation.run(for: .seconds(1)) { !world.clientSide.tickets.isEmpty }
        first.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(2))
        world.clientConfiguration.sessionTicket = world.clientSide.tickets.last
        world.network.setBlackhole(EngineWorld.serverAddress, true)
        let connection = try world.connect()
        #expect(world.clientSide.earlyPossible == 0)
        try connection.send(pattern(100), on: try connection.open())
        world.simulation.run(for: .seconds(2))
        #expect(world.clientSide.earlyPossible == 1)
        // The first flight and its probes.
        #expect((1...12).contains(connection.packetsSent), "\(connection.packetsSent)")
    }

    @Test("every datagram with an Initial is padded") func everyDatagramWithAnInitialIsPadded() throws {
        let world = try EngineWorld(tickets: true)
        let (first, _) = try world.connected()
        world.simulation.run(for: .seconds(1)) { !world.clientSide.tickets.isEmpty }
        first.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(2))
        world.clientConfiguration.sessionTicket = world.clientSide.tickets.last
        var small: [Int] = []
        world.network.filter = { bytes, _ in
            if bytes[0] & 0xf0 == 0xc0, bytes.count < 1200 { small.append(bytes.count) }
            return true
        }
        for size in [1, 100, 1000, 3000] {
            let connection = try world.connect()
            let stream = try connection.open()
            try connection.send(pattern(size), on: stream, finish: true)
            world.simulation.run(for: .seconds(2)) { world.serverSide.finished.contains(stream) }
            connection.close(code: 0, reason: "", now: world.network.now)
            world.simulation.run(for: .seconds(2))
        }
        #expect(small.isEmpty)
    }

    @Test("connection IDs carry server and worker") func connectionIDsCarryServerAndWorker() throws {
        var configuration = EndpointConfiguration()
        configuration.serverID = [0xaa, 0xbb]
        configuration.workerID = 5
        let endpoint = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 1))
        let connection = try endpoint.connect(
            to: EngineWorld.serverAddress, from: EngineWorld.clientAddress,
            configuration: ClientConfiguration(
                serverName: "x", applicationProtocols: ["t"], verification: .insecureNoVerification),
            now: QUICInstant(nanoseconds: 1_000_000_000))
        let id = try #require(connection.localIDs.first).bytes
        #expect(id.count == 12)
        #expect(Array(id.prefix(3)) == [5, 0xaa, 0xbb])
        configuration.serverID = [UInt8](repeating: 0, count: 9)
        #expect(throws: QUICError.self) {
            try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 1))
        }
    }
}
