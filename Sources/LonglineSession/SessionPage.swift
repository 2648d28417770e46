public import LonglineWire

/// One stretch of a channel's log, as the host read it.
public struct SessionPage: Sendable {
    /// One step along the log.
    public enum Item: Hashable, Sendable {
        /// An entry.
        case entry(Entry)
        /// A range that is absent on purpose.
        case skip(Skip)
    }

    /// The epoch of every offset in the page.
    public var epoch: Epoch
    /// In order and without a hole: each continues where the one before it ended.
    public var items: [Item]
    /// The offset of the channel's last entry when the page was read.
    public var head: Offset
    /// The `previous` of the first entry that is left.
    public var first: Offset

    /// A page.
    public init(epoch: Epoch, items: [Item], head: Offset, first: Offset) {
        self.epoch = epoch
        self.items = items
        self.head = head
        self.first = first
    }
}
