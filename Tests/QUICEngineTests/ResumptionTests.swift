import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct ResumptionTests {
    /// Connects once, takes the ticket and leaves.
    private func ticket(from world: EngineWorld) throws -> SessionTicket {
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(2)) { !world.clientSide.tickets.isEmpty }
        let ticket = try #require(world.clientSide.tickets.last)
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(3))
        return ticket
    }

    private static let otherAddress = QUICSocketAddress(ipv4: (10, 0, 0, 7), port: 4433)

    /// A server beside the world's, with a start time of its own.
    private func secondServer(in world: EngineWorld, tls: TLSServerContext) throws -> (QUICEndpoint, PeerRecord) {
        var configuration = world.serverConfiguration
        configuration.server?.tls = tls
        let server = try QUICEndpoint(configuration: configuration, random: SeededRandom(seed: 99))
        let record = PeerRecord()
        world.simulation.add(server, at: [Self.otherAddress]).onEvent = { record.handle($1, on: $0) }
        return (server, record)
    }

    private func reconnect(_ world: EngineWorld, writing bytes: [UInt8]) throws -> (QUICEngineConnection, QUICStreamID)
    {
        let connection = try world.connect()
        let stream = try connection.open()
        try connection.send(bytes, on: stream, finish: true)
        return (connection, stream)
    }

    @Test("a ticket survives storage and resumes") func aTicketSurvivesStorageAndResumes() throws {
        let world = try EngineWorld(tickets: true)
        let ticket = try ticket(from: world)
        let stored = try SessionTicket(bytes: ticket.bytes)
        #expect(stored == ticket)
        let lifetime = ticket.expiresAt - EngineClock.wall()
        let week: UInt64 = 7 * 24 * 3600
        #expect(lifetime <= week && lifetime > week - 60, "\(lifetime)")
        world.clientConfiguration.sessionTicket = stored
        world.clientConfiguration.earlyData = false
        let (client, server) = try world.connected()
        #expect(client.handshake?.resumed == true)
        #expect(server.handshake?.resumed == true)
        #expect(client.handshake?.earlyData == .notAttempted)
        #expect(throws: QUICError.self) { try SessionTicket(bytes: Array(ticket.bytes.dropLast())) }
        #expect(throws: QUICError.self) { try SessionTicket(bytes: [1, 2, 3]) }
    }

    @Test("a ticket isn't kept for more than seven days, whatever the server says")
    func aTicketIsKeptForSevenDays() throws {
        let world = try EngineWorld(tickets: true)
        // Seven days in seconds, as the server's message has them; no other bytes of its packets are likely to be the same.
        let week: [UInt8] = [0x00, 0x09, 0x3a, 0x80]
        var changed = 0
        world.server.rewrite = { plaintext, header in
            guard let first = header.first, first & 0x80 == 0, plaintext.count >= week.count else { return }
            for start in 0...plaintext.count - week.count
            where plaintext[start..<start + week.count].elementsEqual(week) {
                for index in start..<start + week.count { plaintext[index] = 0xff }
                changed += 1
            }
        }
        let ticket = try ticket(from: world)
        #expect(changed > 0)
        let lifetime = ticket.expiresAt - EngineClock.wall()
        #expect(lifetime <= TicketKeyRing.ticketLifetime && lifetime > TicketKeyRing.ticketLifetime - 60)
    }

    @Test(
        "a stored ticket that ends in more than seven days isn't used",
        arguments: [(0, true), (3600, false)] as [(UInt64, Bool)])
    func aStoredTicketThatEndsTooLate(later: UInt64, isUsed: Bool) throws {
        let world = try EngineWorld(tickets: true)
        let ticket = try ticket(from: world)
        let stored = SessionTicket(
            session: ticket.session, transportParameters: ticket.transportParameters, serverName: ticket.serverName,
            applicationProtocol: ticket.applicationProtocol, expiresAt: ticket.expiresAt + later,
            holder: ticket.holder)
        world.clientConfiguration.sessionTicket = try SessionTicket(bytes: stored.bytes)
        #expect(try world.connected().client.handshake?.resumed == isUsed)
    }

    @Test("0-RTT data arrives in the first flight") func test0RTTDataArrivesInTheFirstFlight() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        world.serverSide.reads = false
        let start = world.network.now
        let (connection, stream) = try reconnect(world, writing: pattern(900))
        #expect(world.clientSide.earlyPossible == 0)
        world.simulation.run(for: .milliseconds(11))
        #expect(world.clientSide.earlyPossible == 1)
        let server = try #require(world.serverSide.connections.last)
        #expect(server.readableBytes(stream) == 900, "after one way, before any answer")
        #expect(server.isEarly(stream))
        #expect(server.handshake == nil)
        #expect(world.network.now.nanoseconds - start.nanoseconds < 15_000_000)
        world.serverSide.drain(stream, of: server)
        world.simulation.run(for: .seconds(2)) { world.clientSide.confirmed.contains(connection.handle) }
        #expect(connection.handshake?.earlyData == .accepted)
        #expect(server.handshake?.earlyData == .accepted)
        #expect(world.serverSide.received[stream] == pattern(900))
        #expect(!server.isEarly(stream))
    }

    /// The path takes 10 ms each way, and virtual time passes nowhere else. The server's handshake flight has left when its
    /// application answers: pacing must not hold that back, nobody has measured a round trip yet.
    @Test("the answer to 0-RTT data is back after one round trip") func theAnswerTo0RTTDataIsBackAfterOneRoundTrip()
        throws
    {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        world.serverSide.reads = false
        world.serverSide.echoes = true
        let start = world.network.now
        let (_, stream) = try reconnect(world, writing: pattern(900))
        world.simulation.run(for: .milliseconds(11))
        let server = try #require(world.serverSide.connections.last)
        world.serverSide.drain(stream, of: server)
        let answered = world.simulation.run(for: .seconds(2)) {
            world.clientSide.received[stream]?.count == 900
        }
        #expect(answered)
        #expect(world.network.now.nanoseconds - start.nanoseconds < 25_000_000)
    }

    @Test("0-RTT over a rough path arrives once", arguments: 1...6)
    func test0RTTOverARoughPathArrivesOnce(seed: Int) throws {
        let world = try EngineWorld(seed: UInt64(seed), tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        world.network.conditions = .rough
        world.serverSide.echoes = true
        let (connection, stream) = try reconnect(world, writing: pattern(8000))
        world.simulation.run(for: .seconds(20)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(8000), "seed \(seed) \(world.clientSide.closed)")
        #expect(connection.handshake?.resumed == true)
    }

    @Test("refused 0-RTT data arrives once on the same streams") func refused0RTTDataArrivesOnceOnTheSameStreams()
        throws
    {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        // A restarted server refuses 0-RTT for older tickets, and still resumes.
        try world.restartServer()
        world.serverSide.echoes = true
        let connection = try world.connect()
        var expected: [QUICStreamID: [UInt8]] = [:]
        for index in 0..<4 {
            let stream = try connection.open(bidirectional: index.isMultiple(of: 2))
            let bytes = pattern(700 * (index + 1), index)
            expected[stream] = bytes
            try connection.send(bytes, on: stream, finish: true)
        }
        let dropped = try connection.open()
        try connection.send(pattern(50), on: dropped)
        world.simulation.settle()
        connection.reset(dropped, code: 5)
        world.simulation.run(for: .seconds(5)) { expected.keys.allSatisfy { world.serverSide.finished.contains($0) } }
        #expect(world.clientSide.earlyRejected == 1)
        #expect(connection.unacknowledgedBytes(dropped) == 0)
        #expect(connection.handshake?.earlyData == .rejected)
        #expect(connection.handshake?.resumed == true)
        for (stream, bytes) in expected { #expect(world.serverSide.received[stream] == bytes) }
        #expect(!world.serverSide.sawEarlyBytes)
        let later = try connection.open()
        #expect(later.rawValue > dropped.rawValue)
        world.simulation.run(for: .seconds(5)) { world.serverSide.resets[dropped] != nil }
        #expect(world.serverSide.resets[dropped] == 5)
    }

    @Test("a copy of a 0-RTT flight is not accepted again") func aCopyOfA0RTTFlightIsNotAcceptedAgain() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        var flight: [[UInt8]] = []
        world.network.filter = { bytes, path in
            if path.remote == EngineWorld.serverAddress { flight.append(bytes) }
            return true
        }
        let (connection, stream) = try reconnect(world, writing: pattern(600))
        world.simulation.settle()
        world.network.filter = nil
        let copies = flight
        world.simulation.run(for: .seconds(3)) { connection.handshake != nil }
        #expect(world.serverSide.received[stream] == pattern(600))
        #expect(connection.handshake?.earlyData == .accepted)
        connection.close(code: 0, reason: "", now: world.network.now)
        // The closing period must pass, or the copies meet the old connection's remains.
        world.simulation.run(for: .seconds(10))

        let before = world.serverSide.connections.count
        let received = world.serverSide.received.count
        world.serverSide.reads = false
        let attacker = QUICPath(local: EngineWorld.otherClientAddress, remote: EngineWorld.serverAddress)
        for copy in copies { world.network.send(copy, on: attacker, ecn: .notECT) }
        world.simulation.run(for: .seconds(1))
        #expect(world.serverSide.connections.count == before + 1, "the copy starts a handshake")
        let replayed = try #require(world.serverSide.connections.last)
        #expect(replayed.streams.isEmpty, "and none of its 0-RTT data is taken")
        #expect(world.serverSide.received.count == received)
        #expect(replayed.handshake == nil)
    }

    @Test("a copy of a 0-RTT flight is not accepted by another loop either")
    func aCopyOfA0RTTFlightIsNotAcceptedByAnotherLoopEither() throws {
        let world = try EngineWorld(tickets: true)
        // Each loop has its own start time, which GnuTLS puts before what it stores; the store is shared.
        let other = try QUICEndpoint(configuration: world.serverConfiguration, random: SeededRandom(seed: 99))
        let otherAddress = QUICSocketAddress(ipv4: (10, 0, 0, 7), port: 4433)
        let host = world.simulation.add(other, at: [otherAddress])
        let otherSide = PeerRecord()
        host.onEvent = { otherSide.handle($1, on: $0) }
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        var flight: [[UInt8]] = []
        world.network.filter = { bytes, path in
            if path.remote == EngineWorld.serverAddress { flight.append(bytes) }
            return true
        }
        let (connection, _) = try reconnect(world, writing: pattern(600))
        world.simulation.settle()
        world.network.filter = nil
        world.simulation.run(for: .seconds(3)) { connection.handshake != nil }
        #expect(connection.handshake?.earlyData == .accepted)

        let attacker = QUICPath(local: EngineWorld.otherClientAddress, remote: otherAddress)
        for copy in flight { world.network.send(copy, on: attacker, ecn: .notECT) }
        world.simulation.run(for: .seconds(1))
        #expect(otherSide.connections.count == 1, "the copy starts a handshake")
        #expect(
            otherSide.opened.isEmpty && other.counters.earlyDataAccepted == 0, "and none of its 0-RTT data is taken")
    }

    @Test("a copy of a 0-RTT flight is not accepted by another server with the same masters")
    func aCopyOfA0RTTFlightIsNotAcceptedByAnotherServer() throws {
        let world = try EngineWorld(tickets: true)
        let tls = try TLSServerContext(
            credentials: EngineWorld.certificate.credentials, applicationProtocols: ["test/1"],
            ticketKeys: world.tls.ticketKeys, replayStore: ReplayStore(capacity: 1000))
        let (other, record) = try secondServer(in: world, tls: tls)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        var flight: [[UInt8]] = []
        world.network.filter = { bytes, path in
            if path.remote == EngineWorld.serverAddress { flight.append(bytes) }
            return true
        }
        let (connection, _) = try reconnect(world, writing: pattern(600))
        world.simulation.settle()
        world.network.filter = nil
        world.simulation.run(for: .seconds(3)) { connection.handshake != nil }
        #expect(connection.handshake?.earlyData == .accepted)

        let attacker = QUICPath(local: EngineWorld.otherClientAddress, remote: Self.otherAddress)
        for copy in flight { world.network.send(copy, on: attacker, ecn: .notECT) }
        world.simulation.run(for: .seconds(1))
        #expect(record.connections.count == 1, "the copy starts a handshake")
        #expect(record.opened.isEmpty && other.counters.earlyDataAccepted == 0, "and none of its 0-RTT data is taken")
        // Its own client may come there: without certificates, and after a round trip.
        let returning = try world.connect(to: Self.otherAddress)
        let stream = try returning.open()
        try returning.send(pattern(600), on: stream, finish: true)
        world.simulation.run(for: .seconds(3)) { record.finished.contains(stream) }
        #expect(returning.handshake?.resumed == true && returning.handshake?.earlyData == .rejected)
        #expect(record.received[stream] == pattern(600) && !record.sawEarlyBytes)
    }

    @Test("the replay store remembers the newest tickets, also of one host, which has an eighth of it")
    func rememberedTickets() {
        let store = ReplayStore(capacity: 16)
        func seal(_ ticket: UInt8, host: UInt64, now: UInt64 = 0) {
            [ticket].withUnsafeBytes { store.noteSealed($0, host: host, expiry: now + 100, now: now) }
        }
        func isKnown(_ ticket: UInt8) -> Bool { [ticket].withUnsafeBytes { store.hasSealed($0) } }
        for ticket in 0..<20 as Range<UInt8> { seal(ticket, host: UInt64(ticket)) }
        #expect(!isKnown(3) && isKnown(4) && isKnown(19) && !isKnown(20))
        for ticket in 100..<103 as Range<UInt8> { seal(ticket, host: 50) }
        #expect(!isKnown(100) && isKnown(101) && isKnown(102))
        #expect(!isKnown(5) && isKnown(6), "the third takes no place from other hosts")
        seal(103, host: 50, now: 100)
        #expect(!isKnown(101) && isKnown(103))
        #expect(store.count == 0, "no flight was seen")
    }

    @Test("0-RTT data of one protocol is not taken for another that the server prefers")
    func earlyDataIsNotTakenForAnotherProtocol() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.applicationProtocols = ["test/1", "test/2"]
        let changed = try TLSServerContext(
            credentials: EngineWorld.certificate.credentials, applicationProtocols: ["test/2", "test/1"],
            ticketKeys: world.tls.ticketKeys, replayStore: world.tls.replayStore)
        let (_, record) = try secondServer(in: world, tls: changed)
        let ticket = try ticket(from: world)
        #expect(ticket.applicationProtocol == "test/1")
        world.clientConfiguration.sessionTicket = ticket
        let connection = try world.connect(to: Self.otherAddress)
        let stream = try connection.open()
        try connection.send(pattern(600), on: stream, finish: true)
        world.simulation.run(for: .seconds(3)) { world.clientSide.confirmed.contains(connection.handle) }
        #expect(connection.handshake?.applicationProtocol == "test/2")
        #expect(connection.handshake?.resumed == false && connection.handshake?.earlyData == .rejected)
        #expect(!record.sawEarlyBytes)
        // Where the ticket's protocol is chosen it is good.
        world.clientConfiguration.applicationProtocols = ["test/1"]
        let (same, _) = try reconnect(world, writing: pattern(600))
        world.simulation.run(for: .seconds(3)) { same.handshake != nil }
        #expect(same.handshake?.resumed == true && same.handshake?.earlyData == .accepted)
    }

    @Test("a client refuses a server that takes 0-RTT data of another protocol than it chooses")
    func aClientRefusesAServerThatTakesDataOfAnotherProtocol() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.applicationProtocols = ["test/2", "test/1"]
        let good = try ticket(from: world)
        // To this client it looks as if the server mixed the two up.
        world.clientConfiguration.sessionTicket = SessionTicket(
            session: good.session, transportParameters: good.transportParameters, serverName: good.serverName,
            applicationProtocol: "test/2", expiresAt: good.expiresAt, holder: good.holder)
        let (connection, _) = try reconnect(world, writing: pattern(600))
        world.simulation.run(for: .seconds(2))
        guard case .handshakeFailed(let error)? = world.clientSide.closed[connection.handle] else {
            Issue.record("\(world.clientSide.closed)")
            return
        }
        #expect(error.code == .handshakeFailed && error.message.contains("protocol"))
        #expect(world.clientSide.handshakes[connection.handle] == nil)
        let server = try #require(world.serverSide.connections.last)
        #expect(server.handshake == nil && world.serverSide.closed[server.handle] != nil, "it is told")
        world.simulation.run(for: .seconds(5))
        #expect(world.client.connectionCount == 0 && world.client.resetTokenOwners.isEmpty)
    }

    @Test("a master from a time that is yet to come is replaced") func futureMaster() throws {
        var random = SeededRandom(seed: 9)
        let (day, now) = (UInt64(24 * 3600), EngineWorld.wallClock)
        let ring = TicketKeyRing(random: &random, now: now + 365 * day)
        #expect(ring.rotate(now: now, random: &random))
        #expect(ring.current.map(\.createdAt) == [now, now + 365 * day])
        #expect(!ring.rotate(now: now + day - 1, random: &random))
        #expect(ring.rotate(now: now + day, random: &random))
        #expect(ring.current.map(\.createdAt) == [now + day, now, now + 365 * day])
    }

    @Test("a clock that goes back for a while takes no master away") func clockGoesBack() throws {
        var random = SeededRandom(seed: 9)
        let (day, now) = (UInt64(24 * 3600), EngineWorld.wallClock)
        let ring = TicketKeyRing(random: &random, now: now)
        let first = try #require(ring.current.first)
        for time in [0, now - 365 * day, now + 3600] {
            _ = ring.rotate(now: time, random: &random)
            #expect(ring.current.contains(first))
        }
    }

    @Test("masters rotate with overlap") func mastersRotateWithOverlap() throws {
        let world = try EngineWorld(tickets: true)
        let ring = try #require(world.tls.ticketKeys)
        let first = try ticket(from: world)
        var random = SeededRandom(seed: 9)
        let day: UInt64 = 24 * 3600
        #expect(!ring.rotate(now: EngineWorld.wallClock + day - 1, random: &random))
        #expect(ring.rotate(now: EngineWorld.wallClock + day, random: &random))
        #expect(ring.current.count == 2)
        world.clientConfiguration.sessionTicket = first
        let second = try ticket(from: world)
        #expect(world.clientSide.handshakes.values.contains { $0.resumed }, "an old master still opens")
        // Seven days after it was replaced the old master is gone.
        #expect(ring.rotate(now: EngineWorld.wallClock + 9 * day, random: &random))
        #expect(ring.current.count == 2)
        let (client, _) = try world.connected()
        #expect(client.handshake?.resumed == false)
        // The file brings a ring back.
        let copy = try TicketKeyRing(serialized: ring.serialized())
        #expect(copy.current == ring.current)
        #expect(throws: QUICError.self) { try TicketKeyRing(serialized: Array(ring.serialized().dropLast())) }
        _ = second
    }

    @Test("other limits make old tickets useless") func otherLimitsMakeOldTicketsUseless() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        world.serverConfiguration.server?.transport.streamWindow = 1000
        try world.restartServer()
        let (client, _) = try world.connected()
        #expect(client.handshake?.resumed == false)
    }

    @Test("the replay store is bounded and forgets in time") func theReplayStoreIsBoundedAndForgetsInTime() {
        let store = ReplayStore(capacity: 2)
        #expect(store.check([1], host: 1, expiry: 100, now: 0) == .fresh)
        #expect(store.check([1], host: 1, expiry: 100, now: 1) == .seen)
        #expect(store.check([2], host: 2, expiry: 110, now: 2) == .fresh)
        #expect(store.check([3], host: 3, expiry: 120, now: 3) == .full)
        #expect(store.check([3], host: 3, expiry: 200, now: 100) == .fresh)
        #expect(store.count == 2)
        #expect(store.check([2], host: 2, expiry: 200, now: 100) == .seen)
    }

    @Test("what the replay store got from a clock that was ahead is kept, and nothing else for as long")
    func aClockThatWasAhead() {
        let store = ReplayStore(capacity: 2)
        let day: UInt64 = 24 * 3600
        #expect(store.check([1], host: 1, expiry: 38 * day, now: 30 * day) == .fresh)
        #expect(store.check([2], host: 2, expiry: 9 * day, now: day) == .fresh)
        #expect(store.check([3], host: 3, expiry: 10 * day, now: 2 * day) == .full)
        #expect(store.check([3], host: 3, expiry: 17 * day, now: 9 * day) == .fresh)
        #expect(store.check([1], host: 1, expiry: 17 * day, now: 9 * day) == .seen)
        #expect(store.count == 2)
    }

    @Test("the replay store forgets a part at a time, and a host's own share is free in time")
    func forgettingIsBounded() {
        let store = ReplayStore(capacity: 1000)
        for number in 0..<1000 as Range<UInt64> {
            let binder = [UInt8(number & 0xff), UInt8(number >> 8)]
            #expect(store.check(binder, host: number / 125, expiry: 100, now: 0) == .fresh)
        }
        // The last host's are the last to be forgotten.
        #expect(store.check([1], host: 7, expiry: 200, now: 100) == .fresh)
        #expect(store.count > 900, "one call doesn't do it all")
        for binder in 2..<20 as Range<UInt8> {
            #expect(store.check([binder], host: 7, expiry: 200, now: 100) == .fresh)
        }
        #expect(store.count == 19)
    }

    @Test("one host fills an eighth of the replay store") func oneHostFillsAnEighthOfTheReplayStore() {
        let store = ReplayStore(capacity: 80)
        func check(_ binder: UInt8, host: UInt64, now: UInt64 = 0) -> ReplayStore.Verdict {
            store.check([binder], host: host, expiry: now + 100, now: now)
        }
        for binder in 0..<10 as Range<UInt8> { #expect(check(binder, host: 1) == .fresh) }
        #expect(check(10, host: 1) == .full)
        #expect(check(3, host: 1) == .seen && check(3, host: 2) == .seen)
        #expect(check(11, host: 2) == .fresh)
        // Its share is free again with what is forgotten.
        #expect(check(10, host: 1, now: 100) == .fresh)
        #expect(store.count == 1)
    }

    @Test("a host that has filled its share of the replay store returns without 0-RTT, and others with it")
    func aHostThatHasFilledItsShare() throws {
        let world = try EngineWorld(tickets: true)
        let store = try #require(world.tls.replayStore)
        // All but what the client's host has is left.
        for number in 0..<store.capacity / 8 {
            let binder = [UInt8(number & 0xff), UInt8(number >> 8)]
            _ = store.check(
                binder, host: EngineWorld.clientAddress.hostKey, expiry: EngineWorld.wallClock * 2,
                now: EngineWorld.wallClock)
        }
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        let client = try world.connect()
        try client.send(pattern(100), on: client.open())
        world.simulation.run(for: .seconds(2))
        #expect(client.handshake?.resumed == true && client.handshake?.earlyData == .rejected)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        let other = try world.connect(from: EngineWorld.otherClientAddress)
        try other.send(pattern(100), on: other.open())
        world.simulation.run(for: .seconds(2))
        #expect(other.handshake?.earlyData == .accepted)
    }

    @Test("a ticket for another name isn't used") func aTicketForAnotherNameIsntUsed() throws {
        let world = try EngineWorld(tickets: true)
        world.clientConfiguration.sessionTicket = try ticket(from: world)
        world.clientConfiguration.serverName = "10.0.0.1"
        let (client, _) = try world.connected()
        #expect(client.handshake?.resumed == false)
    }
}
