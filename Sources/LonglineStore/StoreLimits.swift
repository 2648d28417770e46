internal import LonglineWire

/// How much of everything a store keeps or answers, so that no user can make it grow without bound.
public struct StoreLimits: Hashable, Sendable {
    /// Members of one room at a time; one more is refused with ``/LonglineWire/RefusalCode/roomFull``.
    public var roomMembers = 100_000
    /// Rooms that one user is or was in. At the limit a join takes the place of the room left longest ago; without one
    /// it is refused with ``/LonglineWire/RefusalCode/limitReached``.
    public var roomsPerUser = 1_000
    /// Rooms that a user is in up to which others may add the user to one more; beyond, it is refused with
    /// ``/LonglineWire/RefusalCode/limitReached``. Below what a user may join, so that others can't use it up.
    public var roomsWhenAdded = 400
    /// Channels to all of one tenant; a publish that would make one more is refused with
    /// ``/LonglineWire/RefusalCode/limitReached``. Every session of the tenant keeps a place in each.
    public var broadcastsPerTenant = 16
    /// Outboxes that one device publishes from or connects with; one more is refused until ``StoreMaintenance/sweep()``
    /// forgets one.
    public var producersPerDevice = 256
    /// Edits of one message in the log; one more is refused.
    public var editsPerMessage = 100
    /// Conversations that one user has settings for; one more is refused, unless a mute mutes nothing any more.
    public var settingsPerUser = 1_000
    /// Members of a room up to which they are told how far the others read.
    public var receiptMembers = 100
    /// Entries that counting what is unread looks at: the count of a room is short where it would take more, and a mark in an
    /// inbox moves no further.
    public var unreadEntries = 4_096
    /// Platforms of which one user has devices, where a ``DevicePolicy`` counts them; a login of one more is refused.
    public var platformsPerUser = 32
    /// The largest payload that is entered, in bytes; a larger one is refused.
    public var maximumPayload = FrameLimits.maximumWholePayload
    /// Bytes of a payload that a page holds. What is larger is read on with
    /// ``ChannelLog/payload(of:in:from:maximumBytes:)``, and kept apart from the entries on disk.
    public var headBytes = FrameLimits.maximumPayload
    /// Entries that one page looks at.
    public var pageEntries = 1_024
    /// Entries that one ``StoreMaintenance/trim(_:keep:)`` removes in one transaction, and rows that a step of an erasure or a sweep
    /// does: publishes wait that long at most.
    public var trimEntries = 1_000
    /// Bytes of payload after which such a transaction ends, whatever it removed by then; the last entry may go beyond.
    public var trimBytes = 16 * 1_024 * 1_024
    /// How long a device or an outbox may be unseen before the sweep forgets it, in milliseconds: 180 days, longer than any
    /// resume ticket lives.
    public var unseen: UInt64 = 180 * 24 * 3_600 * 1_000
    /// For how long after they expired tokens may still be taken, in milliseconds, as clocks differ: until then it is kept which were
    /// revoked.
    public static let largestTokenSkew: UInt64 = 3_600_000
    /// What a publish is told to wait when there is no room for it, in milliseconds.
    public var retryAfter: UInt64 = 1_000

    /// The default limits.
    public init() {}
}
