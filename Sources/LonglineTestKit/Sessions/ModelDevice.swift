import LonglineSession
import LonglineWire
import NIOCore

/// A device of a simulation: an app with an outbox, a cursor and a ticket that survive its process, and a
/// ``ClientSession`` that doesn't. Its process may die before and behind any of its writes.
final class ModelDevice {
    /// What is on the device's disk.
    struct Durable {
        var producer: ProducerID
        var nextID: PublishID = 1
        var connectNumber: UInt64 = 0
        var rows: [OutboxRow] = []
        var lastID: [ChannelID: PublishID] = [:]
        var cursors: [ChannelID: Position] = [:]
        var cursorVersion: UInt64 = 0
        var hasTicket = false
    }

    let app: MessageChecker.App
    var user: UserID { app.user }
    var device: DeviceID { app.device }
    /// Which of the device's deliberate logins it is.
    let login: UInt64
    private(set) var link: SimulatedLink?
    private(set) var durable: Durable
    private var backup: Durable
    unowned let simulation: SessionSimulation
    private let scheduler: VirtualScheduler
    var random: SeededRandom
    var session: ClientSession
    /// Grows with every restart of the process.
    private var life = 0
    private var armed: NIODeadline?
    private var isReconnectPending = false
    private var staleStep: UInt64 = 1
    var nextRequest: UInt64 = 1
    var rooms: [UInt64: ChannelID] = [:]
    private var confirmTimes: [ChannelID: NIODeadline] = [:]
    private var wasRestored = false
    /// Whether the app stays away.
    private(set) var isOffline = false
    /// Whether a later login ended it for good.
    private(set) var isOver = false
    /// Nothing happens before, although time goes on.
    private var asleepUntil = NIODeadline.uptimeNanoseconds(0)
    private var waiting: [() -> Void] = []
    /// What a clock misses that stops in sleep.
    private var slept = TimeAmount.zero
    /// Until when the app takes long over everything.
    private var slowUntil = NIODeadline.uptimeNanoseconds(0)
    var lanes: [LaneID: LaneHeader] = [:]
    private var serverLanes: [LaneID: LaneHeader] = [:]
    var lastParts: [LaneID: ByteBuffer] = [:]
    var watch = ClientWatch()
    /// Pages of history that were asked for.
    var pages: [UInt64: AskedPage] = [:]
    /// The cursors that the next CONNECT has to name, as the server's record was an older one.
    var owedCursors: Set<ChannelID> = []
    var namedCursors: Set<ChannelID> = []
    /// Those that went before it.
    var namedBefore: Set<ChannelID> = []
    /// For rules that are broken: each publish's `after` when it was written, where skips ended, and the next lane.
    private var drawnAfter: [PublishTag: PublishID] = [:]
    var skipEnds: [ChannelID: Set<Position>] = [:]
    var nextLane: UInt64 = 300
    /// Publishes that were refused for now: later ones may be entered meanwhile, and the ledger forget them.
    private var putOff: Set<PublishID> = []
    /// A write is the process's last with this probability.
    var diesAtWrites = 0.001
    private let configuration: ClientSessionConfiguration

    init(
        app: MessageChecker.App, login: UInt64, simulation: SessionSimulation, scheduler: VirtualScheduler,
        random: SeededRandom
    ) {
        self.app = app
        self.login = login
        self.simulation = simulation
        self.scheduler = scheduler
        self.random = random
        var configuration = ClientSessionConfiguration()
        configuration.heartbeat = HeartbeatPolicy(interval: .milliseconds(1_000), answerTimeout: .milliseconds(800))
        configuration.connectTimeout = .milliseconds(1_500)
        configuration.acknowledgeEvery = 3
        configuration.acknowledgeDelay = .milliseconds(40)
        configuration.retryDelay = .milliseconds(100)
        configuration.laneIdleTime = .milliseconds(200)
        // No more unanswered publishes than the simulated ledger remembers.
        configuration.earlyBytes = 3_000
        configuration.partBytes = SimulatedStore.partBytes
        configuration.cursorsPerFrame = app.number.isMultiple(of: 3) ? 1 : 2
        configuration.acceptsBatches = app.number.isMultiple(of: 2)
        self.configuration = configuration
        durable = Durable(producer: .random(using: &self.random))
        backup = durable
        session = ClientSession(
            configuration: configuration, producer: durable.producer, cursors: [:], cursorVersion: 0)
    }

    func has(_ fault: SimulatedFault) -> Bool { simulation.faults.contains(fault) }

    /// The device's clock, which counts sleep.
    private var now: NIODeadline { has(.clockStopsInSleep) ? scheduler.now - slept : scheduler.now }

    // MARK: Links

    func connect() {
        guard link == nil, !isOffline, !isOver else { return }
        if isAsleep { return whenAwake { $0.connect() } }
        if has(.connectBeforeStored) {
            let life = life
            scheduler.after(.milliseconds(5)) { [weak self] in
                guard let self, self.life == life else { return }
                _ = write { $0.connectNumber += 1 }
            }
        } else {
            guard write({ $0.connectNumber += 1 }) else { return }
        }
        let link = simulation.openLink(isEarly: durable.hasTicket)
        self.link = link
        lanes = [:]
        serverLanes = [:]
        watch = ClientWatch()
        pages = [:]
        nextLane = 300
        isReconnectPending = false
        link.toClient = { [weak self, weak link] frame, lane in
            self?.whenAwake { device in
                guard let link, device.link === link, link.reachesClient else { return }
                device.take(frame, lane: lane)
            }
        }
        link.finishedAtClient = { [weak self, weak link] lane in
            self?.whenAwake { device in
                guard let link, device.link === link else { return }
                device.input { $0.laneFinished(lane, now: $1) }
            }
        }
        link.closedAtClient = { [weak self, weak link] in
            self?.whenAwake { device in
                guard let link, device.link === link else { return }
                device.leaveLink()
            }
        }
        link.start()
        if has(.renumberOnReconnect) { renumber() }
        if has(.retagOnReconnect) {
            for index in durable.rows.indices { durable.rows[index].publish.tag = random.next() }
        }
        let credential = simulation.credential(for: device, login: login, ticket: durable.hasTicket)
        let number = durable.connectNumber + (has(.connectBeforeStored) ? 1 : 0)
        let rows = durable.rows
        input {
            $0.linkOpened(
                credential: credential, connectNumber: number, supportsPathChange: link.hasStreams, outbox: rows,
                now: $1)
        }
    }

    private func leaveLink() {
        link = nil
        input { $0.linkClosed(now: $1) }
        reconnectLater()
    }

    private func reconnectLater() {
        guard !isReconnectPending else { return }
        isReconnectPending = true
        let life = life
        scheduler.after(.milliseconds(Int64.random(in: 1...300, using: &random))) { [weak self] in
            guard let self, self.life == life else { return }
            isReconnectPending = false
            connect()
        }
    }

    /// The app goes away for a while, without a word to the server.
    func goOffline(for time: TimeAmount) {
        guard !isOffline, !isAsleep else { return }
        isOffline = true
        link?.cut(tellClient: false, tellServer: false, losesToServer: true, losesToClient: true)
        link?.abandon(.client)
        if link != nil { leaveLink() }
        scheduler.after(time) { [weak self] in
            self?.isOffline = false
            self?.connect()
        }
    }

    /// The device sleeps: what arrives and what is due waits, its clock goes on.
    func sleep(for time: TimeAmount) {
        guard !isAsleep else { return }
        asleepUntil = scheduler.now + time
        scheduler.at(asleepUntil) { [weak self] in
            guard let self else { return }
            slept = slept + time
            let waiting = waiting
            self.waiting = []
            for body in waiting { body() }
            arm()
        }
    }

    var isAsleep: Bool { scheduler.now < asleepUntil }

    private func whenAwake(_ body: @escaping (ModelDevice) -> Void) {
        guard isAsleep || !waiting.isEmpty else { return body(self) }
        let life = life
        waiting.append { [weak self] in
            guard let self, self.life == life else { return }
            body(self)
        }
    }

    /// For a while the app takes long to be done with anything.
    func becomeSlow(for time: TimeAmount) { slowUntil = scheduler.now + time }

    // MARK: The process and its disk

    enum Restart { case killed, fromBackup, withNothing }

    /// The process is killed and started again: from its disk, from an older copy of it, or from nothing.
    func restart(_ kind: Restart = .killed) {
        life += 1
        waiting = []
        switch kind {
        case .killed: break
        case .fromBackup: durable = backup
        case .withNothing: durable = Durable(producer: .random(using: &random))
        }
        if kind != .killed {
            wasRestored = true
            simulation.checker.forgot(
                app, kept: Set(durable.rows.compactMap { MessageChecker.number(of: $0.publish.payload) }))
        }
        link?.cut(
            tellClient: false, tellServer: random.happens(0.5), losesToServer: random.happens(0.5), losesToClient: true)
        link?.abandon(.client)
        link = nil
        armed = nil
        isReconnectPending = false
        session = ClientSession(
            configuration: configuration, producer: durable.producer, cursors: durable.cursors,
            cursorVersion: durable.cursorVersion)
        simulation.checker.restarted(app, cursors: durable.cursors, isOlder: kind != .killed)
        simulation.note { "\(app.device) \(app.number) restarts: \(kind)" }
        reconnectLater()
    }

    func takeBackup() { backup = durable }

    /// A write to the device's disk. The process may die before it or behind it.
    /// - Returns: whether it lives.
    private func write(_ body: (inout Durable) -> Void) -> Bool {
        guard random.happens(diesAtWrites) else {
            body(&durable)
            return true
        }
        if random.happens(0.5) { body(&durable) }
        simulation.counts.deviceCrashes += 1
        restart()
        return false
    }

    // MARK: The app

    func publish(
        _ number: UInt64, _ kind: PublishKind = .message, in channel: ChannelID, to recipient: UserID?, bytes: Int,
        timeToLive: UInt64
    ) {
        guard !isOver, !isAsleep else { return }
        var payload = ByteBuffer(integer: number)
        payload.writeBytes((0..<bytes).map { UInt8(truncatingIfNeeded: $0 &* 31 / 7 &+ Int(number)) })
        let publish = Publish(
            id: durable.nextID, tag: random.next(), after: durable.lastID[channel] ?? 0, recipient: recipient,
            kind: kind, timeToLive: timeToLive, payload: payload)
        drawnAfter[publish.tag] = publish.after
        let row = OutboxRow(channel: channel, publish: publish, queuedAt: now)
        func store(_ durable: inout Durable) {
            durable.nextID += 1
            durable.lastID[channel] = publish.id
            durable.rows.append(row)
        }
        simulation.checker.published(row, by: app, at: scheduler.now)
        if has(.sendBeforeStored) {
            input { session, now in _ = session.enqueue(row, now: now) }
            return store(&durable)
        }
        let isAlive = write(store)
        // What the process did not live to write was never accepted.
        if !durable.rows.contains(where: { $0.publish.tag == publish.tag }) { simulation.checker.withdrawn(number) }
        guard isAlive else { return }
        input { session, now in
            if !session.enqueue(row, now: now) { self.simulation.violation("a row was not taken") }
        }
    }

    func refresh() {
        guard !isOver, !isAsleep else { return }
        input { session, now in _ = session.refresh(token: "token", now: now) }
    }

    private func renumber() {
        durable.producer = .random(using: &random)
        durable.nextID = 1
        durable.lastID = [:]
        durable.connectNumber = 1
        for index in durable.rows.indices {
            let channel = durable.rows[index].channel
            durable.rows[index].publish.id = durable.nextID
            durable.rows[index].publish.after = durable.lastID[channel] ?? 0
            drawnAfter[durable.rows[index].publish.tag] = durable.rows[index].publish.after
            durable.lastID[channel] = durable.nextID
            durable.nextID += 1
        }
        let producer = durable.producer
        session.producerRenewed(producer)
    }

    // MARK: The session

    private func take(_ frame: Frame, lane: LaneID) {
        var frame = frame
        watch.received(frame)
        if case .connected(let connected) = frame { noteRecord(connected) }
        switch frame {
        case .lane(let header): serverLanes[lane] = header
        case .refused(let refused) where refused.code == .idReused && has(.takeReusedForDone):
            let place = Position(epoch: serverLanes[lane]?.epoch ?? 0, offset: 0)
            frame = .published(Published(id: refused.id, position: place, time: 0))
        case .refused(let refused) where refused.code.isTemporary: putOff.insert(refused.id)
        case .connected(var connected) where has(.overrunWindow):
            connected.limits.channelWindow *= 100
            connected.limits.maximumUnacknowledged = 1_000
            frame = .connected(connected)
        case .connected(var connected) where has(.ignoreOlderRecord):
            connected.cursorVersion = max(connected.cursorVersion, session.cursorVersion)
            frame = .connected(connected)
        case .deliver(let deliver):
            if has(.ignoreChain), deliver.entry.following == 0, let header = serverLanes[lane] {
                return give(deliver, epoch: header.epoch, channel: header.channel)
            }
        default: break
        }
        input { $0.received(frame, lane: lane, now: $1) }
    }

    func input(_ body: (inout ClientSession, NIODeadline) -> Void) {
        body(&session, now)
        while let action = session.nextAction() { perform(action) }
        arm()
    }

    private func arm() {
        guard !isAsleep, let deadline = session.nextDeadline, deadline < armed ?? .distantFuture else { return }
        armed = deadline
        let life = life
        scheduler.at(has(.clockStopsInSleep) ? deadline + slept : deadline) { [weak self] in
            guard let self, self.life == life, armed == deadline else { return }
            armed = nil
            // What is due in sleep is seen to afterwards.
            guard !isAsleep else { return }
            input { session, now in session.deadlineReached(now: now, random: &self.random) }
        }
    }

    private func perform(_ action: ClientAction) {
        let truth = simulation.store.durable
        switch action {
        case .openLane, .prioritize: break
        case .awaitRoom(let lane):
            let life = life
            scheduler.after(.milliseconds(Int64.random(in: 0...5, using: &random))) { [weak self, weak link] in
                guard let self, self.life == life, let link, self.link === link else { return }
                whenAwake { device in
                    guard device.link === link else { return }
                    device.input { $0.laneWritable(lane, true, now: $1) }
                }
            }
        case .send(let frame, let lane): send(frame, lane: lane)
        case .finishLane(let lane):
            if let problem = watch.finished(lane) { simulation.violation("\(device): \(problem)") }
            link?.finish(lane, from: .client)
        case .connected(let connected):
            guard write({ $0.cursorVersion = connected.cursorVersion }) else { return }
            staleStep = 1
        case .storeTicket: _ = write { $0.hasTicket = true }
        case .published(let channel, let published): takePublished(published, channel)
        case .refused(let channel, let refused): takeRefused(refused, channel)
        case .renewProducer:
            simulation.counts.renewals += 1
            renumber()
        case .deliver(let channel, let epoch, let deliver): give(deliver, epoch: epoch, channel: channel)
        case .skipped(let channel, let epoch, let skip):
            skipEnds[channel, default: []].insert(Position(epoch: epoch, offset: skip.to))
            simulation.checker.skipped(
                skip, epoch: epoch, in: channel, to: app, truth: truth, latest: simulation.wall.latest)
        case .gap(let channel, let epoch, let gap):
            simulation.counts.gaps += 1
            simulation.checker.lost(gap, epoch: epoch, in: channel, to: app, truth: truth)
            confirmLater(channel, Position(epoch: epoch, offset: gap.first))
        case .roomAnswered(let answer):
            guard answer.refusal == nil, let room = rooms.removeValue(forKey: answer.request) else { return }
            simulation.checker.changedRoom(at: answer.position, in: room, by: app, truth: truth)
        case .history(let result):
            guard let asked = pages.removeValue(forKey: result.answer.request) else { return }
            simulation.counts.historyPages += result.answer.refusal == nil ? 1 : 0
            simulation.checker.page(result, of: asked, to: app, truth: truth, latest: simulation.wall.latest)
        case .members, .refreshed, .stopped, .behind, .observedAddress, .heartbeatLearned, .signal,
            .sendSignal, .presence,
            .presenceAnswered, .erasureRefused:
            break
        case .conversations, .conversationState, .receipt: break
        case .probePath:
            let works = random.happens(0.3)
            if works { input { $0.pathChanged(now: $1) } }
        case .end(let end): ended(end)
        }
    }

    private func send(_ frame: Frame, lane: LaneID) {
        simulation.note { "\(app.device) \(app.number) link \(link?.number ?? 0) lane \(lane.rawValue) > \(frame)" }
        var frame = frame
        if let problem = watch.sent(frame, lane: lane) { simulation.violation("\(device): \(problem)") }
        switch frame {
        case .connect(var connect):
            connect.cursors = named(connect.cursors)
            checkConnect(connect)
            frame = .connect(connect)
        case .cursors(var cursors):
            cursors.cursors = named(cursors.cursors)
            namedBefore.formUnion(cursors.cursors.map(\.channel))
            frame = .cursors(cursors)
        case .lane(let header): lanes[lane] = header
        case .publish(var publish):
            if has(.keepAfter), let drawn = drawnAfter[publish.tag] {
                publish.after = drawn
                frame = .publish(publish)
            }
            let isStored = durable.rows.contains { $0.publish.tag == publish.tag && $0.publish.id == publish.id }
            simulation.checker.sent(publish, isStored: isStored, at: scheduler.now)
        case .acknowledge(let acknowledge):
            if let header = lanes[lane] {
                let position = Position(epoch: header.epoch, offset: acknowledge.offset)
                if has(.keepSkipsBack), skipEnds[header.channel]?.contains(position) == true { return }
                simulation.checker.acknowledges(position, in: header.channel, by: app)
            }
        default: break
        }
        if has(.finishLanesEarly), case .publish(let publish) = frame, publish.following == 0 {
            return sendOnOwnLane(publish, lanes[lane])
        }
        link?.send(damaged(frame, lane: lane), lane: lane, from: .client)
    }

    private func give(_ deliver: Deliver, epoch: Epoch, channel: ChannelID) {
        simulation.note { "\(app.device) \(app.number) is given \(channel) \(deliver.entry.offset)" }
        simulation.checker.delivered(deliver, epoch: epoch, in: channel, to: app, truth: simulation.store.durable)
        confirmLater(channel, Position(epoch: epoch, offset: deliver.entry.offset))
    }

    private func ended(_ end: SessionEnd) {
        simulation.note { "\(app.device) \(app.number) link \(link?.number ?? 0) ends: \(end)" }
        switch end.close.code {
        case .stale:
            // Restored from a backup: the number has to get beyond what was used since.
            durable.connectNumber += staleStep
            staleStep *= 2
        case .evicted: isOver = true
        case .replaced:
            if simulation.hasLaterLogin(than: self) { isOver = true }
        case .normal, .idle, .connectTimeout, .shuttingDown: break
        // An older state than the server remembers: the session resumes from its own cursor.
        case .internalError
        where wasRestored || simulation.sharesDevice(self) || simulation.counts.storeRestores > 0:
            break
        default: simulation.violation("\(device)'s session ended: \(end)")
        }
        guard let link else { return }
        link.close(from: .client)
        leaveLink()
    }

    private func takePublished(_ published: Published, _ channel: ChannelID) {
        guard let row = durable.rows.first(where: { $0.publish.id == published.id }),
            let number = MessageChecker.number(of: row.publish.payload)
        else { return }
        simulation.checker.acknowledged(
            number, at: published.position, in: channel, truth: simulation.store.durable)
        _ = write { $0.rows.removeAll { $0.publish.id == published.id } }
    }

    private func takeRefused(_ refused: Refused, _ channel: ChannelID) {
        guard let row = durable.rows.first(where: { $0.publish.id == refused.id }),
            let number = MessageChecker.number(of: row.publish.payload)
        else { return }
        let namesEntry = row.publish.kind.target != nil
        let isExpected =
            [.payloadTooLarge, .unknownChannel, .forbidden].contains(refused.code)
            || namesEntry && [.unknownTarget, .invalidTarget].contains(refused.code)
        let mayBeForgotten = wasRestored || putOff.contains(refused.id)
        if !isExpected, !(refused.code == .outcomeUnknown && mayBeForgotten) {
            simulation.violation("\(device)'s publish \(refused.id) was refused for no reason: \(refused)")
        }
        // The app is told once the row is gone: a row that is still there would be sent again.
        let isAlive = write { durable in
            durable.rows.removeAll { $0.publish.id == refused.id }
            if durable.lastID[channel] == refused.id { durable.lastID[channel] = row.publish.after }
        }
        if isAlive {
            simulation.checker.refused(number, refused.code)
        } else if !durable.rows.contains(where: { $0.publish.tag == row.publish.tag }) {
            simulation.checker.forgot(number)
        }
    }

    /// The app is done some time later, in order; what it is done with is on its disk before the session hears of it.
    private func confirmLater(_ channel: ChannelID, _ position: Position) {
        if has(.confirmEarly) { durable.cursors[channel] = position }
        if has(.acknowledgeOnArrival) {
            return scheduler.at(scheduler.now) { [weak self] in
                self?.input { $0.confirm(channel: channel, position: position, now: $1) }
            }
        }
        let life = life
        let delay = Int64.random(in: scheduler.now < slowUntil ? 50...400 : 0...60, using: &random)
        let soon = scheduler.now + .milliseconds(delay)
        let time = max(soon, confirmTimes[channel] ?? soon)
        confirmTimes[channel] = time
        scheduler.at(time) { [weak self] in
            guard let self, self.life == life else { return }
            whenAwake { device in
                device.simulation.checker.processed(position, in: channel, by: device.app)
                guard device.write({ $0.cursors[channel] = position }) else { return }
                device.input { $0.confirm(channel: channel, position: position, now: $1) }
            }
        }
    }
}
