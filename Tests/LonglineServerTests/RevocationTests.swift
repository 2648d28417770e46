import LonglineSession
import LonglineStore
import LonglineWire
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let phoneOfAnn = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: identifier { try DeviceID("phone") })
private let everyone = UserKey(tenant: TokenIssuer.tenant, user: ann)

/// Who is shut out loses the sessions that live, not only those to come.
@Suite(.timeLimit(.minutes(1))) struct RevocationTests {
    /// Devices on both loops, each with a token of its own ID.
    private func connected(_ server: TestServer, _ user: String, _ name: String, loop: Int) async throws -> TestDevice {
        let device = try await server.device(user, name, loop: loop)
        let token = try await server.issuer.token(user, name, id: "\(user).\(name)")
        _ = try await device.connect(credential: .token(token))
        return device
    }

    enum Kind: CaseIterable { case user, device, token }

    @Test(arguments: Kind.allCases) func livingSessionsEndAtOnceAndNobodyElses(kind: Kind) async throws {
        try await withServer { server in
            let phone = try await connected(server, "ann", "phone", loop: 0)
            let tablet = try await connected(server, "ann", "tablet", loop: 1)
            let other = try await connected(server, "bob", "phone", loop: 1)
            let target: RevocationTarget =
                switch kind {
                case .user: .user(everyone)
                case .device: .device(phoneOfAnn)
                case .token: .token("ann.phone", TokenIssuer.tenant)
                }
            try await server.runtime.revoke(target, until: .max)
            // The sessions had ended when the call returned: nothing that is sent now is entered.
            let close = try await phone.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .credentialRevoked)
            #expect(try await phone.closed() == .credentialRevoked)
            if kind == .user {
                #expect(try await tablet.closed() == .credentialRevoked)
            } else {
                try await tablet.message("still here", to: bob)
                #expect(try await other.text(.user(bob)) == "still here")
            }
            guard case .published = try await other.message("me too", to: bob) else {
                return #expect(Bool(false), "bob was not revoked")
            }
            // Neither the token nor the ticket that came from it opens another session.
            let token = try await server.issuer.token("ann", "phone", id: "ann.phone")
            for credential in [Credential.token(token), .ticket(try #require(phone.ticket).ticket)] {
                let again = try await server.device("ann", "phone", loop: 1)
                try await again.send([(again.connectFrame(credential), .control)])
                #expect(try await again.closed() == .credentialRevoked)
            }
        }
    }

    @Test(arguments: Kind.allCases) func whatCanNotBeStoredRevokesNothing(kind: Kind) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await connected(server, "ann", "phone", loop: 0)
            store.set { $0.isFull = true }
            await #expect(throws: StoreError.self) {
                switch kind {
                case .user: try await server.runtime.revoke(.user(everyone))
                case .device: try await server.runtime.revoke(.device(phoneOfAnn))
                case .token: try await server.runtime.revoke(.token("ann.phone", TokenIssuer.tenant), until: .max)
                }
            }
            store.set { $0.isFull = false }
            guard case .published = try await phone.message("still here", to: ann) else {
                return #expect(Bool(false), "the session ended without a durable revocation")
            }
        }
    }

    /// The store has told that nothing was revoked, and the session is in no table yet: it is asked again.
    @Test(arguments: [0, 1]) func aCredentialThatIsBeingVerifiedDoesNotSlipThrough(loop: Int) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let runtime = server.runtime
            store.set { $0.afterRevocations = { try? await runtime.revoke(.user(everyone)) } }
            let phone = try await server.device("ann", loop: loop)
            let token = try await server.issuer.token("ann", "phone")
            try await phone.send([(phone.connectFrame(.token(token)), .control)])
            #expect(try await phone.closed() == .credentialRevoked)
        }
    }

    @Test func aFreshTokenThatIsBeingVerifiedDoesNotSlipThrough() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await connected(server, "ann", "phone", loop: 0)
            let runtime = server.runtime
            // The session's own token is not the one that is revoked: only the fresh one is.
            store.set {
                $0.afterRevocations = { try? await runtime.revoke(.token("fresh", TokenIssuer.tenant), until: .max) }
            }
            let fresh = try await server.issuer.token("ann", "phone", id: "fresh")
            try await phone.send([(.refresh(Refresh(token: fresh)), .control)])
            #expect(try await phone.closed() == .credentialRevoked)
        }
    }

    /// However many others are shut out while a credential is verified, again and again.
    @Test func revocationsOfOthersHoldNobodyUp() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let runtime = server.runtime
            let other = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("tablet"))
            @Sendable func revokeOthers() async {
                store.set { $0.afterRevocations = revokeOthers }
                try? await runtime.revoke(.user(UserKey(tenant: TokenIssuer.tenant, user: bob)))
                try? await runtime.revoke(.device(other))
                try? await runtime.revoke(.token("another", TokenIssuer.tenant), until: .max)
            }
            store.set { $0.afterRevocations = revokeOthers }
            let phone = try await connected(server, "ann", "phone", loop: 0)
            let fresh = try await server.issuer.token("ann", "phone", id: "fresh")
            try await phone.send([(.refresh(Refresh(token: fresh)), .control)])
            _ = try await phone.next { if case .refreshed = $0 { true } else { nil } }
        }
    }

    /// More revocations than are remembered come during each verification.
    @Test(arguments: [false, true]) func whatCanNotBeToldIsAskedAFewTimesOnly(refreshes: Bool) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let core = server.runtime.core
            let asked = Mutex(0)
            @Sendable func revokeMany() {
                store.set { $0.afterRevocations = { revokeMany() } }
                asked.withLock { $0 += 1 }
                for _ in 0...RevocationLog.limit { core.revocations.append(.token("another", TokenIssuer.tenant)) }
            }
            let phone = try await server.device("ann")
            let token = try await server.issuer.token("ann", "phone")
            if refreshes { _ = try await phone.connect() }
            store.set { $0.afterRevocations = { revokeMany() } }
            let frame = refreshes ? Frame.refresh(Refresh(token: token)) : phone.connectFrame(.token(token))
            try await phone.send([(frame, .control)])
            let close = try await phone.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .overloaded && close.retryAfter > 0)
            #expect(asked.withLock { $0 } == 3)
        }
    }

    @Test func aSessionIsFoundByTheTokenItHasNow() async throws {
        try await withServer(loops: 1) { server in
            let phone = try await connected(server, "ann", "phone", loop: 0)
            let other = try await connected(server, "bob", "phone", loop: 0)
            let fresh = try await server.issuer.token("ann", "phone", id: "fresh")
            try await phone.send([(.refresh(Refresh(token: fresh)), .control)])
            _ = try await phone.next { if case .refreshed = $0 { true } else { nil } }
            func revoke(_ token: String) async throws {
                try await server.runtime.revoke(.token(token, TokenIssuer.tenant), until: .max)
            }
            func found() async throws -> Int { try await server.runtime.loops[0].submit { $0.tokenCount } }
            #expect(try await found() == 2)
            try await revoke("ann.phone")
            try await phone.message("still here", to: bob)
            #expect(try await other.text(.user(bob)) == "still here")
            try await revoke("fresh")
            #expect(try await phone.closed() == .credentialRevoked)
            #expect(try await found() == 1)
        }
    }

    @Test(arguments: [Kind.user, .device]) func nothingOfTheEndedSessionGoesOn(kind: Kind) async throws {
        try await withServer { server in
            let phone = try await connected(server, "ann", "phone", loop: 0)
            try await server.runtime.revoke(kind == .user ? .user(everyone) : .device(phoneOfAnn))
            #expect(try await phone.closed() == .credentialRevoked)
            let again = try await server.device("ann", "phone")
            let generations = try await server.store.generations(of: phoneOfAnn)
            let token = try await server.issuer.token("ann", "phone", login: 2, generations: generations)
            #expect(try await again.connect(credential: .token(token)).resumed == false)
        }
    }
}
