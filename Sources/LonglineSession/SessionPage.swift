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

    /// The part of a room's log that belongs to one stay of the user.
    public struct Stay: Hashable, Sendable {
        /// Nothing at or below this offset.
        public var after: Offset
        /// The last readable offset; nil while it lasts.
        public var upTo: Offset?

        /// A stay.
        public init(after: Offset, upTo: Offset?) {
            self.after = after
            self.upTo = upTo
        }
    }

    /// The epoch of every offset in the page.
    public var epoch: Epoch
    /// In order and without a hole: each continues where the one before it ended.
    public var items: [Item]
    /// The offset of the channel's last entry when the page was read.
    public var head: Offset
    /// The `previous` of the first entry that is left.
    public var first: Offset
    /// Of a page of a room's history: the user's last stay, as it was when the page was read; nil when that was not looked at.
    public var stay: Stay?

    /// A page.
    public init(epoch: Epoch, items: [Item], head: Offset, first: Offset, stay: Stay? = nil) {
        self.epoch = epoch
        self.items = items
        self.head = head
        self.first = first
        self.stay = stay
    }
}
