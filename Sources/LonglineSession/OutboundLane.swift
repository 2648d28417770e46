import LonglineWire
import NIOCore

/// The open lane that one side has for one channel.
struct OutboundLane {
    let id: LaneID
    /// The epoch its header names; 0 when it was not known.
    let epoch: Epoch
    /// Whether the link takes more on it without delay.
    var isWritable = true
    /// Server: of those that are kept for answers. Nothing is delivered on it, so that it ends as soon as nothing waits for an
    /// answer, whatever the client confirms.
    var isForAnswers = false
    /// What the link was told.
    var urgency = Urgency.chat
    /// When a frame was last sent on it or answered.
    var lastUse: NIODeadline
}
