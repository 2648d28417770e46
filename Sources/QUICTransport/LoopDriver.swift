internal import Logging
internal import Metrics
internal import NIOCore
internal import QUICEngine

/// Joins one loop's sockets and its engine. All of it happens on the loop.
///
/// ```
///  datagrams -> engine.receive ─┐
///  timer     -> handleDeadline ─┼─> tick: events -> handlers -> batchEnded -> runs out -> flush -> next deadline
///  calls     -> needsTick ──────┘
/// ```
/// Where handling events takes long, it is done in slices, and what was written leaves behind each. A tick's work is bounded:
/// events and bytes beyond the budget wait for the next turn of the loop, so that receiving, sending and the loop's other
/// channels share it fairly.
final class LoopDriver {
    /// Events taken from the engine in one tick.
    private static let eventBudget = 4096
    /// Waiting events from which on no more messages are taken.
    static let maxWaitingEvents = 1 << 18
    /// Nanoseconds of events after which what handlers wrote leaves, before more of them are handled: the peer works on the first
    /// answers while the last are made.
    private static let sliceTime: UInt64 = 100_000
    /// How many events are handled between two looks at the clock.
    private static let sliceCheck = 8
    /// Rounds of tasks' jobs in one tick.
    private static let jobRounds = 8
    private static let timerGranularity = TimeAmount.milliseconds(1)
    /// Nanoseconds after which sockets are read between tasks.
    private static let readInterval: UInt64 = 1_000_000
    /// Buffers filled with outgoing datagrams in one tick.
    private static let transmitBudget = 8

    let eventLoop: any EventLoop
    let engine: QUICEndpoint
    let logger: Logger
    let configuration: EndpointConfiguration
    let socketOptions: QUICSocketOptions
    @exclusivity(unchecked) var socketCounters = QUICSocketCounters()
    @exclusivity(unchecked) var datagramsNotTaken: UInt64 = 0
    /// Makes the handler of an accepted connection; nil on a client.
    private let accept: ((QUICLoopConnection) -> any QUICConnectionHandler)?

    @exclusivity(unchecked) private(set) var ports: [QUICSocketAddress: UDPPort] = [:]
    /// A server's: itself, as long as it has sockets. Whoever bound them may be gone; without us they would stay bound, and deaf.
    private var keeper: LoopDriver?
    private(set) var connections: [ObjectIdentifier: QUICLoopConnection] = [:]
    @exclusivity(unchecked) private var touched: [QUICLoopConnection] = []
    private var transmitter = Transmitter()
    @exclusivity(unchecked) private var tickScheduled = false
    @exclusivity(unchecked) private var inTick = false
    /// Something was asked for during a tick after its datagrams were taken.
    @exclusivity(unchecked) private var again = false
    private var timer: Scheduled<Void>?
    private(set) var timerDeadline = NIODeadline.distantFuture
    private var nextConnectionID: UInt64 = 0
    var lastRead = QUICInstant.now()
    @exclusivity(unchecked) var polling: BusyPolling
    /// As of the last look.
    @exclusivity(unchecked) var packetsTaken: UInt64 = 0
    private var drained: [EventLoopPromise<Void>] = []
    private var silent: [EventLoopPromise<Void>] = []
    private let metrics: TransportMetrics
    private var report: Scheduled<Void>?
    private static let reportInterval = TimeAmount.seconds(1)

    /// This loop's place among a server's loops, and where the others take datagrams. Set once, before traffic.
    var routes: LoopRoutes?
    private(set) lazy var handover = makeHandover()
    private(set) lazy var executor = QUICLoopExecutor(driver: self)
    /// A server's. A client's connections look after themselves.
    private(set) lazy var sizeWatch: SizeWatch? = accept == nil ? nil : SizeWatch(self)
    /// What tasks on this loop do next: continuations of those that waited for an event of this tick.
    private var jobs: [UnownedJob] = []
    private var lastRemote: (nio: SocketAddress, engine: QUICSocketAddress)?
    private lazy var reader = DatagramReader(messages: min(max(socketOptions.messagesPerRead, 1), 64))

    init(
        eventLoop: any EventLoop, configuration: EndpointConfiguration, socketOptions: QUICSocketOptions,
        logger: Logger, metrics: (any MetricsFactory)?, accept: ((QUICLoopConnection) -> any QUICConnectionHandler)?
    ) throws {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.socketOptions = socketOptions
        self.logger = logger
        self.accept = accept
        polling = accept == nil ? BusyPolling(limit: 0) : socketOptions.busyPolling
        self.metrics = TransportMetrics(isServer: accept != nil, factory: metrics ?? MetricsSystem.factory)
        engine = try QUICEndpoint(configuration: configuration, random: SystemRandomPool())
    }

    private func makeHandover() -> HandoverQueue {
        let bound = NIOLoopBound(Weak(self), eventLoop: eventLoop)
        return HandoverQueue(eventLoop: eventLoop) { bound.value.object?.drainHandover() }
    }

    // MARK: Ports

    func makePort(group: SteeringGroup?) -> UDPPort {
        UDPPort(eventLoop: eventLoop, options: socketOptions, group: group, driver: self)
    }

    /// Sockets that are open.
    var portCount: Int { ports.count }

    /// Lets a bound port serve. False if another port has its identity: two ports would be one to the engine.
    func add(_ port: UDPPort) -> Bool {
        guard ports[port.identity] == nil else { return false }
        ports[port.identity] = port
        if accept != nil { keeper = self }
        return true
    }

    func removePort(at address: QUICSocketAddress) {
        if let port = ports[address] { remove(port) }
    }

    func remove(_ port: UDPPort) {
        if ports[port.identity] === port {
            ports[port.identity] = nil
            engine.setTakesPackets(true, at: port.identity)
        }
        port.close()
    }

    /// What a full socket can't take stays in the engine; nothing is queued beyond it.
    func writabilityChanged(of port: UDPPort) {
        engine.setTakesPackets(port.isWritable, at: port.identity)
        if port.isWritable { needsTick() }
    }

    /// Breaks every socket as a fatal send error would.
    func breakSockets() {
        for port in ports.values { port.breakSocket() }
    }

    /// Closes every connection; the closes leave with the next tick.
    func closeAll(code: UInt64, reason: String) {
        engine.closeAll(code: code, reason: reason, now: .now())
        for connection in connections.values where connection.engine == nil {
            connection.close(code: code, reason: reason)
        }
        needsTick()
    }

    /// Closes every socket. The engine's connections are over then.
    func closePorts() {
        timer?.cancel()
        timer = nil
        timerDeadline = .distantFuture
        report?.cancel()
        report = nil
        sizeWatch?.end()
        metrics.report(counters)
        for port in ports.values { port.close() }
        ports.removeAll()
        // Whoever waits has waited for as long as was meant.
        Self.finish(&drained)
        Self.finish(&silent)
        keeper = nil
    }

    /// Something happened that swift-metrics shall know, within a second.
    private func scheduleReport() {
        guard report == nil else { return }
        report = eventLoop.assumeIsolated().scheduleTask(in: Self.reportInterval) {
            self.report = nil
            self.metrics.report(self.counters)
        }
    }

    // MARK: Connections

    func nextID() -> UInt64 {
        nextConnectionID += 1
        return nextConnectionID
    }

    func add(_ connection: QUICLoopConnection) { connections[ObjectIdentifier(connection)] = connection }

    func remove(_ connection: QUICLoopConnection) {
        connections[ObjectIdentifier(connection)] = nil
        if connections.isEmpty { Self.finish(&drained) }
    }

    /// A connection has events of its own making (a failed connect): its batch must end too.
    func touch(_ connection: QUICLoopConnection) {
        if !connection.isTouched {
            connection.isTouched = true
            touched.append(connection)
        }
        needsTick()
    }

    /// Succeeds when no connection is left.
    func whenDrained() -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        drained.append(promise)
        if connections.isEmpty { Self.finish(&drained) }
        return promise.futureResult
    }

    /// Succeeds when no connection is left and none has a CONNECTION_CLOSE to send.
    func whenSilent() -> EventLoopFuture<Void> {
        let promise = eventLoop.makePromise(of: Void.self)
        silent.append(promise)
        needsTick()
        return promise.futureResult
    }

    private func finishSilent() {
        guard !silent.isEmpty, connections.isEmpty, engine.connectionCount == 0 else { return }
        Self.finish(&silent)
    }

    private static func finish(_ promises: inout [EventLoopPromise<Void>]) {
        let waiting = promises
        promises.removeAll()
        for promise in waiting { promise.succeed(()) }
    }

    var counters: QUICTransportCounters {
        var result = QUICTransportCounters()
        result.sockets = socketCounters
        result.engine = engine.counters
        result.connections = connections.count
        result.datagramsNotTaken = datagramsNotTaken
        result.bufferedBytes = engine.bufferedBytes
        return result
    }

    // MARK: Receiving

    func received(_ envelope: AddressedEnvelope<ByteBuffer>, on port: UDPPort) {
        guard let remote = engineAddress(envelope.remoteAddress) else { return }
        let metadata = envelope.metadata
        envelope.data.withUnsafeReadableBytes {
            received(
                $0, segmentSize: metadata?.segmentSize ?? 0, ecn: metadata.map { ECNCodepoint($0.ecnState) } ?? .notECT,
                from: remote, on: port, now: .now())
        }
    }

    /// - Parameter segment: the size of the datagrams that the kernel joined; 0: it is one.
    private func received(
        _ bytes: UnsafeRawBufferPointer, segmentSize segment: Int, ecn: ECNCodepoint, from remote: QUICSocketAddress,
        on port: UDPPort, now: QUICInstant
    ) {
        socketCounters.messagesReceived += 1
        guard remote.isAnswerable else {
            socketCounters.unanswerableDropped += 1
            return
        }
        let path = QUICPath(local: port.identity, remote: remote)
        if let owner = port.owner, !owner.hasNewPackets {
            owner.hasNewPackets = true
            touch(owner)
        }
        guard !bytes.isEmpty else {
            socketCounters.datagramsReceived += 1
            engine.receive(bytes, path: path, ecn: ecn, now: now)
            return
        }
        let isJoined = segment > 0 && segment < bytes.count
        if isJoined { socketCounters.joinedMessagesReceived += 1 }
        let segment = isJoined ? segment : bytes.count
        socketCounters.datagramsReceived += UInt64((bytes.count + segment - 1) / segment)
        guard let routes else {
            engine.receive(bytes, segmentSize: segment, path: path, ecn: ecn, now: now)
            return
        }
        routes.forEachRun(in: bytes, segmentSize: segment, worker: Int(configuration.workerID)) { run, owner in
            guard let owner else {
                engine.receive(run, segmentSize: segment, path: path, ecn: ecn, now: now)
                return
            }
            let handed = HandedDatagrams(bytes: ByteBuffer(bytes: run), segmentSize: segment, path: path, ecn: ecn)
            if owner.offer(handed) {
                socketCounters.handedOver += UInt64(handed.count)
            } else {
                socketCounters.handoverDropped += UInt64(handed.count)
            }
        }
    }

    /// More events wait than handlers come to in a second: what comes meanwhile is left to the kernel. Everybody's acknowledgements are
    /// then, so that this is only for what peers' limits don't bound. It is looked at before messages are taken, and what is taken at a
    /// time, 64 messages of a socket or all that was handed over, may make events beyond it.
    private var isBehind: Bool { engine.waitingEventCount >= Self.maxWaitingEvents }

    private func drainHandover() {
        if isBehind {
            needsTick()
            return eventLoop.assumeIsolated().execute { self.drainHandover() }
        }
        let now = QUICInstant.now()
        for item in handover.take() {
            item.bytes.withUnsafeReadableBytes {
                engine.receive($0, segmentSize: item.segmentSize, path: item.path, ecn: item.ecn, now: now)
            }
        }
        tick()
    }

    /// The channel has read one message. Those that wait behind it are taken in one call.
    func readComplete(_ socket: DatagramSocket?, on port: UDPPort) {
        let now = QUICInstant.now()
        lastRead = now
        if let socket { read(socket, on: port, now: now) }
        tick()
        rest(wokenAt: now)
    }

    /// Takes the messages that wait in a socket, unless too many events do.
    func read(_ socket: DatagramSocket, on port: UDPPort, now: QUICInstant) {
        guard !isBehind else { return }
        reader?.read(socket) { bytes, segmentSize, ecn, remote in
            received(bytes, segmentSize: segmentSize, ecn: ecn, from: remote, on: port, now: now)
        }
    }

    /// NIO looks at sockets only when no task is left to run, and tasks that make tasks can keep it from that for long: a
    /// message to ten thousand members, for a second. A server's few sockets are read in between.
    private func readMeanwhile() {
        guard accept != nil else { return }
        let now = QUICInstant.now()
        guard now.nanoseconds - lastRead.nanoseconds >= Self.readInterval else { return }
        lastRead = now
        for port in ports.values { port.read(now: now) }
    }

    private func engineAddress(_ address: SocketAddress) -> QUICSocketAddress? {
        if let lastRemote, lastRemote.nio == address { return lastRemote.engine }
        guard let converted = QUICSocketAddress(address) else { return nil }
        lastRemote = (address, converted)
        return converted
    }

    // MARK: The tick

    /// Asks for a tick at the end of the loop's present turn, once however often it is called.
    func needsTick() {
        guard !inTick else {
            again = true
            return
        }
        guard !tickScheduled else { return }
        tickScheduled = true
        eventLoop.assumeIsolated().execute {
            self.tickScheduled = false
            self.readMeanwhile()
            self.tick()
        }
    }

    func tick() {
        guard !inTick else { return }
        inTick = true
        let now = QUICInstant.now()
        engine.handleDeadline(now: now)
        var more = false
        var budget = Self.eventBudget
        var isSlice = true
        while isSlice, budget > 0 {
            isSlice = takeEvents(&budget)
            again = false
            if transmit() { more = true }
        }
        // What handlers did may have made events, closes above all; those come now.
        if budget == 0 || takeEvents(&budget) { more = true }
        inTick = false
        armTimer()
        scheduleReport()
        finishSilent()
        if more || again { needsTick() }
    }

    /// Handles events, ends the batches, and runs the jobs that became ready.
    /// - Returns: whether events may be left, because the slice's time is over or the budget.
    private func takeEvents(_ budget: inout Int) -> Bool {
        var isOver = false
        var untilCheck = Self.sliceCheck
        let start = QUICInstant.now()
        while !isOver, budget > 0, let (source, event) = engine.pollEvent() {
            budget -= 1
            untilCheck -= 1
            if untilCheck == 0 {
                untilCheck = Self.sliceCheck
                isOver = QUICInstant.now().nanoseconds - start.nanoseconds > Self.sliceTime
            }
            // Behind the tick's datagrams, too: the peer's credit for another stream is due.
            if case .streamClosed = event { again = true }
            guard let connection = connection(of: source, for: event) else { continue }
            if !connection.isTouched {
                connection.isTouched = true
                touched.append(connection)
            }
            connection.dispatch(event)
        }
        // A handler may touch a connection while its batch ends; that one's turn is in the same round.
        var index = 0
        while index < touched.count {
            let connection = touched[index]
            connection.isTouched = false
            connection.endBatch()
            index += 1
        }
        touched.removeAll(keepingCapacity: true)
        runJobs()
        return isOver || budget == 0
    }

    /// Takes a job that became ready in a tick: it runs before the tick's datagrams are taken, so that what it writes leaves
    /// with them, as what a handler writes does.
    /// - Returns: false outside of a tick.
    func take(_ job: UnownedJob) -> Bool {
        guard inTick, jobs.count < Self.eventBudget else { return false }
        jobs.append(job)
        return true
    }

    /// What jobs make ready in turn runs too, for some rounds: the tick's datagrams don't wait for ever.
    private func runJobs() {
        for _ in 0..<Self.jobRounds where !jobs.isEmpty {
            let ready = jobs
            jobs.removeAll(keepingCapacity: true)
            for job in ready { job.runSynchronously(on: executor.asUnownedTaskExecutor()) }
        }
        for job in jobs { executor.runLater(job) }
        jobs.removeAll(keepingCapacity: true)
    }

    private func connection(of source: QUICEngineConnection, for event: QUICConnectionEvent) -> QUICLoopConnection? {
        if let known = source.userData {
            if let connection = known as? QUICLoopConnection { return connection }
            return (known as? AddressRace.Runner)?.owner(of: event)
        }
        guard case .accepted = event, source.isServer, let accept else { return nil }
        let connection = QUICLoopConnection(accepted: source, driver: self)
        source.userData = connection
        add(connection)
        connection.handler = accept(connection)
        return connection
    }

    // MARK: Transmitting

    /// - Returns: whether the budget ran out.
    private func transmit() -> Bool {
        for _ in 0..<Self.transmitBudget {
            let drained = transmitter.fill(from: engine, now: QUICInstant.now())
            var used: UDPPort?
            transmitter.forEachRun { transmit, bytes in
                guard let port = ports[transmit.path.local] else {
                    socketCounters.unroutableRuns += 1
                    return
                }
                guard transmit.path.remote.isAnswerable else {
                    socketCounters.blockedRuns += 1
                    return
                }
                if let used, used !== port { used.flush() }
                used = port
                port.send(bytes, to: transmit.path.remote, ecn: transmit.ecn, segmentSize: transmit.segmentSize)
            }
            used?.flush()
            if drained { return false }
        }
        return true
    }

    // MARK: The timer

    /// One timer for all connections. A timer that is early anyway is left alone: it looks again when it fires.
    ///
    /// It is no finer than a millisecond, RFC 9002's granularity.
    private func armTimer() {
        guard let next = engine.nextDeadline else { return }
        guard NIODeadline.uptimeNanoseconds(next.nanoseconds) < timerDeadline else { return }
        let deadline = max(.uptimeNanoseconds(next.nanoseconds), .now() + Self.timerGranularity)
        guard deadline < timerDeadline else { return }
        timer?.cancel()
        timerDeadline = deadline
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.timerDeadline = .distantFuture
            self.timer = nil
            self.tick()
        }
    }
}
