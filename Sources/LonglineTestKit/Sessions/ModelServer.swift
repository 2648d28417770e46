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
    private var current: [DeviceID: Hosted] = [:]
    private var sent: [DeviceID: [ChannelID: Position]] = [:]
    private var pending: [Append] = []
    private var isCommitScheduled = false
    /// Grows with every restart: what was started before it never ends.
    private var life = 0
    private let configuration: ServerSessionConfiguration
    /// Publishes are refused for now with this probability.
    var refusesAppends = 0.02
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

    private func has(_ fault: SimulatedFault) -> Bool { store.faults.contains(fault) }

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
        guard fromBackup else { return }
        let before = store.truth.numbers
        if store.restore() { simulation.restored(lost: before.subtracting(store.truth.numbers)) }
    }

    var inOrder: [Hosted] { sessions.values.sorted { $0.link.number < $1.link.number } }

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
        case .logout, .eraseAccount, .signal, .signalDropped, .sendSignal, .watch, .unwatch, .setVisibility:
            break  // No model device logs out, erases, signals or watches.
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
        guard let user = hosted.user, let device = hosted.device else { return }
        simulation.checker.reached(origin, from: sender, in: .user(user), on: device, truth: store.truth)
    }

    /// What leaves for the client, seen by the watch.
    private func send(_ frame: Frame, lane: LaneID, _ hosted: Hosted) {
        var frame = frame
        if case .connected(var connected) = frame {
            connected.limits.channelWindow = Self.window
            if has(.lieAboutRecovery) {
                for index in connected.channels.indices { connected.channels[index].recovery = .recovered }
            }
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
        for frame in damaged(frame, lane: lane, hosted) { hosted.link.send(frame, lane: lane, from: .server) }
        if case .deliver(let deliver) = frame, has(.confirmOnSend), let header = hosted.lanes[lane] {
            storeCursor(header.channel, Position(epoch: header.epoch, offset: deliver.entry.offset), hosted)
        }
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
        simulation.checker.storesCursor(position, in: channel, of: device)
        later(hosted) { [weak self] in
            _ = self?.write {
                self?.store.advance(user, device, to: [ChannelPosition(channel: channel, position: position)])
            }
        }
    }

    // MARK: Connect

    private func authenticate(_ connect: Connect, _ hosted: Hosted) {
        guard let (user, device, login) = simulation.owner(of: connect.credential) else {
            return input(hosted) { $0.rejected(Close(code: .credentialInvalid), now: $1) }
        }
        if let close = refusal(of: user, device, login) { return input(hosted) { $0.rejected(close, now: $1) } }
        let admission = write {
            store.admit(user, device, producer: connect.producer, connectNumber: connect.connectNumber)
        }
        guard let admission else { return }
        guard admission != .stale else { return input(hosted) { $0.rejected(Close(code: .stale), now: $1) } }
        guard let record = write({ store.advance(user, device, to: connect.cursors) }) else { return }
        for other in sessions.values where other.device == device { noteSent(other) }
        hosted.device = device
        hosted.user = user
        hosted.producer = connect.producer
        hosted.connectNumber = connect.connectNumber
        hosted.login = login
        hosted.isFresh = admission == .returning || admission == .firstOfDevice
        let isResumed = sent[device] != nil
        let tenant = simulation.tenant
        let channels = store.channels(of: user, device).map { channel in
            var channel = channel
            channel.cursor = record.cursors[channel.channel]
            channel.sent = sent(channel.channel, epoch: channel.head.epoch, to: device)
            return channel
        }
        hosted.wakes = []
        let rights = Rights(of: user, in: simulation)
        var identity = SessionIdentity(
            tenant: tenant, user: user, device: device, loginEpoch: login, tokenID: "1", expiry: 1 << 52,
            mayPublish: true, mayReceive: true, mayJoin: true, mayManage: true)
        rights.apply(to: &identity)
        hosted.watch.stopped = rights.stopped
        hosted.recoveries = recoveries(channels, connect, hosted, rights)
        if has(.takeOverEarly) { establish(hosted) }
        if has(.evictEarly) { _ = takePlace(hosted, user, device) }
        later(hosted, within: slowestLoad) { [weak self, identity] in
            self?.grant(
                SessionGrant(
                    identity: identity, session: UInt64(hosted.link.number), resumed: isResumed,
                    cursorVersion: record.version,
                    channels: channels, ticket: self?.simulation.ticket(for: connect.credential)), hosted)
        }
    }

    private func grant(_ grant: SessionGrant, _ hosted: Hosted) {
        input(hosted) { $0.authenticated(grant, time: simulation.wall.milliseconds, now: $1) }
        let wakes = hosted.wakes ?? []
        hosted.wakes = nil
        simulation.noteConnected(early: hosted.link.isEarly)
        guard !has(.forgetWakesWhileLoading) else { return }
        for channel in wakes.sorted(by: { $0.description < $1.description }) { wake(hosted, channel) }
        // A join or leave of another device may have come in between, too.
        guard let user = hosted.user, let device = hosted.device else { return }
        let known = Dictionary(uniqueKeysWithValues: grant.channels.map { ($0.channel, $0) })
        hosted.broadcasts = Set(known.keys)
        for var channel in store.channels(of: user, device) {
            hosted.broadcasts.insert(channel.channel)
            let old = known[channel.channel]
            guard old?.after != channel.after || old?.upTo != channel.upTo else { continue }
            channel.sent = sent(channel.channel, epoch: channel.head.epoch, to: device)
            input(hosted) { $0.channelChanged(channel, now: $1) }
        }
    }

    func sent(_ channel: ChannelID, epoch: Epoch, to device: DeviceID) -> Offset? {
        sent[device]?[channel].flatMap { $0.epoch == epoch ? $0.offset : nil }
    }

    // MARK: Places

    /// Why a login is refused at once whose place another one has.
    private func refusal(of user: UserID, _ device: DeviceID, _ login: UInt64) -> Close? {
        guard simulation.hasOnePlace(user), !has(.ignorePlace),
            case .refused(let holder, _) = store.place(user, device, login: login, takes: false)
        else { return nil }
        return Close(code: holder == device ? .replaced : .evicted)
    }

    /// Takes the place of a session's login, and ends the sessions that lose it.
    /// - Returns: whether the session goes on.
    private func takePlace(_ hosted: Hosted, _ user: UserID, _ device: DeviceID) -> Bool {
        guard simulation.hasOnePlace(user), !has(.ignorePlace) else { return true }
        if !hosted.link.isHandshakeComplete {
            simulation.violation("\(device) took a place before its handshake was complete")
        }
        let written = write { store.place(user, device, login: hosted.login, takes: true) }
        guard let answer = written ?? nil else { return false }
        if case .refused(let holder, _) = answer {
            let close = Close(code: holder == device ? .replaced : .evicted)
            input(hosted) { $0.close(close, now: $1) }
            return false
        }
        for other in inOrder where other.user == user && other.device != device && other.login <= hosted.login {
            input(other) { $0.close(Close(code: .evicted), now: $1) }
        }
        return true
    }

    private func establish(_ hosted: Hosted) {
        guard let device = hosted.device, let user = hosted.user, takePlace(hosted, user, device) else { return }
        simulation.established(user, login: hosted.login)
        if !hosted.link.isHandshakeComplete {
            simulation.violation("a session took effect before its handshake was complete")
        }
        if let newer = current[device] {
            if newer.login > hosted.login {
                guard has(.ignoreLogin) else {
                    return input(hosted) { $0.claimRefused(Close(code: .replaced), now: $1) }
                }
                simulation.violation("\(device)'s login \(newer.login) was ended for its login \(hosted.login)")
            }
            if newer.producer == hosted.producer, newer.connectNumber > hosted.connectNumber {
                // Its handshake took so long that a later connect was established meanwhile.
                guard has(.ignoreConnectNumber) else {
                    return input(hosted) { $0.claimRefused(Close(code: .stale), now: $1) }
                }
                simulation.violation("\(device)'s connect \(hosted.connectNumber) took over from a later one")
            }
        }
        let old = current.updateValue(hosted, forKey: device)
        if let old, old !== hosted {
            old.isReplaced = true
            if !has(.keepOldSession) { input(old) { $0.close(Close(code: .replaced), now: $1) } }
        }
        hosted.isEstablished = true
        for append in hosted.unsettled { self.append(append) }
        hosted.unsettled = []
    }

    // MARK: The log

    private func take(_ append: Append) {
        if append.hosted.isFresh || append.hosted.link.isHandshakeComplete {
            self.append(append)
        } else {
            append.hosted.held.append(append)
        }
    }

    private func append(_ append: Append) {
        var append = append
        if append.refusal == nil, let user = append.hosted.user, simulation.isDeniedByApp(user) {
            append.refusal = .forbidden
        }
        if let code = append.refusal, has(.refuseWithoutLedger) {
            let refused = Refused(id: append.publish.id, code: code, retryAfter: 0)
            return later(append.hosted) { [weak self] in self?.answer(append, .refused(refused)) }
        }
        if append.refusal != nil, !append.hosted.isEstablished { return append.hosted.unsettled.append(append) }
        guard !random.happens(refusesAppends) else {
            let refused = Refused(id: append.publish.id, code: .overloaded, retryAfter: 30)
            return later(append.hosted) { [weak self] in self?.answer(append, .refused(refused)) }
        }
        pending.append(append)
        if has(.surviveFailedSync), random.happens(0.05) { store.delaySync() }
        if has(.acknowledgeBeforeDurable) || has(.deliverBeforeDurable) {
            store.delaySync()
            let life = life
            scheduler.after(.milliseconds(200)) { [weak self] in if self?.life == life { self?.store.sync() } }
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

    /// One transaction for all publishes that wait; then the answers, between which the process may die as well.
    private func commit() {
        isCommitScheduled = false
        let batch = pending.filter { $0.hosted.device != nil }
        pending = []
        var outcomes: [(Append, PublishOutcome)] = []
        var woken: Set<ChannelID> = []
        let isDone: Void? = write(torn: {
            for append in batch {
                guard let user = append.hosted.user, let device = append.hosted.device else { continue }
                store.enterAnew(
                    AppendRequest(
                        device: store.key(user, device), producer: append.producer, channel: append.channel,
                        publish: append.publish, refusal: append.refusal))
            }
        }) {
            for append in batch {
                guard let user = append.hosted.user, let device = append.hosted.device else { continue }
                let result = store.append(
                    append.publish, channel: append.channel, user: user, device: device, producer: append.producer,
                    refusal: append.refusal)
                outcomes.append((append, result.outcome))
                woken.formUnion(result.woken)
            }
        }
        guard isDone != nil else { return }
        let life = life
        let isDurable = store.isSynced
        for (append, outcome) in outcomes where isDurable || !has(.deliverBeforeDurable) {
            answer(append, outcome)
            guard self.life == life else { return }
        }
        if isDurable || !has(.acknowledgeBeforeDurable) { wake(woken) }
    }

    func wake(_ channels: Set<ChannelID>) {
        guard !has(.forgetWakes) else { return }
        for channel in channels.sorted(by: { $0.description < $1.description }) {
            for hosted in inOrder { wake(hosted, channel) }
        }
    }

    private func wake(_ hosted: Hosted, _ channel: ChannelID) {
        if hosted.wakes != nil {
            hosted.wakes?.insert(channel)
            return
        }
        guard let user = hosted.user, store.truth.stint(of: user, in: channel) != nil,
            let head = store.head(channel)?.position
        else { return }
        if has(.pushDirectly), let lane = hosted.lanes.first(where: { $0.value.channel == channel })?.key,
            let entry = store.truth.logs[channel]?.entries.last
        {
            send(.deliver(Deliver(entry: entry, redelivered: false)), lane: lane, hosted)
        }
        meet(hosted, channel, user)
        input(hosted) { $0.logAdvanced(channel, head: head, now: $1) }
    }

    /// A broadcast that is newer than the session.
    private func meet(_ hosted: Hosted, _ channel: ChannelID, _ user: UserID) {
        guard case .all = channel, let device = hosted.device, hosted.broadcasts.insert(channel).inserted,
            let news = store.channels(of: user, device).first(where: { $0.channel == channel })
        else { return }
        input(hosted) { $0.channelChanged(news, now: $1) }
    }

    private func read(_ channel: ChannelID, after: Offset, upTo: Offset?, bytes: Int, _ hosted: Hosted) {
        guard !random.happens(0.01), let page = store.read(channel, after: after, upTo: upTo, maximumBytes: bytes)
        else { return input(hosted) { $0.readFailed(channel, now: $1) } }
        input(hosted) { $0.pageRead(channel, page: page, now: $1) }
    }
}
