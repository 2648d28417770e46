import LonglineSession
import LonglineWire
import NIOCore

/// A device of a simulation: an app with an outbox, a cursor and a ticket that survive its process, and a
/// ``ClientSession`` that doesn't.
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

    let user: UserID
    let device: DeviceID
    private(set) var link: SimulatedLink?
    private(set) var durable: Durable
    private var backup: Durable
    private unowned let simulation: SessionSimulation
    private let scheduler: VirtualScheduler
    private var random: SeededRandom
    private var session: ClientSession
    /// Grows with every restart of the process.
    private var life = 0
    private var armed: NIODeadline?
    private var isReconnectPending = false
    private var staleStep: UInt64 = 1
    private var nextRequest: UInt64 = 1
    private var confirmTimes: [ChannelID: NIODeadline] = [:]
    private var wasRestored = false
    /// Whether the app stays away.
    private(set) var isOffline = false
    private let configuration: ClientSessionConfiguration

    init(
        user: UserID, device: DeviceID, simulation: SessionSimulation, scheduler: VirtualScheduler,
        random: SeededRandom
    ) {
        self.user = user
        self.device = device
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
        self.configuration = configuration
        durable = Durable(producer: .random(using: &self.random))
        backup = durable
        session = ClientSession(
            configuration: configuration, producer: durable.producer, cursors: [:], cursorVersion: 0)
    }

    // MARK: Links

    func connect() {
        guard link == nil, !isOffline, let link = simulation.openLink(isEarly: durable.hasTicket) else { return }
        self.link = link
        isReconnectPending = false
        link.toClient = { [weak self, weak link] frame, lane in
            guard let self, let link, self.link === link else { return }
            input { $0.received(frame, lane: lane, now: $1) }
        }
        link.finishedAtClient = { [weak self, weak link] lane in
            guard let self, let link, self.link === link else { return }
            input { $0.laneFinished(lane, now: $1) }
        }
        link.closedAtClient = { [weak self, weak link] in
            guard let self, let link, self.link === link else { return }
            leaveLink()
        }
        link.start()
        durable.connectNumber += 1
        let credential = simulation.credential(for: device, ticket: durable.hasTicket)
        if simulation.faults.contains(.renumberOnReconnect) { renumber() }
        let number = durable.connectNumber
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
        guard !isOffline else { return }
        isOffline = true
        link?.cut(tellClient: false, tellServer: false, losesToServer: true, losesToClient: true)
        link?.abandon(.client)
        if link != nil { leaveLink() }
        scheduler.after(time) { [weak self] in
            self?.isOffline = false
            self?.connect()
        }
    }

    /// The process is killed and started again: from its disk, or from an older copy of it.
    func restart(fromBackup: Bool) {
        life += 1
        if fromBackup {
            durable = backup
            wasRestored = true
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
        simulation.checker.restarted(device, cursors: durable.cursors, backup: fromBackup)
        reconnectLater()
    }

    func takeBackup() { backup = durable }

    // MARK: The app

    func publish(_ number: UInt64, in channel: ChannelID, bytes: Int, timeToLive: UInt64) {
        var payload = ByteBuffer(integer: number)
        payload.writeRepeatingByte(0, count: bytes)
        let publish = Publish(
            id: durable.nextID, tag: random.next(), after: durable.lastID[channel] ?? 0, recipient: nil,
            timeToLive: timeToLive, payload: payload)
        let row = OutboxRow(channel: channel, publish: publish, queuedAt: scheduler.now)
        durable.nextID += 1
        durable.lastID[channel] = publish.id
        durable.rows.append(row)
        simulation.checker.published(number, by: device, in: channel)
        input { session, now in
            if !session.enqueue(row, now: now) { self.simulation.checker.violation("a row was not taken") }
        }
    }

    func changeRoom(_ room: RoomID, joins: Bool) {
        nextRequest += 1
        let request = nextRequest
        input { session, now in
            _ =
                joins
                ? session.join(room, request: request, now: now) : session.leave(room, request: request, now: now)
        }
    }

    func refresh() { input { session, now in _ = session.refresh(token: "token", now: now) } }

    private func renumber() {
        durable.producer = .random(using: &random)
        durable.nextID = 1
        durable.lastID = [:]
        durable.connectNumber = 1
        for index in durable.rows.indices {
            let channel = durable.rows[index].channel
            durable.rows[index].publish.id = durable.nextID
            durable.rows[index].publish.after = durable.lastID[channel] ?? 0
            durable.lastID[channel] = durable.nextID
            durable.nextID += 1
        }
        let producer = durable.producer
        session.producerRenewed(producer)
    }

    // MARK: The session

    private func input(_ body: (inout ClientSession, NIODeadline) -> Void) {
        body(&session, scheduler.now)
        while let action = session.nextAction() { perform(action) }
        arm()
    }

    private func arm() {
        guard let deadline = session.nextDeadline, deadline < armed ?? .distantFuture else { return }
        armed = deadline
        let life = life
        scheduler.at(deadline) { [weak self] in
            guard let self, self.life == life, armed == deadline else { return }
            armed = nil
            input { session, now in session.deadlineReached(now: now, random: &self.random) }
        }
    }

    private func perform(_ action: ClientAction) {
        switch action {
        case .openLane: break
        case .send(let frame, let lane): link?.send(frame, lane: lane, from: .client)
        case .finishLane(let lane): link?.finish(lane, from: .client)
        case .connected(let connected):
            durable.cursorVersion = connected.cursorVersion
            staleStep = 1
            simulation.noteConnected(resumed: link?.isEarly == true)
        case .storeTicket: durable.hasTicket = true
        case .published(let channel, let published): takePublished(published, channel)
        case .refused(let channel, let refused): takeRefused(refused, channel)
        case .renewProducer:
            simulation.renewals += 1
            renumber()
        case .deliver(let channel, let epoch, let deliver):
            simulation.checker.delivered(
                deliver, epoch: epoch, in: channel, to: device, of: user, store: simulation.store)
            confirmLater(channel, Position(epoch: epoch, offset: deliver.entry.offset))
        case .skipped(let channel, let epoch, let skip):
            simulation.checker.skipped(
                skip, epoch: epoch, in: channel, to: device, of: user, store: simulation.store,
                time: scheduler.milliseconds)
        case .gap(let channel, let epoch, let gap):
            simulation.checker.lost(gap, epoch: epoch, in: channel, to: device, of: user, store: simulation.store)
            confirmLater(channel, Position(epoch: epoch, offset: gap.first))
        case .roomAnswered, .history, .refreshed, .stopped, .observedAddress, .heartbeatLearned: break
        case .probePath:
            let works = random.happens(0.3)
            if works { input { $0.pathChanged(now: $1) } }
        case .end(let end): ended(end)
        }
    }

    private func ended(_ end: SessionEnd) {
        switch end.close.code {
        case .stale:
            // Restored from a backup: the number has to get beyond what was used since.
            durable.connectNumber += staleStep
            staleStep *= 2
        case .normal, .idle, .connectTimeout, .replaced, .shuttingDown: break
        // An older state than the server remembers: the session resumes from its own cursor.
        case .internalError where wasRestored: break
        default:
            simulation.checker.violation("\(device)'s session ended: \(end)")
        }
        guard let link else { return }
        link.close(from: .client)
        leaveLink()
    }

    private func takePublished(_ published: Published, _ channel: ChannelID) {
        guard let index = durable.rows.firstIndex(where: { $0.publish.id == published.id }) else { return }
        let row = durable.rows.remove(at: index)
        guard let number = MessageChecker.number(of: row.publish.payload) else { return }
        simulation.checker.acknowledged(number, at: published.position, in: channel, store: simulation.store)
    }

    private func takeRefused(_ refused: Refused, _ channel: ChannelID) {
        guard let index = durable.rows.firstIndex(where: { $0.publish.id == refused.id }) else { return }
        let row = durable.rows.remove(at: index)
        if refused.code != .payloadTooLarge, refused.code != .unknownChannel, !wasRestored {
            simulation.checker.violation("\(device)'s publish \(refused.id) was refused for no reason: \(refused)")
        }
        if durable.lastID[channel] == refused.id { durable.lastID[channel] = row.publish.after }
        guard let number = MessageChecker.number(of: row.publish.payload) else { return }
        simulation.checker.refused(number)
    }

    /// The app is done some time later, in order; what it is done with is on its disk before the session hears of it.
    private func confirmLater(_ channel: ChannelID, _ position: Position) {
        if simulation.faults.contains(.confirmEarly) { durable.cursors[channel] = position }
        let life = life
        let soon = scheduler.now + .milliseconds(Int64.random(in: 0...60, using: &random))
        let time = max(soon, confirmTimes[channel] ?? soon)
        confirmTimes[channel] = time
        scheduler.at(time) { [weak self] in
            guard let self, self.life == life else { return }
            simulation.checker.processed(position.offset, in: channel, by: device)
            durable.cursors[channel] = position
            input { $0.confirm(channel: channel, position: position, now: $1) }
        }
    }
}
