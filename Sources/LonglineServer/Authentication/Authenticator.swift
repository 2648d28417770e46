public import Logging
public import LonglineKeys
public import LonglineSession
public import LonglineStore
public import LonglineWire
import Synchronization

/// Decides who a credential belongs to: a token's or ticket's own content first, then the store's revocations.
///
/// Every call runs on the global executor, not on the caller's event loop, and at most ``maximumConcurrent`` at once: more
/// are refused with ``/LonglineKeys/AuthenticationError/Code/overloaded``, so that a flood of credentials can't take every core or
/// queue without end. What is refused is logged, without the credential.
public final class Authenticator: Sendable {
    /// Verifications under way at once.
    public let maximumConcurrent: Int
    /// Opens and seals resume tickets.
    public let tickets: ResumeTicketSealer
    private let revocations: any Revocations
    private let verifier: Mutex<TokenVerifier>
    private let underWay = Mutex(0)
    private let logger: Logger
    /// Tokens issued earlier are void, to the second; in milliseconds since 1970.
    private let issuedSince: UInt64

    /// An authenticator.
    /// - Parameters:
    ///   - verifier: the keys and tenants.
    ///   - tickets: seals and opens resume tickets.
    ///   - revocations: the store's.
    ///   - logger: told what is refused.
    ///   - maximumConcurrent: verifications under way at once.
    ///   - issuedSince: tokens issued before this are refused, and tickets that came from them; in milliseconds since 1970.
    public init(
        verifier: TokenVerifier, tickets: ResumeTicketSealer, revocations: any Revocations, logger: Logger,
        maximumConcurrent: Int = 256, issuedSince: UInt64 = 0
    ) {
        // A token says when it was issued in seconds.
        self.issuedSince = issuedSince / 1_000 * 1_000
        self.verifier = Mutex(verifier)
        self.tickets = tickets
        self.revocations = revocations
        self.logger = logger
        self.maximumConcurrent = maximumConcurrent
    }

    /// Takes other keys or tenants from now on.
    public func replaceVerifier(_ next: TokenVerifier) { verifier.withLock { $0 = next } }

    /// Decides about a connect's credential.
    /// - Parameters:
    ///   - credential: a token or a resume ticket.
    ///   - now: the wall clock, in milliseconds since 1970.
    public func authenticate(
        _ credential: Credential, now: UInt64
    ) async throws(AuthenticationError) -> AuthenticatedIdentity {
        try await logged("connect") { () async throws(AuthenticationError) in
            try await self.bounded { () async throws(AuthenticationError) in
                let authenticated: AuthenticatedIdentity
                switch credential {
                case .token(let token): authenticated = try await self.verify(token, now: now)
                case .ticket(let ticket):
                    authenticated = try self.tickets.open(ticket, now: now)
                    let verifier = self.verifier.withLock { $0 }
                    guard verifier.serves(authenticated.identity.tenant) else {
                        throw AuthenticationError(
                            .tenantForbidden, "the ticket is for a tenant that is not served here")
                    }
                    guard verifier.trusts(tag: authenticated.keyTag) else {
                        throw AuthenticationError(
                            .ticketRejected, "the ticket descends from a token of a key that is trusted no more")
                    }
                    guard authenticated.issuedAt >= self.issuedSince else {
                        throw AuthenticationError(
                            .ticketRejected, "the ticket descends from a token from before the store was restored")
                    }
                }
                try await self.checkNotRevoked(authenticated)
                return authenticated
            }
        }
    }

    /// Decides about a fresh token for a session that lives: it must name the session's tenant, user and device, and come
    /// from the same login or a later one.
    public func refresh(
        _ token: String, of current: SessionIdentity, now: UInt64
    ) async throws(AuthenticationError) -> AuthenticatedIdentity {
        try await logged("refresh") { () async throws(AuthenticationError) in
            try await self.bounded { () async throws(AuthenticationError) in
                let fresh = try await self.verify(token, now: now)
                guard fresh.identity.tenant == current.tenant, fresh.identity.user == current.user,
                    fresh.identity.device == current.device
                else { throw AuthenticationError(.identityMismatch, "the fresh token is for somebody else") }
                guard fresh.identity.loginEpoch >= current.loginEpoch else {
                    throw AuthenticationError(.identityMismatch, "the fresh token is from an older login")
                }
                try await self.checkNotRevoked(fresh)
                return fresh
            }
        }
    }

    /// Asks the store whether an identity was shut out since it was accepted: for sessions that live while somebody is
    /// revoked.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/revoked``, ``/LonglineKeys/AuthenticationError/Code/storeUnavailable``.
    public func checkNotRevoked(_ authenticated: AuthenticatedIdentity) async throws(AuthenticationError) {
        let identity = authenticated.identity
        let device = DeviceKey(tenant: identity.tenant, user: identity.user, device: identity.device)
        let current: RevocationGenerations
        let isTokenRevoked: Bool
        do {
            current = try await revocations.generations(of: device)
            isTokenRevoked = try await revocations.isRevoked(token: identity.tokenID, in: identity.tenant)
        } catch {
            throw AuthenticationError(.storeUnavailable, "the store could not be asked", cause: "\(error)")
        }
        if isTokenRevoked { throw AuthenticationError(.revoked, "the token was revoked") }
        if authenticated.generations.user < current.user { throw AuthenticationError(.revoked, "the user was revoked") }
        if authenticated.generations.device < current.device {
            throw AuthenticationError(.revoked, "the device was revoked")
        }
    }

    private func verify(_ token: String, now: UInt64) async throws(AuthenticationError) -> AuthenticatedIdentity {
        let (claims, keyTag) = try await verifier.withLock { $0 }.verifyNamingKey(token, now: now)
        let identity = SessionIdentity(
            tenant: claims.tenant, user: claims.user, device: claims.device, loginEpoch: claims.loginEpoch,
            tokenID: claims.tokenID, expiry: claims.expiry, mayPublish: claims.scopes.contains(.publish),
            mayReceive: claims.scopes.contains(.receive), mayJoin: claims.scopes.contains(.join),
            mayManage: claims.scopes.contains(.manage), mayWatch: claims.scopes.contains(.presence),
            mayErase: claims.scopes.contains(.erase),
            grants: claims.grants, platform: claims.platform)
        guard claims.issuedAt >= issuedSince else {
            throw AuthenticationError(.revoked, "the token was issued before the store was restored")
        }
        return AuthenticatedIdentity(
            identity: identity, generations: claims.generations, keyTag: keyTag, issuedAt: claims.issuedAt)
    }

    private func bounded<Result: Sendable>(
        _ work: () async throws(AuthenticationError) -> Result
    ) async throws(AuthenticationError) -> Result {
        let isAdmitted = underWay.withLock { count in
            guard count < maximumConcurrent else { return false }
            count += 1
            return true
        }
        guard isAdmitted else { throw AuthenticationError(.overloaded, "too many credentials at once") }
        defer { underWay.withLock { $0 -= 1 } }
        return try await work()
    }

    private func logged<Result: Sendable>(
        _ occasion: String, _ work: () async throws(AuthenticationError) -> Result
    ) async throws(AuthenticationError) -> Result {
        do { return try await work() } catch {
            logger.info(
                "credential refused",
                metadata: [
                    "occasion": "\(occasion)", "code": "\(error.code.rawValue)", "reason": "\(error.message)",
                    "close": "\(error.closeCode.rawValue)",
                ])
            throw error
        }
    }
}
