/// What an operator's schedule calls, never a session.
public protocol StoreMaintenance: Sendable {
    /// Removes a channel's oldest entries, cursors or not: a cursor behind them gets a gap.
    ///
    /// The publish ledger is untouched. Age is reckoned by the store's clock. A call removes at most ``StoreLimits/trimEntries``
    /// entries, and stops behind the one that makes ``StoreLimits/trimBytes``, in one transaction: call again while it answers that
    /// there is more.
    func trim(_ channel: ChannelKey, keep: Retention) async throws(StoreError) -> TrimReport

    /// Lists the channels of all tenants, a page at a time, in the order in which they were made.
    ///
    /// What is made while a list is under way comes at its end.
    /// - Parameters:
    ///   - mark: where the page before ended (``ChannelList/next``); 0 to begin.
    ///   - limit: the most channels in the page, 1 or more.
    func channels(after mark: UInt64, limit: Int) async throws(StoreError) -> ChannelList

    /// Takes a step of a sweep, in one transaction that looks at ``StoreLimits/trimEntries`` rows and removes about as many: call
    /// again with the place that it answers, until there is none.
    ///
    /// A sweep forgets devices and outboxes that were unseen for ``StoreLimits/unseen``, with their ledgers and cursors, and
    /// revoked tokens that have expired by themselves. Then channels that nothing is left of: rooms without members and entries,
    /// and inboxes without entries whose users have no device, no room and no settings, once nothing was entered there for so
    /// long, and with a room what its former members read there. Made again, they begin a new epoch.
    /// - Parameter place: where the step before ended (``SweepReport/next``); nil to begin.
    func sweep(from place: SweepPlace?) async throws(StoreError) -> SweepReport

    /// How long a sweep remembers a device that is not seen, in milliseconds (``StoreLimits/unseen``): who keeps something of devices
    /// beside the store keeps it as long. 180 days by default.
    var unseenLimit: UInt64 { get }
}

extension StoreMaintenance {
    /// That of ``StoreLimits``.
    public var unseenLimit: UInt64 { StoreLimits().unseen }

    /// Takes all steps of a sweep, one after another. See ``sweep(from:)``; who wants to leave the store to others between does it
    /// with that.
    public func sweep() async throws(StoreError) -> SweepReport {
        var report = SweepReport()
        repeat { report.add(try await sweep(from: report.next)) } while report.next != nil
        return report
    }
}

/// Where a sweep goes on.
public struct SweepPlace: Hashable, Sendable {
    var stage: SweepStage
    var mark = SweepMark()

    init(stage: SweepStage, mark: SweepMark = SweepMark()) {
        self.stage = stage
        self.mark = mark
    }
}

/// What of a channel's log to keep. Whatever any of the rules doesn't keep goes, oldest first.
public struct Retention: Hashable, Sendable {
    /// The longest time since an entry was made, in milliseconds, or nil for any. Of an entry whose time the clock has not reached,
    /// because it was ahead once, it is the time since the store next looked at the clock for such an entry.
    public var age: UInt64?
    /// The most entries, or nil for any number.
    public var entries: Int?
    /// The most bytes of payload, or nil for any number.
    public var bytes: Int?

    /// A rule for what to keep.
    public init(age: UInt64? = nil, entries: Int? = nil, bytes: Int? = nil) {
        self.age = age
        self.entries = entries
        self.bytes = bytes
    }
}

/// What a sweep forgot, or a step of one.
public struct SweepReport: Hashable, Sendable {
    /// Devices, with all their outboxes, ledgers and cursors.
    public var devices: Int
    /// Outboxes of devices that stay, with their ledgers.
    public var producers: Int
    /// Revoked tokens whose time is over.
    public var tokens: Int
    /// Channels that nothing was left of.
    public var channels: Int
    /// Where the next step begins, or nil when the sweep is through.
    public var next: SweepPlace?

    /// A report.
    public init(devices: Int = 0, producers: Int = 0, tokens: Int = 0, channels: Int = 0, next: SweepPlace? = nil) {
        self.channels = channels
        self.next = next
        self.devices = devices
        self.producers = producers
        self.tokens = tokens
    }

    /// Adds what the next step forgot, and goes on from where it ended.
    public mutating func add(_ step: SweepReport) {
        devices += step.devices
        producers += step.producers
        tokens += step.tokens
        channels += step.channels
        next = step.next
    }
}

/// What one step of a trim removed.
public struct TrimReport: Hashable, Sendable {
    /// Entries.
    public var entries: Int
    /// Bytes of their payloads.
    public var bytes: Int
    /// Whether more is left to remove.
    public var more: Bool

    /// A report.
    public init(entries: Int = 0, bytes: Int = 0, more: Bool = false) {
        self.entries = entries
        self.bytes = bytes
        self.more = more
    }
}

/// A page of the list of channels.
public struct ChannelList: Hashable, Sendable {
    /// The channels.
    public var channels: [ChannelSummary]
    /// Where the next page begins, or nil at the end of the list.
    public var next: UInt64?

    /// A page.
    public init(channels: [ChannelSummary], next: UInt64?) {
        self.channels = channels
        self.next = next
    }
}

/// What a channel's log holds.
public struct ChannelSummary: Hashable, Sendable {
    /// The channel.
    public var key: ChannelKey
    /// Entries in the log.
    public var entries: Int
    /// Bytes of their payloads.
    public var bytes: Int
    /// When the oldest of them was made, at the latest, in milliseconds since 1970, or nil when there is none.
    public var oldest: UInt64?

    /// A summary.
    public init(key: ChannelKey, entries: Int, bytes: Int, oldest: UInt64?) {
        self.key = key
        self.entries = entries
        self.bytes = bytes
        self.oldest = oldest
    }
}

extension Retention {
    /// Whether everything is kept.
    public var keepsAll: Bool { age == nil && entries == nil && bytes == nil }

    /// Whether a trim at `now` (milliseconds since 1970) would remove something of a channel, or has to look.
    public func removesSome(of channel: ChannelSummary, now: UInt64) -> Bool {
        guard let oldest = channel.oldest else { return false }
        // A time that the clock has not reached tells no age. A trim begins to reckon it.
        if age != nil, ClockMark.isAhead(oldest, now) { return true }
        return removes(time: oldest, entries: channel.entries, bytes: channel.bytes, now: now)
    }

    /// Whether the oldest entry of a log goes: one made at `time`, of a log that holds so many entries and bytes with it.
    func removes(time: UInt64, entries: Int, bytes: Int, now: UInt64) -> Bool {
        if let age, now > time, now - time > age { return true }
        if let most = self.entries, entries > most { return true }
        if let most = self.bytes, bytes > most { return true }
        return false
    }
}
