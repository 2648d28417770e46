public import LonglineWire

/// How fast somebody may publish: a steady rate, after a burst.
public struct PublishRate: Hashable, Sendable {
    /// Publishes per second, above 0.
    public var messagesPerSecond: Double
    /// Publishes at once, after a time without any; 1 at least.
    public var messageBurst: Int
    /// Payload bytes per second, above 0; nil: not limited.
    public var bytesPerSecond: Double?
    /// Payload bytes at once, after a time without any. A single payload may be larger: it then counts as so many bytes.
    public var byteBurst: Int

    /// A rate.
    public init(
        messagesPerSecond: Double, messageBurst: Int, bytesPerSecond: Double? = nil, byteBurst: Int = 1 << 20
    ) {
        self.messagesPerSecond = messagesPerSecond
        self.messageBurst = messageBurst
        self.bytesPerSecond = bytesPerSecond
        self.byteBurst = byteBurst
    }

    var isValid: Bool {
        messagesPerSecond > 0 && messagesPerSecond.isFinite && messageBurst >= 1 && byteBurst >= 1
            && (bytesPerSecond.map { $0 > 0 && $0.isFinite } ?? true)
    }
}

/// Where a tenant may take more or less than ``ServerLimits`` says. nil: what that says.
public struct TenantLimits: Hashable, Sendable {
    /// The largest payload of a publish, in bytes; as ``ServerLimits/maximumPayload``.
    public var maximumPayload: Int?
    /// Sessions at one time; as ``ServerLimits/maximumSessionsPerTenant``.
    public var maximumSessions: Int?
    /// What each user may publish; as ``ServerLimits/publishRatePerUser``.
    public var publishRatePerUser: PublishRate?
    /// What all its users may publish together; as ``ServerLimits/publishRatePerTenant``.
    public var publishRate: PublishRate?

    /// Nothing but what ``ServerLimits`` says.
    public init() {}
}

extension ServerLimits {
    /// The largest payload that users of a tenant may publish, in bytes.
    public func maximumPayload(in tenant: TenantID) -> Int { tenants[tenant]?.maximumPayload ?? maximumPayload }
    func maximumSessions(in tenant: TenantID) -> Int { tenants[tenant]?.maximumSessions ?? maximumSessionsPerTenant }
    func publishRatePerUser(in tenant: TenantID) -> PublishRate? {
        tenants[tenant]?.publishRatePerUser ?? publishRatePerUser
    }
    func publishRate(of tenant: TenantID) -> PublishRate? { tenants[tenant]?.publishRate ?? publishRatePerTenant }

    /// Whether anybody's publishes are counted.
    var hasPublishRates: Bool {
        publishRatePerUser != nil || publishRatePerTenant != nil
            || tenants.values.contains { $0.publishRatePerUser != nil || $0.publishRate != nil }
    }
}
