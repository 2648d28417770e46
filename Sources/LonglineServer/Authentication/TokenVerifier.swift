import Crypto
import JWTKit
public import LonglineKeys
public import LonglineWire

/// Checks tokens: size, shape, algorithm, key, signature, times, audience and tenant, in this order.
///
/// Cheap checks come first, so that garbage costs little; a signature costs about 0.1 ms. Revocation needs the store and is
/// the ``Authenticator``'s.
public struct TokenVerifier: Sendable {
    /// The audience that tokens name unless configured otherwise.
    public static let defaultAudience = "longline"

    /// The keys that are trusted, by their ID.
    private let algorithms: [String: TokenAlgorithm]
    /// Their tags, by which tickets name the key of the token that they descend from.
    private let tags: [String: UInt64]
    private let keys: JWTKeyCollection
    private let tenants: Set<TenantID>?
    private let clockSkew: UInt64
    private let audience: String

    /// A verifier.
    /// - Parameters:
    ///   - keys: the keys that are trusted. While a key is being replaced, the old and the new one.
    ///   - tenants: the tenants served here, or nil for every tenant that the keys' owners name.
    ///   - clockSkew: how far the signer's clock may be from ours, in milliseconds.
    ///   - audience: a token with an `aud` claim must name it (RFC 7519 section 4.1.3).
    public init(
        keys: [VerificationKey], tenants: Set<TenantID>?, clockSkew: UInt64 = 30_000, audience: String = defaultAudience
    ) async {
        self.tenants = tenants
        self.clockSkew = clockSkew
        self.audience = audience
        self.keys = JWTKeyCollection()
        var algorithms: [String: TokenAlgorithm] = [:]
        var tags: [String: UInt64] = [:]
        for key in keys {
            algorithms[key.keyID] = key.algorithm
            tags[key.keyID] = Self.tag(of: key)
            await self.keys.add(key)
        }
        self.algorithms = algorithms
        self.tags = tags
    }

    /// Names a key in tickets: the first 64 bits of SHA-256 over its ID and the public key itself, as another may come under the
    /// same ID.
    static func tag(of key: VerificationKey) -> UInt64 {
        SHA256.hash(data: Array("\(key.keyID)\0\(key.pem)".utf8)).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Whether a tenant is served here.
    func serves(_ tenant: TenantID) -> Bool { tenants?.contains(tenant) ?? true }

    /// Whether the key of this tag is one of those that are trusted.
    func trusts(tag: UInt64) -> Bool { tags.values.contains(tag) }

    /// Checks a token. Runs on the global executor, never on the caller's event loop.
    /// - Parameters:
    ///   - token: as the client sent it.
    ///   - now: the wall clock, in milliseconds since 1970.
    public func verify(_ token: String, now: UInt64) async throws(AuthenticationError) -> TokenClaims {
        try await verifyNamingKey(token, now: now).claims
    }

    /// Checks a token, and tells the tag of its key.
    func verifyNamingKey(
        _ token: String, now: UInt64
    ) async throws(AuthenticationError) -> (claims: TokenClaims, keyTag: UInt64) {
        guard token.utf8.count <= FrameLimits.maximumToken else {
            throw AuthenticationError(.tooLarge, "the token has more than \(FrameLimits.maximumToken) bytes")
        }
        let bytes = Array(token.utf8)
        let keyID = try SignedHeader(of: bytes, among: algorithms, called: "the token").keyID

        let payload: TokenPayload
        do {
            payload = try await keys.verify(bytes, as: TokenPayload.self)
        } catch let error as AuthenticationError {
            throw error
        } catch let error as JWTError where error.errorType == .malformedToken {
            // The library's reason may quote the token.
            throw AuthenticationError(.malformed, "the token's claims are not the expected JSON")
        } catch {
            throw AuthenticationError(.signatureInvalid, "the token's signature is not valid")
        }

        let claims = try payload.claims()
        guard claims.issuedAt <= now + clockSkew, claims.notBefore <= now + clockSkew else {
            throw AuthenticationError(
                .notYetValid, "the token is not valid yet", advice: "compare the clocks of signer and server")
        }
        guard now < claims.expiry + clockSkew else { throw AuthenticationError(.expired, "the token has expired") }
        if let names = payload.aud?.names, !names.contains(audience) {
            throw AuthenticationError(.audienceForbidden, "the token is for another audience")
        }
        guard serves(claims.tenant) else {
            throw AuthenticationError(.tenantForbidden, "the token is for a tenant that is not served here")
        }
        guard let tag = tags[keyID] else { throw AuthenticationError(.keyUnknown, "the token's key is not trusted") }
        return (claims, tag)
    }
}
