import LonglineStore
public import LonglineWire
import NIOCore

/// A key that webhook requests are signed with, and the name that the receiver knows it by.
public struct WebhookKey: Hashable, Sendable {
    /// The name, 1 to 64 printable ASCII characters: two keys overlap while one takes another's place.
    public var id: String
    /// The secret of the two sides, 16 bytes at least.
    public var secret: [UInt8]

    /// A key.
    public init(id: String, secret: [UInt8]) {
        self.id = id
        self.secret = secret
    }
}

/// Where a tenant's users are told of messages while they have no connection: an endpoint of the app's, which a push gateway
/// stands behind.
public struct WebhookSettings: Sendable {
    /// `https://host[:port][/path]`, or `http://` on the same machine or a private network.
    public var url: String
    /// What requests are signed with.
    public var key: WebhookKey
    /// Whom to believe to be the endpoint.
    public var trust = HTTPTrust.systemRoots
    /// Whether the last message goes along, if it is of ``/LonglineWire/FrameLimits/maximumPayload`` bytes at most. Without, the
    /// request says only that there is something.
    public var includesPayload = false
    /// Whether a user is told whose devices are all in the background or in low power: their app gets the message by its
    /// connection, and may not be allowed to show it.
    public var notifiesBackground = false
    /// Whether the endpoint is told, too, when a device has what it was told of, or its user read it: so that a push that is shown
    /// elsewhere can be taken back.
    public var tellsCancels = false
    /// How long news wait before they are told: a device that comes back meanwhile reads them itself.
    public var delay = Duration.seconds(1)
    /// How long a request may take.
    public var deadline = Duration.seconds(10)
    /// Requests under way at one time.
    public var maximumInFlight = 8
    /// The first wait after a failure; it doubles with each, and a random time up to it is waited.
    public var backOff = Duration.seconds(1)
    /// The longest wait.
    public var maximumBackOff = Duration.seconds(300)
    /// How long telling is tried, from the first of the news on. What an earlier process left is tried for an hour after the start, or for
    /// this where that is less, however old the clock says that it is.
    public var maximumAge = Duration.seconds(24 * 3_600)
    /// After so many failures in a row the endpoint is left alone for ``breakTime``.
    public var breakAfter = 5
    /// How long it is left alone; then one request tries whether it is back.
    public var breakTime = Duration.seconds(30)
    /// News of a room with more members are told to nobody.
    public var maximumRoomMembers = 256

    /// An endpoint with the default settings.
    public init(url: String, key: WebhookKey) {
        self.url = url
        self.key = key
    }

    /// What goes along of a message.
    func payload(of publish: Publish) -> ByteBuffer? {
        includesPayload && publish.payload.readableBytes <= FrameLimits.maximumPayload ? publish.payload : nil
    }

    func validate() throws(ServerError) {
        func check(_ holds: Bool, _ message: String) throws(ServerError) {
            if !holds { throw ServerError(.invalidConfiguration, message: "the webhook \(message)") }
        }
        try check(
            (1...64).contains(key.id.utf8.count) && key.id.utf8.allSatisfy { (0x21...0x7e).contains($0) },
            "key's name has to be 1 to 64 printable ASCII characters")
        try check(key.secret.count >= 16, "key's secret needs 16 bytes at least")
        try check(deadline > .zero && maximumInFlight >= 1, "needs a deadline, and one request at a time at least")
        try check(delay >= .zero && backOff > .zero && maximumBackOff >= backOff, "times of waiting are out of order")
        try check(maximumAge > .zero && breakAfter >= 1 && breakTime > .zero, "limits have to be above nothing")
        try check(maximumRoomMembers >= 0, "limit of members can't be negative")
    }
}

/// The webhooks of all tenants, and what waits for them.
public struct WebhookConfiguration: Sendable {
    /// What holds for a tenant that isn't named; nil: its users are told nothing.
    public var standard: WebhookSettings?
    /// What holds for single tenants.
    public var tenants: [TenantID: WebhookSettings]
    /// The file in which notifications wait, so that they survive the server; nil: they don't.
    public var journalPath: String?
    /// Notifications that wait, of all tenants together; beyond, the oldest of the sender who has the most is dropped and counted, in
    /// the tenant that has the most.
    public var maximumPending = 100_000
    /// Which conversations a user wants to hear nothing of; nil: those that the user muted or
    /// blocked, as the store knows.
    public var muting: (any ConversationMuting)?

    /// Webhooks.
    public init(
        standard: WebhookSettings? = nil, tenants: [TenantID: WebhookSettings] = [:], journalPath: String? = nil
    ) {
        self.standard = standard
        self.tenants = tenants
        self.journalPath = journalPath
    }

    func validate() throws(ServerError) {
        if let standard { try standard.validate() }
        for settings in tenants.values { try settings.validate() }
        guard maximumPending >= 1 else {
            throw ServerError(.invalidConfiguration, message: "at least one notification has to have room")
        }
    }
}

/// Knows which conversations a user has muted. Asked right before the user would be told, from any task.
public protocol ConversationMuting: Sendable {
    /// Whether the user wants to hear nothing of a conversation: a room, or the inbox of whom direct messages are from.
    /// - Throws: when it can't be said now; the user is then told later.
    func isMuted(_ user: UserID, _ conversation: ChannelID, in tenant: TenantID) async throws -> Bool
}

/// What users muted or blocked through their clients.
struct StoredMuting: ConversationMuting {
    let store: any MessageStore
    /// The wall clock, in milliseconds since 1970.
    let time: @Sendable () -> UInt64

    func isMuted(_ user: UserID, _ conversation: ChannelID, in tenant: TenantID) async throws -> Bool {
        let settings = try await store.settings(of: conversation, for: user, in: tenant)
        return settings.isBlocked || settings.isMuted(at: time())
    }
}
