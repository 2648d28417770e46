import LonglineWire
import NIOCore

/// What the client says: publishes, acknowledgements, pings.
extension ClientSession {
    /// Sends what waits in every channel, as far as windows allow; the most urgent channel goes first, and among these the
    /// one with the oldest message.
    mutating func publishAll(now: NIODeadline) {
        let waiting = channels.compactMap { channel, state in
            state.queue.firstID.map { (channel: channel, urgency: urgencies[channel] ?? .chat, id: $0) }
        }
        for next in waiting.sorted(by: { ($0.urgency, $0.id) < ($1.urgency, $1.id) }) {
            publish(next.channel, now: now)
        }
    }

    /// Sends what waits in a channel, as far as its window and the link allow.
    mutating func publish(_ channel: ChannelID, now: NIODeadline) {
        guard phase == .connected || (phase == .connecting && earlyBytes > 0) else { return }
        let window = limits.map { Int(clamping: $0.channelWindow) } ?? EarlyAllowance.bytes
        let limit = min(
            FrameLimits.maximumUnacknowledged,
            limits.map { Int(clamping: max(1, $0.maximumUnacknowledged)) } ?? EarlyAllowance.publishes)
        let onlyUnresolved = isProducerSpent
        modify(channel) { $0.queue.timePassed(now: now) }
        guard sendParts(channel, now: now) else { return keepTime(channel) }
        while channels[channel]?.lane?.isWritable ?? true {
            if phase == .connecting, !fitsEarly(channel) { break }
            if mustWaitForParts(channel) {
                waitingForParts.insert(channel)
                break
            }
            if channels[channel]?.queue.isReady == true, !mayHaveLane(channel) { break }
            let next = modify(channel) {
                $0.queue.take(window: window, limit: limit, onlyUnresolved: onlyUnresolved, now: now)
            }
            guard let publish = next ?? nil, let lane = openLane(channel, now: now) else { break }
            if phase == .connecting { earlyBytes -= FrameCost.of(publish) }
            let first = begin(publish, in: channel)
            prioritize(channel, for: .publish(first))
            send(.publish(first), lane: lane, owed: true, now: now)
            guard sendParts(channel, now: now) else { break }
        }
        keepTime(channel)
    }

    /// Whether the server will hold the next publish while it looks at CONNECT.
    private func fitsEarly(_ channel: ChannelID) -> Bool {
        guard let state = channels[channel], let cost = state.queue.nextCost else { return false }
        return cost + (state.lane == nil ? FrameCost.overhead : 0) <= earlyBytes
    }

    /// A publish was answered: there is room for another, and perhaps the lane waited for it.
    mutating func answered(_ channel: ChannelID, now: NIODeadline) {
        modify(channel) { $0.lane?.lastUse = now }
        if channels[channel]?.queue.isPaused == true { acknowledge(channel, now: now) }
        publish(channel, now: now)
        // A payload that waited for a place among those in parts may have one now.
        guard !waitingForParts.isEmpty else { return }
        let waiting = waitingForParts.sorted { $0.description < $1.description }
        waitingForParts = []
        for other in waiting { publish(other, now: now) }
    }

    /// Once everything this producer may have sent is resolved, what is left can take new IDs without being entered twice.
    mutating func renewProducerIfResolved(now: NIODeadline) {
        guard isProducerSpent, phase == .connected, !channels.values.contains(where: \.queue.hasUnresolved) else {
            return
        }
        actions.append(.renewProducer)
        close(Close(code: .normal, reason: "the producer is renewed"), now: now)
    }

    // MARK: Acknowledgements

    mutating func cursorMoved(_ channel: ChannelID, now: NIODeadline) {
        movedCursors.insert(channel)
        if !recordsAhead.isEmpty { settleRecord(of: channel) }
        modify(channel) { state in
            if let confirmed = state.receiver.confirmed { state.unconfirmed.confirmed(confirmed) }
        }
        guard phase == .connected, let confirmed = channels[channel]?.receiver.confirmed else { return }
        let every = configuration.acknowledgeEvery
        let delay = configuration.acknowledgeDelay
        modify(channel) { $0.acknowledgement.confirmed(confirmed, every: every, delay: delay, now: now) }
        acknowledge(channel, now: now)
    }

    /// Sends the channel's acknowledgement when its time has come.
    ///
    /// It has to leave on a lane of its epoch. When the open lane names another, publishing pauses until every answer on
    /// it has come, so that the next lane can't overtake it; then the lane is changed.
    mutating func acknowledge(_ channel: ChannelID, now: NIODeadline) {
        defer { keepTime(channel) }
        guard phase == .connected, let state = channels[channel], let due = state.acknowledgement.due, now >= due else {
            return
        }
        guard let confirmed = state.receiver.confirmed, confirmed.epoch == state.epoch else {
            modify(channel) { $0.forgetAcknowledgement() }
            return
        }
        if let lane = state.lane, lane.epoch != state.epoch {
            guard state.queue.inFlight == 0 else {
                modify(channel) { $0.queue.isPaused = true }
                return
            }
            finish(lane, of: channel)
        }
        modify(channel) { $0.queue.isPaused = false }
        guard mayHaveLane(channel) else { return }
        guard let offset = modify(channel, { $0.acknowledgement.take(now: now) }) ?? nil,
            let lane = openLane(channel, now: now)
        else { return }
        send(.acknowledge(Acknowledge(offset: offset)), lane: lane, owed: false, now: now)
    }

    /// Keeps the channel among those that wait for a time, or not.
    private mutating func keepTime(_ channel: ChannelID) {
        guard let state = channels[channel] else { return }
        if state.deadline != nil { timedChannels.insert(channel) } else { timedChannels.remove(channel) }
    }

    mutating func ping(now: NIODeadline) {
        send(.ping(Ping(nonce: nextNonce)), lane: .control, owed: true, now: now)
        nextNonce &+= 1
    }

    mutating func send(_ frame: Frame, lane: LaneID, owed: Bool, now: NIODeadline) {
        actions.append(.send(frame, lane: lane))
        heartbeat?.sent(owed: owed, now: now)
    }
}
