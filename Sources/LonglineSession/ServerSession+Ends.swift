import LonglineWire
import NIOCore

/// Rooms that the user is no member of any more: what the device confirmed to its end is forgotten, so that a session does not
/// grow with every room that its user ever was in.
///
/// The last ones are kept for a while, whose history may be asked for still. One that was not confirmed is never dropped; a device
/// that leaves room after room and confirms none is closed.
extension ServerSession {
    /// Looks whether there are too many, after one more ended or one was confirmed.
    mutating func forgetEnded(now: NIODeadline) {
        guard case .up = phase else { return }
        var ended: [(channel: ChannelID, end: Offset, isOver: Bool)] = []
        for (channel, state) in channels {
            guard !state.isMember, let end = state.sender?.upTo else { continue }
            ended.append((channel, end, state.isOver))
        }
        var count = ended.count
        guard count > configuration.maximumEndedChannels else { return }
        // Those that were left longest ago first.
        ended.sort { $0.end < $1.end }
        for item in ended where item.isOver && count > configuration.maximumEndedChannels {
            forget(item.channel)
            count -= 1
        }
        if count > configuration.maximumUnconfirmedEnds {
            violated(.limitExceeded, "too many rooms that were left and not confirmed", now: now)
        }
    }

    private mutating func forget(_ channel: ChannelID) {
        if let lane = channels[channel]?.lane { finish(lane, of: channel) }
        assert(channels[channel]?.unconfirmed == Unconfirmed(), "what is unconfirmed is counted for the session")
        channels[channel] = nil
        actions.append(.forget(channel))
    }
}

extension ServerChannel {
    /// Whether nothing more will ever be sent or answered here: the stay ended, the device confirmed all of it, and the client
    /// has no lane for it.
    fileprivate var isOver: Bool {
        guard let sender, sender.isOver else { return false }
        return gate.isEmpty && inboundLanes == 0 && !isQueued && !awaitsOldRead
    }
}
