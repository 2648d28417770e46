import CQUICShim
import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct VersionTests {
    private static let reserved = QUICVersion(rawValue: 0x5a6a_7a8a)

    @Test(
        "a version that the library lacks is refused by name",
        .disabled(if: QUICVersion.v2.isAvailable, "ngtcp2 has it"))
    func aVersionThatTheLibraryLacksIsRefusedByName() throws {
        let world = try EngineWorld()
        world.clientConfiguration.versions = [.v2, .v1]
        let error = #expect(throws: QUICError.self) { try world.connect() }
        #expect(error?.message.contains("QUIC version 2") == true)
        world.serverConfiguration.server?.versions = [.v2]
        #expect(throws: QUICError.self) { try world.restartServer() }
    }

    @Test("version 2 is spoken", .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func version2IsSpoken() throws {
        let world = try EngineWorld { server, client in
            server.versions = [.v2, .v1]
            client.versions = [.v2]
        }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        #expect(client.handshake?.version == .v2 && server.handshake?.version == .v2)
        let stream = try client.open()
        try client.send(pattern(50_000), on: stream, finish: true)
        world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(50_000))
    }

    @Test(
        "a server moves a client to the version both prefer",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func aServerMovesAClientToTheVersionBothPrefer() throws {
        let world = try EngineWorld { server, client in
            server.versions = [.v2, .v1]
            client.versions = [.v1, .v2]
        }
        let (client, server) = try world.connected()
        #expect(client.handshake?.version == .v2 && server.handshake?.version == .v2)
        #expect(world.server.counters.versionNegotiationsSent == 0)
    }

    @Test(
        "a server that speaks version 1 only gets it from a client that tried 2",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func aClientFallsBackToVersion1() throws {
        let world = try EngineWorld { _, client in client.versions = [.v2, .v1] }
        try fallBack(world, from: .v2)
    }

    @Test("a client whose version the server refuses goes on with one they share")
    func aClientGoesOnWithAVersionTheyShare() throws {
        let world = try EngineWorld { _, client in client.versions = [Self.reserved, .v1] }
        try fallBack(world, from: Self.reserved)
    }

    private func fallBack(_ world: EngineWorld, from first: QUICVersion) throws {
        let client = try world.connect()
        world.simulation.run(for: .seconds(2))
        guard case .versionNegotiation(let offered)? = world.clientSide.closed[client.handle] else {
            Issue.record("\(world.clientSide.closed)")
            return
        }
        #expect(offered.contains(.v1) && !offered.contains(first))
        #expect(world.server.counters.versionNegotiationsSent >= 1)
        let again = try #require(world.clientConfiguration.retry(offered: offered))
        world.clientConfiguration = again
        #expect(try world.connected().client.handshake?.version == .v1)
        #expect(again.retry(offered: offered) == nil, "once is enough")
        #expect(world.clientConfiguration.retry(offered: [Self.reserved]) == nil)
    }

    /// What a client that came by one version keeps of it.
    private func leftovers(of world: EngineWorld) throws -> (ticket: SessionTicket, token: [UInt8]) {
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(2)) {
            !world.clientSide.tickets.isEmpty && !world.clientSide.tokens.isEmpty
        }
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(3))
        return (try #require(world.clientSide.tickets.last), try #require(world.clientSide.tokens.last))
    }

    @Test(
        "a server takes no ticket or token of another version",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"),
        arguments: [(QUICVersion.v1, QUICVersion.v2), (.v2, .v1)])
    func aServerTakesNothingOfAnotherVersion(from: QUICVersion, to: QUICVersion) throws {
        let world = try EngineWorld(tickets: true) { server, client in
            server.versions = [.v1, .v2]
            server.retryThreshold = 0
            client.versions = [from]
        }
        let (ticket, token) = try leftovers(of: world)
        #expect(ticket.version == from)
        let retries = world.server.counters.retriesSent
        // A client that follows the rules brings them back in their version only.
        world.clientConfiguration.sessionTicket = ticket
        world.clientConfiguration.addressToken = token
        #expect(try world.connected().client.handshake?.resumed == true)
        #expect(world.server.counters.retriesSent == retries, "the token is good")
        world.clientConfiguration.versions = [to]
        #expect(try world.connected().client.handshake?.resumed == false)
        #expect(world.server.counters.retriesSent == retries + 1)
        // One that doesn't gets no further.
        world.clientConfiguration.sessionTicket = SessionTicket(
            session: ticket.session, transportParameters: ticket.transportParameters, serverName: ticket.serverName,
            applicationProtocol: ticket.applicationProtocol, expiresAt: ticket.expiresAt, holder: ticket.holder,
            version: to)
        world.clientConfiguration.addressToken = AddressToken.keep(
            try #require(AddressToken.use(token, version: from)), version: to)
        let (client, server) = try world.connected()
        #expect(client.handshake?.version == to)
        #expect(client.handshake?.resumed == false && server.handshake?.resumed == false)
        #expect(client.handshake?.earlyData != .accepted)
        #expect(world.server.counters.retriesSent == retries + 2)
    }

    @Test(
        "what a client gets after it was moved to another version brings it back in that version",
        .enabled(if: QUICVersion.v2.isAvailable, "ngtcp2 before 1.0 has no RFC 9369"))
    func aClientComesBackInTheVersionItWasMovedTo() throws {
        let world = try EngineWorld(tickets: true) { server, client in
            server.versions = [.v2, .v1]
            server.retryThreshold = 0
            client.versions = [.v1, .v2]
        }
        let (ticket, token) = try leftovers(of: world)
        #expect(ticket.version == .v2)
        let retries = world.server.counters.retriesSent
        world.clientConfiguration.sessionTicket = ticket
        world.clientConfiguration.addressToken = token
        let (client, _) = try world.connected()
        #expect(client.handshake?.version == .v2 && client.handshake?.resumed == true)
        #expect(world.server.counters.retriesSent == retries)
    }

    @Test("tickets and tokens of different versions are made with different secrets")
    func ticketsAndTokensOfDifferentVersionsDiffer() throws {
        var random = SeededRandom(seed: 1)
        let ring = TicketKeyRing(random: &random, now: EngineWorld.wallClock)
        let masters = TicketMasters(ring: ring, settings: TransportSettings(), protocols: ["a", "b"])
        let name = Array("a".utf8)
        let (one, two) = (QUICVersion.v1.rawValue, QUICVersion.v2.rawValue)
        let first = try #require(masters.choose(sealedUnder: nil, for: name, first: one, expected: one))
        let second = try #require(masters.choose(sealedUnder: nil, for: name, first: two, expected: two))
        #expect(first.version == one && second.version == two && first.master != second.master)
        // A client that is about to be moved: a ticket of the version it began with opens, another doesn't.
        let moved = try #require(masters.choose(sealedUnder: nil, for: name, first: one, expected: two))
        #expect(moved.version == two && moved.master == second.master)
        var names = [UInt8](repeating: 0, count: 32)
        #expect(llq_ticket_key_names(first.master, UInt32(TicketKeyRing.ticketLifetime), &names) == 0)
        let offered = Array(names.prefix(16))
        let resumed = try #require(masters.choose(sealedUnder: offered, for: name, first: one, expected: two))
        #expect(resumed.version == one && resumed.master == first.master)
        let foreign = try #require(masters.choose(sealedUnder: offered, for: name, first: two, expected: one))
        #expect(foreign.version == two && foreign.master == second.master, "which doesn't open it")
        let unknown = try #require(
            masters.choose(sealedUnder: Array(repeating: 0, count: 16), for: name, first: one, expected: two))
        #expect(unknown.version == two && unknown.master == second.master, "for the next ticket")

        let secret = [UInt8](repeating: 7, count: 32)
        var address = EngineWorld.clientAddress.shim
        var token = [UInt8](repeating: 0, count: Int(LLQ_MAX_TOKEN_LENGTH))
        for version in [one, two] {
            let length = llq_regular_token(&token, secret, secret.count, version, &address, 1000)
            try #require(length > 0)
            for other in [one, two] {
                let verdict = llq_verify_regular_token(
                    token, length, secret, secret.count, other, &address, 1_000_000, 2000)
                #expect((verdict == 0) == (version == other))
            }
        }
        #expect(AddressToken.keep([1, 2], version: .v1) == [1, 2])
        let kept = AddressToken.keep([1, 2], version: .v2)
        #expect(AddressToken.use(kept, version: .v2) == [1, 2])
        #expect(AddressToken.use(kept, version: .v1) == nil && AddressToken.use([1, 2], version: .v2) == nil)
    }

    @Test("drafts that the library still knows are not spoken") func draftsAreNotSpoken() throws {
        let world = try EngineWorld()
        var answer: [UInt8] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { answer = bytes }
            return true
        }
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        let header: [UInt8] = [0xc0, 0xff, 0, 0, 0x1d, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]
        world.network.send(header + pattern(1200), on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        #expect(Array(answer.dropFirst().prefix(4)) == [0, 0, 0, 0])
        #expect(Array(answer.suffix(4)) == [0, 0, 0, 1])
        #expect(world.server.connectionCount == 0)
    }

    /// A long header with these connection IDs and whatever follows, `size` bytes.
    private static func packet(version: UInt32, destination: [UInt8], source: [UInt8], size: Int) -> [UInt8] {
        let number = (0..<4).map { UInt8(truncatingIfNeeded: version >> (24 - 8 * UInt32($0))) }
        let header =
            [0xc0] + number + [UInt8(destination.count)] + destination + [UInt8(source.count)] + source
        return header + pattern(max(0, size - header.count))
    }

    /// What the server answers to one datagram; empty: nothing.
    private static func answer(to datagram: [UInt8], in world: EngineWorld) -> [UInt8] {
        var answer: [UInt8] = []
        world.network.filter = { bytes, path in
            if path.local == EngineWorld.serverAddress { answer = bytes }
            return true
        }
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        world.network.send(datagram, on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        return answer
    }

    @Test(
        "an unknown version with long connection IDs gets both back, exchanged",
        arguments: [(21, 0), (20, 21), (255, 255), (0, 255), (255, 8), (8, 8)])
    func anUnknownVersionWithLongConnectionIDsIsAnswered(destination: Int, source: Int) throws {
        let world = try EngineWorld()
        let (to, from) = (pattern(destination, 1), pattern(source, 2))
        let datagram = Self.packet(version: 0x7777_7777, destination: to, source: from, size: 1200)
        let answer = Self.answer(to: datagram, in: world)
        let expected = [0, 0, 0, 0, UInt8(source)] + from + [UInt8(destination)] + to
        #expect(answer.first.map { $0 & 0x80 } == 0x80)
        #expect(Array(answer.dropFirst().prefix(expected.count)) == expected)
        #expect(Array(answer.suffix(4)) == [0, 0, 0, 1])
        #expect(answer.count == 1 + expected.count + 8 && answer.count < datagram.count)
        #expect(world.server.counters.versionNegotiationsSent == 1)
        #expect(world.server.connectionCount == 0)
    }

    @Test("a draft's packet with long connection IDs is answered, too") func aDraftWithLongIDsIsAnswered() throws {
        let world = try EngineWorld()
        let datagram = Self.packet(
            version: 0xff00_001d, destination: pattern(30), source: pattern(40), size: 1200)
        #expect(Array(Self.answer(to: datagram, in: world).suffix(4)) == [0, 0, 0, 1])
    }

    @Test("long connection IDs get no answer where there is nothing to negotiate")
    func longConnectionIDsGetNoAnswerElsewhere() throws {
        let world = try EngineWorld()
        func check(_ datagram: [UInt8], _ what: String) {
            let before = world.server.counters
            #expect(Self.answer(to: datagram, in: world).isEmpty, "\(what)")
            #expect(world.server.counters.garbageDatagrams == before.garbageDatagrams + 1, "\(what)")
        }
        let (to, from) = (pattern(255), pattern(255, 1))
        check(Self.packet(version: 1, destination: to, source: from, size: 1200), "our version")
        check(Self.packet(version: 0, destination: to, source: from, size: 1200), "Version Negotiation")
        check(Self.packet(version: 0x7777_7777, destination: to, source: from, size: 1199), "too small")
        // IDs that reach beyond the datagram, down to a header of one byte; a read beyond it is the sanitizer's to find.
        let whole = Self.packet(version: 0x7777_7777, destination: to, source: from, size: 0)
        for length in 1..<whole.count { check(Array(whole.prefix(length)), "cut to \(length)") }
        var long = Self.packet(version: 0x7777_7777, destination: to, source: [], size: 1200)
        long[6 + 255] = 255
        #expect(Self.answer(to: Array(long.prefix(7 + 255 + 254)), in: world).isEmpty)
        // And a client negotiates with nobody.
        var answered = false
        world.network.filter = { _, path in
            if path.local == EngineWorld.clientAddress { answered = true }
            return true
        }
        let path = QUICPath(local: EngineWorld.serverAddress, remote: EngineWorld.clientAddress)
        world.network.send(
            Self.packet(version: 0x7777_7777, destination: to, source: from, size: 1200), on: path, ecn: .notECT)
        world.simulation.run(for: .seconds(1))
        #expect(!answered && world.client.counters.garbageDatagrams == 1)
    }

    @Test("answers to unknown versions with long connection IDs are rate limited") func theyAreRateLimited() throws {
        let world = try EngineWorld()
        let datagram = Self.packet(
            version: 0x7777_7777, destination: pattern(255), source: pattern(255), size: 1200)
        let path = QUICPath(local: EngineWorld.clientAddress, remote: EngineWorld.serverAddress)
        for _ in 0..<300 { world.network.send(datagram, on: path, ecn: .notECT) }
        world.simulation.run(for: .milliseconds(500))
        let limit = UInt64(world.serverConfiguration.refusalsPerSecond)
        #expect(world.server.counters.versionNegotiationsSent == limit)
    }

    @Test("a Version Negotiation packet that names our version is a forgery and ignored")
    func aForgedVersionNegotiationIsIgnored() throws {
        let world = try EngineWorld()
        var flight: [UInt8]?
        world.network.filter = { bytes, path in
            guard path.remote == EngineWorld.serverAddress, flight == nil else { return true }
            flight = bytes
            return false
        }
        let client = try world.connect()
        world.simulation.settle()
        let first = try #require(flight)
        let destinationLength = Int(first[5])
        let destination = first[6..<6 + destinationLength]
        let sourceLength = Int(first[6 + destinationLength])
        let source = first[7 + destinationLength..<7 + destinationLength + sourceLength]
        let back = QUICPath(local: EngineWorld.serverAddress, remote: EngineWorld.clientAddress)
        func forge(_ versions: [UInt8]) -> [UInt8] {
            [0x80, 0, 0, 0, 0, UInt8(sourceLength)] + source + [UInt8(destinationLength)] + destination + versions
        }
        world.network.send(forge([0, 0, 0, 1, 0xba, 0xba, 0xba, 0xba]), on: back, ecn: .notECT)
        // Not for this connection: the IDs are swapped.
        world.network.send(
            [0x80, 0, 0, 0, 0, UInt8(destinationLength)] + destination + [UInt8(sourceLength)] + source
                + [0xba, 0xba, 0xba, 0xba], on: back, ecn: .notECT)
        world.simulation.run(for: .seconds(3)) { world.clientSide.confirmed.contains(client.handle) }
        #expect(client.handshake?.version == .v1)
        #expect(client.closeReason == nil)
    }
}
