import Foundation
import LonglineSession
import LonglineStore
import LonglineWire
import QUICEngine
import Testing

@testable import LonglineServer

@Suite struct KeyFileTests {
    @Test(arguments: TokenAlgorithm.allCases)
    func aSigningKeyIsMadeOnceAndReadBack(algorithm: TokenAlgorithm) async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/signing-key.pem"
            let made = try SigningKey.loadOrCreate(at: path, algorithm: algorithm)
            let read = try SigningKey.loadOrCreate(at: path, algorithm: algorithm)
            #expect(read.keyID == made.keyID && read.algorithm == algorithm)
            #expect(try mode(path) == 0o600)
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["signing-key.pem"])
            let verifier = await TokenVerifier(keys: [made.verificationKey], tenants: nil)
            let token = try await TokenSigner(key: read).sign(try goodClaims())
            #expect(try await verifier.verify(token, now: now).user == (try UserID("alice")))
            #expect(try VerificationKey(pem: made.verificationKey.pem).keyID == made.keyID)
        }
    }

    @Test func processesThatStartTogetherEndWithOneKey() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/key"
            let ids = try await withThrowingTaskGroup(of: String.self) { group in
                for _ in 0..<8 { group.addTask { try SigningKey.loadOrCreate(at: path).keyID } }
                return try await group.reduce(into: Set<String>()) { $0.insert($1) }
            }
            #expect(ids.count == 1)
        }
    }

    @Test func aKeyFileThatOthersMayReadIsNotUsed() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/key"
            _ = try SigningKey.loadOrCreate(at: path)
            try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: path)
            #expect(
                try await authenticationFailure { _ = try SigningKey.loadOrCreate(at: path) } == .keyUnusable)
        }
    }

    @Test func aDamagedKeyFileIsReportedAndLeftAlone() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/key"
            try Data("no key".utf8).write(to: URL(fileURLWithPath: path))
            try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
            let error = #expect(throws: AuthenticationError.self) { try SigningKey.loadOrCreate(at: path) }
            #expect(error?.code == .keyUnusable)
            #expect(error?.message == "\(path) holds no Ed25519 or P-256 private key in PEM form")
            #expect(
                try await authenticationFailure { _ = try ResumeTicketKeys.loadOrCreate(at: path, now: now) }
                    == .keyUnusable)
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "no key")
        }
    }

    @Test func theTextFormsOfAPrivateKeyDoNotShowIt() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/key"
            let key = try SigningKey.loadOrCreate(at: path)
            let secret = try #require(
                try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").dropFirst().first)
            var dumped = ""
            dump(key, to: &dumped)
            for text in ["\(key)", String(reflecting: key), dumped] { #expect(!text.contains(secret)) }
        }
    }

    @Test func ticketKeysOutliveARestartAndARotation() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory + "/ticket-keys"
            let identity = AuthenticatedIdentity(
                identity: SessionIdentity(
                    tenant: try TenantID("acme"), user: try UserID("alice"), device: try DeviceID("phone"),
                    loginEpoch: 0,
                    tokenID: "t", expiry: now + 30 * 86_400_000, mayPublish: true, mayReceive: true, mayJoin: true),
                generations: RevocationGenerations(user: 0, device: 0))
            let first = ResumeTicketSealer(keys: try ResumeTicketKeys.loadOrCreate(at: path, now: now))
            let early = try #require(first.seal(identity, now: now))
            try first.rotateKeysIfDue(now: now + 86_400_000, savingTo: path)
            let late = try #require(first.seal(identity, now: now + 86_400_000))
            #expect(try mode(path) == 0o600)

            let second = ResumeTicketSealer(
                keys: try ResumeTicketKeys.loadOrCreate(at: path, now: now + 86_400_001))
            for ticket in [early, late] {
                #expect(try second.open(ticket.ticket, now: now + 86_400_001) == identity)
            }
        }
    }

    /// The same folder by a path that is so long that no other file's beside these can be named: nothing can be written there.
    private func fullDisk(_ folder: String) -> String {
        let most = 4_095 - "/resume-tickets.keys".utf8.count
        let left = most - folder.utf8.count
        return folder + String(repeating: "/", count: left % 2) + String(repeating: "/.", count: left / 2)
    }

    @Test func aServersSecretsAreReadWhereNothingCanBeWritten() async throws {
        try await withTemporaryDirectory { folder in
            let full = fullDisk(folder)
            #expect(throws: (any Error).self) { try ServerSecrets(directory: full, now: now) }
            let made = try ServerSecrets(directory: folder, now: now)
            // Also when it is time for new keys: the ones before go on.
            for time in [now, now + 2 * 86_400_000] {
                let read = try ServerSecrets(directory: full, now: time)
                #expect(read.endpointKey == made.endpointKey)
                #expect(read.resumeTicketKeys.keys.map(\.id) == made.resumeTicketKeys.keys.map(\.id))
                #expect(read.tlsTicketKeys.serialized() == made.tlsTicketKeys.serialized())
                if time > now {
                    #expect(throws: AuthenticationError.self) { try read.rotateTLSTicketKeys(now: time) }
                    #expect(read.tlsTicketKeys.serialized() == made.tlsTicketKeys.serialized())
                }
            }
            // With room they are other ones, which are kept.
            let rotated = try ServerSecrets(directory: folder, now: now + 2 * 86_400_000)
            #expect(rotated.resumeTicketKeys.keys.count == 2)
            #expect(rotated.tlsTicketKeys.serialized() != made.tlsTicketKeys.serialized())
            let again = try ServerSecrets(directory: folder, now: now + 2 * 86_400_000)
            #expect(again.tlsTicketKeys.serialized() == rotated.tlsTicketKeys.serialized())
        }
    }

    @Test(arguments: ["endpoint.key", "tls-tickets.keys", "resume-tickets.keys"])
    func anEmptyFileOfSecretsIsNamed(name: String) async throws {
        try await withTemporaryDirectory { folder in
            _ = try ServerSecrets(directory: folder, now: now)
            let path = folder + "/" + name
            #expect(truncate(path, 0) == 0)
            let error = #expect(throws: AuthenticationError.self) { try ServerSecrets(directory: folder, now: now) }
            #expect(error.map { "\($0)" }?.contains(path) == true)
        }
    }

    private func mode(_ path: String) throws -> Int? {
        try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    }
}
