/// Everything that one side of a session says to the other.
///
/// A frame on the wire is a type (varint), a length (varint) and a body of at most ``FrameLimits/maximumBody`` bytes.
/// An unknown even type is skipped, an unknown odd type closes the session. `docs/protocol.md` is the specification.
public enum Frame: Hashable, Sendable {
    // Lane 0, the control lane.
    /// Client: places that do not fit into ``Frame/connect(_:)``, before it.
    case cursors(Cursors)
    /// Client: the first frame of a link, but for ``Frame/cursors(_:)``.
    case connect(Connect)
    /// Server: where its record is further than the place at which it goes on, before ``Frame/connected(_:)``.
    case ahead(CursorsAhead)
    /// Server: the session is up.
    case connected(Connected)
    /// Either side: the session's link ends; nothing follows.
    case close(Close)
    /// Client: asks for proof of life.
    case ping(Ping)
    /// Server: answers one ``Frame/ping(_:)``.
    case pong(Pong)
    /// Server: a resume ticket for the next link.
    case ticket(Ticket)
    /// Client: a fresh token for the session that lives.
    case refresh(Refresh)
    /// Server: the answer to ``Frame/refresh(_:)``.
    case refreshed(Refreshed)
    /// Client: join a room, which is made when it does not exist.
    case join(RoomRequest)
    /// Client: leave a room.
    case leave(RoomRequest)
    /// Client: an owner changes a room.
    case room(RoomCommand)
    /// Server: a room's settings, right before the answer to a join that was done, and before a page of members.
    case roomSettings(RoomSettings)
    /// Server: the answer to a join, a leave or a ``Frame/room(_:)``.
    case roomAnswer(RoomAnswer)
    /// Client: asks for a page of a room's members.
    case members(MembersRequest)
    /// Server: the answer to ``Frame/members(_:)``.
    case membersPage(MembersPage)
    /// Client: what the app is to its user now.
    case mode(SessionMode)
    /// Client: asks for a page of a channel's log.
    case history(HistoryRequest)
    /// Either side: something that is worth telling now or never; in a datagram where the link has those.
    case signal(Signal)
    /// Client: be told of these users' presence.
    case subscribe(PresenceRequest)
    /// Client: be told of these users no more.
    case unsubscribe(PresenceEnd)
    /// Server: where a user is.
    case presence(PresenceUpdate)
    /// Server: the answer to ``Frame/subscribe(_:)``.
    case presenceAnswer(PresenceAnswer)
    /// Client: what others see of this user's presence.
    case visibility(PresenceVisibility)
    /// Client: how urgent a channel is.
    case urgency(ChannelUrgency)
    /// Client: what it takes of compressed batches.
    case encodings(Encodings)

    // The server's history lane.
    /// Server: the answer to ``Frame/history(_:)``; ``Frame/deliver(_:)`` and ``Frame/skip(_:)`` follow it.
    case historyPage(HistoryAnswer)
    /// Client: the device logs out; every credential of its is void.
    case logout
    /// Client: everything that is kept of the user shall be erased.
    case eraseAccount
    /// Server: it is not.
    case erasureRefused(ErasureRefused)
    /// Server: a fresh token stopped to allow a channel's entries.
    case stopped(ChannelStopped)
    /// Server: a channel's delivery waits for this device, or waits no more.
    case behind(ChannelLag)
    /// Client: asks for a page of its user's conversations.
    case conversations(ConversationsRequest)
    /// Server: the answer.
    case conversationsPage(ConversationsPage)
    /// Client: the user read a conversation up to a place.
    case read(ReadMark)
    /// Client: changes a conversation's settings.
    case conversationSet(ConversationChange)
    /// Server: how far another user, or this one on another device, came in a conversation.
    case receipt(Receipt)
    /// Server: a conversation's settings as they are now.
    case conversation(ConversationState)

    // Every other lane.
    /// Either side: the first frame of a lane, which names the channel that the lane carries.
    case lane(LaneHeader)
    /// Client: enter a message into the lane's channel.
    case publish(Publish)
    /// Server: a publish was entered, and is durable.
    case published(Published)
    /// Server: a publish was not entered.
    case refused(Refused)
    /// Server: one entry of the lane's channel.
    case deliver(Deliver)
    /// Server: entries that are absent on purpose.
    case skip(Skip)
    /// Server: what lay between the client's cursor and the first entry that is left is gone.
    case gap(Gap)
    /// Client: everything up to this offset was confirmed by the app.
    case acknowledge(Acknowledge)
    /// Either side: the next bytes of a large payload.
    case part(Part)
    /// Server: a run of entries and absences, compressed.
    case batch(Batch)
}
