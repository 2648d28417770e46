/// A stream's state in the engine.
///
/// ```
/// sending:    open --write(finish)--> finishing --all acknowledged--> done
///               \--reset, or the peer's STOP_SENDING--> reset --> done
/// receiving:  open --FIN--> ended --read--> done
///               \--the peer's RESET_STREAM--> reset       \--stopSending: what comes is dropped
/// ```
/// ngtcp2 closes a stream when both are done for the network; the engine forgets it when it is also read out. Without
/// exclusivity checks, as `QUICEngineConnection` is.
final class EngineStream {
    let id: QUICStreamID
    let sends: Bool
    let receives: Bool

    @exclusivity(unchecked) var priority = StreamPriority.standard
    @exclusivity(unchecked) var sendBuffer = SendBuffer()
    /// Of what is in it, what counts among the connection's ``FirstBytes``, and of which kind.
    @exclusivity(unchecked) var firstBytes = 0
    @exclusivity(unchecked) var firstBytesKind = FirstBytes.Kind.ordinary
    /// `finish` was accepted; and its FIN handed to ngtcp2.
    @exclusivity(unchecked) var isFinishing = false
    @exclusivity(unchecked) var finWasSent = false
    /// Its FIN left with bytes: whoever has the last of them has the end, however they were cut when they were sent again.
    @exclusivity(unchecked) var finHadBytes = false
    @exclusivity(unchecked) var endWasAcknowledged = false
    /// Its FIN left by itself, and the peer isn't known to have it.
    @exclusivity(unchecked) var awaitsLoneEnd = false
    /// `streamDelivered` is owed.
    @exclusivity(unchecked) var owesDelivered = false
    /// Our reset, or the answer to the peer's STOP_SENDING.
    @exclusivity(unchecked) var resetCode: UInt64?
    /// The peer's STOP_SENDING was reported.
    @exclusivity(unchecked) var wasStopped = false
    /// A write was short: `streamWritable` is owed.
    @exclusivity(unchecked) var owesWritable = false
    /// It is in the connection's queue of streams with something to send.
    @exclusivity(unchecked) var isQueued = false
    /// The peer's flow control holds it back.
    @exclusivity(unchecked) var isBlocked = false

    @exclusivity(unchecked) var receiveBuffer = ReceiveBuffer()
    /// Bytes that were read and for which the peer may not send others yet.
    @exclusivity(unchecked) var withheldWindow: UInt64 = 0
    @exclusivity(unchecked) var stopCode: UInt64?
    @exclusivity(unchecked) var peerReset = false
    /// `streamReadable` was reported and not yet answered by a read that emptied the buffer.
    @exclusivity(unchecked) var readableReported = false

    /// ngtcp2 has closed it.
    @exclusivity(unchecked) var isClosed = false
    /// The owner has taken `streamClosed` from the queue of events.
    @exclusivity(unchecked) var closeWasTaken = false
    /// 0-RTT was refused and the peer's limits don't allow it yet again.
    @exclusivity(unchecked) var awaitsReopening = false

    init(id: QUICStreamID, isLocal: Bool) {
        self.id = id
        sends = id.isBidirectional || isLocal
        receives = id.isBidirectional || !isLocal
    }

    /// Whether it is less urgent than streams are by themselves.
    var isBackground: Bool { priority.urgency > StreamPriority.standard.urgency }

    /// Whether it is more urgent than streams are by themselves.
    var isUrgent: Bool { priority.urgency < StreamPriority.standard.urgency }

    var hasSomethingToSend: Bool {
        sends && resetCode == nil && !isClosed && (sendBuffer.unsent > 0 || (isFinishing && !finWasSent))
    }

    /// Everything was acknowledged, and the end.
    var isDelivered: Bool {
        finWasSent && resetCode == nil && sendBuffer.count == 0 && (endWasAcknowledged || finHadBytes)
    }

    /// Nothing is left that the application could read.
    var isReadOut: Bool {
        !receives || peerReset || stopCode != nil || receiveBuffer.endWasRead
    }
}
