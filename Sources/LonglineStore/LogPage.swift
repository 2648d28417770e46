public import LonglineWire

/// One stretch of a channel's log.
public struct LogPage: Sendable {
    /// The epoch of every offset in the page; 0 of an inbox that was not made yet.
    public var epoch: Epoch
    /// The entries and the absences, in order and without a hole: each continues where the one before it ended.
    public var items: [LogItem]
    /// The offset of the channel's last entry when the page was read; 0 when it is empty.
    public var head: Offset
    /// The `previous` of the first entry that is left: what lies at or below is gone. 0 when nothing was trimmed.
    public var first: Offset
    /// The last stay of ``LogRange/reader`` in the room, as it was in the page's moment; nil when there is none or nobody was named.
    public var stay: Entitlement?

    /// A page.
    public init(epoch: Epoch, items: [LogItem], head: Offset, first: Offset) {
        self.epoch = epoch
        self.items = items
        self.head = head
        self.first = first
    }

    /// What history has of a channel that is not there: nothing of an inbox, which everybody has.
    static func absent(_ channel: ChannelKey) throws(StoreError) -> LogPage {
        guard case .user = channel.channel else { throw .unknown(channel) }
        return LogPage(epoch: 0, items: [], head: 0, first: 0)
    }
}

/// What of a channel's log to read as one page, and from which end.
public struct LogRange: Hashable, Sendable {
    /// Nothing at or below this offset.
    public var after: Offset
    /// Nothing above this offset; nil for all there is.
    public var upTo: Offset?
    /// Whether the page holds the range's last entries, or its first.
    public var direction: HistoryDirection
    /// The most entries; what expired doesn't count.
    public var maximumEntries: Int
    /// The most bytes of payload, beyond the first entry.
    public var maximumBytes: Int
    /// Of a room: whose stay is told with the page, which doesn't change what is in it.
    public var reader: UserID?

    /// A range.
    public init(
        after: Offset, upTo: Offset?, direction: HistoryDirection, maximumEntries: Int, maximumBytes: Int,
        reader: UserID? = nil
    ) {
        self.after = after
        self.upTo = upTo
        self.direction = direction
        self.maximumEntries = maximumEntries
        self.maximumBytes = maximumBytes
        self.reader = reader
    }
}

/// One step along a channel's log.
public enum LogItem: Hashable, Sendable {
    /// An entry.
    case entry(Entry)
    /// A range that is absent on purpose.
    case skip(Skip)
}

/// The ends of a channel's log.
public struct ChannelHead: Hashable, Sendable {
    /// The last entry; offset 0 when the channel is empty.
    public var position: Position
    /// The `previous` of the first entry that is left; 0 when nothing was trimmed.
    public var first: Offset

    /// A head.
    public init(position: Position, first: Offset) {
        self.position = position
        self.first = first
    }
}
