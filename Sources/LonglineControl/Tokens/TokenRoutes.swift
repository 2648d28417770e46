import FoundationEssentials
import GRDB
import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore

/// Tokens for an app's devices: issued and revoked by its server.
struct TokenRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let keys: ControlKeys
    let logins: LoginEpochs
    let idempotency: IdempotencyKeys
    let reader: RequestReader
    let limits: ControlLimits
    let time: @Sendable () -> UInt64

    var routes: [ControlRoute] {
        [
            ControlRoute(.post, "/v1/tokens", on: .service) { request, _ in try await issue(request) },
            ControlRoute(.post, "/v1/tokens/revoke", on: .service) { request, context in
                try await revoke(request, context)
            },
            ControlRoute(.get, "/.well-known/jwks.json", on: .service) { _, _ in try await keySet() },
        ]
    }

    // MARK: Issue

    struct Order: RequestBodyMembers, Sendable {
        static let members: Set = ["user", "device", "platform", "scope", "lifetime", "login"]

        var user: String
        var device: String
        var platform: String?
        /// As in a token's claim: words separated by spaces.
        var scope: String?
        /// In seconds.
        var lifetime: Int?
        var login: Bool?
    }

    /// What is kept of an answer under an idempotency key: all but the token, which is signed anew.
    struct Issued: Codable, Sendable {
        var token: String?
        var tokenId: String
        var user: String
        var device: String
        var platform: String
        var scope: String
        var loginEpoch: UInt64
        /// In milliseconds since 1970.
        var issuedAt: UInt64
        var expiresAt: UInt64
        var userGeneration: UInt64
        var deviceGeneration: UInt64

        init(_ claims: TokenClaims, loginEpoch: UInt64, _ generations: RevocationGenerations) {
            tokenId = claims.tokenID
            user = claims.user.description
            device = claims.device.description
            platform = claims.platform.description
            scope = ScopeClaim(scopes: claims.scopes, grants: claims.grants).text
            self.loginEpoch = loginEpoch
            issuedAt = claims.issuedAt
            expiresAt = claims.expiry
            userGeneration = generations.user
            deviceGeneration = generations.device
        }
    }

    private func issue(_ request: Request) async throws -> Response {
        let caller = try await gate.caller(request, .tokens)
        let (order, bytes) = try await reader.json(Order.self, request)
        let claims = try claims(order, caller.tenant)
        try server.requireRunning()
        let issued: Issued
        if let key = try idempotencyKey(request) {
            let digest = IdempotencyKeys.digest("POST /v1/tokens", bytes)
            let subject = UserKey(tenant: claims.tenant, user: claims.user)
            let kept = try await idempotency.once(key, of: caller.key.id, about: subject, request: digest) { _, _ in
                let name = IdempotencyKeys.Name(apiKey: caller.key.id, key: key)
                return try ControlJSON.encode(try await prepare(claims, login: order.login ?? false, under: name))
            }
            issued = try ControlJSON.decoder.decode(Issued.self, from: kept)
        } else {
            issued = try await prepare(claims, login: order.login ?? false, under: nil)
        }
        return .json(try await sign(issued, caller.tenant), status: .created)
    }

    /// A century, in seconds: whatever the limit says, an end has to be a time that a token can name.
    private static let longestLifetime: Int64 = 100 * 366 * 86_400

    /// What was ordered, checked.
    private func claims(_ order: Order, _ tenant: TenantID) throws(Problem) -> TokenClaims {
        let now = time()
        let longest = Int(min(limits.tokenLifetime.components.seconds, Self.longestLifetime))
        let lifetime = order.lifetime ?? min(86_400, longest)
        guard (1...longest).contains(lifetime) else {
            throw Problem(.invalidRequest, "'lifetime' has to be 1 to \(longest) seconds")
        }
        let rights = try order.scope.map { text throws(Problem) in try scope(text) } ?? ScopeClaim(scopes: .all)
        let platform = try order.platform.map { name throws(Problem) in
            try checked("platform", name, DevicePlatform.init)
        }
        return TokenClaims(
            tenant: tenant, user: try checked("user", order.user, UserID.init),
            device: try checked("device", order.device, DeviceID.init), loginEpoch: 0, scopes: rights.scopes,
            grants: rights.grants, tokenID: TokenClaims.makeTokenID(), issuedAt: now,
            expiry: now + UInt64(lifetime) * 1_000, platform: platform ?? .unknown)
    }

    /// What a scope says. A word that grants nothing is refused here, where it is a mistake.
    private func scope(_ text: String) throws(Problem) -> ScopeClaim {
        let words = text.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count <= ScopeClaim.maximumGrants, text.utf8.count <= Self.maximumScope else {
            throw Problem(
                .invalidRequest,
                "'scope' has more than \(ScopeClaim.maximumGrants) words or \(Self.maximumScope) bytes")
        }
        do {
            for word in words where try ScopeClaim(String(word)) == ScopeClaim(scopes: []) {
                throw Problem(.invalidRequest, "'scope' has a word that grants nothing")
            }
            return try ScopeClaim(text)
        } catch let problem as Problem {
            throw problem
        } catch {
            throw Problem(.invalidRequest, "'scope' has more patterns than a token may have")
        }
    }

    /// The longest scope, in bytes.
    private static let maximumScope = 1_024

    /// Draws the login's number. Under an idempotency key all of the token is kept in the transaction of the login, so that a request that
    /// was cut off is no second login when it comes again.
    private func prepare(
        _ claims: TokenClaims, login: Bool, under name: IdempotencyKeys.Name?
    ) async throws -> Issued {
        let device = DeviceKey(tenant: claims.tenant, user: claims.user, device: claims.device)
        guard let work = try await server.beginUnlessErasing(device.user, in: device.tenant) else {
            throw Problem.beingErased
        }
        defer { work.end() }
        // Before the login: a revocation in between makes the token void, never the other way round.
        let generations = try await server.generations(of: device)
        let keep: @Sendable (UInt64, Database) throws -> Void = { epoch, db in
            guard let name else { return }
            let issued = Issued(claims, loginEpoch: epoch, generations)
            try IdempotencyKeys.keep(try ControlJSON.encode(issued), under: name, db)
        }
        let epoch: UInt64
        if login {
            epoch = try await logins.allot(device, now: time(), with: keep)
            // An erasure that was resolved meanwhile voids the token, and forgets the login behind this.
            guard try await !server.isErasurePending(of: device.user, in: device.tenant) else {
                throw Problem.beingErased
            }
        } else {
            let last = try await logins.last(device, now: time())
            if name != nil { try await logins.database.pool.write { db in try keep(last, db) } }
            epoch = last
        }
        return Issued(claims, loginEpoch: epoch, generations)
    }

    private func sign(_ issued: Issued, _ tenant: TenantID) async throws -> Issued {
        let rights = try ScopeClaim(issued.scope)
        let claims = TokenClaims(
            tenant: tenant, user: try UserID(issued.user), device: try DeviceID(issued.device),
            loginEpoch: issued.loginEpoch, scopes: rights.scopes, grants: rights.grants, tokenID: issued.tokenId,
            issuedAt: issued.issuedAt, expiry: issued.expiresAt,
            generations: RevocationGenerations(user: issued.userGeneration, device: issued.deviceGeneration),
            platform: try DevicePlatform(issued.platform))
        var answer = issued
        answer.token = try await keys.current().tokens.sign(claims)
        return answer
    }

    // MARK: Revoke

    /// A time of day in seconds is below for thousands of years, and one in milliseconds above since 1973.
    private static let secondsEndBefore: UInt64 = 100_000_000_000

    struct Revocation: RequestBodyMembers, Sendable {
        static let members: Set = ["user", "device", "token_id", "expires_at"]

        var user: String?
        var device: String?
        var tokenId: String?
        /// When the token would expire by itself, in milliseconds since 1970; not given, it is never forgotten.
        var expiresAt: UInt64?
    }

    private func revoke(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .revoke)
        let order = try await reader.json(Revocation.self, request).value
        let revoked: Logger.Metadata
        switch (order.tokenId, order.user, order.device) {
        case (let token?, nil, nil):
            guard (1...128).contains(token.utf8.count), token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
                throw Problem(.invalidRequest, "'token_id' has to be 1 to 128 printable ASCII characters")
            }
            // For ever: a token may be of a signer that gives longer lives than this one.
            let until = order.expiresAt ?? maximumNumber
            guard until <= maximumNumber else {
                throw Problem(.invalidRequest, "'expires_at' is over \(maximumNumber)")
            }
            // It would be forgotten at the next sweep, and the token good again.
            guard until >= Self.secondsEndBefore else {
                throw Problem(
                    .invalidRequest, "'expires_at' is in milliseconds since 1970, and \(until) looks like seconds")
            }
            try await server.revoke(token: token, in: caller.tenant, until: until)
            revoked = ["what": "token", "token_id": "\(token)"]
        case (nil, .some, _) where order.expiresAt != nil:
            throw Problem(.invalidRequest, "'expires_at' belongs to 'token_id'")
        case (nil, let user?, nil):
            try await server.revoke(user: try checked("user", user, UserID.init), in: caller.tenant)
            revoked = ["what": "user", "user": "\(user)"]
        case (nil, let user?, let device?):
            try await server.revoke(
                device: DeviceKey(
                    tenant: caller.tenant, user: try checked("user", user, UserID.init),
                    device: try checked("device", device, DeviceID.init)))
            revoked = ["what": "device", "user": "\(user)", "device": "\(device)"]
        default:
            throw Problem(
                .invalidRequest, "either 'token_id', or 'user', or 'user' and 'device' say what is to be revoked")
        }
        let caused: Logger.Metadata = ["tenant": "\(caller.tenant)", "api_key": "\(caller.key.id)"]
        context.audit.notice("revoked", metadata: revoked.merging(caused) { $1 })
        return .noContent
    }

    // MARK: Verification keys

    private func keySet() async throws -> Response {
        var response = Response.json(try await keys.current().keySet)
        response.headers[.contentType] = "application/jwk-set+json"
        response.headers[.cacheControl] = "public, max-age=\(ServerDirectory.keySetLifetime.components.seconds)"
        return response
    }
}

/// The caller's idempotency key, if there is one.
/// - Throws: ``Problem`` for one that is too long or not printable.
func idempotencyKey(_ request: Request) throws(Problem) -> String? {
    guard let key = request.headers[.idempotencyKey] else { return nil }
    guard (1...IdempotencyKeys.maximumKey).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
    else {
        throw Problem(
            .invalidRequest,
            "Idempotency-Key has to be 1 to \(IdempotencyKeys.maximumKey) printable ASCII characters without spaces")
    }
    return key
}
