import CGnuTLS
import LonglineTestKit
import Testing

@testable import QUICEngine

/// Clients that show certificates and come back with tickets.
@Suite struct ReturningClientTests {
    private static let trusted = EngineWorld.makeCertificate(names: ["client-7"])

    private static func authentication(required: Bool, _ authority: DevelopmentCertificate = trusted)
        -> TLSClientAuthentication
    {
        required
            ? .required(authorityPEM: authority.certificatePEM) : .requested(authorityPEM: authority.certificatePEM)
    }

    private static func ring() -> TicketKeyRing {
        var random = SeededRandom(seed: 1)
        return TicketKeyRing(random: &random, now: EngineWorld.wallClock)
    }

    private static func serving(_ clients: TLSClientAuthentication, _ ring: TicketKeyRing = ring()) throws
        -> TLSServerContext
    {
        try TLSServerContext(
            credentials: EngineWorld.certificate.credentials, applicationProtocols: ["test/1"], ticketKeys: ring,
            clientAuthentication: clients)
    }

    private func world(
        _ tls: TLSServerContext, identity: DevelopmentCertificate? = trusted
    ) throws -> EngineWorld {
        try EngineWorld { server, client in
            server.tls = tls
            client.identity = identity?.credentials
        }
    }

    /// Connects, waits for a ticket, and leaves.
    private func ticket(from world: EngineWorld) throws -> SessionTicket {
        let before = world.clientSide.tickets.count
        let (client, _) = try world.connected()
        world.simulation.run(for: .seconds(2)) { world.clientSide.tickets.count > before }
        client.close(code: 0, reason: "", now: world.network.now)
        world.simulation.run(for: .seconds(3))
        try #require(world.clientSide.tickets.count > before, "a ticket came")
        return world.clientSide.tickets[before]
    }

    @Test("a client that returns with a ticket is known by the certificate that it showed", arguments: [true, false])
    func aReturningClientIsKnown(required: Bool) throws {
        let world = try world(Self.serving(Self.authentication(required: required)))
        var ticket = try self.ticket(from: world)
        let shown = try #require(world.serverSide.connections.first?.handshake?.peerCertificates)
        #expect(shown.count == 1)
        // Also with the ticket of a connection that was resumed.
        for _ in 0..<2 {
            world.clientConfiguration.sessionTicket = ticket
            ticket = try self.ticket(from: world)
            let server = try #require(world.serverSide.connections.last?.handshake)
            #expect(server.resumed)
            #expect(server.peerCertificates == shown)
            #expect(server.earlyData == .notAttempted)
        }
    }

    @Test("a client that showed no certificate shows none when it returns") func noneStaysNone() throws {
        let world = try world(Self.serving(Self.authentication(required: false)), identity: nil)
        world.clientConfiguration.sessionTicket = try self.ticket(from: world)
        let (_, server) = try world.connected()
        #expect(server.handshake?.resumed == true)
        #expect(server.handshake?.peerCertificates.isEmpty == true)
    }

    enum Change: CaseIterable, Sendable { case otherCertificate, noCertificate, firstCertificate, otherTrust, noTrust }

    /// It would pass for who it was, or take a server for checked that it never checked like that.
    @Test("a client that has changed its certificate or its trust makes a full handshake", arguments: Change.allCases)
    func aChangedClientMakesAFullHandshake(change: Change) throws {
        let other = EngineWorld.makeCertificate(names: ["client-9"])
        let both = TLSClientAuthentication.requested(
            authorityPEM: Self.trusted.certificatePEM + "\n" + other.certificatePEM)
        let world = try world(Self.serving(both), identity: change == .firstCertificate ? nil : Self.trusted)
        if change == .otherTrust { world.clientConfiguration.verification = .insecureNoVerification }
        let ticket = try self.ticket(from: world)
        world.clientConfiguration.sessionTicket = try SessionTicket(bytes: ticket.bytes)
        switch change {
        case .otherCertificate, .firstCertificate: world.clientConfiguration.identity = other.credentials
        case .noCertificate: world.clientConfiguration.identity = nil
        case .otherTrust:
            world.clientConfiguration.verification = .certificateAuthority(pem: EngineWorld.certificate.certificatePEM)
        case .noTrust: world.clientConfiguration.verification = .insecureNoVerification
        }
        let before = try #require(world.serverSide.connections.first?.handshake?.peerCertificates)
        let (client, server) = try world.connected()
        #expect(client.handshake?.resumed == false)
        #expect(client.handshake?.peerCertificates.isEmpty == false)
        let shown = try #require(server.handshake?.peerCertificates)
        switch change {
        case .otherCertificate, .firstCertificate: #expect(shown.count == 1 && shown != before)
        case .noCertificate: #expect(shown.isEmpty)
        case .otherTrust, .noTrust: #expect(shown == before && shown.count == 1)
        }
    }

    @Test("a client gets no ticket that would outlive its certificate", arguments: [1, 6, 30])
    func aTicketDoesNotOutliveTheCertificate(days: Int) throws {
        let brief = try DevelopmentCertificate.generate(
            names: ["client-8"], validDays: days, now: EngineClock.wall(), keyKind: .ed25519)
        let world = try world(Self.serving(Self.authentication(required: true, brief)), identity: brief)
        let (client, server) = try world.connected()
        world.simulation.run(for: .seconds(2))
        #expect(server.handshake?.peerCertificates.count == 1 && client.closeReason == nil)
        #expect(world.clientSide.tickets.count == (days > 7 ? 1 : 0))
    }

    @Test("a certificate that can't be verified any more ends the return of its client", arguments: [true, false])
    func aCertificateIsVerifiedAgain(required: Bool) throws {
        let tls = try Self.serving(Self.authentication(required: required))
        let world = try world(tls)
        world.clientConfiguration.sessionTicket = try self.ticket(from: world)
        // As when it has expired; the configuration is the same, or the ticket would not open.
        var nobody: gnutls_x509_trust_list_t?
        #expect(gnutls_x509_trust_list_init(&nobody, 0) == 0)
        gnutls_certificate_set_trust_list(tls.current.standard.pointer, nobody, 0)
        let client = try world.connect()
        world.simulation.run(for: .seconds(2))
        let server = try #require(world.serverSide.connections.last)
        #expect(server.handshake == nil)
        guard case .handshakeFailed(let error)? = world.serverSide.closed[server.handle] else {
            Issue.record("\(world.serverSide.closed)")
            return
        }
        #expect(error.code == .certificateRejected)
        #expect(client.closeReason != nil)
    }

    @Test("a server that asks for other certificates, or for some at last, takes no older tickets")
    func aServerThatAsksForOtherCertificatesTakesNoOlderTickets() throws {
        let ring = Self.ring()
        let other = EngineWorld.makeCertificate(names: ["client-9"])
        let before: [TLSClientAuthentication] = [
            .none, Self.authentication(required: false), Self.authentication(required: true, other),
        ]
        for clients in before {
            let world = try world(Self.serving(clients, ring), identity: clients == before[2] ? other : Self.trusted)
            world.clientConfiguration.sessionTicket = try self.ticket(from: world)
            world.clientConfiguration.identity = Self.trusted.credentials
            world.serverConfiguration.server?.tls = try Self.serving(Self.authentication(required: true), ring)
            try world.restartServer()
            let (_, server) = try world.connected()
            #expect(server.handshake?.resumed == false)
            #expect(server.handshake?.peerCertificates.count == 1)
        }
    }

    /// GnuTLS takes what is in a ticket into the session before it knows whether the ticket is the client's, and goes on
    /// without it if the client says that it is too old.
    @Test("nobody takes the certificate of another from a ticket that he has seen", arguments: [true, false])
    func nobodyTakesTheCertificateOfAnother(required: Bool) throws {
        let world = try world(Self.serving(Self.authentication(required: required)))
        let seen = try self.ticket(from: world)
        // Behind the lifetime in what GnuTLS stores stands the number that hides the age; another one makes it absurd.
        let lifetime: [UInt8] = [0x00, 0x09, 0x3a, 0x80]
        var session = seen.session
        let place = try #require(session.indices.dropLast(8).first { Array(session[$0..<$0 + 4]) == lifetime })
        session[place + 4] ^= 0x80
        world.clientConfiguration.identity = nil
        world.clientConfiguration.sessionTicket = SessionTicket(
            session: session, transportParameters: seen.transportParameters, serverName: seen.serverName,
            applicationProtocol: seen.applicationProtocol, expiresAt: seen.expiresAt,
            holder: world.clientConfiguration.ticketHolder)
        let tickets = world.clientSide.tickets.count
        let client = try world.connect()
        world.simulation.run(for: .seconds(3))
        let server = try #require(world.serverSide.connections.last)
        #expect(world.clientSide.tickets.count == tickets, "which would hold the other's certificate")
        guard !required else {
            #expect(server.handshake == nil && client.closeReason != nil)
            return
        }
        #expect(server.handshake?.resumed == false)
        #expect(server.handshake?.peerCertificates.isEmpty == true)
    }

    @Test("0-RTT is refused where clients show certificates") func earlyDataIsRefused() throws {
        #expect(throws: QUICError.self) {
            _ = try TLSServerContext(
                credentials: EngineWorld.certificate.credentials, applicationProtocols: ["t"],
                ticketKeys: Self.ring(), replayStore: ReplayStore(capacity: 10),
                clientAuthentication: Self.authentication(required: false))
        }
    }
}
