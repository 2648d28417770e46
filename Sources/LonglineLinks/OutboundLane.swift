internal import LonglineSession
internal import LonglineWire
internal import NIOCore
internal import QUICEngine

/// The frames of one lane on their way out: what the stream's send buffer didn't take yet.
struct OutboundLane {
    /// More than this waiting makes the lane unwritable, until all of it left.
    static let highWater = 64 << 10
    /// More than this waiting is more than a peer that listens ever needs: what a sender puts on a lane on its own account
    /// stops at ``highWater``, and what answers the peer is bounded for each kind of request.
    static let limit = 512 << 10
    /// More lanes than this that are not at their end are more than such a peer needs, too: a session has 4,096 at most, and as many
    /// may have ended without the peer's word.
    static let lanesLimit = 8_192

    /// The stream, once the peer's limit allowed one.
    var stream: QUICStreamID?
    var pending = ByteBuffer()
    /// The end was asked for, and was sent.
    var finishes = false
    var finished = false
    /// The peer wants nothing more: what is sent is dropped.
    var isDead = false
    var urgency = Urgency.chat
    private(set) var isWritable = true
    /// Somebody wants to know when nothing waits any more.
    var owesReport = false
    /// Bytes that the stream took.
    var written: UInt64 = 0
    /// Somebody wants to know when the peer's transport has so many of them.
    private var awaited: UInt64?

    var isOverfull: Bool { pending.readableBytes > Self.limit }

    /// When the lane's stream may send. Lane 0 is before all others, whatever they are.
    func priority(isControl: Bool) -> StreamPriority {
        guard !isControl else { return StreamPriority(urgency: 0) }
        return switch urgency {
        case .control: StreamPriority(urgency: 1)
        case .chat: .standard
        case .bulk: StreamPriority(urgency: 5)
        }
    }

    /// - Returns: whether it is to be sent; a lane that ended takes nothing more.
    mutating func append(_ frame: Frame) throws(FrameError) -> Bool {
        guard !isDead, !finishes else { return false }
        try FrameEncoder.encode(frame, into: &pending)
        return true
    }

    /// Waits for all that was sent so far to be with the peer.
    mutating func awaitDelivery() { awaited = written + UInt64(pending.readableBytes) }

    /// Whether that is so, with so many bytes at the stream's end unacknowledged, or nothing more will come of it.
    func isDelivered(unacknowledged: Int) -> Bool {
        guard !isDead, let awaited else { return true }
        return stream != nil && written - UInt64(unacknowledged) >= awaited
    }

    /// - Returns: the new state if it changed.
    mutating func updateWritability() -> Bool? {
        let waiting = pending.readableBytes
        if isWritable, waiting > Self.highWater {
            isWritable = false
            return false
        }
        if !isWritable || owesReport, waiting == 0 || isDead {
            isWritable = true
            owesReport = false
            return true
        }
        return nil
    }
}
