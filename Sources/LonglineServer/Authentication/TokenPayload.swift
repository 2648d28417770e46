import JWTKit
import LonglineKeys
import LonglineStore
import LonglineWire

/// The claims as JSON. Decoding only gives the JSON types; ``claims()`` checks what they mean.
struct TokenPayload: JWTPayload {
    var sub: String?
    var tenant: String?
    var device: String?
    var loginEpoch: UInt64?
    var scope: String?
    var jti: String?
    var iat: Double?
    var nbf: Double?
    var exp: Double?
    var userGeneration: UInt64?
    var deviceGeneration: UInt64?
    var aud: Audience?
    var platform: String?

    enum CodingKeys: String, CodingKey {
        case sub, tenant, device, scope, jti, iat, nbf, exp, aud, platform
        case loginEpoch = "login_epoch"
        case userGeneration = "user_generation"
        case deviceGeneration = "device_generation"
    }

    /// One name or a list of them (RFC 7519 section 4.1.3).
    struct Audience: Codable, Sendable {
        var names: [String]

        init(names: [String]) { self.names = names }

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            if let one = try? container.decode(String.self) {
                names = [one]
            } else {
                names = try container.decode([String].self)
            }
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            if names.count == 1 { try container.encode(names[0]) } else { try container.encode(names) }
        }
    }

    init(_ claims: TokenClaims, audience: String) {
        sub = claims.user.description
        tenant = claims.tenant.description
        device = claims.device.description
        loginEpoch = claims.loginEpoch
        scope = ScopeClaim(scopes: claims.scopes, grants: claims.grants).text
        jti = claims.tokenID
        iat = Double(claims.issuedAt / 1000)
        nbf = Double(claims.notBefore / 1000)
        exp = Double(claims.expiry / 1000)
        userGeneration = claims.generations.user
        deviceGeneration = claims.generations.device
        aud = Audience(names: [audience])
        platform = claims.platform == .unknown ? nil : claims.platform.description
    }

    /// Called by the library after the signature was found good: a last look that nothing weaker got through.
    func verify(using algorithm: some JWTAlgorithm) throws {
        guard TokenAlgorithm(rawValue: algorithm.name) != nil else {
            throw AuthenticationError(.algorithmForbidden, "tokens are signed with EdDSA or ES256")
        }
    }

    /// The claims, each present and within its limits.
    func claims() throws(AuthenticationError) -> TokenClaims {
        let issuedAt = try Self.time(iat, name: "iat")
        let expiry = try Self.time(exp, name: "exp")
        guard expiry > issuedAt else { throw AuthenticationError(.claimInvalid, "claim exp is not after iat") }
        guard let jti, (1...Self.tokenIDLimit).contains(jti.utf8.count),
            jti.utf8.allSatisfy({ (0x21...0x7e).contains($0) })
        else { throw AuthenticationError(.claimInvalid, "claim jti is not 1 to 128 printable ASCII characters") }
        guard let scope else { throw AuthenticationError(.claimInvalid, "claim scope is absent") }
        let rights = try ScopeClaim(scope)
        return TokenClaims(
            tenant: try Self.identifier(tenant, name: "tenant") { (text) throws(IdentifierError) in try TenantID(text)
            },
            user: try Self.identifier(sub, name: "sub") { (text) throws(IdentifierError) in try UserID(text) },
            device: try Self.identifier(device, name: "device") { (text) throws(IdentifierError) in try DeviceID(text)
            },
            loginEpoch: loginEpoch ?? 0, scopes: rights.scopes, grants: rights.grants, tokenID: jti, issuedAt: issuedAt,
            notBefore: nbf == nil ? issuedAt : try Self.time(nbf, name: "nbf"), expiry: expiry,
            generations: RevocationGenerations(user: userGeneration ?? 0, device: deviceGeneration ?? 0),
            platform: platform == nil
                ? .unknown
                : try Self.identifier(platform, name: "platform") { (text) throws(IdentifierError) in
                    try DevicePlatform(text)
                })
    }

    /// The longest `jti`, in bytes: a resume ticket has to hold it.
    static let tokenIDLimit = 128

    /// A NumericDate (RFC 7519 section 2), which may have a fraction, in milliseconds; up to the year 9999.
    private static func time(_ value: Double?, name: String) throws(AuthenticationError) -> UInt64 {
        guard let value else { throw AuthenticationError(.claimInvalid, "claim \(name) is absent") }
        guard value >= 0, value < 253_402_300_800 else {
            throw AuthenticationError(.claimInvalid, "claim \(name) is not a time between 1970 and 9999")
        }
        return UInt64(value * 1000)
    }

    private static func identifier<ID>(
        _ text: String?, name: String, make: (String) throws(IdentifierError) -> ID
    ) throws(AuthenticationError) -> ID {
        guard let text else { throw AuthenticationError(.claimInvalid, "claim \(name) is absent") }
        do { return try make(text) } catch {
            throw AuthenticationError(.claimInvalid, "claim \(name) is not an identifier", cause: "\(error)")
        }
    }
}
