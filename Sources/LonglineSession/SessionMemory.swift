public import LonglineWire

/// What a client's session knows that is on no disk: what arrived and waits to be confirmed, and what the app asked for.
///
/// A session that takes the place of another one in the same process goes on with it: what the app has it does not get again.
public struct SessionMemory: Sendable {
    var receivers: [ChannelID: ChannelReceiver]
    var claimedChannels: [ChannelID]
    var recordsAhead: [ChannelID: Position]
    var mode: SessionMode
    var urgencies: [ChannelID: Urgency]

    /// As ``ClientSession/cursors``.
    public var cursors: [ChannelID: Position] { receivers.compactMapValues(\.confirmed) }
}

extension ClientSession {
    /// What the next session of this process needs to know of this one.
    public var memory: SessionMemory {
        SessionMemory(
            receivers: channels.mapValues(\.receiver), claimedChannels: claimedChannels,
            recordsAhead: recordsAhead, mode: mode, urgencies: urgencies)
    }

    /// Goes on where an earlier session of this process was. Before the first link, and with this session's own cursors: another
    /// process may have moved them meanwhile, and what it confirmed is not waited for any more.
    public mutating func goOn(from memory: SessionMemory) {
        mode = memory.mode
        learner?.mode = mode
        urgencies = memory.urgencies
        for (channel, earlier) in memory.receivers {
            channels[channel, default: ClientChannel()].receiver.goOn(from: earlier)
        }
        claimedChannels = memory.claimedChannels
        recordsAhead = memory.recordsAhead
    }

    /// Whether this place arrived and is not confirmed.
    public func isUnconfirmed(_ position: Position, in channel: ChannelID) -> Bool {
        channels[channel]?.receiver.isUnconfirmed(position) ?? false
    }
}
