public import LonglineWire

/// Who has been shut out. Durable, and compared by generation, never by clock.
///
/// Generations outlive their devices, and stay until the account is erased: nobody knows how long the tokens live that they void, and a
/// device that began at 0 again would have revocations below what its later tokens carry. Tokens that were shut out by their ID are
/// forgotten when they have expired.
public protocol Revocations: Sendable {
    /// The generation of a user and of one of its devices; each starts at 0 and grows with every revocation.
    func generations(of device: DeviceKey) async throws(StoreError) -> RevocationGenerations
    /// Shuts out every credential of a user issued under an earlier generation.
    func revoke(user: UserID, in tenant: TenantID) async throws(StoreError)
    /// Shuts out every credential of a device issued under an earlier generation.
    func revoke(device: DeviceKey) async throws(StoreError)
    /// Shuts out one token by its ID until it would have expired anyway (milliseconds since 1970).
    func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(StoreError)
    /// Whether a token was shut out by its ID.
    func isRevoked(token: String, in tenant: TenantID) async throws(StoreError) -> Bool
}

/// How often a user and one of its devices were revoked.
public struct RevocationGenerations: Hashable, Sendable {
    /// Of the user.
    public var user: UInt64
    /// Of the device.
    public var device: UInt64

    /// Generations.
    public init(user: UInt64, device: UInt64) {
        self.user = user
        self.device = device
    }
}
