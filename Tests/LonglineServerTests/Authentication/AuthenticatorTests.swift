import LonglineServer
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@Suite struct AuthenticatorTests {
    let signer: TokenSigner
    let revocations = FakeRevocations()
    let log = LogRecorder()
    let authenticator: Authenticator

    init() async throws {
        let key = SigningKey.generate(.es256)
        signer = await TokenSigner(key: key)
        authenticator = Authenticator(
            verifier: await TokenVerifier(keys: [key.verificationKey], tenants: [try TenantID("acme")]),
            tickets: ResumeTicketSealer(keys: ResumeTicketKeys(now: now)), revocations: revocations,
            logger: log.logger)
    }

    private var alice: DeviceKey {
        get throws { DeviceKey(tenant: try TenantID("acme"), user: try UserID("alice"), device: try DeviceID("phone")) }
    }

    /// The claims as a token and as a ticket that descends from it.
    private func credentials(_ claims: TokenClaims) async throws -> [Credential] {
        let token = Credential.token(try await signer.sign(claims))
        let authenticated = try await authenticator.authenticate(token, now: now)
        let ticket = try #require(authenticator.tickets.seal(authenticated, now: now))
        return [token, .ticket(ticket.ticket)]
    }

    @Test func tokenAndTicketYieldTheSameIdentity() async throws {
        for credential in try await credentials(try goodClaims(scopes: [.receive])) {
            let identity = try await authenticator.authenticate(credential, now: now).identity
            #expect("\(identity.user) \(identity.device) \(identity.tenant)" == "alice phone acme")
            #expect(identity.loginEpoch == 3 && identity.tokenID == "token-1" && identity.expiry == now + 3_600_000)
            #expect(identity.mayReceive && !identity.mayPublish && !identity.mayJoin)
        }
    }

    @Test func aTenantThatIsNotServedAnyMoreOpensNothing() async throws {
        let key = SigningKey.generate(.es256)
        func verifier(_ tenant: String) async throws -> TokenVerifier {
            await TokenVerifier(keys: [key.verificationKey], tenants: [try TenantID(tenant)])
        }
        let authenticator = Authenticator(
            verifier: try await verifier("acme"), tickets: authenticator.tickets, revocations: revocations,
            logger: log.logger)
        let token = Credential.token(try await TokenSigner(key: key).sign(try goodClaims()))
        let accepted = try await authenticator.authenticate(token, now: now)
        let ticket = Credential.ticket(try #require(authenticator.tickets.seal(accepted, now: now)).ticket)
        authenticator.replaceVerifier(try await verifier("rival"))
        for credential in [token, ticket] {
            let failure = try await authenticationFailure {
                _ = try await authenticator.authenticate(credential, now: now)
            }
            #expect(failure == .tenantForbidden)
        }
    }

    enum Revocation: CaseIterable { case token, user, device }

    @Test(arguments: Revocation.allCases)
    func aRevocationEndsTokensAndTicketsAlike(kind: Revocation) async throws {
        let shutOut = try await credentials(try goodClaims())
        let others = [
            kind == .user
                ? try await credentials(try goodClaims(user: "bob", tokenID: "token-2"))
                : try await credentials(try goodClaims(device: "tablet", tokenID: "token-2"))
        ].flatMap { $0 }
        let device = try alice
        switch kind {
        case .token: try await revocations.revoke(token: "token-1", in: device.tenant, until: now + 3_600_000)
        case .user: try await revocations.revoke(user: device.user, in: device.tenant)
        case .device: try await revocations.revoke(device: device)
        }
        for credential in shutOut {
            let failure = try await authenticationFailure {
                _ = try await authenticator.authenticate(credential, now: now)
            }
            #expect(failure == .revoked)
        }
        for credential in others { _ = try await authenticator.authenticate(credential, now: now) }
    }

    @Test func aTokenIssuedAfterTheRevocationIsGood() async throws {
        try await revocations.revoke(device: try alice)
        var claims = try goodClaims()
        claims.generations = try await revocations.generations(of: try alice)
        _ = try await authenticator.authenticate(.token(try await signer.sign(claims)), now: now)
    }

    @Test func aLivingSessionLearnsThatItWasRevoked() async throws {
        let token = try await signer.sign(try goodClaims())
        let session = try await authenticator.authenticate(.token(token), now: now)
        try await authenticator.checkNotRevoked(session)
        try await revocations.revoke(user: try UserID("alice"), in: try TenantID("acme"))
        #expect(try await authenticationFailure { try await authenticator.checkNotRevoked(session) } == .revoked)
    }

    @Test func aRefreshIsForTheSameDeviceAndNoOlderLogin() async throws {
        let session = try await authenticator.authenticate(.token(try await signer.sign(try goodClaims())), now: now)
        func refresh(_ claims: TokenClaims) async throws -> AuthenticationError.Code? {
            let token = try await signer.sign(claims)
            return try await authenticationFailure {
                let fresh = try await authenticator.refresh(token, of: session.identity, now: now)
                #expect(fresh.identity.tokenID == claims.tokenID)
            }
        }
        #expect(try await refresh(try goodClaims(tokenID: "token-2")) == nil)
        #expect(try await refresh(try goodClaims(tokenID: "token-3", loginEpoch: 4)) == nil)
        #expect(try await refresh(try goodClaims(loginEpoch: 2)) == .identityMismatch)
        #expect(try await refresh(try goodClaims(user: "bob")) == .identityMismatch)
        #expect(try await refresh(try goodClaims(device: "tablet")) == .identityMismatch)
        #expect(try await refresh(try goodClaims(tenant: "rival")) == .tenantForbidden)
        try await revocations.revoke(token: "token-9", in: try TenantID("acme"), until: .max)
        #expect(try await refresh(try goodClaims(tokenID: "token-9")) == .revoked)
    }

    @Test func aStoreThatDoesNotAnswerLetsNobodyIn() async throws {
        let token = try await signer.sign(try goodClaims())
        revocations.breakDown()
        let failure = try await authenticationFailure {
            _ = try await authenticator.authenticate(.token(token), now: now)
        }
        #expect(failure == .storeUnavailable)
    }

    @Test func moreAtOnceThanTheLimitAreTurnedAway() async throws {
        let strict = Authenticator(
            verifier: await TokenVerifier(keys: [signer.key.verificationKey], tenants: nil),
            tickets: authenticator.tickets, revocations: revocations, logger: log.logger, maximumConcurrent: 0)
        let token = try await signer.sign(try goodClaims())
        let failure = try await authenticationFailure { _ = try await strict.authenticate(.token(token), now: now) }
        #expect(failure == .overloaded)
        #expect(AuthenticationError(.overloaded, "").closeCode.policy == .backOff)
    }

    @Test func aReplacedVerifierCountsFromTheNextCredential() async throws {
        let token = try await signer.sign(try goodClaims())
        authenticator.replaceVerifier(
            await TokenVerifier(keys: [SigningKey.generate(.edDSA).verificationKey], tenants: nil))
        let failure = try await authenticationFailure {
            _ = try await authenticator.authenticate(.token(token), now: now)
        }
        #expect(failure == .keyUnknown)
    }

    @Test func aTicketFallsWithItsKeyAlsoWhereAnotherComesUnderTheSameID() async throws {
        let credentials = try await credentials(try goodClaims())
        let other = SigningKey.generate(.es256).verificationKey
        let set = String(decoding: JSONWebKeySet(keys: [other]).json, as: UTF8.self)
        let renamed = try JSONWebKeySet(
            json: Array(set.replacing(other.keyID, with: signer.key.keyID).utf8)
        ).keys
        #expect(renamed.map(\.keyID) == [signer.key.keyID] && renamed.map(\.pem) == [other.pem])
        authenticator.replaceVerifier(await TokenVerifier(keys: renamed, tenants: nil))
        for (credential, expected) in zip(
            credentials, [AuthenticationError.Code.signatureInvalid, .ticketRejected])
        {
            let failure = try await authenticationFailure {
                _ = try await authenticator.authenticate(credential, now: now)
            }
            #expect(failure == expected)
        }
        authenticator.replaceVerifier(await TokenVerifier(keys: renamed + [signer.key.verificationKey], tenants: nil))
        _ = try await authenticator.authenticate(credentials[1], now: now)
    }

    @Test func everyFailureIsLoggedAndNoLineHoldsACredential() async throws {
        let good = try await signer.sign(try goodClaims())
        let expired = try await signer.sign(try goodClaims())
        var refused: [(Credential, UInt64)] = [
            (.token(expired), now + 86_400_000),
            (.token(good + "A"), now),
            (.token("secret.secret.secret"), now),
            (.token(good.split(separator: ".").dropLast().joined(separator: ".") + "."), now),
            (.ticket(ByteBuffer(string: "secret ticket")), now),
        ]
        refused.append((.token(try await signer.sign(try goodClaims(tenant: "secret-rival"))), now))
        for (credential, time) in refused {
            do {
                _ = try await authenticator.authenticate(credential, now: time)
                Issue.record("\(credential) was accepted")
            } catch {
                #expect(!"\(error)".contains("secret"))
            }
        }
        #expect(log.lines.count == refused.count)
        let pieces = good.split(separator: ".").map(String.init) + ["secret"]
        for line in log.lines {
            for piece in pieces { #expect(!line.contains(piece), "\(line)") }
        }
    }

    @Test(arguments: AuthenticationError.Code.allCases)
    func everyFailureHasACloseCodeThatSaysWhatToDo(code: AuthenticationError.Code) {
        let policy = AuthenticationError(code, "").closeCode.policy
        switch code {
        case .overloaded, .storeUnavailable, .keyUnusable: #expect(policy == .backOff)
        case .tenantForbidden, .identityMismatch: #expect(policy == .stop)
        default: #expect(policy == .newToken)
        }
    }
}
