import Crypto
import FoundationEssentials
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
    private let tags: Set<UInt64>
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
        for key in keys {
            algorithms[key.keyID] = key.algorithm
            await self.keys.add(key)
        }
        self.algorithms = algorithms
        tags = Set(algorithms.keys.map(Self.tag))
    }

    /// Names a key in tickets: the first 64 bits of SHA-256 over its ID.
    static func tag(of keyID: String) -> UInt64 {
        SHA256.hash(data: Array(keyID.utf8)).prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Whether the key of this tag is one of those that are trusted.
    func trusts(tag: UInt64) -> Bool { tags.contains(tag) }

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
        let keyID = try checkHeader(bytes)

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
        if let tenants, !tenants.contains(claims.tenant) {
            throw AuthenticationError(.tenantForbidden, "the token is for a tenant that is not served here")
        }
        return (claims, Self.tag(of: keyID))
    }

    /// What the header says, and nothing else of it is believed.
    private struct Header: Decodable {
        var alg: String
        var kid: String?
        /// Present when the token demands an extension (RFC 7515 section 4.1.11); we know none.
        var crit: [String]?
    }

    /// The algorithm follows from the key, not from the token: the header must name a known key, and that key's own
    /// algorithm. So there is no `none`, and no public key taken for a shared secret.
    /// - Returns: the key's ID.
    private func checkHeader(_ token: [UInt8]) throws(AuthenticationError) -> String {
        let parts = token.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].count <= 512, let json = Base64URL.decode(parts[0]),
            let header = try? JSONDecoder().decode(Header.self, from: json)
        else { throw AuthenticationError(.malformed, "not a JWT in compact form") }
        guard let algorithm = TokenAlgorithm(rawValue: header.alg) else {
            throw AuthenticationError(.algorithmForbidden, "tokens are signed with EdDSA or ES256")
        }
        guard header.crit == nil else {
            throw AuthenticationError(.algorithmForbidden, "the token demands an extension")
        }
        guard let kid = header.kid, let expected = algorithms[kid] else {
            throw AuthenticationError(
                .keyUnknown, "the token names no key that is trusted here",
                advice: "give the server the signer's public key")
        }
        guard algorithm == expected else {
            throw AuthenticationError(.algorithmForbidden, "the token's key is not for the algorithm it names")
        }
        return kid
    }
}
