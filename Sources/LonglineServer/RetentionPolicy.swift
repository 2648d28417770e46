public import LonglineStore
import LonglineWire
public import NIOCore

/// What the server keeps of each kind of channel, and how often it looks. The default keeps everything.
///
/// What a rule doesn't keep is removed, oldest first, whether devices have read it or not: a device that is behind gets a
/// gap. Joins and leaves are entries like messages. Rights, cursors and the ledger of publishes are untouched.
public struct RetentionPolicy: Hashable, Sendable {
    /// Inboxes: direct messages and notes to self.
    public var inbox: Retention
    /// Rooms.
    public var room: Retention
    /// What is broadcast to all.
    public var broadcast: Retention
    /// From the end of one sweep to the start of the next; 1 second or more. A channel can exceed its rule for so long.
    public var interval: TimeAmount

    /// A policy.
    public init(
        inbox: Retention = Retention(), room: Retention = Retention(), broadcast: Retention = Retention(),
        interval: TimeAmount = .minutes(10)
    ) {
        self.inbox = inbox
        self.room = room
        self.broadcast = broadcast
        self.interval = interval
    }

    /// Whether nothing is ever removed.
    public var keepsAll: Bool { inbox.keepsAll && room.keepsAll && broadcast.keepsAll }

    /// The same without what goes by the clock.
    var withoutAges: RetentionPolicy {
        var policy = self
        policy.inbox.age = nil
        policy.room.age = nil
        policy.broadcast.age = nil
        return policy
    }

    func rule(for channel: ChannelID) -> Retention {
        switch channel {
        case .user: inbox
        case .room: room
        case .all: broadcast
        }
    }

    func validate() throws(ServerError) {
        guard interval >= .seconds(1) else {
            throw ServerError(
                .invalidConfiguration, message: "retention can't be applied every \(interval.wholeMilliseconds) ms",
                advice: "set an interval of one second or more")
        }
        for (rule, kind) in [(inbox, "inboxes"), (room, "rooms"), (broadcast, "broadcasts")] {
            let age = rule.age ?? 1
            guard age > 0, rule.entries ?? 1 > 0, rule.bytes ?? 1 > 0 else {
                throw ServerError(
                    .invalidConfiguration, message: "a retention of nothing: \(kind) would keep no message at all",
                    advice: "set an age, a number of entries and bytes of 1 or more, or nil for no limit")
            }
        }
    }
}

/// What one sweep over the channels did.
public struct RetentionReport: Hashable, Sendable {
    /// Channels looked at.
    public var channels = 0
    /// Of these, channels from which something was removed.
    public var trimmed = 0
    /// Entries removed.
    public var entries = 0
    /// Bytes of their payloads.
    public var bytes = 0

    /// All zero.
    public init() {}
}
