import LonglineSession
import LonglineWire
import NIOCore

/// The server of a simulation: hosts one ``ServerSession`` per link over a ``ModelStore``, commits in groups, answers after
/// random delays, and can be killed.
final class ModelServer {
    private final class Hosted {
        var session: ServerSession
        let link: SimulatedLink
        var device: DeviceID?
        var user: UserID?
        var producer: ProducerID?
        var connectNumber: UInt64 = 0
        /// Whether nobody connected with this number before.
        var isFresh = false
        /// Early publishes of a connect that is not fresh.
        var held: [Append] = []
        var armed: NIODeadline?
        var isOver = false

        init(session: ServerSession, link: SimulatedLink) {
            self.session = session
            self.link = link
        }
    }

    private struct Append {
        let hosted: Hosted
        let channel: ChannelID
        let producer: ProducerID
        let publish: Publish
    }

    let store: ModelStore
    private unowned let simulation: SessionSimulation
    private let scheduler: VirtualScheduler
    private var random: SeededRandom
    private var sessions: [Int: Hosted] = [:]
    private var current: [DeviceID: Hosted] = [:]
    private var sent: [DeviceID: [ChannelID: Position]] = [:]
    private var pending: [Append] = []
    private var isCommitScheduled = false
    private var rollBack: (() -> Void)?
    /// Grows with every restart: what was started before it never ends.
    private var life = 0
    private let configuration: ServerSessionConfiguration
    /// Publishes are refused for now with this probability.
    var refusesAppends = 0.02

    init(store: ModelStore, simulation: SessionSimulation, scheduler: VirtualScheduler, random: SeededRandom) {
        self.store = store
        self.simulation = simulation
        self.scheduler = scheduler
        self.random = random
        var configuration = ServerSessionConfiguration()
        configuration.limits = SessionLimits(
            maximumPayload: 3_000, channelWindow: 6_000, maximumUnacknowledged: 12, minimumHeartbeat: 100,
            idleTimeout: 20_000)
        configuration.laneIdleTime = .milliseconds(300)
        configuration.readBytes = 3_000
        configuration.maximumReads = 2
        self.configuration = configuration
    }

    // MARK: Links

    func accept(_ link: SimulatedLink) {
        let hosted = Hosted(
            session: ServerSession(
                configuration: configuration, observedAddress: "192.0.2.1:\(link.number)", now: scheduler.now),
            link: link)
        sessions[link.number] = hosted
        link.toServer = { [weak self] frame, lane, early in
            self?.input(hosted) { $0.received(frame, lane: lane, early: early, now: $1) }
        }
        link.finishedAtServer = { [weak self] lane in self?.input(hosted) { $0.laneFinished(lane, now: $1) } }
        link.handshakeAtServer = { [weak self] in
            self?.input(hosted) { $0.handshakeCompleted(now: $1) }
            for append in hosted.held { self?.append(append) }
            hosted.held = []
        }
        link.closedAtServer = { [weak self] in
            self?.input(hosted) { session, _ in session.linkClosed() }
            self?.forget(hosted)
        }
    }

    /// The process is killed: only the store is left.
    func restart() {
        life += 1
        rollBack?()
        rollBack = nil
        pending = []
        isCommitScheduled = false
        for hosted in sessions.values.sorted(by: { $0.link.number < $1.link.number }) {
            hosted.isOver = true
            hosted.link.abandon(.server)
            let tells = random.happens(0.7)
            hosted.link.cut(tellClient: tells, tellServer: false, losesToServer: true, losesToClient: true)
        }
        sessions = [:]
        current = [:]
        sent = [:]
    }

    private func forget(_ hosted: Hosted) {
        noteSent(hosted)
        hosted.isOver = true
        sessions[hosted.link.number] = nil
        if let device = hosted.device, current[device] === hosted { current[device] = nil }
    }

    private func noteSent(_ hosted: Hosted) {
        guard let device = hosted.device else { return }
        for entry in hosted.session.sentPositions {
            let known = sent[device]?[entry.channel]
            if known?.epoch != entry.position.epoch || (known?.offset ?? 0) < entry.position.offset {
                sent[device, default: [:]][entry.channel] = entry.position
            }
        }
    }

    /// Something that happens later, unless the process or the session has ended by then.
    private func later(_ hosted: Hosted, _ body: @escaping () -> Void) {
        let life = life
        scheduler.after(.milliseconds(Int64.random(in: 0...8, using: &random))) { [weak self] in
            guard let self, self.life == life, !hosted.isOver else { return }
            body()
        }
    }

    // MARK: Sessions

    private func input(_ hosted: Hosted, _ body: (inout ServerSession, NIODeadline) -> Void) {
        guard !hosted.isOver else { return }
        let wasClosed = hosted.session.isClosed
        body(&hosted.session, scheduler.now)
        while let action = hosted.session.nextAction() {
            if wasClosed { simulation.checker.violation("the server's session acts after its close: \(action)") }
            perform(action, hosted)
        }
        arm(hosted)
    }

    private func arm(_ hosted: Hosted) {
        guard let deadline = hosted.session.nextDeadline, deadline < hosted.armed ?? .distantFuture else { return }
        hosted.armed = deadline
        let life = life
        scheduler.at(deadline) { [weak self] in
            guard let self, self.life == life, !hosted.isOver, hosted.armed == deadline else { return }
            hosted.armed = nil
            input(hosted) { $0.deadlineReached(now: $1) }
        }
    }

    private func perform(_ action: ServerAction, _ hosted: Hosted) {
        switch action {
        case .openLane: break
        case .send(let frame, let lane): hosted.link.send(frame, lane: lane, from: .server)
        case .finishLane(let lane): hosted.link.finish(lane, from: .server)
        case .close:
            noteSent(hosted)
            hosted.link.close(from: .server)
        case .established: establish(hosted)
        case .authenticate(let connect): later(hosted) { [weak self] in self?.authenticate(connect, hosted) }
        case .append(let channel, let producer, let publish):
            let append = Append(hosted: hosted, channel: channel, producer: producer, publish: publish)
            if hosted.isFresh || hosted.link.isHandshakeComplete {
                self.append(append)
            } else {
                hosted.held.append(append)
            }
        case .read(let channel, let after, let upTo, let bytes):
            later(hosted) { [weak self] in self?.read(channel, after: after, upTo: upTo, bytes: bytes, hosted) }
        case .readHistory(let read):
            later(hosted) { [weak self] in
                guard let self else { return }
                let page = store.page(read, time: scheduler.milliseconds)
                input(hosted) { $0.historyRead(read.request, page: page, now: $1) }
            }
        case .storeCursor(let channel, let position):
            guard let device = hosted.device else { return }
            later(hosted) { [store] in store.advance(device, channel: channel, to: position) }
        case .join(let request): later(hosted) { [weak self] in self?.change(request, joins: true, hosted) }
        case .leave(let request): later(hosted) { [weak self] in self?.change(request, joins: false, hosted) }
        case .logout: break  // No model device logs out.
        case .refresh:
            later(hosted) { [weak self] in
                guard let self, let identity = hosted.session.identity else { return }
                let time = scheduler.milliseconds
                input(hosted) { $0.refreshed(identity, time: time, now: $1) }
            }
        }
    }

    // MARK: Connect

    private func authenticate(_ connect: Connect, _ hosted: Hosted) {
        guard let (user, device) = simulation.owner(of: connect.credential) else {
            return input(hosted) { $0.rejected(Close(code: .credentialInvalid), now: $1) }
        }
        guard let isFresh = store.admit(connect.producer, connectNumber: connect.connectNumber) else {
            return input(hosted) { $0.rejected(Close(code: .stale), now: $1) }
        }
        for cursor in connect.cursors { store.advance(device, channel: cursor.channel, to: cursor.position) }
        for other in sessions.values where other.device == device { noteSent(other) }
        hosted.device = device
        hosted.user = user
        hosted.producer = connect.producer
        hosted.connectNumber = connect.connectNumber
        hosted.isFresh = isFresh
        let time = scheduler.milliseconds
        let grant = SessionGrant(
            identity: SessionIdentity(
                tenant: simulation.tenant, user: user, device: device, loginEpoch: 1, tokenID: "1",
                expiry: time + 3_600_000, mayPublish: true, mayReceive: true, mayJoin: true),
            session: UInt64(hosted.link.number), resumed: sent[device] != nil,
            cursorVersion: store.cursorVersions[device] ?? 0,
            channels: store.channels(of: user).map { channel($0, user: user, device: device) },
            ticket: simulation.ticket(for: device))
        if store.faults.contains(.takeOverEarly) { establish(hosted) }
        input(hosted) { $0.authenticated(grant, time: time, now: $1) }
    }

    private func channel(_ channel: ChannelID, user: UserID, device: DeviceID) -> SessionChannel {
        let log = store.log(channel)
        let stint = store.stint(of: user, in: channel)
        let sent = sent[device]?[channel].flatMap { $0.epoch == log.epoch ? $0.offset : nil }
        return SessionChannel(
            channel: channel, head: log.head, first: log.first, after: stint?.after ?? 0, upTo: stint?.upTo,
            cursor: store.cursors[device]?[channel], sent: sent)
    }

    private func establish(_ hosted: Hosted) {
        guard let device = hosted.device else { return }
        if !hosted.link.isHandshakeComplete {
            simulation.checker.violation("a session took effect before its handshake was complete")
        }
        if let newer = current[device], newer.producer == hosted.producer, newer.connectNumber > hosted.connectNumber {
            // Its handshake took so long that a later connect was established meanwhile.
            if !store.faults.contains(.ignoreConnectNumber) {
                return input(hosted) { $0.close(Close(code: .stale), now: $1) }
            }
            simulation.checker.violation("\(device)'s connect \(hosted.connectNumber) took over from a later one")
        }
        let old = current.updateValue(hosted, forKey: device)
        if let old, old !== hosted { input(old) { $0.close(Close(code: .replaced), now: $1) } }
    }

    // MARK: The log

    private func append(_ append: Append) {
        guard !random.happens(refusesAppends) else {
            let refused = Refused(id: append.publish.id, code: .overloaded, retryAfter: 30)
            return later(append.hosted) { [weak self] in
                self?.input(append.hosted) {
                    $0.appended(channel: append.channel, id: refused.id, outcome: .refused(refused), now: $1)
                }
            }
        }
        pending.append(append)
        if store.faults.contains(.acknowledgeBeforeDurable) {
            if rollBack == nil {
                rollBack = store.snapshot()
                scheduler.after(.milliseconds(500)) { [weak self] in self?.rollBack = nil }
            }
            return commit()
        }
        guard !isCommitScheduled else { return }
        isCommitScheduled = true
        let life = life
        scheduler.after(.milliseconds(Int64.random(in: 1...12, using: &random))) { [weak self] in
            guard let self, self.life == life else { return }
            commit()
        }
    }

    private func answer(_ append: Append, _ outcome: PublishOutcome) {
        input(append.hosted) {
            $0.appended(channel: append.channel, id: append.publish.id, outcome: outcome, now: $1)
        }
    }

    private func commit() {
        isCommitScheduled = false
        let batch = pending
        pending = []
        var outcomes: [(Append, PublishOutcome)] = []
        for append in batch {
            guard let device = append.hosted.device, let user = append.hosted.user else { continue }
            outcomes.append(
                (
                    append,
                    store.append(
                        append.publish, channel: append.channel, user: user, device: device, producer: append.producer,
                        time: scheduler.milliseconds)
                ))
        }
        for (append, outcome) in outcomes { answer(append, outcome) }
        wake(Set(batch.map(\.channel)))
    }

    private func wake(_ channels: Set<ChannelID>) {
        for channel in channels.sorted(by: { "\($0)" < "\($1)" }) {
            let head = store.log(channel).head
            for hosted in sessions.values.sorted(by: { $0.link.number < $1.link.number }) {
                guard let user = hosted.user, store.stint(of: user, in: channel) != nil else { continue }
                input(hosted) { $0.logAdvanced(channel, head: head, now: $1) }
            }
        }
    }

    private func read(_ channel: ChannelID, after: Offset, upTo: Offset?, bytes: Int, _ hosted: Hosted) {
        if random.happens(0.01) { return input(hosted) { $0.readFailed(channel, now: $1) } }
        let page = store.read(
            channel, after: after, upTo: upTo, maximumBytes: bytes, time: scheduler.milliseconds)
        input(hosted) { $0.pageRead(channel, page: page, now: $1) }
    }

    private func change(_ request: RoomRequest, joins: Bool, _ hosted: Hosted) {
        guard let user = hosted.user, let device = hosted.device else { return }
        let room = ChannelID.room(request.room)
        let time = scheduler.milliseconds
        let position =
            joins
            ? store.join(request.room, user: user, device: device, time: time)
            : store.leave(request.room, user: user, device: device, time: time)
        let answer = RoomAnswer(
            request: request.request, refusal: position == nil ? .unknownChannel : nil,
            position: position ?? Position(epoch: 0, offset: 0))
        for other in sessions.values.sorted(by: { $0.link.number < $1.link.number })
        where other.user == user && position != nil && other !== hosted {
            guard let device = other.device else { continue }
            let changed = channel(room, user: user, device: device)
            input(other) { $0.channelChanged(changed, now: $1) }
        }
        let changed = position == nil ? nil : channel(room, user: user, device: device)
        input(hosted) { $0.roomAnswered(answer, channel: changed, now: $1) }
        wake([room])
    }
}
