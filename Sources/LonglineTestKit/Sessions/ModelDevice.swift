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
    var durable: Durable
    private var backup: Durable
    unowned let simulation: SessionSimulation
    let scheduler: VirtualScheduler
    var random: SeededRandom
    var session: ClientSession
    /// Grows with every restart of the process.
    private(set) var life = 0
    var armed: NIODeadline?
    private var isReconnectPending = false
    var staleStep: UInt64 = 1
    var nextRequest: UInt64 = 1
    var rooms: [UInt64: ChannelID] = [:]
    var confirmTimes: [ChannelID: NIODeadline] = [:]
    /// How many places the app was given, and of the gaps how many were before each.
    var handedPlaces = 0
    var handedGaps: [ChannelID: [(number: Int, upTo: Position)]] = [:]
    private(set) var wasRestored = false
    /// Whether the app stays away.
    private(set) var isOffline = false
    /// Whether a later login, a logout, or the end of its account, ended it for good.
    var isOver = false
    /// Told what was on the disk, once its user has logged out and that is wiped; nil while nobody does.
    private var afterLogout: ((Durable) -> Void)?
    /// Whether the server knows that its user logged out.
    var isRevoked = false
    /// The user's generation when its credential was issued.
    var generation: UInt64 = 0
    /// Whether its account is or was erased.
    var isErased = false
    /// Whether an erasure of its account was under way at any time of its present link.
    var sawErasure = false
    /// Nothing happens before, although time goes on.
    private var asleepUntil = NIODeadline.uptimeNanoseconds(0)
    private var waiting: [() -> Void] = []
    /// What a clock misses that stops in sleep.
    private(set) var slept = TimeAmount.zero
    /// Until when the app takes long over everything.
    private(set) var slowUntil = NIODeadline.uptimeNanoseconds(0)
    var lanes: [LaneID: LaneHeader] = [:]
    var serverLanes: [LaneID: LaneHeader] = [:]
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
    private(set) var drawnAfter: [PublishTag: PublishID] = [:]
    var skipEnds: [ChannelID: Set<Position>] = [:]
    var nextLane: UInt64 = 300
    /// Publishes that were refused for now: later ones may be entered meanwhile, and the ledger forget them.
    var putOff: Set<PublishID> = []
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
    var now: NIODeadline { has(.clockStopsInSleep) ? scheduler.now - slept : scheduler.now }

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
        sawErasure = simulation.store.isErasing(user)
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
        let credential = simulation.credential(for: app.name, login: login, ticket: durable.hasTicket)
        let number = durable.connectNumber + (has(.connectBeforeStored) ? 1 : 0)
        let rows = durable.rows
        input {
            $0.linkOpened(
                credential: credential, connectNumber: number, supportsPathChange: link.hasStreams, outbox: rows,
                now: $1)
        }
    }

    func leaveLink() {
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

    /// The app is not there for half a year: its process is gone, and no ticket lasts that long.
    /// - Parameter time: how much of that is left.
    func stayAway(for time: TimeAmount) {
        durable.hasTicket = false
        backup.hasTicket = false
        restart()
        goOffline(for: time)
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

    func whenAwake(_ body: @escaping (ModelDevice) -> Void) {
        guard isAsleep || !waiting.isEmpty else { return body(self) }
        let life = life
        waiting.append { [weak self] in
            guard let self, self.life == life else { return }
            body(self)
        }
    }

    /// For a while the app takes long to be done with anything.
    func becomeSlow(for time: TimeAmount) { slowUntil = scheduler.now + time }

    // MARK: Logout

    /// Whether its user is about to log out.
    var isLoggingOut: Bool { afterLogout != nil }

    /// Logs its user out: the disk is wiped once the server has answered, and soon without an answer, also where it knows nothing of it.
    func logOut(then next: @escaping (Durable) -> Void) {
        guard !isOver, afterLogout == nil else { return }
        afterLogout = next
        if !isAsleep { input { session, now in _ = session.logOut(now: now) } }
        scheduler.after(.milliseconds(Int64.random(in: 30...200, using: &random))) { [weak self] in self?.wipe() }
    }

    /// Nothing of the user is left here, who is logged out.
    func wipe() {
        guard let next = afterLogout else { return }
        afterLogout = nil
        isOver = true
        if let link {
            link.close(from: .client)
            leaveLink()
        }
        life += 1
        simulation.checker.forgot(app, kept: [], under: durable.producer)
        let left = durable
        durable = Durable(producer: .random(using: &random))
        backup = durable
        next(left)
    }

    /// For a rule that is broken: the app begins with what the user before left on the disk.
    func inherit(_ left: Durable) {
        durable = left
        durable.hasTicket = false
        restart()
    }

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
            simulation.checker.forgot(app, kept: waitingNumbers, under: durable.producer)
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

    func takeBackup() {
        backup = durable
        simulation.checker.checkCursors(durable.cursors, by: app)
    }

    /// The messages in the outbox.
    var waitingNumbers: Set<UInt64> { Set(durable.rows.compactMap { MessageChecker.number(of: $0.publish.payload) }) }

    /// A write to the device's disk. The process may die before it or behind it.
    /// - Parameter dies: with this probability, or ``diesAtWrites`` where that is higher.
    /// - Returns: whether it lives.
    func write(dies: Double = 0, _ body: (inout Durable) -> Void) -> Bool {
        guard random.happens(max(diesAtWrites, dies)) else {
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

    func renumber() {
        durable.producer = .random(using: &random)
        // They are other messages' from now on.
        putOff = []
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
}
