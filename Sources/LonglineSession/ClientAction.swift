public import LonglineWire
public import NIOCore

/// A message that waits in the outbox or is on its way: the durable row.
public struct OutboxRow: Hashable, Sendable {
    /// The channel it goes to.
    public var channel: ChannelID
    /// The publish, its ID, tag and `after` drawn when the row was written. ``/LonglineWire/Publish/timeToLive`` counts from
    /// ``queuedAt``.
    public var publish: Publish
    /// When it was put in, on a clock that counts sleep.
    public var queuedAt: NIODeadline

    /// An outbox row.
    public init(channel: ChannelID, publish: Publish, queuedAt: NIODeadline) {
        self.channel = channel
        self.publish = publish
        self.queuedAt = queuedAt
    }
}

/// How the session learned that it is over for this link.
public struct SessionEnd: Hashable, Sendable {
    /// The close frame that the server sent or that this side sends.
    public var close: Close
    /// Whether the server said so.
    public var byServer: Bool

    /// A session end.
    public init(close: Close, byServer: Bool) {
        self.close = close
        self.byServer = byServer
    }
}

/// What a ``ClientSession`` wants its host to do, in order.
public enum ClientAction: Sendable {
    /// Open a lane towards the server; its ``/LonglineWire/LaneHeader`` follows as the first ``ClientAction/send(_:lane:)``.
    case openLane(LaneID)
    /// What is sent on a lane from now on, and what waits there, is so urgent among the lanes of the link; until then it is
    /// ``/LonglineWire/Urgency/chat``. Lane 0 goes before all of them.
    case prioritize(LaneID, Urgency)
    /// Send a frame.
    case send(Frame, lane: LaneID)
    /// Finish a lane: nothing more will be sent on it.
    case finishLane(LaneID)
    /// Say ``ClientSession/laneWritable(_:_:now:)`` with true once what was sent on the lane so far has been handed to the
    /// transport, also if the lane takes more all the time.
    case awaitRoom(LaneID)
    /// The server accepted the connect.
    case connected(Connected)
    /// Keep this for the next connect.
    case storeTicket(Ticket)
    /// A publish was entered: its outbox row goes.
    case published(channel: ChannelID, Published)
    /// A publish was refused for good: its row goes and the app is told. The channel's other rows wait until the host says that the
    /// row is off the disk (``ClientSession/rowRemoved(_:from:now:)``). Temporary refusals are handled inside.
    case refused(channel: ChannelID, Refused)
    /// The producer is used up (`id-reused`): the host draws a new one and renumbers its outbox, then reconnects.
    case renewProducer
    /// Give an entry to the app; the host answers with `confirm` once the app is done with it.
    case deliver(channel: ChannelID, epoch: Epoch, Deliver)
    /// A range is absent on purpose.
    case skipped(channel: ChannelID, epoch: Epoch, Skip)
    /// Something was lost to this device: say it to the app. The cursor goes on from ``/LonglineWire/Gap/first`` in `epoch`.
    case gap(channel: ChannelID, epoch: Epoch, Gap)
    /// The answer to a join, a leave or a change of a room, and the settings that came right before it.
    case roomAnswered(RoomAnswer, RoomSettings?)
    /// The answer to a request for members, and the settings that came right before it.
    case members(MembersPage, RoomSettings?)
    /// Where a user is, at first and after each change.
    case presence(PresenceUpdate)
    /// The answer to a request for presence.
    case presenceAnswered(PresenceAnswer)
    /// The server does not erase the account.
    case erasureRefused(ErasureRefused)
    /// Send a signal, in a datagram if the link has those and else on lane 0 if that is not backed up; drop it after `until`.
    case sendSignal(Signal, until: NIODeadline)
    /// A signal of another device, worth telling until then. It names its sender.
    case signal(Signal, until: NIODeadline)
    /// The answer to a request for history.
    case history(HistoryResult)
    /// The answer to a request for conversations.
    case conversations(ConversationsPage)
    /// A conversation's settings: the answer to a change, or with request 0 what another device changed.
    case conversationState(ConversationState)
    /// How far another user came in a conversation, or this one on any of its devices.
    case receipt(Receipt)
    /// The token was refreshed; it expires at this time (milliseconds since 1970).
    case refreshed(UInt64)
    /// A fresh token stopped to allow this channel's entries: none comes until another does.
    case stopped(ChannelID)
    /// A channel's delivery waits for this device, or waits no more.
    case behind(ChannelLag)
    /// The address the server sees changed: the NAT bound this client anew.
    case observedAddress(String)
    /// What is known of the present network, for ``ClientSession/networkChanged(_:now:)`` when it is met again.
    case heartbeatLearned(HeartbeatKnowledge)
    /// No answer on this path: on QUIC, try another local port or address; elsewhere, reconnect.
    case probePath
    /// Close the link; the session can be opened again on another.
    case end(SessionEnd)
}
