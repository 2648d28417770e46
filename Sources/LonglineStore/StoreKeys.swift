public import LonglineWire

/// A channel within its tenant: the key of everything a store holds.
public struct ChannelKey: Hashable, Sendable {
    /// The tenant.
    public let tenant: TenantID
    /// The channel.
    public let channel: ChannelID

    /// A channel key.
    public init(tenant: TenantID, channel: ChannelID) {
        self.tenant = tenant
        self.channel = channel
    }
}

/// A device within its tenant.
public struct DeviceKey: Hashable, Sendable {
    /// The tenant.
    public let tenant: TenantID
    /// The user.
    public let user: UserID
    /// The device.
    public let device: DeviceID

    /// A device key.
    public init(tenant: TenantID, user: UserID, device: DeviceID) {
        self.tenant = tenant
        self.user = user
        self.device = device
    }
}
