import LonglineWire
import NIOCore

/// One channel of a server's session: its sender (when the user may read it), its publishes under way, its lane.
struct ServerChannel {
    /// nil for a channel that isn't the user's: it exists only to refuse what is published into it.
    var sender: ChannelSender?
    /// What of the log the user is entitled to, for history.
    var readable: ReadableRange?
    /// Whether the user is in it now.
    var isMember = false
    /// Whether the credential allows to be sent its entries. While it does not, the sender stands still where it is, so that
    /// it goes on from there, without a gap and without a repetition, once a fresh credential allows it.
    var mayReceive = false
    var gate = PublishGate()
    var lane: OutboundLane?
    var batching = FrameBatching()
    /// Client lanes that carry this channel.
    var inboundLanes = 0
    var lag = DeliveryLag()
    /// Whether it stands in the queue for a read.
    var isQueued = false
    /// Whether it stands in line for a lane, with something to deliver.
    var waitsForLane = false
    /// How urgent it is to the client.
    var urgency = Urgency.chat
    /// Whether it stands in line for room among what is unconfirmed: to begin, to go on, before an entry in parts; see
    /// ``ServerSession/RoomLines``.
    var standsToBegin = false
    var standsToGoOn = false
    var standsForParts = false
    /// A read of a log that is no more is still to be answered. Nothing is read until then: the answers have no names, and
    /// that one, made of the old log or already of the new one, would be taken for the next read's.
    var awaitsOldRead = false

    /// What the lane's header has to name.
    var epoch: Epoch { sender?.epoch ?? 0 }

    /// Nothing is unacknowledged in either direction.
    var isIdle: Bool { gate.isEmpty && (sender.map { mayReceive ? $0.isIdle : $0.isQuiet } ?? true) }
}

extension ServerChannel {
    /// Whether the sender has something to read, and the window and the lane have room for it.
    func wantsRead(window: Int) -> Bool {
        guard mayReceive, !awaitsOldRead, let sender, lane?.isWritable ?? true else { return false }
        if sender.payload != nil { return !sender.isReading }
        return !sender.waitsForParts && !sender.isReading && sender.notice == nil && sender.hasMore
            && sender.unacknowledgedBytes < window
    }

    /// Starts the next read of a payload that is being sent in parts.
    mutating func startPayloadRead(window: Int) -> PayloadSending? {
        guard wantsRead(window: window), let started = sender?.startPayloadRead() else { return nil }
        isQueued = false
        return started
    }

    /// What is owed before anything else, if it may leave now.
    mutating func takeNotice(window: Int) -> Frame? {
        guard mayReceive else { return nil }
        return sender?.takeNotice(window: window) ?? nil
    }
}
