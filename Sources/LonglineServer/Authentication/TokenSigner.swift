import JWTKit
public import LonglineKeys

/// Signs tokens with one key. The control layer has one; the access layer only verifies.
public struct TokenSigner: Sendable {
    /// The key in use.
    public let key: SigningKey
    /// The `aud` of every token.
    public let audience: String
    private let keys: JWTKeyCollection

    /// A signer.
    public init(key: SigningKey, audience: String = TokenVerifier.defaultAudience) async {
        self.key = key
        self.audience = audience
        keys = JWTKeyCollection()
        await keys.add(key)
    }

    /// Signs claims.
    /// - Returns: a JWT in compact form: a secret, as whoever has it is the user.
    /// - Throws: ``/LonglineKeys/AuthenticationError/Code/claimInvalid`` when a verifier would not accept the claims.
    public func sign(_ claims: TokenClaims) async throws(AuthenticationError) -> String {
        let payload = TokenPayload(claims, audience: audience)
        _ = try payload.claims()
        do {
            return try await keys.sign(payload, kid: JWKIdentifier(string: key.keyID))
        } catch {
            throw AuthenticationError(.keyUnusable, "\(key) can't sign", cause: "\(error)")
        }
    }
}
