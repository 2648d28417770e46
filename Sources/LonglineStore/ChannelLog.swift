public import LonglineWire
public import NIOCore

/// The ordered durable logs of all channels, with the publish ledger in the same transaction.
///
/// An implementation decides how it batches and where it stores; no method answers before its transaction is on disk
/// (``InMemoryStore`` has no disk, and says so). A failed disk sync ends the process: the
/// data might be half on disk, and only a restart reads what is there.
public protocol ChannelLog: Sendable {
    /// Whether no call does anything but to hand over before it suspends. A server then calls from its event loops, which
    /// saves two changes of threads for each call, and makes the next ``append(_:)`` before the last one is answered. false
    /// by default: the calls then come from the tasks' threads, and one ``append(_:)`` of a loop is under way at a time.
    var handsOverAtOnce: Bool { get }

    /// Enters publishes, each judged by the ledger on its own, in this order.
    ///
    /// Requests of one producer and channel in one batch see each other. Concurrent calls share a transaction (group
    /// commit), and take effect in the order in which they were made.
    /// - Returns: one outcome per request, in the order of the requests.
    func append(_ batch: [AppendRequest]) async -> [AppendOutcome]

    /// Reads on from a place, at least one item when there is one, and no more than `maximumBytes` of payload beyond.
    ///
    /// The items form a chain: an entry's `previous`, and a skip's, is the offset at which the item before it ended.
    /// Skips cover what expired (at wall-clock `now`, in milliseconds since 1970) or is absent inside the range. When
    /// `after` lies below the first entry that is left, the page starts at the first entry left: compare ``LogPage/first``.
    /// Of a large payload a page holds the first bytes only (``StoreLimits/headBytes``), and such an entry is the only one of
    /// its page. A page also ends after a bounded number of entries (``StoreLimits/pageEntries``), so an empty payload isn't free.
    /// - Parameters:
    ///   - channel: whose log.
    ///   - after: the offset to go on behind.
    ///   - upTo: the last offset the reader is entitled to, or nil for all.
    ///   - maximumBytes: payload bytes at most, but for one item.
    ///   - now: the wall clock, in milliseconds since 1970.
    /// - Throws: ``StoreError/Code/unknownChannel`` for a room that does not exist; an inbox is made on first sight.
    func read(_ channel: ChannelKey, after: Offset, upTo: Offset?, maximumBytes: Int, now: UInt64)
        async throws(StoreError) -> LogPage

    /// Reads on in the payload of an entry that is larger than what a page holds of it (``/LonglineWire/Entry/following``).
    /// - Parameters:
    ///   - offset: the entry.
    ///   - channel: whose log.
    ///   - from: the first byte to read, within the payload.
    ///   - maximumBytes: at most so many bytes; at least one is read.
    /// - Returns: the bytes; nil when the entry is not in the log, or has no such byte.
    func payload(of offset: Offset, in channel: ChannelKey, from: UInt64, maximumBytes: Int) async throws(StoreError)
        -> ByteBuffer?

    /// Reads one page of a range, from either end of it.
    ///
    /// The items come in the log's order, whichever the direction, and form a chain as in ``read(_:after:upTo:maximumBytes:now:)``.
    /// What of the range lies below the first entry that is left is not in the page: compare ``LogPage/first``. A page that
    /// doesn't reach the far end of the range has at least one item. The reader's stay (``LogPage/stay``) is of the same snapshot. An
    /// inbox that is not there yet is not made: whoever pages may name anybody, and its page is empty, with the epoch 0.
    /// - Throws: ``StoreError/Code/unknownChannel`` for a room that does not exist.
    func page(_ channel: ChannelKey, _ range: LogRange, now: UInt64) async throws(StoreError) -> LogPage

    /// The last edit of a message that is in the log, up to an offset.
    /// - Parameters:
    ///   - offset: the message.
    ///   - channel: whose log.
    ///   - end: the last offset the reader is entitled to.
    ///   - now: the wall clock, in milliseconds since 1970: what expired is not there.
    /// - Returns: of a large edit the first bytes, as in a page; nil where there is none.
    func lastEdit(of offset: Offset, in channel: ChannelKey, through end: Offset, now: UInt64)
        async throws(StoreError) -> Entry?

    /// Counts the messages, requests and replies of a range that are there, and whose time to live isn't over.
    /// - Parameters:
    ///   - channel: whose log.
    ///   - after: the offset to count behind.
    ///   - upTo: the last offset to count.
    ///   - authors: whose count.
    ///   - limit: the most that is counted.
    ///   - now: by the wall clock, in milliseconds since 1970.
    /// - Returns: how many; `limit` also where the range has 1,024 entries or more.
    func countMessages(
        in channel: ChannelKey, after: Offset, upTo: Offset, by authors: Authors, limit: Int, now: UInt64
    )
        async throws(StoreError) -> Int

    /// The ends of a channel's log. An inbox is made on first sight; a room that does not exist yields nil.
    func head(of channel: ChannelKey) async throws(StoreError) -> ChannelHead?

    /// The channels a user may read, with the ranges of offsets: the inbox, and every room the user is or was in. What is
    /// broadcast to all is everybody's, and not among them.
    func entitlements(of user: UserID, in tenant: TenantID) async throws(StoreError) -> [Entitlement]

    /// What is delivered to a device: its user's channels, and the tenant's broadcasts from the moment on in which the store
    /// first heard of the device.
    func channels(of device: DeviceKey) async throws(StoreError) -> [Entitlement]
}

extension ChannelLog {
    /// false.
    public var handsOverAtOnce: Bool { false }
}
