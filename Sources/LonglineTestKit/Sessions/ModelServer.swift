import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// The server of a simulation: hosts one ``ServerSession`` per link over a ``SimulatedStore``, commits in groups, answers
/// after random delays, and can be killed at any time and before and after any of its writes.
final class ModelServer {
    final class Hosted {
        var session: ServerSession
        let link: SimulatedLink
        var watch = WireWatch()
        var device: DeviceID?
        var user: UserID?
        var name: DeviceName? {
            guard let user, let device else { return nil }
            return DeviceName(user: user, device: device)
        }
        var producer: ProducerID?
        var connectNumber: UInt64 = 0
        var login: UInt64 = 0
        /// Whether nobody connected with this number before.
        var isFresh = false
        /// Early publishes of a connect that is not fresh.
        var held: [Append] = []
        /// Whether it is the device's session.
        var isEstablished = false
        /// Refusals that wait until it is: an older link's copy may be on its way to the store until then.
        var unsettled: [Append] = []
        /// Channels that grew while this session's were loaded.
        var wakes: Set<ChannelID>?
        var armed: NIODeadline?
        var isOver = false
        /// The broadcasts that the session knows.
        var broadcasts: Set<ChannelID> = []
        /// Rooms that the session has no part in any more.
        var forgotten: Set<ChannelID> = []
        /// Another link of the device took over.
        var isReplaced = false
        /// For rules that are broken: the open lane of each channel, and the lanes that stand for it.
        var lanes: [LaneID: LaneHeader] = [:]
        var nextLane: UInt64 = 1_000
        var lastParts: [LaneID: ByteBuffer] = [:]
        /// For rules that are broken: up to where nothing of a channel is sent.
        var leftOut: [ChannelID: Offset] = [:]
        /// What CONNECTED has to say of each channel.
        var recoveries: [ChannelID: Recovery] = [:]
        /// The device says that it has no other cursors than those that it names.
        var namesAll = false
        /// Channels that CONNECTED has room for.
        var answers = FrameLimits.maximumCursors
        /// Its user's account is being erased, and nothing is sent to it any more.
        var isShutOut = false
        /// The user's generation when its credential was issued.
        var generation: UInt64 = 0

        init(session: ServerSession, link: SimulatedLink) {
            self.session = session
            self.link = link
        }
    }

    struct Append {
        let hosted: Hosted
        let channel: ChannelID
        let producer: ProducerID
        let publish: Publish
        /// Why it is not to be entered, unless it was before.
        var refusal: RefusalCode?
    }

    let store: SimulatedStore
    unowned let simulation: SessionSimulation
    let scheduler: VirtualScheduler
    var random: SeededRandom
    var sessions: [Int: Hosted] = [:]
    var current: [DeviceName: Hosted] = [:]
    var sent: [DeviceName: [ChannelID: Position]] = [:]
    var pending: [Append] = []
    /// What the app's own server publishes, which goes with the rest.
    var pendingService: [ServiceAppend] = []
    /// Accounts whose erasure this process is at.
    var erasing: Set<UserID> = []
    private(set) lazy var control = ModelControl(server: self)
    var isCommitScheduled = false
    /// Grows with every restart: what was started before it never ends.
    private(set) var life = 0
    private let configuration: ServerSessionConfiguration
    /// Publishes are refused for now with this probability.
    var refusesAppends = 0.02
    /// Writes fail, and nothing else.
    var isDiskFull = false
    /// A write is the process's last with this probability.
    var diesAtWrites = 0.004
    /// How long a session's channels take to load at most, in milliseconds.
    var slowestLoad: Int64 = 8

    /// What `CONNECTED` says; the session keeps to more where that rule is broken.
    private static let window: UInt64 = 6_000
    /// What may be unacknowledged in all channels: little of what there is, so that they wait for one another.
    private static let room = 6_000

    init(store: SimulatedStore, simulation: SessionSimulation, scheduler: VirtualScheduler, random: SeededRandom) {
        self.store = store
        self.simulation = simulation
        self.scheduler = scheduler
        self.random = random
        var configuration = ServerSessionConfiguration()
        configuration.limits = SessionLimits(
            maximumPayload: 3_000,
            channelWindow: store.faults.contains(.overfillWindow) ? 50 * Self.window : Self.window,
            maximumUnacknowledged: 12, minimumHeartbeat: 100, idleTimeout: 20_000)
        configuration.laneIdleTime = .milliseconds(300)
        configuration.readBytes = 1_300
        configuration.partBytes = SimulatedStore.partBytes
        configuration.leastBatch = 2
        configuration.partTimeout = .milliseconds(1_500)
        configuration.payloadRetryAfter = .milliseconds(30)
        configuration.payloadBudget = PayloadBudget(limit: 200_000, limitPerUser: 100_000)
        configuration.maximumReads = 2
        configuration.deliveryBudget = store.faults.contains(.overfillRoom) ? 50 * Self.room : Self.room
        configuration.maximumEndedChannels = 0
        configuration.historyBytes = 2_000
        configuration.backgroundHold = .milliseconds(300)
        configuration.lowPowerHold = .milliseconds(700)
        self.configuration = configuration
    }

    func has(_ fault: SimulatedFault) -> Bool { store.faults.contains(fault) }

    // MARK: Links

    func accept(_ link: SimulatedLink) {
        var configuration = configuration
        // Every other device has to find out otherwise that it lacks something.
        if link.number.isMultiple(of: 2) { configuration.maximumAnswers = 1 }
        let hosted = Hosted(
            session: ServerSession(
                configuration: configuration, observedAddress: "192.0.2.1:\(link.number)", now: scheduler.now),
            link: link)
        hosted.answers = configuration.maximumAnswers
        hosted.watch.window = Int(Self.window)
        // Each urgency's share may be exceeded by one entry.
        hosted.watch.room = Self.room + Urgency.allCases.count * (SimulatedStore.partBytes + 128)
        sessions[link.number] = hosted
        // Weakly: a link that is over shall not keep its session, nor the session its link.
        link.toServer = { [weak self, weak hosted] frame, lane, early in
            guard let self, let hosted, !hosted.isOver else { return }
            hosted.watch.received(frame, lane: lane)
            if case .cursors(let cursors) = frame { hosted.namesAll = cursors.areAll }
            if has(.trustEarlyData), early { input(hosted) { $0.handshakeCompleted(now: $1) } }
            input(hosted) { $0.received(frame, lane: lane, early: early, now: $1) }
        }
        link.finishedAtServer = { [weak self, weak hosted] lane in
            guard let self, let hosted else { return }
            input(hosted) { $0.laneFinished(lane, now: $1) }
        }
        link.handshakeAtServer = { [weak self, weak hosted] in
            guard let self, let hosted else { return }
            input(hosted) { $0.handshakeCompleted(now: $1) }
            // Of a link that is refused nothing is entered.
            if hosted.isEstablished { for append in hosted.held { self.append(append) } }
            hosted.held = []
        }
        link.closedAtServer = { [weak self, weak hosted] in
            guard let self, let hosted else { return }
            input(hosted) { session, _ in session.linkClosed() }
            forget(hosted)
        }
    }

    /// The process is killed: only the store is left, or its backup.
    func restart(fromBackup: Bool = false) {
        life += 1
        store.crash()
        pending = []
        pendingService = []
        erasing = []
        control.restarted()
        isCommitScheduled = false
        for hosted in inOrder {
            hosted.isOver = true
            hosted.link.abandon(.server)
            let tells = random.happens(0.7)
            hosted.link.cut(tellClient: tells, tellServer: false, losesToServer: true, losesToClient: true)
        }
        sessions = [:]
        current = [:]
        sent = [:]
        resumeErasures()
        guard fromBackup else { return }
        let before = store.truth.numbers
        if store.restore() { simulation.restored(lost: before.subtracting(store.truth.numbers)) }
    }

    var inOrder: [Hosted] { sessions.values.sorted { $0.link.number < $1.link.number } }

    func forget(_ hosted: Hosted) {
        noteSent(hosted)
        hosted.isOver = true
        sessions[hosted.link.number] = nil
        if let name = hosted.name, current[name] === hosted { current[name] = nil }
    }

    func noteSent(_ hosted: Hosted) {
        guard let name = hosted.name else { return }
        for entry in hosted.session.sentPositions {
            let known = sent[name]?[entry.channel]
            if known?.epoch != entry.position.epoch || (known?.offset ?? 0) < entry.position.offset {
                sent[name, default: [:]][entry.channel] = entry.position
            }
        }
    }

    /// Something that happens later, unless the process or the session has ended by then.
    func later(_ hosted: Hosted, within most: Int64 = 8, _ body: @escaping () -> Void) {
        let life = life
        scheduler.after(.milliseconds(Int64.random(in: 0...most, using: &random))) { [weak self] in
            guard let self, self.life == life, !hosted.isOver else { return }
            body()
        }
    }

    /// A transaction. The process may die before it or behind it, with or without a trace.
    /// - Parameter torn: what a crash leaves of it where a transaction is not one.
    /// - Returns: nil when the process died.
    func write<Value>(torn: () -> Void = {}, _ body: () -> Value) -> Value? {
        guard random.happens(diesAtWrites) else {
            defer { store.transactionEnded() }
            return body()
        }
        simulation.counts.serverCrashes += 1
        if has(.tearTransaction) {
            torn()
        } else if random.happens(0.6) {
            _ = body()
        }
        restart()
        return nil
    }

    // MARK: Sessions

    func input(_ hosted: Hosted, _ body: (inout ServerSession, NIODeadline) -> Void) {
        guard !hosted.isOver else { return }
        let wasClosed = hosted.session.isClosed
        body(&hosted.session, scheduler.now)
        while !hosted.isOver, let action = hosted.session.nextAction() {
            if wasClosed { simulation.violation("the server's session acts after its close: \(action)") }
            perform(action, hosted)
        }
        if !hosted.isOver { arm(hosted) }
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
        case .openLane, .prioritize: break
        case .send(let frame, let lane): send(frame, lane: lane, hosted)
        case .finishLane(let lane):
            hosted.lanes[lane] = nil
            hosted.link.finish(lane, from: .server)
        case .awaitDelivery(let lane, let question):
            hosted.link.whenDelivered(lane, from: .server) { [weak self, weak hosted] in
                guard let self, let hosted, !hosted.isOver else { return }
                input(hosted) { $0.laneDelivered(lane, question: question, now: $1) }
            }
        case .close:
            noteSent(hosted)
            hosted.link.close(from: .server)
        case .established: establish(hosted)
        case .authenticate(let connect): later(hosted) { [weak self] in self?.authenticate(connect, hosted) }
        case .append(let channel, let producer, let publish):
            if hosted.isReplaced { simulation.violation("a link that was taken over publishes") }
            take(Append(hosted: hosted, channel: channel, producer: producer, publish: publish))
        case .refuse(let channel, let producer, let publish, let code):
            take(Append(hosted: hosted, channel: channel, producer: producer, publish: publish, refusal: code))
        case .read(let channel, let after, let upTo, let bytes):
            later(hosted) { [weak self] in self?.read(channel, after: after, upTo: upTo, bytes: bytes, hosted) }
        case .readPayload(let read):
            later(hosted) { [weak self] in
                guard let self else { return }
                guard !random.happens(0.01) else { return input(hosted) { $0.payloadReadFailed(read, now: $1) } }
                let bytes = store.payload(
                    of: read.offset, in: read.channel, from: read.from, maximumBytes: read.maximumBytes)
                input(hosted) { $0.payloadRead(read, bytes: bytes, now: $1) }
            }
        case .readHistory(let read): readHistory(read, hosted)
        case .storeCursor(let channel, let position): storeCursor(channel, position, hosted)
        case .join(let request):
            later(hosted) { [weak self] in
                self?.change(request.request, request.room, .join(create: true), hosted)
            }
        case .leave(let request):
            later(hosted) { [weak self] in self?.change(request.request, request.room, .leave, hosted) }
        case .manage(let command):
            later(hosted) { [weak self] in
                self?.change(command.request, command.room, .act(command.action), hosted)
            }
        case .listMembers(let request):
            // No model device asks.
            input(hosted) { $0.membersRead(MembersPage(request: request.request, refusal: .overloaded), now: $1) }
        case .forget(let channel):
            noteSent(hosted)
            hosted.forgotten.insert(channel)
        case .eraseAccount: later(hosted) { [weak self] in self?.eraseAccount(of: hosted) }
        case .logout: later(hosted) { [weak self] in self?.logOut(hosted) }
        case .signal, .signalDropped, .sendSignal, .watch, .unwatch, .setVisibility:
            break  // No model device signals or watches.
        case .delivered(let sender, let origin): reached(sender, origin, hosted)
        // No model device asks.
        case .markRead, .listConversations, .changeConversation: break
        case .refresh:
            later(hosted) { [weak self] in
                guard let self, var identity = hosted.session.identity else { return }
                let rights = Rights(of: identity.user, in: simulation)
                rights.apply(to: &identity)
                apply(rights, to: hosted)
                let time = simulation.wall.milliseconds
                input(hosted) { $0.refreshed(identity, time: time, now: $1) }
            }
        }
    }

    /// A sender is told that a message is with its recipient: then the recipient's device has confirmed the copy.
    private func reached(_ sender: UserID, _ origin: Position, _ hosted: Hosted) {
        guard let name = hosted.name else { return }
        simulation.checker.reached(origin, from: sender, in: .user(name.user), on: name, truth: store.truth)
    }

    /// What leaves for the client, seen by the watch.
    func send(_ frame: Frame, lane: LaneID, _ hosted: Hosted) {
        var frame = frame
        if hosted.isShutOut {
            simulation.violation("link \(hosted.link.number): \(frame.name) is sent to a device of an erased account")
        }
        if case .connected(var connected) = frame {
            connected.limits.channelWindow = Self.window
            if has(.lieAboutRecovery) {
                for index in connected.channels.indices { connected.channels[index].recovery = .recovered }
            }
            if has(.recoverSwept) { connected.channels = connected.channels.map(recovered) }
            check(connected, hosted)
            frame = .connected(connected)
        }
        if case .gap = frame, has(.hideGap) { return }
        if case .skip = frame, has(.hideSkip) { return }
        if case .deliver(let deliver) = frame, let channel = hosted.lanes[lane]?.channel,
            deliver.entry.offset <= hosted.leftOut[channel] ?? 0
        {
            return
        }
        if case .deliver(let deliver) = frame, has(.receiptOnSend), let origin = deliver.entry.origin {
            reached(deliver.entry.sender, origin, hosted)
        }
        if case .deliver(var deliver) = frame, has(.forgetMarks) {
            deliver.redelivered = false
            frame = .deliver(deliver)
        }
        if case .lane(let header) = frame { hosted.lanes[lane] = header }
        if case .batch = frame { simulation.counts.batches += 1 }
        let problem = hosted.watch.sent(
            frame, lane: lane, to: hosted.user, hosted.device, truth: store.durable,
            time: simulation.wall.milliseconds)
        if let problem { simulation.violation("link \(hosted.link.number): \(problem)") }
        simulation.note { "link \(hosted.link.number) lane \(lane.rawValue) < \(frame)" }
        if has(.changeLanes), lane != .control, let header = hosted.lanes[lane] {
            if case .lane = frame { return }
            let own = LaneID(rawValue: hosted.nextLane)
            hosted.nextLane += 1
            hosted.link.send(.lane(header), lane: own, from: .server)
            hosted.link.send(frame, lane: own, from: .server)
            return hosted.link.finish(own, from: .server)
        }
        if case .published = frame, has(.answerTwice) { hosted.link.send(frame, lane: lane, from: .server) }
        for frame in damaged(frame, lane: lane, hosted) { hosted.link.send(frame, lane: lane, from: .server) }
        if case .deliver(let deliver) = frame, has(.confirmOnSend), let header = hosted.lanes[lane] {
            storeCursor(header.channel, Position(epoch: header.epoch, offset: deliver.entry.offset), hosted)
        }
    }

    /// For a rule that is broken: of what a sweep took nothing seems to be gone.
    private func recovered(_ answer: ChannelAnswer) -> ChannelAnswer {
        guard answer.recovery == .gap, store.truth.lives[answer.channel] != nil else { return answer }
        return ChannelAnswer(channel: answer.channel, head: answer.head, recovery: .recovered)
    }

    /// What the broken rules make of a part, or of a batch.
    private func damaged(_ frame: Frame, lane: LaneID, _ hosted: Hosted) -> [Frame] {
        if case .batch(var batch) = frame, has(.loseGroup), random.happens(0.3) {
            batch.groups.removeFirst()
            return [.batch(batch)]
        }
        guard case .part(let part) = frame, !part.isEnd else { return [frame] }
        if has(.losePart), random.happens(0.3) { return [] }
        if has(.doublePart), random.happens(0.3) { return [frame, frame] }
        guard has(.swapParts) else { return [frame] }
        let last = hosted.lastParts.updateValue(part.bytes, forKey: lane)
        guard let last, last.readableBytes == part.bytes.readableBytes, random.happens(0.5) else { return [frame] }
        return [.part(Part(offset: part.offset, bytes: last))]
    }

    private func storeCursor(_ channel: ChannelID, _ position: Position, _ hosted: Hosted) {
        guard let user = hosted.user, let device = hosted.device else { return }
        simulation.checker.storesCursor(position, in: channel, of: DeviceName(user: user, device: device))
        let cursor = ChannelPosition(channel: channel, position: position)
        later(hosted) { [weak self] in self?.keep(cursor, user, device, hosted) }
    }

    /// Writes a cursor, as soon as there is room.
    private func keep(_ cursor: ChannelPosition, _ user: UserID, _ device: DeviceID, _ hosted: Hosted) {
        guard !isDiskFull else {
            return later(hosted, within: 60) { [weak self] in self?.keep(cursor, user, device, hosted) }
        }
        _ = write { store.advance(user, device, to: [cursor]) }
    }
}
