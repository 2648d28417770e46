import DequeModule
import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Drives one link's ``/LonglineSession/ServerSession`` on the link's event loop.
///
/// After each batch of input it drains the session's actions: what concerns the link is done at once, what needs the store
/// or the authenticator leaves the loop as values and comes back as an input. The session itself decides everything that
/// the protocol says; the host knows the other sessions.
/// ```
///           link up          CONNECT            grant           handshake complete
///   new ───────────▶ open ─────────▶ connecting ─────▶ granted ─────────────────▶ established
///                      │                 │                │                            │
///                      └─────────────────┴───── close, or the link is gone ────────────┴──▶ ended
/// ```
/// Invariants: the user table holds the host from the identity until `ended`; subscriptions exist in `granted` and
/// `established` only; the registry's claim exists in `established` only, and not after another link took it over. Before the
/// handshake is complete the registry has reserved room from before the channels are loaded until the claim; where it has none,
/// the host stays in `connecting` until then.
final class SessionHost: LinkHandler {
    enum Phase {
        case new, open, connecting, granted, established, ended
    }

    let id: UInt64
    let loop: ServerLoop
    var core: ServerCore { loop.core }
    var now: NIODeadline { loop.eventLoop.now }

    private(set) var phase = Phase.new
    private(set) var link: (any Link)?
    var session: ServerSession
    /// Who it is, once its credential was verified.
    var authenticated: AuthenticatedIdentity?
    var identity: SessionIdentity? { authenticated?.identity }
    /// Publishes that wait for the store.
    var appendsWaiting = 0
    /// The room stints that this session knows; the inbox has none.
    var rooms: [RoomID: Stint] = [:]
    /// The broadcasts that this session knows.
    private var broadcasts: Set<ChannelID> = []
    /// Whom this session is told of.
    var watched: Set<UserID> = []
    /// With whom of those, and of those it signals, the user is in touch.
    var touch = TouchTable()
    /// What the user's home knows of this session; nil: nothing.
    var reportedPresence: PresenceState?
    /// What the device asked for before the session was established.
    var askedVisibility: PresenceVisibility?
    /// Whether ``askedVisibility`` came too soon after others.
    var waitsForVisibility = false
    /// Whether a change is on its way to the store, and those that begin when it is answered.
    var changeIsUnderWay = false
    var waitingChanges: Deque<(SessionHost) -> Void> = []
    /// Publishes that wait until this is the device's session.
    var held = HeldPublishes()
    /// What waits for the app's decision.
    var decisions = PendingDecisions()
    /// What is to be refused, unless it was entered before.
    var refusals = PendingRefusals()
    /// What an operator is told of it.
    var figures = SessionFigures()

    /// Names the session in logs; 0 before the grant.
    private(set) var sessionNumber: UInt64 = 0
    private(set) var connect: ConnectSummary?
    private var load: WakeHistory.Load?
    /// Changes of rooms that came while the channels were loaded.
    private var heldChanges: [SessionChannel] = []
    /// Places that earlier links of the device sent beyond its cursor.
    private var inheritedSent: [ChannelPosition] = []
    private var confirmed: [ChannelPosition] = []
    private var handshakeComplete = false
    /// Waits for the handshake: it came in early data, and there was no room for it beside the sessions.
    private var deferred: Admission?
    /// Whether the registry has room for this link until it claims.
    private var isReserved = false
    /// Whether its rooms count it among those that hear them.
    private(set) var isInAudience = false
    private var isFresh = false
    /// What is told once the session is established: in early data it may be a replay.
    private var late: LateConfirmation?
    private var isDraining = false
    private var isDirty = false
    /// What the registry was told.
    private var isKnownInBackground = false
    /// How the link is counted, from its first moment to its last.
    private var linkAdmission: LinkAdmission?

    /// Room changes kept while the channels are loaded; beyond, the client has to come again.
    private static let heldChangeLimit = 256

    init(loop: ServerLoop, id: UInt64) {
        self.loop = loop
        self.id = id
        session = ServerSession(
            configuration: loop.core.sessionConfiguration, observedAddress: "", now: loop.eventLoop.now)
    }

    var reference: SessionReference {
        SessionReference(eventLoop: loop.eventLoop, host: NIOLoopBound(self, eventLoop: loop.eventLoop))
    }

    var isUnauthenticated: Bool { phase == .new || phase == .open || phase == .connecting }

    // MARK: Input from the link

    func linkEstablished(_ link: any Link) {
        guard phase == .new else { return }
        phase = .open
        self.link = link
        session.observedAddressChanged(link.remoteAddress)
        let admission = core.admitLink(from: link.remoteAddress)
        linkAdmission = admission
        // By a frame as well: it says where else to go, and when.
        if let close = loop.add(self, admission) { return end(close) }
        drain()
    }

    func handshakeCompleted(_ link: any Link, info: LinkHandshake) {
        // One that was turned away meanwhile cost as much.
        loop.noteHandshake(resumed: info.resumed, earlyDataAccepted: info.earlyDataAccepted)
        guard phase != .ended else { return }
        handshakeComplete = true
        session.handshakeCompleted(now: now)
        guard let deferred, let authenticated else { return }
        self.deferred = nil
        if phase == .connecting { prepare(deferred, authenticated, attempts: Self.admissionAttempts) }
    }

    func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link) {
        guard phase != .ended else { return }
        loop.statistics.framesReceived += 1
        noteFigures(of: frame)
        notePartialFrames()
        session.received(frame, lane: lane, early: early, now: now)
    }

    func receivedDatagram(_ frame: Frame, link: any Link) {
        guard phase != .ended else { return }
        loop.statistics.framesReceived += 1
        session.receivedDatagram(frame, now: now)
    }

    func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link) {
        guard phase != .ended else { return }
        loop.statistics.framesInvalid += 1
        core.log.log(
            .notice, "invalid frame", metadata(["code": "\(error.code.rawValue)", "reason": "\(error.message)"]))
        session.receivedInvalid(Close(code: error.closeCode, reason: error.message), lane: lane, now: now)
    }

    func laneFinished(_ lane: LaneID, link: any Link) {
        guard phase != .ended else { return }
        session.laneFinished(lane, now: now)
    }

    func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link) {
        guard phase != .ended else { return }
        session.laneWritable(lane, writable, now: now)
        wake()
    }

    func laneDelivered(_ lane: LaneID, question: UInt64, link: any Link) {
        guard phase != .ended else { return }
        session.laneDelivered(lane, question: question, now: now)
        wake()
    }

    /// The client asks, and does not take the answers.
    func laneOverfull(_ lane: LaneID, link: any Link) {
        guard phase != .ended else { return }
        let retryAfter = core.limits.retryAfter.wholeMilliseconds
        end(Close(code: .overloaded, reason: "the client does not take what it asked for", retryAfter: retryAfter))
    }

    func laneStopped(_ lane: LaneID, link: any Link) {
        guard phase != .ended else { return }
        end(.laneStopped)
    }

    func packetReceived(_ link: any Link) {
        guard phase != .ended else { return }
        session.packetReceived(now: now)
    }

    func pathChanged(_ link: any Link) {
        guard phase != .ended else { return }
        loop.statistics.migrations += 1
        session.observedAddressChanged(link.remoteAddress)
    }

    func batchEnded(_ link: any Link) {
        notePartialFrames()
        drain()
    }

    /// Tells the session what the link holds back, as long as that counts with what the session holds.
    private func notePartialFrames() {
        guard phase != .ended, phase != .established, let link else { return }
        session.partialFrames(bytes: link.partialBytes, now: now)
    }

    func linkClosed(_ link: any Link, reason: LinkCloseReason) {
        if phase != .ended {
            loop.statistics.closedByPeer += 1
            core.log.log(.debug, "link gone", metadata(["reason": "\(reason)"]))
        }
        detach()
        session.linkClosed()
        self.link = nil
        guard var admission = linkAdmission else { return }
        linkAdmission = nil
        core.releaseLink(&admission)
        loop.remove(self)
    }

    // MARK: Input from the loop

    func deadlineReached(now: NIODeadline) {
        guard phase != .ended else { return }
        session.deadlineReached(now: now)
        drain()
    }

    func logAdvanced(_ channel: ChannelID, head: Position, now: NIODeadline) {
        guard phase == .granted || phase == .established else { return }
        meet(channel, head: head, now: now)
        session.logAdvanced(channel, head: head, now: now)
        wake()
    }

    func readDone(_ channel: ChannelID, _ result: Result<SessionPage, StoreError>, now: NIODeadline) {
        guard phase != .ended else { return }
        switch result {
        case .success(let page): session.pageRead(channel, page: page, now: now)
        case .failure(let error) where error.code == .overloaded || error.code == .unknownChannel:
            session.readFailed(channel, now: now)
        case .failure(let error): session.close(Close(error, limits: core.limits), now: now)
        }
        wake()
    }

    func appended(_ request: AppendRequest, _ outcome: AppendOutcome, now: NIODeadline) {
        appendsWaiting -= 1
        guard phase != .ended else { return }
        let answer: PublishOutcome =
            switch outcome {
            case .entered(let published, _, _, _), .duplicate(let published): .published(published)
            case .refused(let refused): .refused(refused)
            }
        session.appended(channel: request.channel, id: request.publish.id, outcome: answer, now: now)
        wake()
    }

    /// The user's right to a room changed, by another device or from outside.
    func channelChanged(_ channel: SessionChannel) {
        switch phase {
        case .granted, .established:
            guard noteStint(channel) else { return }
            session.channelChanged(channel, now: now)
            wake()
        case .connecting:
            if heldChanges.count < Self.heldChangeLimit {
                heldChanges.append(channel)
            } else {
                end(Close(code: .overloaded, retryAfter: core.limits.retryAfter.wholeMilliseconds))
            }
        case .new, .open, .ended: return
        }
    }

    /// Ends the session from outside: drained, replaced, revoked.
    func end(_ close: Close) {
        guard phase != .ended else { return }
        session.close(close, now: now)
        drain()
    }

    /// A channel is not this session's any more, and confirmed to its end.
    func forgetSent(_ channel: ChannelID) { inheritedSent.removeAll { $0.channel == channel } }

    /// The highest places sent to the device, by this link or before.
    var sentPositions: [ChannelPosition] {
        var places = Dictionary(inheritedSent.map { ($0.channel, $0.position) }) { _, last in last }
        places.merge(session.sentPositions.map { ($0.channel, $0.position) }) { inherited, own in
            inherited.epoch == own.epoch && inherited.offset > own.offset ? inherited : own
        }
        return places.map { ChannelPosition(channel: $0.key, position: $0.value) }
    }

    // MARK: Actions

    /// Has the loop drain this session before its tick ends, together with others.
    func wake() {
        guard !isDirty, !isDraining else { return }
        isDirty = true
        loop.markDirty(self)
    }

    /// Does what the session wants, until it wants nothing more.
    func drain() {
        isDirty = false
        guard !isDraining else { return }
        isDraining = true
        while phase != .ended, let action = session.nextAction() { perform(action) }
        isDraining = false
        if !confirmed.isEmpty, let device {
            core.cursors.put(device, confirmed)
            confirmed.removeAll(keepingCapacity: true)
        }
        let outlook = session.outlook()
        // First, so that who hides is not seen for a moment.
        applyVisibility()
        reportPresence(outlook.mode)
        note(outlook.mode)
        if phase != .ended { loop.setTimer(id, deadline: outlook.deadline) }
    }

    /// Has the registry know what the app is to its user now.
    private func note(_ mode: SessionMode) {
        let isInBackground = mode != .foreground
        guard phase == .established, isInBackground != isKnownInBackground, let device else { return }
        isKnownInBackground = isInBackground
        core.registry.noteBackground(isInBackground, device, link: id)
        if isInBackground { core.webhooks?.left(device.userKey) }
    }

    private func perform(_ action: ServerAction) {
        switch action {
        case .send(let frame, let lane): send(frame, lane: lane)
        case .openLane(let lane): link?.openLane(lane)
        case .prioritize(let lane, let urgency): link?.prioritize(lane, urgency)
        case .finishLane(let lane): link?.finishLane(lane)
        case .awaitDelivery(let lane, let question): link?.reportWhenDelivered(lane, question: question)
        case .append(let channel, let producer, let publish):
            guard let device else { return }
            let request = AppendRequest(device: device, producer: producer, channel: channel, publish: publish)
            if mustHold { hold(request) } else { submit(request) }
        case .refuse(let channel, let producer, let publish, let code):
            guard let device else { return }
            let request = AppendRequest(device: device, producer: producer, channel: channel, publish: publish)
            refuse(request, for: code)
        case .read(let channel, let after, let upTo, let maximumBytes):
            guard let tenant = identity?.tenant else { return }
            let key = ChannelKey(tenant: tenant, channel: channel)
            let stretch = ReadQueue.Stretch.next(after: after, upTo: upTo, maximumBytes: maximumBytes)
            loop.read(ReadQueue.Key(channel: key, stretch: stretch), for: self)
        case .readHistory(let read): readHistory(read)
        case .readPayload(let read): readPayload(read)
        case .storeCursor(let channel, let position):
            if let device { core.webhooks?.confirmed(device.userKey, channel, position) }
            confirmed.append(ChannelPosition(channel: channel, position: position))
        case .authenticate(let connect):
            if let link { session.lanesAllowed(link.laneLimit) }
            authenticate(connect)
        case .refresh(let token): refresh(token)
        case .join(let request): submit(RoomWork(request, .join(create: true)))
        case .leave(let request): submit(RoomWork(request, .leave))
        case .manage(let command): submit(RoomWork(command))
        case .listMembers(let request): listMembers(request)
        case .markRead(let mark): markRead(mark)
        case .delivered(let sender, let origin): delivered(sender: sender, origin: origin)
        case .listConversations(let request): listConversations(request)
        case .changeConversation(let change): changeConversation(change)
        case .signal(let signal, let until): relay(signal, until: until)
        case .signalDropped(let reason): dropped(reason)
        case .sendSignal(let signal, let until): send(signal, until: until)
        case .watch(let request): watch(request)
        case .unwatch(let users): unwatch(users)
        case .setVisibility(let visibility): setVisibility(visibility)
        case .forget(let channel): forgetStint(channel)
        case .logout: logOut()
        case .eraseAccount: eraseAccount()
        case .established: establish()
        case .close(let close): finish(close)
        }
    }

    private func send(_ frame: Frame, lane: LaneID) {
        loop.statistics.framesSent += 1
        switch frame {
        case .deliver(let deliver):
            loop.statistics.delivered += 1
            noteDelivery(of: deliver.entry)
        case .batch(let batch):
            loop.statistics.batches += 1
            loop.statistics.delivered += UInt64(session.takeBatchedEntries())
            loop.statistics.batchBytesSaved += UInt64(max(0, batch.saved))
        case .historyPage(let page): count(page)
        case .behind(let lag) where lag.isBehind: loop.statistics.slowConsumers += 1
        case .presence: loop.statistics.presenceSent += 1
        default: break
        }
        link?.send(frame, lane: lane)
    }

    /// Queues a publish for the store.
    func enqueue(_ request: AppendRequest) {
        if !loop.append(request, from: self) { refuseWithoutRoom(request) }
    }

    /// Early data publishes only with the first connect of its number, and not with an outbox's first: a replay could
    /// bring in what its sender was refused the first time, for a reason that is gone since. From the handshake on nothing goes
    /// before the device's session is this one: of a link that is refused then, nothing is entered.
    private var mustHold: Bool { phase != .established && (handshakeComplete || !isFresh) }

    var device: DeviceKey? {
        identity.map { DeviceKey(tenant: $0.tenant, user: $0.user, device: $0.device) }
    }

    // MARK: Admission

    private func authenticate(_ connect: Connect) {
        guard phase == .open else { return }
        phase = .connecting
        self.connect = ConnectSummary(connect)
        admit(Admission(core: core, connect: connect), attempts: Self.admissionAttempts)
    }

    private static let admissionAttempts = 3

    /// Runs an admission: see ``Admission`` for its steps.
    private func admit(_ admission: Admission, attempts: Int) {
        let revocations = core.revocations.count
        offLoop {
            await Result { () async throws(Rejection) in try await admission.identify() }
        } then: { host, result in
            switch result {
            case .failure(let rejection): host.reject(rejection)
            case .success(let authenticated):
                guard host.phase == .connecting else { return }
                guard !host.core.revocations.mayName(authenticated.identity, since: revocations) else {
                    return host.retry(admission, attempts: attempts)
                }
                if let rejection = host.register(authenticated) { return host.reject(rejection) }
                guard host.mayBeGranted() else { return host.awaitHandshake(admission) }
                host.prepare(admission, authenticated, attempts: attempts)
            }
        }
    }

    /// Whether a session may be made of the link now. What comes in early data may never complete its handshake, and so is no
    /// session that the registry counts: it needs room of its own.
    private func mayBeGranted() -> Bool {
        guard !handshakeComplete, !isReserved, let device else { return true }
        isReserved = core.registry.reserve(device, link: id)
        return isReserved
    }

    private func awaitHandshake(_ admission: Admission) {
        deferred = admission
        loop.statistics.earlyConnectsDeferred += 1
        core.log.log(.debug, "an early connect waits for its handshake", metadata())
    }

    /// Takes note of who it is, at the first attempt.
    /// - Returns: how to close it instead, when the user connects too fast: each connect is work for the store's one writer.
    private func register(_ authenticated: AuthenticatedIdentity) -> Rejection? {
        guard self.authenticated == nil else { return nil }
        let user = UserKey(authenticated.identity)
        if let wait = core.requestMeter.wait(for: .connect, of: user, now: now) {
            loop.statistics.connectsOverRate += 1
            core.log.log(
                .notice, "too many connects of one user",
                metadata(["tenant": "\(user.tenant)", "user": "\(user.user)"]))
            let retryAfter = max(1, wait.wholeMilliseconds)
            return Rejection(
                close: Close(code: .overloaded, reason: "this user connects too fast", retryAfter: retryAfter))
        }
        self.authenticated = authenticated
        loop.register(self, authenticated.identity)
        return nil
    }

    private func prepare(_ admission: Admission, _ authenticated: AuthenticatedIdentity, attempts: Int) {
        load = loop.history.beginLoad()
        offLoop {
            await Result { () async throws(Rejection) in try await admission.prepare(authenticated) }
        } then: { host, result in
            switch result {
            case .failure(let rejection): host.reject(rejection)
            case .success(let prepared): host.grant(prepared, admission, attempts: attempts)
            }
        }
    }

    private func retry(_ admission: Admission, attempts: Int) {
        guard attempts > 1 else {
            let retryAfter = core.limits.retryAfter.wholeMilliseconds
            return reject(Rejection(close: Close(code: .overloaded, reason: "try again", retryAfter: retryAfter)))
        }
        admit(admission, attempts: attempts - 1)
    }

    private func reject(_ rejection: Rejection) {
        endLoad()
        guard phase == .connecting else { return }
        session.rejected(rejection.close, now: now)
        wake()
    }

    private func grant(_ prepared: PreparedGrant, _ admission: Admission, attempts: Int) {
        guard phase == .connecting, let load, let device else { return endLoad() }
        // A second attempt meets the number that the first one left.
        isFresh = isFresh || prepared.isFresh
        late = late ?? prepared.late
        let keys = prepared.channels.map { ChannelKey(tenant: device.tenant, channel: $0.channel) }
        guard let wakes = loop.history.wakes(since: load, of: keys) else {
            endLoad()
            return retry(admission, attempts: attempts)
        }
        let deletions = loop.history.deletions(since: load, of: keys)
        let news = loop.history.broadcasts(since: load, in: device.tenant)
        endLoad()
        phase = .granted
        if var admission = linkAdmission {
            core.linkAuthenticated(&admission)
            linkAdmission = admission
        }
        figures.grantedAt = core.time()
        loop.statistics.sessionsGranted += 1
        if prepared.earlier != nil { loop.statistics.sessionsResumed += 1 }
        sessionNumber = prepared.earlier ?? UInt64.random(in: 1...(1 << 53))
        subscribe(to: prepared.channels)
        // What the device had read while it was away.
        core.webhooks?.confirmed(
            device.userKey,
            prepared.channels.compactMap { channel in
                channel.cursor.map { ChannelPosition(channel: channel.channel, position: $0) }
            })
        let grant = SessionGrant(
            identity: prepared.authenticated.identity, session: sessionNumber, resumed: prepared.earlier != nil,
            cursorVersion: prepared.cursorVersion, channels: prepared.channels, ticket: prepared.ticket,
            limits: core.admissionLimits.session(in: device.tenant))
        session.authenticated(grant, time: core.time(), now: now)
        for (channel, head) in wakes { session.logAdvanced(channel.channel, head: head, now: now) }
        for (channel, head) in news {
            meet(channel.channel, head: head, now: now)
            session.logAdvanced(channel.channel, head: head, now: now)
        }
        for change in heldChanges where noteStint(change) { session.channelChanged(change, now: now) }
        heldChanges = []
        for (room, end) in deletions { roomDeleted(room, at: end) }
        core.log.log(
            .info, "session granted",
            metadata(["resumed": "\(prepared.earlier != nil)", "agent": "\(connect?.agent ?? "")"]))
        wake()
    }

    private func subscribe(to channels: [SessionChannel]) {
        guard let device else { return }
        loop.enter(self, tenant: device.tenant)
        for channel in channels {
            switch channel.channel {
            case .room: _ = noteStint(channel)
            case .user: loop.subscribe(self, to: ChannelKey(tenant: device.tenant, channel: channel.channel))
            // Every session of the tenant hears of it.
            case .all: broadcasts.insert(channel.channel)
            }
            // Nothing known was sent beyond what is confirmed: nothing to inherit.
            let confirmed = channel.cursor.map { $0.epoch == channel.head.epoch ? $0.offset : 0 } ?? 0
            let sent = channel.sent ?? channel.head.offset
            guard sent > confirmed else { continue }
            inheritedSent.append(
                ChannelPosition(channel: channel.channel, position: Position(epoch: channel.head.epoch, offset: sent)))
        }
    }

    /// A broadcast that was made since the channels were loaded: all of it came after this device did.
    private func meet(_ channel: ChannelID, head: Position, now: NIODeadline) {
        guard case .all = channel, broadcasts.insert(channel).inserted else { return }
        session.channelChanged(
            SessionChannel(channel: channel, head: head, first: 0, after: 0, upTo: nil, cursor: nil, sent: 0), now: now)
    }

    private func establish() {
        guard phase == .granted, let identity else { return }
        switch core.devicePolicies.policy(of: identity.tenant) {
        case .all: claimSession()
        case let policy: takePlace(identity, policy) { $0.claimSession() }
        }
    }

    /// Becomes the device's session, in place of an older one.
    private func claimSession() {
        guard phase == .granted, let claim else { return }
        switch core.registry.claim(claim) {
        case .refused(let close): session.claimRefused(close, now: now)
        case .accepted(let replaced):
            phase = .established
            catchUpOnPresence()
            replaced?.end(Self.replaced)
            enterAudiences()
            submitHeld()
            settleRefusals()
            if let late { tellSenders(of: late) }
            late = nil
            core.log.log(.debug, "session established", metadata())
        }
    }

    /// From now on this device is one of those that hear its rooms: what never completes its handshake silences nobody there.
    private func enterAudiences() {
        guard let device else { return }
        isInAudience = true
        for (room, stint) in rooms where stint.upTo == nil {
            core.audiences.add(1, to: ChannelKey(tenant: device.tenant, channel: .room(room)))
        }
    }

    private static let replaced = Close(code: .replaced, reason: "this device connected anew")

    /// What this link claims of the registry.
    private var claim: SessionClaim? {
        guard let device, let identity, let connect else { return nil }
        return SessionClaim(
            device: device, link: id, session: sessionNumber, loginEpoch: identity.loginEpoch,
            producer: connect.producer, connectNumber: connect.connectNumber, handle: reference)
    }

    /// A refresh brought a later login: the registry compares with that from now on.
    func renewClaim() {
        guard phase == .established, let claim else { return }
        guard core.registry.renew(claim) else { return session.close(Self.replaced, now: now) }
        guard let identity else { return }
        let policy = core.devicePolicies.policy(of: identity.tenant)
        if policy != .all { takePlace(identity, policy) { _ in } }
    }

    private func endLoad() {
        guard let load else { return }
        self.load = nil
        loop.history.endLoad(load)
    }

    // MARK: The end

    /// The session said its last word: the link sends what is queued and closes.
    private func finish(_ close: Close) {
        guard phase != .ended else { return }
        loop.statistics.closes[close.code, default: 0] += 1
        let level: Logger.Level = close.code == .internalError ? .error : .info
        core.log.log(
            level, "session closed", metadata(["code": "\(close.code.rawValue)", "reason": "\(close.reason)"]))
        detach()
        link?.close(close.code, reason: close.reason)
    }

    /// Gives back everything that the session holds but the link; once.
    private func detach() {
        guard phase != .ended else { return }
        let wasEstablished = phase == .established
        phase = .ended
        deferred = nil
        endLoad()
        dropHeld()
        heldChanges = []
        dropDecisions()
        refusals.removeAll()
        guard let device, let identity else { return }
        core.cursors.put(device, confirmed)
        confirmed = []
        if wasEstablished {
            core.registry.release(device, link: id, sent: sentPositions, now: now)
            core.webhooks?.left(device.userKey)
        } else if isReserved {
            core.registry.giveBack(id)
        }
        endPresence()
        loop.unregister(self, identity)
        loop.leave(self, tenant: device.tenant)
        loop.unsubscribe(self, from: ChannelKey(tenant: device.tenant, channel: .user(device.user)))
        for room in rooms.keys { loop.unsubscribe(self, from: ChannelKey(tenant: device.tenant, channel: .room(room))) }
        rooms = [:]
        inheritedSent = []
    }
}
