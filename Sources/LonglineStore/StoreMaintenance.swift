/// What an operator's schedule calls, never a session.
public protocol StoreMaintenance: Sendable {
    /// Removes a channel's oldest entries, cursors or not: a cursor behind them gets a gap.
    ///
    /// The publish ledger is untouched. A call removes at most ``StoreLimits/trimEntries`` entries: call again until it answers
    /// false.
    /// - Returns: whether more is left to remove.
    func trim(_ channel: ChannelKey, keep: Retention) async throws(StoreError) -> Bool

    /// Forgets devices and outboxes that were unseen for ``StoreLimits/unseen``, with their ledgers and cursors, and
    /// revoked tokens that have expired by themselves.
    func sweep() async throws(StoreError) -> SweepReport
}

/// What of a channel's log to keep. Whatever any of the rules doesn't keep goes, oldest first.
public struct Retention: Hashable, Sendable {
    /// The longest time since an entry was made, in milliseconds, or nil for any.
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

/// What one sweep forgot.
public struct SweepReport: Hashable, Sendable {
    /// Devices, with all their outboxes, ledgers and cursors.
    public var devices: Int
    /// Outboxes of devices that stay, with their ledgers.
    public var producers: Int
    /// Revoked tokens whose time is over.
    public var tokens: Int

    /// A report.
    public init(devices: Int = 0, producers: Int = 0, tokens: Int = 0) {
        self.devices = devices
        self.producers = producers
        self.tokens = tokens
    }
}
