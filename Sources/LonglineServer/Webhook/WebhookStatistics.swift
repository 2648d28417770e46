/// What webhooks have done since the server's start.
public struct WebhookStatistics: Hashable, Sendable {
    /// Notifications that wait now.
    public var waiting = 0
    /// Endpoints that are left alone now, because they don't answer.
    public var endpointsDown = 0
    /// Notifications told.
    public var sent: UInt64 = 0
    /// Requests that failed; each is repeated.
    public var failures: UInt64 = 0
    /// Notifications that an endpoint refused for good.
    public var rejected: UInt64 = 0
    /// News of users who have a session and did not confirm them yet.
    public var held = 0
    /// Notifications whose messages a device had before they were told, that were retracted, or that are from before the user joined.
    public var cancelled: UInt64 = 0
    /// Endpoints told that what they were told of is done with.
    public var cancelsSent: UInt64 = 0
    /// Notifications of conversations that were muted or blocked.
    public var muted: UInt64 = 0
    /// Notifications whose message, or whose time to be told, was over.
    public var expired: UInt64 = 0
    /// Notifications that were left out because too many waited.
    public var dropped: UInt64 = 0

    /// All zero.
    public init() {}
}
