import LonglineWire

/// Whose token it is: what an answer of the control layer has to be for. Read like ``TokenSubject``: from the token that this device
/// asks with, so that a wrong one only makes it refuse the answer.
struct TokenHolder: Hashable, Sendable {
    var tenant: TenantID
    var user: UserID
    var device: DeviceID

    private struct Claims: Decodable {
        var tenant: String
        var sub: String
        var device: String
    }

    static func read(from token: String) -> TokenHolder? {
        guard let claims = UnverifiedToken.read(Claims.self, from: token), let tenant = try? TenantID(claims.tenant),
            let user = try? UserID(claims.sub), let device = try? DeviceID(claims.device)
        else { return nil }
        return TokenHolder(tenant: tenant, user: user, device: device)
    }
}
