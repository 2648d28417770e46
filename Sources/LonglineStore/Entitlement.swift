public import LonglineWire

/// The part of a channel that a user may read, in push, catch-up and history alike.
///
/// A user who left a room and joined again has one entitlement for it, that of the stint that lasts; after the last leave, that
/// of the last stint.
public struct Entitlement: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The log's ends.
    public var head: ChannelHead
    /// Nothing at or below this offset is readable: the one before the join entry; 0 for an inbox. Of a broadcast, nothing at
    /// or below is delivered to the device: the entry before those that came since the store knows it.
    public var after: Offset
    /// The leave entry, the last that is readable; nil while the membership lasts.
    public var upTo: Offset?

    /// An entitlement.
    public init(channel: ChannelID, head: ChannelHead, after: Offset, upTo: Offset?) {
        self.channel = channel
        self.head = head
        self.after = after
        self.upTo = upTo
    }
}
