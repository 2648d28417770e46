import LonglineWire
public import NIOCore

/// Large payloads on their way out.
extension ServerSession {
    /// Answers ``ServerAction/readPayload(_:)``.
    /// - Parameters:
    ///   - read: the action's.
    ///   - bytes: the next bytes, one at least; nil when the entry is not in the log any more.
    ///   - now: the time of this call.
    public mutating func payloadRead(_ read: PayloadRead, bytes: ByteBuffer?, now: NIODeadline) {
        guard case .up = phase else { return }
        if read.history != nil { return historyPayload(read, bytes: bytes) }
        guard isAwaited(read) else { return }
        readEnded(read.channel)
        let partBytes = configuration.partBytes
        let frames = modify(read.channel) {
            $0.sender?.takePayload(bytes, from: read.from, partBytes: partBytes) ?? []
        }
        for frame in frames ?? [] { send(frame, channel: read.channel, now: now) }
        advance(read.channel, now: now)
        startReads(now: now)
    }

    /// Answers ``ServerAction/readPayload(_:)``: not now. It is tried again in a second.
    public mutating func payloadReadFailed(_ read: PayloadRead, now: NIODeadline) {
        if read.history != nil {
            // Nothing hangs on a page: the client asks again.
            historyPayload(read, bytes: nil)
        } else if isAwaited(read) {
            readFailed(read.channel, now: now)
        }
    }

    /// Whether a payload's read is still of use: it is not once the payload was given up, or the log is another one.
    private func isAwaited(_ read: PayloadRead) -> Bool {
        guard let sender = channels[read.channel]?.sender, sender.epoch == read.epoch, let sending = sender.payload
        else { return false }
        return sending.isReading && sending.offset == read.offset && sending.next == read.from
    }

    /// Tells the client of a payload that will not be finished, keeps count of the channels whose payload is being sent, and lets
    /// the next one begin that waits for its turn.
    mutating func noteParts(_ channel: ChannelID, now: NIODeadline) {
        let parts = modify(channel) { state in
            (
                end: state.sender?.takeEnd(), waits: state.sender?.waitsForParts,
                isSending: state.sender?.payload != nil, lane: state.lane?.id
            )
        }
        if let end = parts?.end {
            readEnded(channel)
            send(end, channel: channel, now: now)
        }
        // As a rule nothing is large.
        if parts?.isSending != true, parts?.waits != true, sendingParts.isEmpty, roomLines == nil { return }
        if parts?.waits == true { standForParts(channel) }
        if parts?.isSending == true {
            sendingParts.insert(channel)
            // What was asked about goes before this one, which is asked about at its end.
            if let lane = parts?.lane { undeliveredParts[lane] = nil }
        } else if sendingParts.contains(channel) {
            awaitDelivery(channel, lane: parts?.lane)
        }
        beginWaitingParts(now: now)
    }

    /// A payload that was sent and may not have arrived.
    struct UndeliveredParts {
        let channel: ChannelID
        /// The number under which the host was asked.
        let question: UInt64
    }

    /// A payload has its place until it arrived: what was handed to the transport may be overtaken by another lane's.
    private mutating func awaitDelivery(_ channel: ChannelID, lane: LaneID?) {
        if let lane, undeliveredParts[lane] == nil {
            deliveryQuestions += 1
            undeliveredParts[lane] = UndeliveredParts(channel: channel, question: deliveryQuestions)
            actions.append(.awaitDelivery(lane, question: deliveryQuestions))
        } else if lane == nil {
            sendingParts.remove(channel)
        }
    }

    /// Answers ``ServerAction/awaitDelivery(_:question:)``.
    public mutating func laneDelivered(_ lane: LaneID, question: UInt64, now: NIODeadline) {
        // The answer to an earlier question may come before the host has asked the next one, and says nothing of what was sent since.
        guard case .up = phase, let parts = undeliveredParts[lane], parts.question == question else { return }
        undeliveredParts[lane] = nil
        let channel = parts.channel
        // The next one may have begun, behind it or in another life of the log, and has the place then.
        guard modify(channel, { $0.sender?.payload != nil }) != true,
            !undeliveredParts.values.contains(where: { $0.channel == channel })
        else { return }
        sendingParts.remove(channel)
        beginWaitingParts(now: now)
    }

    mutating func beginWaitingParts(now: NIODeadline) {
        while sendingParts.count + promisedParts.count < FrameLimits.maximumPayloadsInParts,
            let next = nextForParts()
        {
            let waited = modify(next) { state in
                defer { state.sender?.waitsForParts = false }
                return state.sender?.waitsForParts == true
            }
            guard waited == true else { continue }
            // It reads its page again, and has its place when that comes.
            promisedParts.insert(next)
            advance(next, now: now)
            let reads = channels[next].map { $0.isQueued || $0.sender?.isReading == true } ?? false
            if !reads { promisedParts.remove(next) }
        }
    }
}
