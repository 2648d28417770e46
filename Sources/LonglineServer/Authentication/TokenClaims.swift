public import LonglineSession
public import LonglineStore
public import LonglineWire

/// What a token's holder may do, with every channel. On the wire, together with ``TokenClaims/grants``, the claim `scope`:
/// words separated by spaces (RFC 8693 section 4.2).
public struct TokenScopes: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8

    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// May publish: `publish`.
    public static let publish = TokenScopes(rawValue: 1)
    /// May receive: `receive`.
    public static let receive = TokenScopes(rawValue: 2)
    /// May join and leave rooms: `join`.
    public static let join = TokenScopes(rawValue: 4)
    /// May change the rooms that its user owns: `manage`.
    public static let manage = TokenScopes(rawValue: 8)
    /// May be told of users' presence: `presence`.
    public static let presence = TokenScopes(rawValue: 16)
    /// May have the user's own account erased: `erase`. A backend that wants to be asked itself gives it to nobody.
    public static let erase = TokenScopes(rawValue: 32)
    /// Everything a device of an ordinary user does every day: all but ``erase``.
    public static let all: TokenScopes = [.publish, .receive, .join, .manage, .presence]
}

/// What a token says, once it was verified; also what a ``TokenSigner`` signs.
///
/// Times are milliseconds since 1970. The token itself holds whole seconds (RFC 7519 section 2), rounded down.
public struct TokenClaims: Hashable, Sendable {
    /// `tenant`.
    public var tenant: TenantID
    /// `sub`.
    public var user: UserID
    /// `device`.
    public var device: DeviceID
    /// `login_epoch`: counts the user's deliberate logins, on all devices together; an older login never evicts a newer one.
    public var loginEpoch: UInt64
    /// `platform`: what kind of device; ``/LonglineWire/DevicePlatform/unknown`` where the token has none.
    public var platform: DevicePlatform
    /// `scope`.
    public var scopes: TokenScopes
    /// Of `scope`, the words with a pattern: what else the holder may do, with some channels only. At most
    /// ``ScopeClaim/maximumGrants``, their patterns ``ScopeClaim/maximumPatternBytes`` together.
    public var grants: [ChannelGrant]
    /// `jti`: names this token, for revocation. 1 to 128 bytes of printable ASCII.
    public var tokenID: String
    /// `iat`.
    public var issuedAt: UInt64
    /// `nbf`; the same as ``issuedAt`` where the token has none.
    public var notBefore: UInt64
    /// `exp`.
    public var expiry: UInt64
    /// `user_generation` and `device_generation`: how often each had been revoked when the token was issued.
    public var generations: RevocationGenerations

    /// Claims.
    public init(
        tenant: TenantID, user: UserID, device: DeviceID, loginEpoch: UInt64, scopes: TokenScopes = .all,
        grants: [ChannelGrant] = [], tokenID: String, issuedAt: UInt64, notBefore: UInt64? = nil, expiry: UInt64,
        generations: RevocationGenerations = RevocationGenerations(user: 0, device: 0),
        platform: DevicePlatform = .unknown
    ) {
        self.tenant = tenant
        self.user = user
        self.device = device
        self.loginEpoch = loginEpoch
        self.scopes = scopes
        self.grants = grants
        self.tokenID = tokenID
        self.issuedAt = issuedAt
        self.notBefore = notBefore ?? issuedAt
        self.expiry = expiry
        self.generations = generations
        self.platform = platform
    }

    /// Draws a token ID: 128 random bits in hexadecimal.
    public static func makeTokenID() -> String {
        var random = SystemRandomNumberGenerator()
        return ProducerID.random(using: &random).description
    }
}
