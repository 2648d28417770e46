public import LonglineWire
public import NIOCore

/// What leaves first, in both directions.
extension ClientSession {
    /// Says how urgent a channel is, for what this side publishes into it and for what the server sends of it: on this link
    /// and later ones.
    /// - Returns: false when ``/LonglineWire/FrameLimits/maximumUrgencies`` channels have one of their own already.
    public mutating func setUrgency(_ urgency: Urgency, of channel: ChannelID, now: NIODeadline) -> Bool {
        guard urgency != urgencies[channel] ?? .chat else { return true }
        if urgency != .chat, urgencies[channel] == nil, urgencies.count >= FrameLimits.maximumUrgencies {
            return false
        }
        urgencies[channel] = urgency == .chat ? nil : urgency
        if phase == .connecting || phase == .connected {
            let said = ChannelUrgency(channel: channel, urgency: urgency)
            send(.urgency(said), lane: .control, owed: false, now: now)
        }
        prioritize(channel)
        return true
    }

    /// Tells a new link's server.
    mutating func sayUrgencies(now: NIODeadline) {
        for (channel, urgency) in urgencies.sorted(by: { $0.key.description < $1.key.description }) {
            let said = ChannelUrgency(channel: channel, urgency: urgency)
            send(.urgency(said), lane: .control, owed: false, now: now)
        }
    }

    /// Gives a channel's lane the urgency that it has with a frame behind which nothing waits: what goes on in parts takes its
    /// time, until something else of the channel follows it.
    mutating func prioritize(_ channel: ChannelID, for frame: Frame? = nil) {
        let urgency = frame?.isOfParts == true ? .bulk : urgencies[channel] ?? .chat
        let changed: LaneID? =
            modify(channel) { state in
                guard let lane = state.lane, lane.urgency != urgency else { return nil }
                state.lane?.urgency = urgency
                return lane.id
            } ?? nil
        if let changed { actions.append(.prioritize(changed, urgency)) }
    }
}
