import LonglineWire
import NIOCore

/// What leaves first.
extension ServerSession {
    mutating func processUrgency(_ said: ChannelUrgency, now: NIODeadline) {
        // A client may say it as often as it likes.
        guard said.urgency != urgency(of: said.channel) else { return }
        urgencies[said.channel] = said.urgency == .chat ? nil : said.urgency
        guard urgencies.count <= FrameLimits.maximumUrgencies else {
            return violated(.limitExceeded, "too many channels with an urgency of their own", now: now)
        }
        modify(said.channel) { $0.urgency = said.urgency }
        prioritize(said.channel)
        roomChanged(said.channel, now: now)
        // It may have news that waited, and are worth waking the device for now.
        if said.urgency == .control, !isHeldBack(said.channel) { releaseHeld(now: now) }
    }

    /// How urgent a channel's own frames are.
    func urgency(of channel: ChannelID) -> Urgency { urgencies[channel] ?? .chat }

    /// Gives a channel's lane the urgency that it has with a frame behind which nothing waits: what goes on in parts takes its
    /// time, until something else of the channel follows it.
    mutating func prioritize(_ channel: ChannelID, for frame: Frame? = nil) {
        let urgency = frame?.isOfParts == true ? .bulk : urgency(of: channel)
        let changed: LaneID? =
            modify(channel) { state in
                guard let lane = state.lane, lane.urgency != urgency else { return nil }
                state.lane?.urgency = urgency
                return lane.id
            } ?? nil
        if let changed { actions.append(.prioritize(changed, urgency)) }
    }
}

extension Frame {
    /// Whether it begins a large payload, or goes on with it.
    var isOfParts: Bool {
        switch self {
        case .part: true
        case .publish(let publish): publish.following > 0
        case .deliver(let deliver): deliver.entry.following > 0
        default: false
        }
    }
}
