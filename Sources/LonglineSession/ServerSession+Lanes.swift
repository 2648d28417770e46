import LonglineWire
import NIOCore

/// The lanes that channels have towards the client, of which it lets so many be open at once.
///
/// ```
///            wants to deliver, none is to be had                 the next one is free
///        .---------------------------------------> in line -------------------------------.
///        |                                                                                v
///     no lane ------ wants to deliver, or has an answer ----------------------> open: frames ...
///        ^                                                                                |
///        '---- finished: all is confirmed, and it was quiet for long or others want it <--'
/// ```
/// What waits in line waits in the log: nothing is read for a channel that can't have a lane. Answers and history don't stand in
/// line, and a few lanes are kept for them: those for answers carry nothing else, and end as soon as nothing waits for an answer.
extension ServerSession {
    /// How many lanes of this side the link lets be open at once.
    public mutating func lanesAllowed(_ count: Int) {
        laneLimit = max(1, min(configuration.maximumOutboundLanes, count))
    }

    /// One in so many lanes is kept for answers and history, and finished together with others when lanes run short, so that not
    /// each new one looks at all.
    private static let lanesPerSpare = 16
    /// The history lane stays open, and answers need one beside it.
    private static let minimumSpare = 2

    /// Lanes for channels that deliver.
    private var deliveryLanes: Int { max(1, laneLimit - max(Self.minimumSpare, laneLimit / Self.lanesPerSpare)) }

    /// Whether a channel has the lane that it wants or may open it; if not, it stands in line.
    mutating func mayDeliver(_ channel: ChannelID) -> Bool {
        guard outbound.count + configuration.maximumReads >= deliveryLanes,
            lanesTaken(besides: channel) >= deliveryLanes
        else { return true }
        let window = window
        guard modify(channel, { $0.wantsLane(window: window) }) == true else { return true }
        // While others are in line, no lane can be finished.
        if waitingForLane.isEmpty, finishUnusedLanes(), lanesTaken(besides: channel) < deliveryLanes { return true }
        let isNew = modify(channel) { state in
            defer { state.waitsForLane = true }
            return !state.waitsForLane
        }
        if isNew == true { waitingForLane.append(channel) }
        return false
    }

    /// Lanes that are open for more than answers, and that those channels will open whose logs are being read.
    private mutating func lanesTaken(besides channel: ChannelID? = nil) -> Int {
        var count = outbound.count - answerLanes
        for other in reads.channelsUnderWay where other != channel {
            if modify(other, { !$0.mayDeliverOnLane }) == true { count += 1 }
        }
        return count
    }

    /// What was said on a channel's lane may all be confirmed now: who waits in line gets it, as far as there are others that are free.
    mutating func shareLanes(of channel: ChannelID, now: NIODeadline) {
        guard !waitingForLane.isEmpty else { return }
        if let lane = modify(channel, { $0.isIdle ? $0.lane : nil }) ?? nil {
            finish(lane, of: channel)
            forgetIfUnused(channel)
        }
        // One that got a lane for an answer meanwhile needs no other.
        let wasGiven = modify(channel) { state in
            defer { if state.mayDeliverOnLane { state.waitsForLane = false } }
            return state.waitsForLane && state.mayDeliverOnLane
        }
        if wasGiven == true { advance(channel, now: now) }
        shareLanes(now: now)
    }

    private mutating func shareLanes(now: NIODeadline) {
        // No more than may open one, though they wait for their reads first.
        var queued = 0
        while case .up = phase, !waitingForLane.isEmpty, lanesTaken() + queued < deliveryLanes,
            let next = waitingForLane.popFirst()
        {
            let waited = modify(next) { state in
                defer { state.waitsForLane = false }
                return state.waitsForLane
            }
            guard waited == true else { continue }
            advance(next, now: now)
            if modify(next, { $0.isQueued }) == true { queued += 1 }
        }
    }

    /// Finishes lanes that have nothing unacknowledged, those that were quiet for longest first: one, and some more.
    /// - Returns: whether there was any.
    @discardableResult
    private mutating func finishUnusedLanes() -> Bool {
        let unused = unusedLanes()
        for item in unused.prefix(1 + deliveryLanes / Self.lanesPerSpare) {
            finish(item.lane, of: item.channel)
            forgetIfUnused(item.channel)
        }
        return !unused.isEmpty
    }

    /// Lanes that have nothing unacknowledged, those that were quiet for longest first.
    private mutating func unusedLanes() -> [(lane: OutboundLane, channel: ChannelID)] {
        var unused: [(lane: OutboundLane, channel: ChannelID)] = []
        for channel in outbound.values {
            if let lane = modify(channel, { $0.isIdle ? $0.lane : nil }) ?? nil { unused.append((lane, channel)) }
        }
        unused.sort { ($0.lane.lastUse, $0.lane.id) < ($1.lane.lastUse, $1.lane.id) }
        return unused
    }

    /// Takes the next lane's number. An answer or a page takes one also when channels have all that are theirs.
    mutating func openLane() -> LaneID {
        if outbound.count >= deliveryLanes { finishUnusedLanes() }
        let lane = LaneID(rawValue: nextLane)
        nextLane += 1
        actions.append(.openLane(lane))
        return lane
    }

    /// Sends on the channel's lane, opened when there is none or when it names another epoch.
    mutating func send(_ frame: Frame, channel: ChannelID, now: NIODeadline) {
        // Not a copy of the channel: all that waits in it would be retained for each frame.
        guard let (epoch, open) = modify(channel, { ($0.epoch, $0.lane) }) else { return }
        if let lane = open, lane.epoch == epoch || (lane.isForAnswers && frame.isAnswer) {
            modify(channel) { $0.lane?.lastUse = now }
            prioritize(channel, for: frame)
            actions.append(.send(frame, lane: lane.id))
            return
        }
        // What the old lane carried belongs to a log that is no more, or to no log at all.
        if let lane = open { finish(lane, of: channel) }
        let id = openLane()
        let isForAnswers = frame.isAnswer && epoch != 0 && outbound.count - answerLanes >= deliveryLanes
        if isForAnswers { answerLanes += 1 }
        let named = isForAnswers ? 0 : epoch
        outbound[id] = channel
        modify(channel) {
            $0.lane = OutboundLane(id: id, epoch: named, isForAnswers: isForAnswers, lastUse: now)
        }
        prioritize(channel, for: frame)
        actions.append(.send(.lane(LaneHeader(channel: channel, epoch: named)), lane: id))
        actions.append(.send(frame, lane: id))
        sweepAt = sweepAt ?? now + configuration.laneIdleTime
    }

    /// Ends a lane for answers once nothing more waits for one; a channel that isn't the user's has no other lane.
    mutating func finishAnswers(_ channel: ChannelID) {
        let ended = modify(channel) { state -> OutboundLane? in
            let carriesOnlyAnswers = state.sender == nil || state.lane?.isForAnswers == true
            return state.gate.isEmpty && carriesOnlyAnswers ? state.lane : nil
        }
        guard let lane = ended ?? nil else { return }
        finish(lane, of: channel)
        forgetIfUnused(channel)
    }

    mutating func finish(_ lane: OutboundLane, of channel: ChannelID) {
        outbound[lane.id] = nil
        if lane.isForAnswers { answerLanes -= 1 }
        modify(channel) { $0.lane = nil }
        actions.append(.finishLane(lane.id))
    }

    /// Finishes lanes that were quiet for long and have nothing unacknowledged: a lane finished earlier could be overtaken
    /// by the channel's next one.
    mutating func sweepLanes(now: NIODeadline) {
        sweepAt = nil
        for item in unusedLanes() where now >= item.lane.lastUse + configuration.laneIdleTime {
            finish(item.lane, of: item.channel)
            forgetIfUnused(item.channel)
        }
        forgetEnded(now: now)
        shareLanes(now: now)
        if !outbound.isEmpty { sweepAt = now + configuration.laneIdleTime }
    }

    /// Drops a channel that was kept only to refuse publishes.
    mutating func forgetIfUnused(_ channel: ChannelID) {
        guard let state = channels[channel], state.sender == nil, !state.isMember, state.inboundLanes == 0,
            state.gate.isEmpty, state.lane == nil
        else { return }
        channels[channel] = nil
        strangers.remove(channel)
    }
}

extension ServerChannel {
    /// Whether it has no lane and would deliver on one.
    fileprivate func wantsLane(window: Int) -> Bool {
        !mayDeliverOnLane && mayReceive && (sender?.notice != nil || wantsRead(window: window))
    }

    /// Whether it has a lane that more than answers may be sent on.
    fileprivate var mayDeliverOnLane: Bool { lane?.isForAnswers == false }
}

extension Frame {
    /// Whether it answers a publish.
    fileprivate var isAnswer: Bool {
        switch self {
        case .published, .refused: true
        default: false
        }
    }
}
