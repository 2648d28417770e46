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

    var phase = Phase.new
    private(set) var link: (any Link)?
    var session: ServerSession
    /// Who it is, once its credential was verified.
    var authenticated: AuthenticatedIdentity?
    /// Revocations that there were before that credential was verified. It is none of them.
    var revocationsKnown: UInt64 = 0
    var identity: SessionIdentity? { authenticated?.identity }
    /// Publishes that wait for the store.
    var appendsWaiting = 0
    /// The room stints that this session knows; the inbox has none.
    var rooms: [RoomID: Stint] = [:]
    /// The broadcasts that this session knows.
    var broadcasts: Set<ChannelID> = []
    /// Whom this session is told of.
    var watched: Set<UserID> = []
    /// With whom of those, and of those it signals, the user is in touch.
    var touch = TouchTable()
    /// In which rooms it may signal what takes the right to publish.
    var voices = RoomVoices()
    /// What the user's home knows of this session; nil: nothing.
    var reportedPresence: PresenceState?
    /// What the device asked for before the session was established.
    var askedVisibility: PresenceVisibility?
    /// Whether ``askedVisibility`` came too soon after others.
    var waitsForVisibility = false
    /// Whether a change is on its way to the store, and those that begin when it is answered.
    var changeIsUnderWay = false
    var waitingChanges: Deque<(SessionHost) -> Void> = []
    /// The changes of rooms among these, by room.
    var roomChanges: [RoomID: Int] = [:]
    /// What waits until this is the device's session.
    var held = HeldWork()
    /// What waits for the app's decision, or behind a change of its room.
    var decisions = PendingDecisions()
    /// What is to be refused, unless it was entered before.
    var refusals = PendingRefusals()
    /// What an operator is told of it.
    var figures = SessionFigures()

    /// Names the session in logs; 0 before the grant.
    var sessionNumber: UInt64 = 0
    var connect: ConnectSummary?
    var load: WakeHistory.Load?
    /// Changes of rooms that came while the channels were loaded.
    var heldChanges: [SessionChannel] = []
    /// Places that earlier links of the device sent beyond its cursor.
    var inheritedSent: [ChannelPosition] = []
    var confirmed: [ChannelPosition] = []
    var handshakeComplete = false
    /// Waits for the handshake: it came in early data, and there was no room for it beside the sessions.
    var deferred: Admission?
    /// Whether its rooms count it among those that hear them.
    var isInAudience = false
    var isFresh = false
    /// What is told once the session is established: in early data it may be a replay.
    var late: LateConfirmation?
    var isDraining = false
    var isDirty = false
    /// What the registry was told.
    var isKnownInBackground = false
    /// How the link is counted, from its first moment to its last.
    var linkAdmission: LinkAdmission?

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
        case .failure(let error) where error.code == .overloaded: session.readFailed(channel, now: now)
        case .failure(let error) where error.code == .unknownChannel: session.logGone(channel, now: now)
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

    var device: DeviceKey? {
        identity.map { DeviceKey(tenant: $0.tenant, user: $0.user, device: $0.device) }
    }

    // MARK: The end

    /// The session said its last word: the link sends what is queued and closes.
    func finish(_ close: Close) {
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
        } else {
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
