import LonglineWire
import NIOCore

/// The lanes that channels have towards the server, which takes so many at once.
///
/// ```
///            something to say, none is to be had                 the next one is free
///        .---------------------------------------> in line -------------------------------.
///        |                                                                                v
///     no lane ------ something to say --------------------------------------> open: frames ...
///        ^                                                                                |
///        '---- finished: all is answered, and it was quiet for long or others want it <---'
/// ```
extension ClientSession {
    /// How many lanes of this side the link lets be open at once: said before ``linkOpened(credential:connectNumber:supportsPathChange:outbox:now:)``.
    public mutating func lanesAllowed(_ count: Int) {
        laneLimit = max(1, min(configuration.maximumOutboundLanes, count))
    }

    /// When lanes run short, one in so many is finished, so that not each new one looks at all.
    private static let lanesPerSpare = 16

    /// Whether a channel has a lane or may open one; if not, it stands in line.
    mutating func mayHaveLane(_ channel: ChannelID) -> Bool {
        let half = max(1, laneLimit / 2)
        guard outbound.count >= half, modify(channel, { $0.lane == nil }) == true else { return true }
        // While others are in line, none is free that isn't theirs.
        if waitingForLane.isEmpty { finishUnusedLanes(outbound.count - half + 1 + half / Self.lanesPerSpare) }
        guard outbound.count >= laneLimit else { return true }
        let isNew = modify(channel) { state in
            defer { state.waitsForLane = true }
            return !state.waitsForLane
        }
        if isNew == true { waitingForLane.append(channel) }
        return false
    }

    /// Publishes may have been answered: who waits in line gets lanes that are not used any more.
    mutating func shareLanes(now: NIODeadline) {
        while !waitingForLane.isEmpty {
            if outbound.count >= laneLimit { finishUnusedLanes(waitingForLane.count) }
            guard outbound.count < laneLimit, let next = waitingForLane.popFirst() else { return }
            modify(next) { $0.waitsForLane = false }
            acknowledge(next, now: now)
            publish(next, now: now)
        }
    }

    /// Opens the channel's lane if there is none; ``mayHaveLane(_:)`` comes before it.
    mutating func openLane(_ channel: ChannelID, now: NIODeadline) -> LaneID? {
        guard let state = channels[channel] else { return nil }
        if let lane = state.lane {
            modify(channel) { $0.lane?.lastUse = now }
            return lane.id
        }
        let lane = OutboundLane(id: LaneID(rawValue: nextLane), epoch: state.epoch, lastUse: now)
        nextLane += 1
        outbound[lane.id] = channel
        modify(channel) { $0.lane = lane }
        actions.append(.openLane(lane.id))
        prioritize(channel)
        if phase == .connecting { earlyBytes -= FrameCost.overhead }
        send(.lane(LaneHeader(channel: channel, epoch: state.epoch)), lane: lane.id, owed: false, now: now)
        return lane.id
    }

    mutating func finish(_ lane: OutboundLane, of channel: ChannelID) {
        outbound[lane.id] = nil
        modify(channel) { $0.lane = nil }
        actions.append(.finishLane(lane.id))
    }

    /// Finishes lanes on which every publish was answered long ago. It is done with a heartbeat, not on a timer of its own,
    /// which would wake the device.
    mutating func finishIdleLanes(now: NIODeadline) {
        for item in unusedLanes() where now >= item.lane.lastUse + configuration.laneIdleTime {
            finish(item.lane, of: item.channel)
        }
    }

    /// Finishes lanes on which every publish was answered, those that were quiet for longest first.
    private mutating func finishUnusedLanes(_ count: Int) {
        for item in unusedLanes().prefix(count) { finish(item.lane, of: item.channel) }
    }

    private mutating func unusedLanes() -> [(lane: OutboundLane, channel: ChannelID)] {
        var unused: [(lane: OutboundLane, channel: ChannelID)] = []
        for channel in outbound.values {
            if let lane = modify(channel, { $0.isLaneUnused ? $0.lane : nil }) ?? nil { unused.append((lane, channel)) }
        }
        unused.sort { ($0.lane.lastUse, $0.lane.id) < ($1.lane.lastUse, $1.lane.id) }
        return unused
    }
}
