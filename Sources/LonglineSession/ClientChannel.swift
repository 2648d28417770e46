import LonglineWire
import NIOCore

/// One channel on the client: what arrived, what waits to be sent, and the lane towards the server.
struct ClientChannel {
    var receiver: ChannelReceiver
    var queue = PublishQueue()
    var acknowledgement = AckCoalescer()
    var lane: OutboundLane?

    init(confirmed: Position? = nil) { receiver = ChannelReceiver(confirmed: confirmed) }

    /// The epoch that acknowledgements belong to; 0 while none is known.
    var epoch: Epoch { receiver.last?.epoch ?? 0 }

    /// The link is gone, and with it the lane and what was to be said on it.
    mutating func linkClosed() {
        lane = nil
        acknowledgement.clear()
        queue.linkClosed()
    }
}
