/// Which of two channels' frames leave first when both have some to send. It orders channels only: within one, order is kept.
public enum Urgency: UInt8, Hashable, Sendable, CaseIterable {
    /// Small things that steer something and are of no use late, such as the signalling of a call.
    case control = 0
    /// What people wait for: a channel has this until it is given another.
    case chat = 1
    /// What may take its time: files, pictures, backups.
    case bulk = 2
}

extension Urgency: Comparable {
    /// The more urgent one is the smaller one.
    public static func < (left: Urgency, right: Urgency) -> Bool { left.rawValue < right.rawValue }
}

/// How urgent a channel is to a client.
public struct ChannelUrgency: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// How urgent it is from now on.
    public var urgency: Urgency

    /// A channel's urgency.
    public init(channel: ChannelID, urgency: Urgency) {
        self.channel = channel
        self.urgency = urgency
    }
}

extension ChannelUrgency {
    func write(to sink: inout some FrameSink) {
        sink.channel(channel)
        sink.byte(urgency.rawValue)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(channel: try reader.channel("channel"), urgency: try reader.choice("urgency"))
    }
}
