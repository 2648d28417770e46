import LonglineTestKit
import Testing

@testable import QUICEngine

@Suite struct TLSTests {
    private func serving(
        _ certificate: DevelopmentCertificate = EngineWorld.certificate, protocols: [String] = ["test/1"],
        byName: [String: DevelopmentCertificate] = [:], clients: TLSClientAuthentication = .none,
        suites: [TLSCipherSuite] = TLSCipherSuite.standard
    ) throws -> TLSServerContext {
        try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: protocols,
            certificatesByName: byName.mapValues(\.credentials), clientAuthentication: clients, cipherSuites: suites)
    }

    @Test("a client gets the certificate for the name it asks for") func aClientGetsTheCertificateForItsName() throws {
        let exact = EngineWorld.makeCertificate(names: ["Other.test"])
        let wildcard = EngineWorld.makeCertificate(names: ["*.many.test"])
        let tls = try serving(byName: ["other.TEST": exact, "*.many.test": wildcard])
        let expected: [(String, DevelopmentCertificate?)] = [
            ("server.test", EngineWorld.certificate), ("other.test", exact), ("OTHER.test", exact),
            ("a.many.test", wildcard), ("10.0.0.1", EngineWorld.certificate),
            // One label only, as certificates have it; and a name without a certificate.
            ("a.b.many.test", nil), ("many.test", nil),
        ]
        for (name, certificate) in expected {
            let world = try EngineWorld { server, client in
                server.tls = tls
                client.serverName = name
                // The pin shows which certificate came, whatever name is in it.
                let expected = certificate ?? EngineWorld.certificate
                client.verification =
                    certificate == nil
                    ? .pinnedPublicKey(sha256: [expected.publicKeySHA256])
                    : .certificateAuthority(pem: expected.certificatePEM)
            }
            let (client, server) = try world.connected()
            #expect(client.handshake?.peerCertificates.count == 1, "\(name)")
            #expect(server.handshake?.serverName?.lowercased() == (name == "10.0.0.1" ? nil : name.lowercased()))
        }
        #expect(throws: QUICError.self) { try serving(byName: ["*": exact]) }
        #expect(throws: QUICError.self) { try serving(byName: ["a.*.test": exact]) }
    }

    @Test("a server verifies its clients' certificates", arguments: [true, false])
    func aServerVerifiesItsClientsCertificates(required: Bool) throws {
        let trusted = EngineWorld.makeCertificate(names: ["client-7"])
        let stranger = EngineWorld.makeCertificate(names: ["client-8"])
        let tls = try serving(
            clients: required
                ? .required(authorityPEM: trusted.certificatePEM) : .requested(authorityPEM: trusted.certificatePEM))
        func attempt(_ identity: DevelopmentCertificate?) throws -> (HandshakeInfo?, QUICCloseReason?, QUICCloseReason?)
        {
            let world = try EngineWorld { server, client in
                server.tls = tls
                client.identity = identity?.credentials
            }
            let client = try world.connect()
            world.simulation.run(for: .seconds(2))
            let server = try #require(world.serverSide.connections.first)
            return (
                server.handshake, world.serverSide.closed[server.handle], world.clientSide.closed[client.handle]
            )
        }
        let shown = try attempt(trusted)
        #expect(shown.0?.peerCertificates.count == 1)
        #expect(shown.1 == nil && shown.2 == nil)

        // GnuTLS offers a certificate only if its issuer is one the server named; this one it keeps to itself.
        for identity in [nil, stranger] {
            let refused = try attempt(identity)
            guard required else {
                #expect(refused.0?.peerCertificates.isEmpty == true)
                continue
            }
            #expect(refused.0 == nil)
            guard case .handshakeFailed(let error)? = refused.1 else {
                Issue.record("\(String(describing: refused.1))")
                continue
            }
            #expect(error.code == .certificateRejected)
            #expect(error.message.contains("client"))
            #expect(refused.2 != nil, "the client is told")
        }
        #expect(throws: QUICError.self) { try serving(clients: .required(authorityPEM: "nothing")) }
    }

    @Test("both sides export the same secrets, and nobody else's", arguments: TLSCipherSuite.allCases)
    func bothSidesExportTheSameSecrets(suite: TLSCipherSuite) throws {
        let tls = try serving(suites: [suite])
        let world = try EngineWorld { server, _ in server.tls = tls }
        let early = try world.connect()
        #expect(throws: QUICError.self) { try early.exportKeyingMaterial(label: "a", context: [], count: 16) }
        let (client, server) = try world.connected()
        #expect(client.handshake?.cipherSuite == suite.rawValue)
        for count in [1, 32, 100] {
            for (label, context) in [("EXPORTER-Channel-Binding", []), ("other", [1, 2, 3])] as [(String, [UInt8])] {
                let ours = try client.exportKeyingMaterial(label: label, context: context, count: count)
                #expect(try server.exportKeyingMaterial(label: label, context: context, count: count) == ours)
            }
        }
        let base = try server.exportKeyingMaterial(label: "a", context: [], count: 32)
        #expect(try server.exportKeyingMaterial(label: "b", context: [], count: 32) != base)
        #expect(try server.exportKeyingMaterial(label: "a", context: [0], count: 32) != base)
        for (label, count) in [("", 1), (String(repeating: "x", count: 250), 1), ("x", 0), ("x", 8161)] {
            #expect(throws: QUICError.self) {
                try server.exportKeyingMaterial(label: label, context: [], count: count)
            }
        }
        let longest = String(repeating: "x", count: 249)
        #expect(
            try server.exportKeyingMaterial(label: longest, context: [], count: 8160)
                == client.exportKeyingMaterial(label: longest, context: [], count: 8160))
        let (_, another) = try world.connected()
        #expect(try another.exportKeyingMaterial(label: "a", context: [], count: 32) != base)
    }

    /// Computed with Python's hmac and hashlib from RFC 8446 sections 7.1 and 7.5.
    @Test("keying material is what the standard says") func keyingMaterialIsWhatTheStandardSays() {
        func hex(_ bytes: [UInt8]?) -> String? { bytes?.hexadecimal }
        #expect(
            hex(TLSHash.export(secret: Array(0..<32), label: "EXPORTER-Channel-Binding", context: [], count: 32))
                == "34a93b1dd3c2b63ebc1bced0d7d37ade4e53c057e4d368578a5bef73771e2a1b")
        #expect(
            hex(
                TLSHash.export(
                    secret: Array(0..<48), label: String(repeating: "x", count: 249), context: [1, 2, 3], count: 50))
                == "3d1bdabaac3cfe3e9742ffe8709552b91b8f6db0c9104e4b6e41d9ba90ce"
                + "d75595789446ecc8ee95ed80c2d306a77b28d1a1")
        #expect(TLSHash.export(secret: Array(0..<31), label: "x", context: [], count: 1) == nil)
        #expect(TLSHash.export(secret: Array(0..<32), label: "x", context: [], count: 8161) == nil)
    }

    @Test("lists of protocols that the TLS library can't send are refused, others work")
    func protocolListsThatCannotBeSentAreRefused() throws {
        let credentials = EngineWorld.certificate.credentials
        let nine = (1...9).map { "p/\($0)" }
        for names in [[], [""], nine, [String(repeating: "n", count: 32)]] {
            let error = #expect(throws: QUICError.self) {
                _ = try TLSServerContext(credentials: credentials, applicationProtocols: names)
            }
            #expect(error?.code == .invalidConfiguration)
            let world = try EngineWorld()
            world.clientConfiguration.applicationProtocols = names
            #expect(throws: QUICError.self) { _ = try world.connect() }
        }
        // Eight names of 31 bytes.
        let names = (1...8).map { "\($0)" + String(repeating: "n", count: 30) }
        let world = try EngineWorld()
        world.serverConfiguration.server = ServerConfiguration(
            tls: try TLSServerContext(credentials: credentials, applicationProtocols: names))
        try world.restartServer()
        world.clientConfiguration.applicationProtocols = names.reversed()
        let (client, _) = try world.connected()
        #expect(client.handshake?.applicationProtocol == names[0])
    }

    @Test("sides without a cipher suite in common fail cleanly") func sidesWithoutACommonCipherSuiteFail() throws {
        let tls = try serving(suites: [.chacha20Poly1305])
        let world = try EngineWorld { server, client in
            server.tls = tls
            client.cipherSuites = [.aes256GCM]
        }
        let client = try world.connect()
        world.simulation.run(for: .seconds(2))
        guard case .handshakeFailed? = world.clientSide.closed[client.handle] else {
            Issue.record("\(world.clientSide.closed)")
            return
        }
        world.clientConfiguration.cipherSuites = [.aes128GCM, .chacha20Poly1305]
        #expect(try world.connected().client.handshake?.cipherSuite == "CHACHA20-POLY1305")
        for suites in [[], [TLSCipherSuite.aes128GCM, .aes128GCM]] {
            world.clientConfiguration.cipherSuites = suites
            #expect(throws: QUICError.self) { try world.connect() }
        }
    }

    @Test("a key is updated before it has protected too many packets") func aKeyIsUpdatedInTime() throws {
        let world = try EngineWorld { _, client in client.transport.packetsPerKey = 64 }
        world.serverSide.echoes = true
        let (client, server) = try world.connected()
        // Over some time: keys are not updated faster than both sides can know of it.
        for round in 0..<200 {
            let stream = try client.open()
            try client.send(pattern(3000, round), on: stream, finish: true)
            world.simulation.run(for: .seconds(5)) { world.clientSide.finished.contains(stream) }
            #expect(world.clientSide.finished.contains(stream))
            world.simulation.run(for: .milliseconds(50))
        }
        let statistics = client.statistics(now: world.network.now)
        #expect(statistics.keyUpdates >= 3, "\(statistics.packetsSent) packets")
        // The server follows.
        let followed = server.statistics(now: world.network.now).keyUpdates
        #expect(followed == statistics.keyUpdates || followed == statistics.keyUpdates - 1)
    }
}
