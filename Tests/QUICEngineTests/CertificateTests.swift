import Foundation
import LonglineTestKit
import Synchronization
import Testing

@testable import QUICEngine

@Suite struct CertificateTests {
    /// Connects and returns the error the client's application sees.
    private func failure(_ configure: (inout ClientConfiguration) -> Void) throws -> QUICError {
        let world = try EngineWorld { _, client in configure(&client) }
        let client = try world.connect()
        world.simulation.run(for: .seconds(5)) { client.isClosed }
        guard case .handshakeFailed(let error)? = world.clientSide.closed[client.handle] else {
            throw EngineWorld.Failure("closed with \(String(describing: world.clientSide.closed[client.handle]))")
        }
        // The server learns that it failed, too, and keeps nothing.
        world.simulation.run(for: .seconds(5))
        #expect(world.server.connectionCount == 0)
        #expect(world.server.handshakesInProgress == 0)
        return error
    }

    @Test("a private key is written with all its 32 bytes and no more, as other libraries expect")
    func aPrivateKeyIsWrittenWithAllItsBytes() throws {
        // GnuTLS left to itself writes half of all keys with 33.
        for _ in 0..<24 {
            let pem = try DevelopmentCertificate.generate(names: ["server.test"], now: 1_700_000_000).privateKeyPEM
            let base64 = pem.split(separator: "\n").filter { !$0.hasPrefix("-----") }.joined()
            let der = try #require(Data(base64Encoded: base64))
            // ECPrivateKey: version 1, then an OCTET STRING of 32 bytes (RFC 5915 section 3).
            #expect(der.firstRange(of: Data([0x02, 0x01, 0x01, 0x04, 0x20])) != nil)
        }
    }

    @Test("an unknown issuer is refused with advice") func anUnknownIssuerIsRefusedWithAdvice() throws {
        let other = EngineWorld.makeCertificate(names: ["server.test"])
        let error = try failure { $0.verification = .certificateAuthority(pem: other.certificatePEM) }
        #expect(error.code == .certificateRejected)
        #expect(error.message.contains("issuer"))
        #expect(!error.advice.isEmpty)
    }

    @Test("a certificate for another name is refused") func aCertificateForAnotherNameIsRefused() throws {
        let error = try failure { $0.serverName = "other.test" }
        #expect(error.code == .certificateRejected)
        #expect(error.message.contains("other.test"))
    }

    @Test("a numeric address in the certificate is accepted") func aNumericAddressInTheCertificateIsAccepted() throws {
        let world = try EngineWorld { _, client in client.serverName = "10.0.0.1" }
        let (client, server) = try world.connected()
        #expect(client.handshake != nil)
        #expect(server.handshake?.serverName == nil, "an address is no server name")
    }

    @Test("a certificate that is for clients only is refused of a server, one for all purposes isn't")
    func aCertificateForClientsOnlyIsRefused() throws {
        func connect(_ purposes: [String], as name: String) throws -> QUICCloseReason? {
            let certificate = try DevelopmentCertificate.generate(
                names: ["server.test", "10.0.0.1"], validDays: 20000, now: 1_000_000_000, keyKind: .ed25519,
                purposes: purposes)
            let world = try EngineWorld { _, client in
                client.serverName = name
                client.verification = .certificateAuthority(pem: certificate.certificatePEM)
            }
            try world.tls.reload(certificate.credentials)
            let client = try world.connect()
            world.simulation.run(for: .seconds(5)) { client.isClosed || client.handshake != nil }
            return world.clientSide.closed[client.handle]
        }
        for name in ["server.test", "10.0.0.1"] {
            #expect(try connect([], as: name) == nil)
            #expect(try connect([DevelopmentCertificate.KeyPurpose.server], as: name) == nil)
            guard
                case .handshakeFailed(let error)? =
                    try connect([DevelopmentCertificate.KeyPurpose.client], as: name)
            else {
                Issue.record("accepted as \(name)")
                continue
            }
            #expect(error.code == .certificateRejected && error.message.contains("purpose"))
        }
    }

    @Test("the system's roots don't trust a development certificate")
    func theSystemsRootsDontTrustADevelopmentCertificate() throws {
        let error = try failure { $0.verification = .systemRoots }
        #expect(error.code == .certificateRejected || error.code == .invalidConfiguration)
    }

    @Test("a pin accepts its key and no other") func aPinAcceptsItsKeyAndNoOther() throws {
        let world = try EngineWorld { _, client in
            client.serverName = "whatever.test"
            client.verification = .pinnedPublicKey(
                sha256: [[UInt8](repeating: 0, count: 32), EngineWorld.certificate.publicKeySHA256])
        }
        _ = try world.connected()
        let error = try failure { $0.verification = .pinnedPublicKey(sha256: [[UInt8](repeating: 1, count: 32)]) }
        #expect(error.code == .certificateRejected)
        #expect(error.message.contains("pinned"))
    }

    @Test("no verification has to be asked for by name") func noVerificationHasToBeAskedForByName() throws {
        let world = try EngineWorld { _, client in
            client.serverName = "whatever.test"
            client.verification = .insecureNoVerification
        }
        _ = try world.connected()
    }

    @Test("no common protocol fails the handshake on both sides") func noCommonProtocolFailsTheHandshakeOnBothSides()
        throws
    {
        let error = try failure { $0.applicationProtocols = ["something/else"] }
        #expect(error.code == .handshakeFailed)
        #expect(error.advice.contains("ALPN"))
    }

    @Test("a certificate is replaced while connections live") func aCertificateIsReplacedWhileConnectionsLive() throws {
        let world = try EngineWorld()
        world.serverSide.echoes = true
        let (old, _) = try world.connected()
        let replacement = EngineWorld.makeCertificate(names: ["server.test"])
        try world.tls.reload(replacement.credentials)
        #expect(throws: QUICError.self) {
            try world.tls.reload(TLSServerCredentials(certificateChainPEM: "nonsense", privateKeyPEM: "nonsense"))
        }
        world.clientConfiguration.verification = .certificateAuthority(pem: replacement.certificatePEM)
        let (new, _) = try world.connected()
        #expect(new.handshake?.peerCertificates != old.handshake?.peerCertificates)
        let stream = try old.open()
        try old.send(pattern(100), on: stream, finish: true)
        world.simulation.run(for: .seconds(1)) { world.clientSide.finished.contains(stream) }
        #expect(world.clientSide.received[stream] == pattern(100))
    }

    @Test("key and certificate must belong together") func keyAndCertificateMustBelongTogether() throws {
        let one = EngineWorld.makeCertificate(names: ["a"])
        let two = EngineWorld.makeCertificate(names: ["a"])
        #expect(throws: QUICError.self) {
            try TLSServerContext(
                credentials: TLSServerCredentials(
                    certificateChainPEM: one.certificatePEM, privateKeyPEM: two.privateKeyPEM),
                applicationProtocols: ["x"])
        }
    }

    @Test("an ECDSA certificate works and is the default") func anECDSACertificateWorksAndIsTheDefault() throws {
        let certificate = try DevelopmentCertificate.generate(
            names: ["server.test", "127.0.0.1", "::1"], validDays: 20000, now: 1_000_000_000)
        let world = try EngineWorld()
        try world.tls.reload(certificate.credentials)
        world.clientConfiguration.verification = .certificateAuthority(pem: certificate.certificatePEM)
        _ = try world.connected()
        #expect(certificate.privateKeyPEM.contains("BEGIN PRIVATE KEY"))
    }

    @Test("the key log has the lines Wireshark wants") func theKeyLogHasTheLinesWiresharkWants() throws {
        final class Lines: Sendable {
            let all = Mutex<[String]>([])
        }
        let lines = Lines()
        let world = try EngineWorld { _, client in
            client.keyLog = { line in lines.all.withLock { $0.append(line) } }
        }
        _ = try world.connected()
        let all = lines.all.withLock { $0 }
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"] {
            let line = try #require(all.first { $0.hasPrefix(label + " ") })
            let parts = line.split(separator: " ")
            #expect(parts.count == 3)
            #expect(parts[1].count == 64)
            #expect(parts[2].allSatisfy { $0.isHexDigit })
        }
    }
}
