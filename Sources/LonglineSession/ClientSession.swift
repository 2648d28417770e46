public import LonglineWire
public import NIOCore

/// A device's session on the client: a pure state machine that survives its links.
///
/// Inputs are methods; after each, the host drains ``nextAction()``. It reads no clock and draws no random numbers. A
/// value, confined to one event loop.
///
/// ```
///  detached --linkOpened: CONNECT--> connecting --CONNECTED--> connected
///     ^                                  |                         |
///     |                                  v                         |
///     '---------- linkClosed ---------  ended  <-- CLOSE, violation, dead path, close()
/// ```
///
/// What waits is kept through all of it: rows that the server did not answer, and per channel what was received and what
/// was confirmed. On `ended` the host closes the link; frames that still come are discarded.
public struct ClientSession: Sendable {
    enum Phase { case detached, connecting, connected, ended }

    var configuration: ClientSessionConfiguration
    var phase: Phase = .detached
    var actions = WorkQueue<ClientAction>()
    var producer: ProducerID
    var channels: [ChannelID: ClientChannel]
    var isFirstLink = true

    /// The version of the server's cursor record as last seen.
    public internal(set) var cursorVersion: UInt64
    /// Channels confirmed further since ``cursorVersion``.
    var movedCursors: Set<ChannelID>
    /// Channels in which the server's cursor is ahead of ours, as after a restore from a backup: every CONNECT names them, as
    /// far as it has room, the last one first.
    var claimedChannels: [ChannelID] = []
    /// What the present link's CONNECT said.
    var connectCursors: [ChannelID: Position] = [:]
    /// No server has answered a connect of this session yet.
    var namesAll = true
    /// The server's places where they are further than this device's, until it is there.
    var recordsAhead: [ChannelID: Position] = [:]
    /// What told of them on the present link.
    var aheadFrames = 0
    /// Channels that the service was the first to name.
    var channelsNamed = 0

    // The present link.
    var inbound: InboundLanes
    var held: HeldFrames
    var outbound: [LaneID: ChannelID] = [:]
    var nextLane: UInt64 = 1
    /// Lanes of this side that may be open at once; the host says it before each link.
    var laneLimit: Int
    /// Channels that have something to say and can't have a lane.
    var waitingForLane = WorkQueue<ChannelID>()
    var limits: SessionLimits?
    /// Bytes that may still leave before CONNECTED; 0 when none may.
    var earlyBytes = 0
    var heartbeat: Heartbeat?
    /// Channels with another urgency than chat. Outlives links.
    var urgencies: [ChannelID: Urgency] = [:]
    /// Outlives links: what is learned belongs to the network.
    var learner: HeartbeatLearner?
    /// From 0 to 1: how much shorter than the learned interval this link's beats are.
    var heartbeatDraw = 0.0
    /// What the app is to its user.
    public internal(set) var mode = SessionMode.foreground
    var supportsPathChange = false
    var connectBy: NIODeadline?
    var observedAddress = ""
    var roomRequests: Set<UInt64> = []
    /// Requests for members without an answer.
    var memberRequests: Set<UInt64> = []
    /// What the last frame of lane 0 said of a room: it belongs to the answer right behind it, and to nothing else.
    var roomSettings: RoomSettings?
    var history = HistoryReceiver()
    var conversationRequests = ConversationRequests()
    /// Requests for presence without an answer.
    var presenceRequests: Set<UInt64> = []
    /// Entries whose payloads arrive in parts, by the server's lane.
    var arriving: [LaneID: PayloadArrival] = [:]
    /// Channels whose next publish goes in parts, and waits until others are done.
    var waitingForParts: Set<ChannelID> = []
    /// Channels that have a place among payloads in parts: the last such publish that left there and has no answer.
    var unansweredParts: [ChannelID: PublishID] = [:]
    /// A REFRESH waits for its answer; a server takes one at a time.
    var isRefreshing = false
    /// The token that goes out after that answer: the latest counts.
    var nextToken: String?
    var nextNonce: UInt64 = 1
    /// Channels with an acknowledgement or a retry that waits for its time.
    var timedChannels: Set<ChannelID> = []
    /// An ID was used with another tag: the producer is given up once nothing it sent is unresolved.
    var isProducerSpent = false

    /// A session that has no link yet.
    /// - Parameters:
    ///   - configuration: how the session behaves.
    ///   - producer: of the outbox.
    ///   - cursors: what the app confirmed, per channel.
    ///   - cursorVersion: of the server's cursor record as the client last saw it; 0 for none.
    public init(
        configuration: ClientSessionConfiguration, producer: ProducerID, cursors: [ChannelID: Position],
        cursorVersion: UInt64
    ) {
        self.configuration = configuration
        self.producer = producer
        self.cursorVersion = cursorVersion
        channels = cursors.mapValues { ClientChannel(confirmed: $0) }
        movedCursors = Set(cursors.keys)
        inbound = InboundLanes(limit: configuration.maximumLanes)
        held = HeldFrames(limit: configuration.maximumHeldBytes)
        learner = configuration.heartbeat.search.map { HeartbeatLearner(search: $0) }
        laneLimit = max(1, configuration.maximumOutboundLanes)
    }

    // MARK: Outputs

    /// The next thing to do, in order; nil when there is nothing.
    public mutating func nextAction() -> ClientAction? {
        let action = actions.popFirst()
        if action == nil { heartbeat?.allTaken() }
        return action
    }

    /// What the app confirmed, per channel.
    public var cursors: [ChannelID: Position] { channels.compactMapValues(\.receiver.confirmed) }

    /// What the app confirmed in one channel.
    public func cursor(of channel: ChannelID) -> Position? { channels[channel]?.receiver.confirmed }

    /// Whether the server accepted the connect on the present link.
    public var isConnected: Bool { phase == .connected }

    /// Times that the service refused a publish for now: it is sent again by itself.
    public internal(set) var publishesPutOff: UInt64 = 0
    /// Why, the last time.
    public internal(set) var lastPutOff: RefusalCode?

    /// When ``deadlineReached(now:random:)`` wants to be called, or nil.
    public var nextDeadline: NIODeadline? {
        guard phase == .connecting || phase == .connected else { return nil }
        var deadline = [connectBy, heartbeat?.deadline].compactMap { $0 }.min()
        for channel in timedChannels {
            if let due = channels[channel]?.deadline { deadline = min(deadline ?? due, due) }
        }
        return deadline
    }

    // MARK: The link

    /// A link can carry frames (perhaps as 0-RTT): sends `CONNECT`, and with a ticket the waiting publishes behind it.
    /// - Parameters:
    ///   - credential: what the service authenticates the device by.
    ///   - connectNumber: higher than any before of this producer, and durable already.
    ///   - supportsPathChange: whether the host can answer ``ClientAction/probePath`` with another path.
    ///   - outbox: every row that waits, in ID order; replaces what the session had.
    ///   - now: the time of this call.
    public mutating func linkOpened(
        credential: Credential, connectNumber: UInt64, supportsPathChange: Bool, outbox: [OutboxRow], now: NIODeadline
    ) {
        detach()
        phase = .connecting
        self.supportsPathChange = supportsPathChange
        connectBy = now + configuration.connectTimeout
        takeOutbox(outbox)
        let (before, cursors) = nameCursors()
        for frame in before { actions.append(.send(frame, lane: .control)) }
        let connect = Connect(
            versions: configuration.versions, credential: credential, producer: producer,
            connectNumber: connectNumber, cursorVersion: cursorVersion,
            cursors: cursors, agent: configuration.agent)
        actions.append(.send(.connect(connect), lane: .control))
        if mode != .foreground { actions.append(.send(.mode(mode), lane: .control)) }
        sayUrgencies(now: now)
        if let encodings = configuration.encodings { actions.append(.send(.encodings(encodings), lane: .control)) }
        // A ticket says that the server knows this producer, so that its ledger makes a replayed flight harmless.
        if case .ticket = credential {
            earlyBytes = min(configuration.earlyBytes, EarlyAllowance.bytes)
            publishAll(now: now)
        }
    }

    /// The link is gone. Room requests and refreshes without an answer are forgotten; publishes and cursors are not.
    public mutating func linkClosed(now: NIODeadline) { detach() }

    private mutating func detach() {
        // What was said for a link that is gone means nothing on the next one; what the app was told stays told.
        actions.keep(where: \.survivesLink)
        phase = .detached
        for index in channels.values.indices { channels.values[index].linkClosed() }
        inbound = InboundLanes(limit: configuration.maximumLanes)
        held.removeAll()
        outbound = [:]
        nextLane = 1
        limits = nil
        earlyBytes = 0
        heartbeat = nil
        connectBy = nil
        observedAddress = ""
        roomRequests = []
        memberRequests = []
        roomSettings = nil
        history = HistoryReceiver()
        conversationRequests.removeAll()
        presenceRequests = []
        arriving = [:]
        aheadFrames = 0
        waitingForParts = []
        unansweredParts = [:]
        waitingForLane.removeAll()
        isRefreshing = false
        nextToken = nil
        timedChannels = []
    }

    private mutating func takeOutbox(_ rows: [OutboxRow]) {
        var rowsOfChannel: [ChannelID: [OutboxRow]] = [:]
        for row in rows { rowsOfChannel[row.channel, default: []].append(row) }
        for (channel, rows) in rowsOfChannel {
            channels[channel, default: ClientChannel()].queue.reset(
                Array(rows.prefix(configuration.maximumOutbox)), maySent: isFirstLink)
        }
        for (channel, state) in channels where rowsOfChannel[channel] == nil && !state.queue.isEmpty {
            channels[channel]?.queue.reset([], maySent: false)
        }
        isFirstLink = false
        isProducerSpent = false
    }

    /// A frame arrived.
    public mutating func received(_ frame: Frame, lane: LaneID, now: NIODeadline) {
        // First: it is no answer to what it leads to.
        heartbeat?.received(now: now)
        switch phase {
        case .detached, .ended: return
        case .connecting: receivedEarly(frame, lane: lane, now: now)
        case .connected: process(frame, lane: lane, now: now)
        }
        shareLanes(now: now)
        renewProducerIfResolved(now: now)
    }

    /// Bytes arrived that are no frame; `close` is what the codec's error says to the peer.
    public mutating func receivedInvalid(_ close: Close, lane: LaneID, now: NIODeadline) { self.close(close, now: now) }

    /// The server finished (or reset) one of its lanes.
    public mutating func laneFinished(_ lane: LaneID, now: NIODeadline) {
        switch phase {
        case .detached, .ended: return
        case .connecting: hold(.finished(lane), now: now)
        case .connected: processFinished(lane, now: now)
        }
    }

    /// Link back-pressure on one of the client's lanes: no publish is sent while it isn't writable.
    public mutating func laneWritable(_ lane: LaneID, _ writable: Bool, now: NIODeadline) {
        guard let channel = outbound[lane] else { return }
        modify(channel) { if $0.lane?.id == lane { $0.lane?.isWritable = writable } }
        if writable { publish(channel, now: now) }
    }

    /// The link moved to another path: asks for proof that it lives.
    public mutating func pathChanged(now: NIODeadline) {
        guard phase == .connected else { return }
        heartbeat?.pathChanged(now: now)
        ping(now: now)
    }

    /// An authenticated packet arrived: proof of life.
    public mutating func packetReceived(now: NIODeadline) { heartbeat?.received(now: now) }

    // MARK: The app

    /// A row was written to the outbox (durable already; IDs grow). It leaves as soon as window and link allow.
    /// - Returns: false when the channel's queue is full or the row is out of order: it was not taken.
    public mutating func enqueue(_ row: OutboxRow, now: NIODeadline) -> Bool {
        let limit = configuration.maximumOutbox
        if channels[row.channel] == nil { channels[row.channel] = ClientChannel() }
        let taken = modify(row.channel) { $0.queue.count < limit && $0.queue.append(row) } ?? false
        if taken { publish(row.channel, now: now) }
        return taken
    }

    /// The row of a publish that was refused for good (``ClientAction/refused(channel:_:)``) is off the disk: the channel goes on.
    ///
    /// Before that nothing of the channel leaves. A later process that finds the row sends it again, and it may be entered then: behind
    /// what had left meanwhile.
    public mutating func rowRemoved(_ id: PublishID, from channel: ChannelID, now: NIODeadline) {
        guard modify(channel, { $0.queue.removed(id) }) != nil else { return }
        publish(channel, now: now)
    }

    /// The app is done with everything up to `position`: an entry, or the ``/LonglineWire/Gap/first`` of a gap.
    ///
    /// What it never got, or what belongs to another epoch, moves nothing.
    public mutating func confirm(channel: ChannelID, position: Position, now: NIODeadline) {
        guard modify(channel, { $0.receiver.confirm(position) }) == true else { return }
        cursorMoved(channel, now: now)
    }

    /// Asks to join a room; false while not connected or when too many requests wait.
    public mutating func join(_ room: RoomID, request: UInt64, now: NIODeadline) -> Bool {
        sendRequest(.join(RoomRequest(request: request, room: room)), request: request, now: now)
    }

    /// Asks to leave a room; false while not connected or when too many requests wait.
    public mutating func leave(_ room: RoomID, request: UInt64, now: NIODeadline) -> Bool {
        sendRequest(.leave(RoomRequest(request: request, room: room)), request: request, now: now)
    }

    /// Asks to change a room; false while not connected or when too many requests wait.
    public mutating func manage(_ command: RoomCommand, now: NIODeadline) -> Bool {
        sendRequest(.room(command), request: command.request, now: now)
    }

    /// Asks for a page of a room's members; false while not connected or when too many such requests wait.
    public mutating func listMembers(_ request: MembersRequest, now: NIODeadline) -> Bool {
        guard phase == .connected, memberRequests.count < FrameLimits.maximumMembersRequests,
            memberRequests.insert(request.request).inserted
        else { return false }
        send(.members(request), lane: .control, owed: true, now: now)
        return true
    }

    /// Sends a fresh token; false while not connected. While another waits for its answer it is kept and sent then, in
    /// place of one that was kept before.
    public mutating func refresh(token: String, now: NIODeadline) -> Bool {
        guard phase == .connected else { return false }
        guard !isRefreshing else {
            nextToken = token
            return true
        }
        isRefreshing = true
        send(.refresh(Refresh(token: token)), lane: .control, owed: true, now: now)
        return true
    }

    /// Logs this device out; false while not connected. The server answers by closing with `loggedOut`, once it is durable.
    public mutating func logOut(now: NIODeadline) -> Bool {
        guard phase == .connected else { return false }
        send(.logout, lane: .control, owed: true, now: now)
        return true
    }

    /// Has the user's account erased; false while not connected. The server answers by closing with `loggedOut`, once nothing
    /// can prevent it any more, or with ``ClientAction/erasureRefused(_:)``.
    public mutating func eraseAccount(now: NIODeadline) -> Bool {
        guard phase == .connected else { return false }
        send(.eraseAccount, lane: .control, owed: true, now: now)
        return true
    }

    /// Sends every acknowledgement that waits for more confirmations or for its time, ahead of a farewell.
    public mutating func acknowledgeAll(now: NIODeadline) {
        for channel in timedChannels.sorted(by: { $0.description < $1.description }) {
            modify(channel) { $0.acknowledgement.hurry(now: now) }
            acknowledge(channel, now: now)
        }
    }

    /// Ends the link with a word to the server.
    public mutating func close(_ close: Close, now: NIODeadline) {
        end(SessionEnd(close: close, byServer: false), tellPeer: true)
    }

    /// The host drew a new producer and renumbered its outbox, after ``ClientAction/renewProducer``.
    public mutating func producerRenewed(_ producer: ProducerID) {
        self.producer = producer
        isProducerSpent = false
        for index in channels.values.indices {
            channels.values[index].queue = PublishQueue()
            channels.values[index].sending = nil
        }
    }

    /// ``nextDeadline`` has come (or may have).
    public mutating func deadlineReached(now: NIODeadline, random: inout some RandomNumberGenerator) {
        guard phase == .connecting || phase == .connected else { return }
        if let connectBy, now >= connectBy {
            return close(Close(code: .connectTimeout, reason: "no answer to CONNECT"), now: now)
        }
        for channel in timedChannels.sorted(by: { $0.description < $1.description }) {
            acknowledge(channel, now: now)
            publish(channel, now: now)
        }
        shareLanes(now: now)
        switch heartbeat?.deadlineReached(now: now, nonce: nextNonce, random: &random) {
        case .ping:
            finishIdleLanes(now: now)
            ping(now: now)
        case .ask:
            finishIdleLanes(now: now)
            askForSilence(now: now, random: &random)
        case .doubtful(let silence):
            learn { $0.died(silence, confirmed: false) }
        case .probe:
            actions.append(.probePath)
            ping(now: now)
        case .dead:
            learnFromDeadLink()
            close(Close(code: .idle, reason: "no answer on this path"), now: now)
        case .some(.none), nil:
            break
        }
    }

    // MARK: Endings

    mutating func violated(_ code: CloseCode, _ reason: String, now: NIODeadline) {
        close(Close(code: code, reason: reason), now: now)
    }

    mutating func end(_ end: SessionEnd, tellPeer: Bool) {
        guard phase == .connecting || phase == .connected else { return }
        if tellPeer { actions.append(.send(.close(end.close), lane: .control)) }
        actions.append(.end(end))
        phase = .ended
        held.removeAll()
        heartbeat = nil
        connectBy = nil
    }

    /// Changes a channel in place.
    @discardableResult
    mutating func modify<Result>(_ channel: ChannelID, _ body: (inout ClientChannel) -> Result) -> Result? {
        guard let index = channels.index(forKey: channel) else { return nil }
        return body(&channels.values[index])
    }
}

extension ClientAction {
    /// Whether the action says something to the app rather than to the link.
    fileprivate var survivesLink: Bool {
        switch self {
        case .openLane, .prioritize, .awaitRoom, .send, .finishLane, .probePath, .end, .observedAddress, .sendSignal:
            false
        case .heartbeatLearned: true
        case .connected, .storeTicket, .published, .refused, .renewProducer, .deliver, .skipped, .gap, .roomAnswered,
            .members, .history, .refreshed, .stopped, .behind, .conversations, .conversationState, .receipt, .signal,
            .presence, .presenceAnswered, .erasureRefused:
            true
        }
    }
}
