public import LonglineWire
public import NIOCore

/// One link's session on the server: a pure state machine.
///
/// Inputs are methods; after each, the host drains ``nextAction()``. It reads no clock: `now` is handed in, and
/// ``nextDeadline`` says when to call back. A value, confined to the link's event loop.
///
/// ```
///  waiting --CONNECT by ticket, or after the handshake--> authenticating --authenticated--> up
///     |                                                       ^   |                         |
///     '--early CONNECT by token--> deferred --handshake-------'   '--rejected--.            |
///                                                                              v            v
///   any state: violation, timeout, CLOSE, close(), linkClosed() ------------> closed <------'
/// ```
///
/// Until `up`, nothing but `CONNECT` and the `CURSORS` before it is read: what else comes is held, bounded, until the grant.
/// `up` before the handshake completes (0-RTT) has no effect on other sessions: joins wait, and ``ServerAction/established`` too;
/// publishes go on, because the ledger makes a replay harmless. Once `closed`, every input is discarded.
public struct ServerSession: Sendable {
    enum Phase {
        case waiting
        case deferred(Connect)
        case authenticating(Connect, version: UInt32)
        case up
        case closed
    }

    let configuration: ServerSessionConfiguration
    /// What the client is told, and what is enforced: the configuration's, until the grant names the tenant's.
    var limits: SessionLimits
    /// Unacknowledged bytes per channel and direction.
    let window: Int
    var phase: Phase = .waiting
    var actions = WorkQueue<ServerAction>()

    var observedAddress: String
    var handshakeComplete = false
    var isEstablished = false
    var producer: ProducerID?
    var connectNumber: UInt64 = 0
    var named = NamedCursors()
    /// Who it is, once authenticated.
    public internal(set) var identity: SessionIdentity?

    var held: HeldFrames
    /// What the link holds of frames whose end has not come, on all lanes but lane 0.
    private var partialBytes = 0
    /// Requests of the control lane that wait for the handshake.
    var deferredRequests = WorkQueue<Frame>()
    var inbound: InboundLanes
    var channels: [ChannelID: ServerChannel] = [:]
    /// Of these, those that are not the user's: kept only to refuse what is published.
    var strangers: Set<ChannelID> = []
    var outbound: [LaneID: ChannelID] = [:]
    /// Of these, those that are for answers only.
    var answerLanes = 0
    var nextLane: UInt64 = 1
    /// Lanes of this side that may be open at once.
    var laneLimit: Int
    /// Channels that have something to deliver and can't have a lane.
    var waitingForLane = WorkQueue<ChannelID>()
    var reads: ReadTurns
    /// Sent and not confirmed, in all channels.
    var unconfirmed = UnconfirmedSum()
    /// Channels that wait for that to be less; nil: none.
    var roomLines: RoomLines?
    var isSharingRoom = false
    /// What the client takes of batches; nil: nothing is compressed.
    var encodings: Encodings?
    /// Entries that went into batches and were not counted yet.
    var batchedEntries = 0
    /// Channels with another urgency than chat.
    var urgencies: [ChannelID: Urgency] = [:]
    /// Joins, leaves and changes of rooms without an answer.
    var roomRequests: Set<UInt64> = []
    var isRefreshing = false
    var history = HistoryQueue()
    var memberList = MemberListQueue()
    var conversationRequests = ConversationRequests()
    /// How far others came, on its way to the client.
    var receipts = PendingReceipts()
    /// Publishes whose payloads arrive in parts, by the client's lane.
    var arriving: [LaneID: ArrivingPublish] = [:]
    /// Channels whose payload is being sent in parts, or was and has not arrived.
    var sendingParts: Set<ChannelID> = []
    /// The lanes of payloads that were sent and may not have arrived.
    var undeliveredParts: [LaneID: UndeliveredParts] = [:]
    /// How often the host was asked whether a lane was delivered.
    var deliveryQuestions: UInt64 = 0
    /// Channels that waited, and read again now.
    var promisedParts: Set<ChannelID> = []
    /// The device said that it logs out; the session ends once that is durable.
    var isLoggingOut = false
    /// An erasure of the account was asked for, and was not refused yet.
    var isErasing = false

    /// Places that the device named in rooms that it is not in, or that are not there now.
    var placesElsewhere: [ChannelID: Position] = [:]

    var connectBy: NIODeadline?
    var lastPacket: NIODeadline
    var expiresAt: NIODeadline?
    var sweepAt: NIODeadline?
    /// When channels that wait for the device are looked at.
    var lagCheckAt: NIODeadline?
    /// Channels whose read failed are asked for again then.
    var retryReadsAt: NIODeadline?
    var failedReads: [ChannelID] = []
    /// The answer that a client waits for in silence.
    var pendingPong: PendingPong?
    /// News that wait, as the client's mode allows.
    var hold = DeliveryHold()
    /// Signals of others that leave for the device behind the other actions.
    var signals = LatestQueue<SignalKey, RelayedSignal>(limit: maximumSignals)
    /// Whom the device is told of, and what it was not told yet.
    var presence: PresenceFeed

    /// A session for a link that has just come up.
    /// - Parameters:
    ///   - configuration: how the session behaves.
    ///   - observedAddress: the client's address and port as text, for `CONNECTED` and `PONG`.
    ///   - now: the time of this call.
    public init(configuration: ServerSessionConfiguration, observedAddress: String, now: NIODeadline) {
        self.configuration = configuration
        self.observedAddress = observedAddress
        limits = configuration.limits
        window = Int(clamping: configuration.limits.channelWindow)
        held = HeldFrames(limit: configuration.maximumEarlyBytes)
        inbound = InboundLanes(limit: configuration.maximumLanes)
        presence = PresenceFeed(limit: max(1, configuration.maximumPresenceUsers))
        reads = ReadTurns(limit: configuration.maximumReads)
        laneLimit = max(1, configuration.maximumOutboundLanes)
        lastPacket = now
        connectBy = now + configuration.connectTimeout
    }

    // MARK: Outputs

    /// The next thing to do, in order; nil when there is nothing.
    public mutating func nextAction() -> ServerAction? {
        actions.popFirst() ?? nextSignal() ?? nextPresence()
    }

    /// What the app is to its user now, as the client says.
    public var mode: SessionMode { hold.mode }

    /// Whether the session is over: the link is gone, or ``ServerAction/close(_:)`` is the last action.
    public var isClosed: Bool {
        if case .closed = phase { true } else { false }
    }

    /// The highest place that may have reached the device per channel, on this link or before, for ``SessionChannel/sent`` of the device's next session.
    public var sentPositions: [ChannelPosition] {
        channels.compactMap { channel, state in
            state.sender.map {
                ChannelPosition(channel: channel, position: Position(epoch: $0.epoch, offset: $0.everSent))
            }
        }
    }

    /// ``mode`` and ``nextDeadline``, for a host that asks after each input: where the session is in an object, reading them
    /// copies all of it, and this doesn't. It changes nothing.
    public mutating func outlook() -> (mode: SessionMode, deadline: NIODeadline?) { (mode, nextDeadline) }

    /// How many entries went into batches since it was asked last; beside absences, so that a batch itself does not tell.
    public mutating func takeBatchedEntries() -> Int {
        defer { batchedEntries = 0 }
        return batchedEntries
    }

    /// When ``deadlineReached(now:)`` wants to be called, or nil.
    public var nextDeadline: NIODeadline? {
        if isClosed { return nil }
        let idle = lastPacket + .milliseconds(Int64(clamping: min(configuration.limits.idleTimeout, 1 << 40)))
        let deadlines = [
            connectBy, expiresAt, sweepAt, retryReadsAt, pendingPong?.at, hold.releaseAt, lagCheckAt, receipts.dueAt,
            partsDeadline,
        ]
        return deadlines.reduce(idle) {
            min($0, $1 ?? $0)
        }
    }

    // MARK: The link

    /// A frame arrived. `early`: some of it as 0-RTT, before the handshake completed.
    public mutating func received(_ frame: Frame, lane: LaneID, early: Bool, now: NIODeadline) {
        lastPacket = max(lastPacket, now)
        switch phase {
        case .closed:
            return
        case .waiting where lane == .control:
            if case .cursors(let more) = frame { return cursorsReceived(more, now: now) }
            guard case .connect(let connect) = frame else {
                return violated(.unexpectedFrame, "CONNECT must be the first frame", now: now)
            }
            connectReceived(connect, early: early, now: now)
        case .waiting, .deferred, .authenticating:
            if case .close = frame, lane == .control { return end(Close(code: .normal), tellPeer: false) }
            // A signal waits for nothing: what it said would be old.
            if case .signal(let signal) = frame, lane == .control { return processSignal(signal, now: now) }
            // What will never have a place takes none among what is held.
            guard lane != .control || frame.belongsOnServersControl else { return refuseOnControl(now: now) }
            hold(.frame(frame, lane: lane), now: now)
        case .up where lane != .control && holdsLanes:
            hold(.frame(frame, lane: lane), now: now)
        case .up:
            process(frame, lane: lane, now: now)
        }
    }

    /// Bytes arrived that are no frame; `close` is what the codec's error says to the peer.
    public mutating func receivedInvalid(_ close: Close, lane: LaneID, now: NIODeadline) {
        end(close, tellPeer: true)
    }

    /// Says how many bytes the link holds of frames whose end has not come, on all lanes but lane 0; before each frame, and
    /// after the last one of a batch. They count with what is held until CONNECT is accepted.
    public mutating func partialFrames(bytes: Int, now: NIODeadline) {
        partialBytes = bytes
        switch phase {
        case .closed: return
        case .up where !holdsLanes: return
        case .waiting, .deferred, .authenticating, .up:
            if held.bytes + bytes > held.limit { heldTooMuch(now: now) }
        }
    }

    /// The client finished (or reset) one of its lanes.
    public mutating func laneFinished(_ lane: LaneID, now: NIODeadline) {
        switch phase {
        case .closed:
            return
        case .up where lane != .control && holdsLanes:
            hold(.finished(lane), now: now)
        case .up:
            processFinished(lane, now: now)
        case .waiting, .deferred, .authenticating:
            hold(.finished(lane), now: now)
        }
    }

    /// An authenticated packet arrived, whatever it carried: proof of life.
    public mutating func packetReceived(now: NIODeadline) { lastPacket = max(lastPacket, now) }

    /// The handshake is complete: what takes effect from now on can't be a replay.
    public mutating func handshakeCompleted(now: NIODeadline) {
        guard !isClosed, !handshakeComplete else { return }
        handshakeComplete = true
        if case .deferred(let connect) = phase { authenticate(connect, now: now) }
        establish(now: now)
        processHeld(now: now)
    }

    /// Link back-pressure on one of the server's lanes: nothing is read for a lane that isn't writable.
    public mutating func laneWritable(_ lane: LaneID, _ writable: Bool, now: NIODeadline) {
        guard !isClosed else { return }
        if lane == history.lane { return historyWritable(writable) }
        if lane == .control {
            memberListWritable(writable)
            return presenceWritable(writable)
        }
        guard let channel = outbound[lane] else { return }
        modify(channel) { if $0.lane?.id == lane { $0.lane?.isWritable = writable } }
        if writable { advance(channel, now: now) }
    }

    /// The client's address changed; `PONG` names it.
    public mutating func observedAddressChanged(_ address: String) { observedAddress = address }

    /// Ends the session: drained, replaced, revoked, logged out. Everything that comes later is discarded.
    public mutating func close(_ close: Close, now: NIODeadline) { end(close, tellPeer: true) }

    /// Answers ``ServerAction/established``: another link is the device's session. What waited behind that takes no effect.
    public mutating func claimRefused(_ close: Close, now: NIODeadline) {
        guard !isClosed else { return }
        actions.removeAll()
        end(close, tellPeer: true)
    }

    /// The link is gone: the session ends without a word.
    public mutating func linkClosed() {
        actions.removeAll()
        finish()
    }

    /// ``nextDeadline`` has come (or may have).
    public mutating func deadlineReached(now: NIODeadline) {
        guard !isClosed else { return }
        let idle = TimeAmount.milliseconds(Int64(clamping: min(configuration.limits.idleTimeout, 1 << 40)))
        if let connectBy, now >= connectBy {
            return end(Close(code: .connectTimeout), tellPeer: true)
        }
        if now >= lastPacket + idle { return end(Close(code: .idle), tellPeer: true) }
        if let expiresAt, now >= expiresAt { return end(Close(code: .credentialExpired), tellPeer: true) }
        answerPending(now: now)
        if let releaseAt = hold.releaseAt, now >= releaseAt { releaseHeld(now: now) }
        if let dueAt = receipts.dueAt, now >= dueAt { sendReceipts() }
        if let sweepAt, now >= sweepAt { sweepLanes(now: now) }
        if let lagCheckAt, now >= lagCheckAt { checkLags(now: now) }
        if let partsDeadline, now >= partsDeadline { dropStalledParts(now: now) }
        if let retryReadsAt, now >= retryReadsAt {
            self.retryReadsAt = nil
            let channels = failedReads
            failedReads.removeAll()
            for channel in channels { advance(channel, now: now) }
        }
    }

    // MARK: Endings

    mutating func violated(_ code: CloseCode, _ reason: String, now: NIODeadline) {
        end(Close(code: code, reason: reason), tellPeer: true)
    }

    mutating func end(_ close: Close, tellPeer: Bool) {
        guard !isClosed else { return }
        if tellPeer { actions.append(.send(.close(close), lane: .control)) }
        actions.append(.close(close))
        finish()
    }

    /// Lets go of everything a closed session does not need; ``channels`` stays for ``sentPositions``.
    private mutating func finish() {
        phase = .closed
        held.removeAll()
        deferredRequests.removeAll()
        reads.removeAll()
        roomRequests.removeAll()
        history.removeAll()
        memberList = MemberListQueue()
        conversationRequests.removeAll()
        receipts = PendingReceipts()
        arriving = [:]
        sendingParts = []
        undeliveredParts = [:]
        waitingForLane.removeAll()
        roomLines = nil
        promisedParts = []
        failedReads.removeAll()
        placesElsewhere = [:]
        pendingPong = nil
        hold = DeliveryHold()
        signals.removeAll()
        presence.removeAll()
    }

    /// Whether lanes wait for the handshake although CONNECT is accepted: the ledger has nothing yet by which it could know
    /// a replay of a producer's first connect.
    private var holdsLanes: Bool { !handshakeComplete && connectNumber <= 1 }

    /// Reads what was held, once it may be read. Lane 0 never waits for more than the grant: what was held of it goes before
    /// what comes on it later.
    mutating func processHeld(now: NIODeadline) {
        guard case .up = phase else { return }
        if holdsLanes {
            for frame in held.takeControl() {
                guard case .up = phase else { return }
                process(frame, lane: .control, now: now)
            }
        }
        while case .up = phase, !holdsLanes, let item = held.next() {
            switch item {
            case .frame(let frame, let lane): process(frame, lane: lane, now: now)
            case .finished(let lane): processFinished(lane, now: now)
            }
        }
    }

    private mutating func hold(_ item: HeldFrames.Item, now: NIODeadline) {
        if !held.hold(item, beside: partialBytes) { heldTooMuch(now: now) }
    }

    private mutating func heldTooMuch(now: NIODeadline) {
        violated(.limitExceeded, "too much before CONNECT was accepted", now: now)
    }

    /// Changes a channel in place, and keeps count of what is unconfirmed.
    @discardableResult
    mutating func modify<Result>(_ channel: ChannelID, _ body: (inout ServerChannel) -> Result) -> Result? {
        guard let index = channels.index(forKey: channel) else { return nil }
        return Self.change(&channels.values[index], &unconfirmed, body)
    }

    private static func change<Result>(
        _ state: inout ServerChannel, _ sum: inout UnconfirmedSum, _ body: (inout ServerChannel) -> Result
    ) -> Result {
        let (before, urgency) = (state.unconfirmed, state.urgency)
        let result = body(&state)
        if state.unconfirmed != before || state.urgency != urgency {
            sum.add(before, to: urgency, sign: -1)
            sum.add(state.unconfirmed, to: state.urgency)
        }
        return result
    }

    /// A channel of which nothing is known yet.
    func newChannel(_ channel: ChannelID) -> ServerChannel {
        var state = ServerChannel()
        state.urgency = urgency(of: channel)
        return state
    }
}
