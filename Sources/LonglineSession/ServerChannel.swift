import LonglineWire
import NIOCore

/// One channel of a server's session: its sender (when the user may read it), its publishes under way, its lane.
struct ServerChannel {
    /// nil for a channel that the session may not read: it exists only to refuse what is published into it.
    var sender: ChannelSender?
    /// What of the log may be read as history; nil where nothing may.
    var readable: ReadableRange?
    /// Whether the user may publish into it.
    var isMember = false
    var gate = PublishGate()
    var lane: OutboundLane?
    /// Client lanes that carry this channel.
    var inboundLanes = 0
    /// Whether it stands in the queue for a read.
    var isQueued = false

    /// What the lane's header has to name.
    var epoch: Epoch { sender?.epoch ?? 0 }

    /// Nothing is unacknowledged in either direction.
    var isIdle: Bool { gate.isEmpty && (sender?.isIdle ?? true) }
}

extension ServerChannel {
    /// Whether the sender has something to read, and the window and the lane have room for it.
    func wantsRead(window: Int) -> Bool {
        guard let sender, lane?.isWritable ?? true else { return false }
        return !sender.isReading && sender.notice == nil && sender.hasMore && sender.unacknowledgedBytes < window
    }

    /// What is owed before anything else, if it may leave now.
    mutating func takeNotice(window: Int) -> Frame? { sender?.takeNotice(window: window) ?? nil }
}
