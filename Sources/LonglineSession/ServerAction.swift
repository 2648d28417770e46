public import LonglineWire
public import NIOCore

/// Who a session belongs to and what it may do, as a verified credential says.
public struct SessionIdentity: Hashable, Sendable {
    /// The tenant.
    public var tenant: TenantID
    /// The user.
    public var user: UserID
    /// The device.
    public var device: DeviceID
    /// The deliberate login this credential descends from; an older one never evicts a newer.
    public var loginEpoch: UInt64
    /// The token's ID (`jti`).
    public var tokenID: String
    /// When the credential expires, in milliseconds since 1970.
    public var expiry: UInt64
    /// Whether it may publish, everywhere.
    public var mayPublish: Bool
    /// Whether it may receive, everywhere.
    public var mayReceive: Bool
    /// Whether it may join and leave rooms, all of them.
    public var mayJoin: Bool
    /// Whether it may change the rooms that its user owns, all of them.
    public var mayManage: Bool
    /// Whether it may be told of every user's presence.
    public var mayWatch: Bool
    /// Whether it may have the user's account erased.
    public var mayErase: Bool
    /// What else it may do, with some channels; see ``may(_:_:)``.
    public var grants: [ChannelGrant]
    /// What kind of device it is, for the tenant's device policy.
    public var platform: DevicePlatform

    /// An identity.
    public init(
        tenant: TenantID, user: UserID, device: DeviceID, loginEpoch: UInt64, tokenID: String, expiry: UInt64,
        mayPublish: Bool, mayReceive: Bool, mayJoin: Bool, mayManage: Bool = false, mayWatch: Bool = false,
        mayErase: Bool = false, grants: [ChannelGrant] = [],
        platform: DevicePlatform = .unknown
    ) {
        self.tenant = tenant
        self.user = user
        self.device = device
        self.loginEpoch = loginEpoch
        self.tokenID = tokenID
        self.expiry = expiry
        self.mayPublish = mayPublish
        self.mayReceive = mayReceive
        self.mayJoin = mayJoin
        self.mayManage = mayManage
        self.mayWatch = mayWatch
        self.mayErase = mayErase
        self.grants = grants
        self.platform = platform
    }
}

/// One channel of a session, as the host found it in the store.
public struct SessionChannel: Hashable, Sendable {
    /// The channel.
    public var channel: ChannelID
    /// The log's last entry and epoch.
    public var head: Position
    /// The `previous` of the first entry left in the log.
    public var first: Offset
    /// Nothing at or below is readable by this user.
    public var after: Offset
    /// The last readable offset, or nil.
    public var upTo: Offset?
    /// The device's stored cursor in this channel, if it has one (any epoch). A cursor that CONNECT names itself goes
    /// before it.
    public var cursor: Position?
    /// The highest offset of this epoch that was ever sent to the device, as far as the host knows; entries up to it are
    /// marked redelivered. 0 for a device that is seen for the first time; nil: unknown, so that every entry up to `head`
    /// may have been.
    public var sent: Offset?

    /// A session channel.
    public init(
        channel: ChannelID, head: Position, first: Offset, after: Offset, upTo: Offset?, cursor: Position?,
        sent: Offset? = nil
    ) {
        self.channel = channel
        self.head = head
        self.first = first
        self.after = after
        self.upTo = upTo
        self.cursor = cursor
        self.sent = sent
    }
}

/// The host's answer to ``ServerAction/authenticate(_:)``.
public struct SessionGrant: Sendable {
    /// Who it is.
    public var identity: SessionIdentity
    /// Names the session in logs.
    public var session: UInt64
    /// Whether an earlier session of the device goes on.
    public var resumed: Bool
    /// The version of the cursor record, after the connect's cursors were taken in.
    public var cursorVersion: UInt64
    /// Every channel the user is entitled to.
    public var channels: [SessionChannel]
    /// A new resume ticket for the client, or nil to issue none.
    public var ticket: Ticket?
    /// What this client's tenant may take, where that differs from ``ServerSessionConfiguration/limits``: its
    /// ``/LonglineWire/SessionLimits/maximumPayload`` and ``/LonglineWire/SessionLimits/maximumUnacknowledged`` count.
    public var limits: SessionLimits?

    /// A grant.
    public init(
        identity: SessionIdentity, session: UInt64, resumed: Bool, cursorVersion: UInt64,
        channels: [SessionChannel], ticket: Ticket?, limits: SessionLimits? = nil
    ) {
        self.identity = identity
        self.session = session
        self.resumed = resumed
        self.cursorVersion = cursorVersion
        self.channels = channels
        self.ticket = ticket
        self.limits = limits
    }
}

/// What a ``ServerSession`` wants its host to do, in order.
public enum ServerAction: Sendable {
    /// Verify the credential, take in the cursors, load the channels; answer with `authenticated` or `rejected`.
    case authenticate(Connect)
    /// Hand a publish to the store; answer with `appended`, in the order of these actions per channel.
    case append(channel: ChannelID, producer: ProducerID, publish: Publish)
    /// Ask the ledger for the acknowledgement of a publish, and refuse it with the code where there is none; answer with
    /// `appended`, as for ``append(channel:producer:publish:)``. The session does not allow it now; but a copy of it may have been
    /// entered when it did, and whose app is told otherwise sends it again.
    case refuse(channel: ChannelID, producer: ProducerID, publish: Publish, code: RefusalCode)
    /// Read on in a channel's log; answer with `pageRead`. At most one read per channel is under way.
    case read(channel: ChannelID, after: Offset, upTo: Offset?, maximumBytes: Int)
    /// Read on in the payload of an entry that is too large for a frame; answer with `payloadRead` or `payloadReadFailed`. At
    /// most one per channel is under way, and one for history.
    case readPayload(PayloadRead)
    /// Answer with `laneDelivered`, once and with the question's number, when the peer's transport has all that was sent on the lane
    /// so far, or the lane is no more. Asked again before the answer, only the last question counts.
    case awaitDelivery(LaneID, question: UInt64)
    /// Read a page of history; answer with `historyRead` or `historyFailed`. At most one is under way.
    case readHistory(HistoryRead)
    /// The device confirmed a place; hosts coalesce these before they write.
    case storeCursor(channel: ChannelID, position: Position)
    /// Join a room; answer with `roomAnswered`.
    case join(RoomRequest)
    /// Leave a room; answer with `roomAnswered`.
    case leave(RoomRequest)
    /// Change a room on behalf of an owner; answer with `roomAnswered`.
    case manage(RoomCommand)
    /// Read a page of a room's members; answer with `membersRead`. At most one is under way.
    case listMembers(MembersRequest)
    /// Verify a fresh token for the same identity; answer with `refreshed` or `rejected`.
    case refresh(token: String)
    /// Make every credential of the device void, durably, then end its sessions with `loggedOut`.
    case logout
    /// Erase all that is kept of the user. The answer is a close with `loggedOut`, once it is sure to happen, or
    /// ``ServerSession/erasureRefused(_:now:)``.
    case eraseAccount
    /// Store up to where the user read, and tell who is to know; hosts coalesce these before they write.
    case markRead(ReadMark)
    /// A device of this user is done with a direct message: tell its sender, with the place in the sender's inbox. Of several
    /// of one sender the last.
    case delivered(sender: UserID, origin: Position)
    /// List the user's conversations; answer with `conversationsListed`.
    case listConversations(ConversationsRequest)
    /// Change a setting; answer with `conversationChanged`, on the user's other sessions with request 0.
    case changeConversation(ConversationChange)
    /// A signal of this device for others; too late after `until`. It carries its sender.
    case signal(Signal, until: NIODeadline)
    /// A signal, of this device or for it, was dropped: for the host's counters.
    case signalDropped(SignalDrop)
    /// Send a signal, in a datagram if the link has those and else on lane 0 if that is not backed up; drop it after `until`.
    case sendSignal(Signal, until: NIODeadline)
    /// Tell the device of these users from now on, at first their present states; answer with `watched`.
    case watch(PresenceRequest)
    /// Tell the device of these users no more.
    case unwatch(Set<UserID>)
    /// What others see of the user from now on, durably.
    case setVisibility(PresenceVisibility)
    /// Forget a room that the user left and the device has to its end: this session has no part in it any more.
    case forget(ChannelID)
    /// Open a lane towards the client; its ``/LonglineWire/LaneHeader`` follows as the first ``ServerAction/send(_:lane:)``.
    case openLane(LaneID)
    /// What is sent on a lane from now on, and what waits there, is so urgent among the lanes of the link; until then it is
    /// ``/LonglineWire/Urgency/chat``. Lane 0 goes before all of them.
    case prioritize(LaneID, Urgency)
    /// Send a frame.
    case send(Frame, lane: LaneID)
    /// Finish a lane: nothing more will be sent on it.
    case finishLane(LaneID)
    /// The session is up and its handshake complete: the device's older session ends now, presence may tell others.
    ///
    /// A connect with a higher number of the same producer may have been established since this one was accepted: then it
    /// is this session that the host closes, as `stale`; see ``ServerSession/claimRefused(_:now:)``.
    case established
    /// Close the link with this frame's code; the session is over.
    case close(Close)
}
