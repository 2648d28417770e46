/// The server tells that a channel's delivery waits for this device, or that it waits no more.
///
/// Nothing is lost by it: what was not delivered is in the log, and delivery goes on as the device confirms.
public struct ChannelLag: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The log's last entry, as far as this session knows.
    public var head: Position
    /// Whether the device is behind; false: it has been sent everything again.
    public var isBehind: Bool

    /// A lag.
    public init(channel: ChannelID, head: Position, isBehind: Bool) {
        self.channel = channel
        self.head = head
        self.isBehind = isBehind
    }
}

extension ChannelLag {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.channel(channel)
        try sink.position(head, "head")
        sink.byte(isBehind ? 1 : 0)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        channel = try reader.channel("channel")
        head = try reader.position("head")
        isBehind = try reader.flags("state", known: 1) == 1
    }
}
