import LonglineWire
import NIOCore

/// One channel on the client: what arrived, what waits to be sent, and the lane towards the server.
struct ClientChannel {
    var receiver: ChannelReceiver
    var queue = PublishQueue()
    var acknowledgement = AckCoalescer()
    /// What came on the present link.
    var unconfirmed = UnconfirmedItems()
    var lane: OutboundLane?
    /// Whether it stands in line for a lane, with something to say.
    var waitsForLane = false
    /// The publish that is being sent in parts.
    var sending: PublishSending?

    init(confirmed: Position? = nil) { receiver = ChannelReceiver(confirmed: confirmed) }

    /// Every publish on the lane was answered, so that another lane can't overtake it.
    var isLaneUnused: Bool { lane != nil && queue.inFlight == 0 && sending == nil }

    /// The epoch that acknowledgements belong to; 0 while none is known.
    var epoch: Epoch { receiver.last?.epoch ?? 0 }

    /// When an acknowledgement or a retry is due. What waits for answers or for a lane, not for a time, has none.
    var deadline: NIODeadline? {
        guard !waitsForLane else { return nil }
        let due = queue.isPaused ? nil : acknowledgement.due
        guard let due, let retry = queue.retryAt else { return due ?? queue.retryAt }
        return min(due, retry)
    }

    /// Nothing is to be acknowledged any more, and so nothing waits for another lane.
    mutating func forgetAcknowledgement() {
        acknowledgement.clear()
        queue.isPaused = false
    }

    /// The link is gone, and with it the lane and what was to be said on it.
    mutating func linkClosed() {
        lane = nil
        waitsForLane = false
        sending = nil
        acknowledgement.clear()
        unconfirmed = UnconfirmedItems()
        queue.linkClosed()
    }
}
