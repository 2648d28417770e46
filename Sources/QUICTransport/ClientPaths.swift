internal import Logging
internal import NIOCore
internal import NIOPosix
internal import QUICEngine

/// The sockets of one client connection, its attempts, and its changes of path.
///
/// ```
///  starting --socket bound--> handshaking --completed--> completed --confirmed--> confirmed
///                               |      ^                    |                       |
///                change of path +------+ new attempt        | change waits          | change: engine migrates
///      another address answers first +-+ its attempt        v                       v
///  any --closed--> ended (sockets linger until the engine's closing period is over, then close)
/// ```
final class ClientPaths {
    enum Phase { case starting, handshaking, completed, confirmed, ended }

    /// The cycle ends when the connection lets go of this object, behind its last event.
    let connection: QUICLoopConnection
    let driver: LoopDriver
    private var configuration: ClientConfiguration
    private let resolver: NameResolver
    private let attemptDelay: TimeAmount
    private let onMemory: (QUICConnectionEvent) -> Void
    private(set) var phase = Phase.starting
    private var host = ""
    /// The host's, in the order in which they are tried.
    private(set) var addresses: [SocketAddress] = []
    /// The local address that the application asked for last; nil: the routing table chooses.
    var wanted: SocketAddress?
    private var remote: SocketAddress?
    /// nil once the server answered.
    private(set) var race: AddressRace?
    var current: UDPPort? { didSet { if current !== oldValue { refusals = nil } } }
    var change: Change?
    /// The engine is on its path until `change` begins.
    var overtaken: Change?
    private var restarts = 0
    private var surfacedEarlyData = false
    private var isSilent = false
    /// When the present path's socket first refused a packet that QUIC needs, and when it did last.
    private var refusals: (since: NIODeadline, last: NIODeadline)?
    /// nil once the handshake completed: nothing starts again then.
    var journal: EarlyDataJournal? = EarlyDataJournal()

    /// Attempts on one connection; an application that changes paths faster than handshakes end is stopped here.
    private static let restartLimit = 16
    /// How often a bound socket may turn out to have an identity in use before that is an error.
    private static let bindTries = 8
    /// A path on which packets of 1,200 bytes are refused for so long ends its connection.
    private let refusalTime: TimeAmount
    /// One on which none was for so long is judged anew.
    private static let refusalMemory = TimeAmount.minutes(1)

    /// - Parameters:
    ///   - attemptDelay: how long an address has to answer before another one of the host is tried, too.
    ///   - refusalTime: a path on which packets of 1,200 bytes are refused for so long, and none passes, ends the connection.
    ///   - onMemory: sees tickets, tokens, the end of the handshake and that of the connection, for a session cache.
    init(
        connection: QUICLoopConnection, configuration: ClientConfiguration, resolver: NameResolver,
        attemptDelay: TimeAmount, refusalTime: TimeAmount, onMemory: @escaping (QUICConnectionEvent) -> Void
    ) {
        self.connection = connection
        self.driver = connection.driver
        self.configuration = configuration
        self.resolver = resolver
        self.attemptDelay = attemptDelay
        self.refusalTime = refusalTime
        self.onMemory = onMemory
    }

    var eventLoop: any EventLoop { connection.eventLoop }

    // MARK: Starting

    /// Resolves, binds and sends the first flight.
    func start(host: String, port: Int, from local: SocketAddress?) {
        self.host = host
        wanted = local
        resolver.resolve(host: host, port: port, on: eventLoop).assumeIsolated().whenComplete { result in
            guard self.phase == .starting else { return }
            switch result {
            case .success(let addresses):
                // A resolver that blocks a name gives it 0.0.0.0 or ::.
                self.addresses = addresses.filter { QUICSocketAddress($0)?.isAnswerable ?? false }
                guard !self.addresses.isEmpty else { return self.fail(Self.nobodys(addresses)) }
                self.begin()
            case .failure(let error): self.fail(error)
            }
        }
    }

    private static func nobodys(_ addresses: [SocketAddress]) -> QUICTransportError {
        let all = addresses.compactMap { QUICSocketAddress($0)?.description }.joined(separator: ", ")
        return QUICTransportError(
            .unreachable, "nobody can answer from \(all)",
            advice: "Use a port from 1 to 65535, and a host's own address.")
    }

    private func begin() {
        let reachable = addresses.filter { wanted == nil || wanted?.protocol == $0.protocol }
        let race = AddressRace(self, addresses: reachable, delay: attemptDelay)
        self.race = race
        open(towardNextOf: race) { result in
            switch result {
            case .success((let remote, let port)):
                guard self.phase == .starting else { return self.driver.remove(port) }
                self.remote = remote
                self.current = port
                self.attempt(on: port)
                race.began(toward: remote)
                self.resumeChange()
            case .failure(let error): if self.phase == .starting { self.fail(error) }
            }
        }
    }

    /// Opens a socket towards the first of the addresses not yet tried that this machine has a route to.
    func open(
        towardNextOf race: AddressRace, behind failure: (any Error)? = nil,
        then body: @escaping (Result<(remote: SocketAddress, port: UDPPort), any Error>) -> Void
    ) {
        var failure = failure
        while let remote = race.next() {
            let local: SocketAddress
            do { local = try source(toward: remote) } catch {
                failure = error
                continue
            }
            if let port = sharedPort(at: local, in: race) { return body(.success((remote, port))) }
            return openPort(on: local) { result in
                switch result {
                case .success(let port): body(.success((remote, port)))
                case .failure(let error): self.open(towardNextOf: race, behind: error, then: body)
                }
            }
        }
        body(
            .failure(
                failure
                    ?? QUICTransportError(
                        .unreachable, "the host has no address of the local address's family",
                        advice: "Leave the local address out, or name one of the other family.")))
    }

    /// Where to send from: of a wildcard the port counts.
    private func source(toward remote: SocketAddress) throws -> SocketAddress {
        if let wanted, !wanted.isWildcard { return wanted }
        var local = try LocalAddresses.toward(remote)
        if let wanted { local.port = wanted.port }
        return local
    }

    /// A port number can't be had twice at an address: the socket that has the one that was asked for serves all attempts from there.
    private func sharedPort(at local: SocketAddress, in race: AddressRace) -> UDPPort? {
        guard let wanted, wanted.port != 0 else { return nil }
        // What was asked for with it is one address, unless the routing table chooses.
        guard wanted.isWildcard, let source = QUICSocketAddress(local) else { return current }
        return ([current].compactMap { $0 } + race.ports).first {
            $0.identity == source || SocketAddress($0.identity).isWildcard
        }
    }

    /// Binds a socket that the engine can tell from every other. Ports that lost their number to a rebinding keep their
    /// identity, so the kernel may hand out a number that is in use as one.
    func openPort(
        on local: SocketAddress, tries: Int = bindTries, then body: @escaping (Result<UDPPort, any Error>) -> Void
    ) {
        let port = driver.makePort(group: nil)
        port.owner = connection
        port.isSilent = isSilent
        port.bind(to: local).assumeIsolated().whenComplete { result in
            switch result {
            case .success where self.driver.add(port):
                body(.success(port))
            case .success where tries > 1:
                port.close()
                self.openPort(on: local, tries: tries - 1, then: body)
            case .success:
                port.close()
                body(
                    .failure(
                        QUICTransportError(.bindFailed, "\(local) is in use", advice: "Use another port.")))
            case .failure(let error): body(.failure(error))
            }
        }
    }

    private func attempt(on port: UDPPort) {
        guard let remote, let target = QUICSocketAddress(remote) else { return }
        do throws(QUICError) {
            let engine = try driver.engine.connect(
                to: target, from: port.identity, configuration: configuration, now: .now())
            engine.userData = connection
            connection.restarted(engine, awaitsReplay: journal.map { !$0.isEmpty } ?? false)
            phase = .handshaking
            driver.needsTick()
        } catch {
            fail(error)
        }
    }

    /// Another attempt, from another socket.
    func restart(on port: UDPPort) {
        restarts += 1
        guard restarts <= Self.restartLimit else {
            return connection.close(code: 0, reason: "too many changes of path before the handshake")
        }
        connection.debug("an attempt starts again on a new path", ["local": "\(port.identity)"])
        endRace()
        let old = current
        current = port
        // It was sent from the old address, maybe in another network, and is no proof for the new one.
        configuration.addressToken = nil
        if let abandoned = connection.engine { giveUp(abandoned, on: old) }
        // The host's addresses of the new path's family: the one that the old attempt went to first.
        var reachable = addresses.filter { QUICSocketAddress($0)?.isIPv6 == port.identity.isIPv6 }
        if let index = reachable.firstIndex(where: { $0 == remote }) { reachable.swapAt(0, index) }
        let race = AddressRace(self, addresses: reachable, delay: attemptDelay)
        self.race = race
        remote = race.next() ?? remote
        attempt(on: port)
        if let remote { race.began(toward: remote) }
    }

    // MARK: Several addresses

    /// Begins an attempt beside the connection's own. It carries no address token: that is for one address, and the first attempt
    /// has it.
    /// - Returns: nil if there is nothing to begin any more; the socket is closed then.
    func attemptBeside(toward remote: SocketAddress, on port: UDPPort, of race: AddressRace) -> QUICEngineConnection? {
        var configuration = self.configuration
        configuration.addressToken = nil
        guard self.race === race, phase == .handshaking, let target = QUICSocketAddress(remote),
            let engine = try? driver.engine.connect(
                to: target, from: port.identity, configuration: configuration, now: .now())
        else {
            if port !== current, !race.uses(port) { driver.remove(port) }
            return nil
        }
        connection.debug("another address of the host is tried", ["remote": "\(remote)"])
        driver.needsTick()
        return engine
    }

    /// A server has answered an attempt beside the connection's own: that one is the connection's from now on.
    /// - Returns: the connection; nil if another attempt was first.
    func take(_ runner: AddressRace.Runner) -> QUICLoopConnection? {
        guard phase == .handshaking, let race, let lost = connection.engine, lost.packetsReceived == 0 else {
            return nil
        }
        let lostPort = current
        remote = runner.remote
        current = runner.port
        if let change, change.begun { change.port = runner.port }
        runner.engine.userData = connection
        connection.restarted(runner.engine, awaitsReplay: journal.map { !$0.isEmpty } ?? false)
        self.race = nil
        race.end(keeping: runner)
        giveUp(lost, on: lostPort)
        connection.debug("another address of the host answered first", ["remote": "\(runner.remote)"])
        if runner.isEarlyDataPossible { replay() }
        return connection
    }

    /// Closes an attempt that nobody needs. Without its owner, its events are nobody's.
    func giveUp(_ engine: QUICEngineConnection, on port: UDPPort?) {
        engine.userData = nil
        engine.close(code: 0, reason: "", now: .now())
        driver.needsTick()
        guard let port, port !== current, !(race?.uses(port) ?? false) else { return }
        port.owner = nil
        driver.remove(port, whenQuiet: engine)
    }

    /// One of the connection's sockets received something.
    func packetsCame() {
        guard let race else { return }
        if connection.engine?.packetsReceived ?? 0 > 0 {
            endRace()
        } else if let winner = race.winner {
            _ = take(winner)
        }
    }

    private func endRace() {
        race?.end()
        race = nil
    }

    /// The interface of one of the connection's sockets takes no packets of the size that QUIC needs.
    func takesTooLittle(_ port: UDPPort, toward remote: SocketAddress) {
        race?.takesTooLittle(toward: remote)
        for case let change? in [change, overtaken] where change.port === port { change.isTooSmall = true }
        noteRefusal(by: port)
    }

    /// On a path that takes no packets of 1,200 bytes only small ones get through: whoever waits for more would wait for ever, as those
    /// keep the connection alive. A refusal that passes, as while an interface is set up, ends nothing, and neither does one on a path
    /// that is left just now, nor two with a packet between them that passed.
    private func noteRefusal(by port: UDPPort) {
        guard isOnlyPath(port) else { return }
        let now = NIODeadline.now()
        guard let known = refusals, now - known.last < Self.refusalMemory else {
            refusals = (now, now)
            return
        }
        refusals = (known.since, now)
        guard now - known.since >= refusalTime else { return }
        // Not inside the writing of packets.
        eventLoop.assumeIsolated().execute {
            guard self.isOnlyPath(port), let engine = self.connection.engine else { return }
            engine.endForPathSize(now: .now())
            self.driver.needsTick()
        }
    }

    /// A packet of the size that QUIC needs left by one of the connection's sockets, behind one that was refused there.
    func takesEnough(_ port: UDPPort) {
        if port === current { refusals = nil }
    }

    /// Whether a socket is that of a connection that is up, and that is not about to leave it.
    private func isOnlyPath(_ port: UDPPort) -> Bool {
        (phase == .completed || phase == .confirmed) && port === current && change == nil && overtaken == nil
    }

    /// No address of the host can be sent the packets that a handshake begins with.
    func endForSize() {
        guard phase == .handshaking, let engine = connection.engine, !engine.isClosed, engine.packetsReceived == 0
        else { return }
        // An application that moves the attempt elsewhere waits for the socket there; if there is none, this is asked again.
        if let change, !change.begun { return }
        giveUp(engine, on: current)
        connection.dispatch(.closed(.handshakeFailed(.pathTooSmall)))
        driver.touch(connection)
    }

    private func fail(_ error: any Error) { connection.end(.handshakeFailed(QUICError(keepingFromHandshake: error))) }

    // MARK: Events

    /// Looks at an event before the application does.
    /// - Returns: false if the application has seen it or shall not.
    func admit(_ event: QUICConnectionEvent) -> Bool {
        switch event {
        case .earlyDataPossible:
            replay()
            defer { surfacedEarlyData = true }
            return !surfacedEarlyData
        case .handshakeCompleted:
            replay()
            journal = nil
            phase = .completed
            endRace()
            if let remote { resolver.answered(host, from: remote) }
            onMemory(event)
            if let change, change.begun { finish(change) }
        case .handshakeConfirmed:
            phase = .confirmed
            resumeChange()
        case .sessionTicket, .addressToken: onMemory(event)
        case .pathValidated(let path): pathAnswered(path) { $0.validated = true }
        case .pathChanged(let path): pathAnswered(path) { $0.changed = true }
        case .pathFailed(let path): pathFailed(path)
        case .datagramLost(let id), .datagramExpired(let id): journal?.datagramEnded(id)
        case .closed(.versionNegotiation(let offered)): return !goOn(offered: offered)
        case .closed: onMemory(event)
        default: break
        }
        return true
    }

    /// The server speaks other versions than the one this attempt began with: another attempt with one of those.
    /// - Returns: whether there is one in common.
    private func goOn(offered: [QUICVersion]) -> Bool {
        guard phase == .handshaking, let next = configuration.retry(offered: offered), let port = current else {
            return false
        }
        connection.debug(
            "the server speaks another version", ["version": "\(next.versions.first.map { "\($0)" } ?? "?")"])
        endRace()
        configuration = next
        connection.engine?.userData = nil
        attempt(on: port)
        return true
    }

    private func replay() {
        guard connection.awaitsReplay, let journal, let engine = connection.engine else { return }
        connection.awaitsReplay = false
        guard let events = journal.replay(on: engine) else {
            return connection.close(code: 0, reason: "the first flight could not be repeated")
        }
        guard !events.isEmpty else { return }
        // Not inside the event that brought us here: that one comes first.
        let connection = self.connection
        eventLoop.assumeIsolated().execute {
            for event in events { connection.dispatch(event) }
            connection.driver.touch(connection)
        }
    }

    /// The connection closes before anything was sent: nothing is begun any more.
    func close() {
        if phase == .starting { phase = .ended }
    }

    func connectionClosed(_ reason: QUICCloseReason) {
        phase = .ended
        journal = nil
        endRace()
        let error = QUICTransportError.closed(reason)
        if let change {
            self.change = nil
            change.promise?.fail(error)
            if let port = change.port, port !== current {
                // The close leaves by the path of one that has begun.
                if change.begun { retire(port) } else { driver.remove(port) }
            }
        }
        if let port = overtaken?.port { retire(port) }
        overtaken = nil
        if let port = current {
            current = nil
            retire(port)
        }
    }

    // MARK: Sockets

    /// From now on the connection's sockets drop everything, in both directions.
    func goSilent() {
        isSilent = true
        current?.isSilent = true
        race?.goSilent()
        change?.port?.isSilent = true
        overtaken?.port?.isSilent = true
    }

    /// Closes a socket once packets that are still on their way to it have come: three probe timeouts after the last one that
    /// leaves by it.
    func retire(_ port: UDPPort) {
        port.owner = nil
        guard let engine = connection.engine else { return driver.remove(port) }
        guard !engine.isClosed, let probe = engine.probeTimeout else {
            return driver.remove(port, whenQuiet: engine)
        }
        let driver = self.driver
        eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(3 * Int64(clamping: probe.nanoseconds))) {
            driver.remove(port)
        }
    }
}
