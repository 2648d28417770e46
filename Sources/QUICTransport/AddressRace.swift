internal import NIOCore
internal import QUICEngine

/// The attempts of a client connection at the addresses of its host (RFC 8305, "Happy Eyeballs"): its own, and those that begin
/// beside it, one after the other, as long as no server answers.
///
/// ```
///             +---- delay over, or the newest attempt can't send ----+
///             v                                                      |
///  untried --socket--> one more attempt runs, all others go on ------+
///                             |
///                             +-- one is answered --> the connection's own; the race is over, the others are closed
///                             +-- the first packet of each is too large for its interface --> the connection is over
/// ```
/// Only the connection's own attempt carries what the application does early: the journal repeats it on the winner, so that a
/// server with several addresses doesn't get it from each.
final class AddressRace {
    /// Addresses that are tried; a name with more has them for other reasons than that some may be dead.
    static let addressLimit = 8

    /// An attempt beside the connection's own.
    final class Runner {
        let remote: SocketAddress
        let port: UDPPort
        let engine: QUICEngineConnection
        /// Whether the winner may send what the journal has at once.
        private(set) var isEarlyDataPossible = false
        private let race: AddressRace

        fileprivate init(remote: SocketAddress, port: UDPPort, engine: QUICEngineConnection, race: AddressRace) {
            self.remote = remote
            self.port = port
            self.engine = engine
            self.race = race
        }

        /// Looks at an event of this attempt.
        /// - Returns: whose event it is; nil: nobody's. An attempt's first sign that a server answered makes it the connection's.
        func owner(of event: QUICConnectionEvent) -> QUICLoopConnection? {
            switch event {
            case .earlyDataPossible: isEarlyDataPossible = true
            case .closed(let reason) where !reason.isAnswer && engine.packetsReceived == 0: race.lost(self)
            case .closed: return race.paths.take(self)
            default: if engine.packetsReceived > 0 { return race.paths.take(self) }
            }
            return nil
        }
    }

    /// The cycles end with the race.
    private let paths: ClientPaths
    private let delay: TimeAmount
    private var untried: ArraySlice<SocketAddress>
    private var runners: [Runner] = []
    /// Attempts that are over. Their sockets stay for those to come: a port number can't be had again at once.
    private var lostRunners: [Runner] = []
    /// Where the latest attempt goes.
    private var newest: SocketAddress?
    /// Where attempts go of which no packet of the needed size was found too large.
    private var possible: Set<SocketAddress> = []
    private var timer: Scheduled<Void>?
    private var isOpening = false
    private var isOver = false

    init(_ paths: ClientPaths, addresses: [SocketAddress], delay: TimeAmount) {
        self.paths = paths
        self.delay = delay
        untried = addresses.prefix(Self.addressLimit)
    }

    /// The next address, which is tried then.
    func next() -> SocketAddress? { untried.popFirst() }

    /// An attempt has begun: the next one waits for its answer, but not for long.
    func began(toward remote: SocketAddress) {
        newest = remote
        possible.insert(remote)
        guard !isOver, !untried.isEmpty else { return }
        timer = paths.eventLoop.assumeIsolated().scheduleTask(in: delay) { self.tryNext() }
    }

    /// The kernel refuses to send to an address: it needs no time to answer.
    func cannotSend(to remote: SocketAddress) {
        guard remote == newest else { return }
        // Not while the tick's datagrams are being sent.
        paths.eventLoop.assumeIsolated().execute { if remote == self.newest { self.tryNext() } }
    }

    /// The interface by which packets go to an address takes none of the size that QUIC needs: no attempt there gets anywhere.
    func takesTooLittle(toward remote: SocketAddress) {
        guard possible.remove(remote) != nil else { return }
        paths.eventLoop.assumeIsolated().execute {
            if remote == self.newest { self.tryNext() }
            self.endIfImpossible()
        }
    }

    /// Only where all that was tried is too small: of the others one may answer, or time is what they lack.
    func endIfImpossible() {
        if !isOver, !isOpening, untried.isEmpty, possible.isEmpty { paths.endForSize() }
    }

    private func tryNext() {
        timer?.cancel()
        timer = nil
        guard !isOver, !isOpening, !untried.isEmpty else { return }
        isOpening = true
        paths.open(towardNextOf: self) { result in
            self.isOpening = false
            guard case .success((let remote, let port)) = result,
                let engine = self.paths.attemptBeside(toward: remote, on: port, of: self)
            else { return self.endIfImpossible() }
            let runner = Runner(remote: remote, port: port, engine: engine, race: self)
            engine.userData = runner
            self.runners.append(runner)
            self.began(toward: remote)
        }
    }

    /// The attempt whose server has answered, if it is one of those beside the connection's own.
    var winner: Runner? { runners.first { $0.engine.packetsReceived > 0 } }

    /// The sockets of the attempts beside the connection's own, also of those that are over; several attempts may have the same.
    var ports: [UDPPort] { (runners + lostRunners).map(\.port) }

    /// Whether one of these attempts has this socket, or had it.
    func uses(_ port: UDPPort) -> Bool { ports.contains { $0 === port } }

    private func lost(_ runner: Runner) {
        runners.removeAll { $0 === runner }
        if !isOver { lostRunners.append(runner) }
        paths.giveUp(runner.engine, on: runner.port)
    }

    /// Nothing is tried any more, and all attempts beside the connection's own are given up but the one that is kept.
    func end(keeping kept: Runner? = nil) {
        isOver = true
        timer?.cancel()
        timer = nil
        let lost = runners + lostRunners
        runners = []
        lostRunners = []
        for runner in lost where runner !== kept { paths.giveUp(runner.engine, on: runner.port) }
    }

    func goSilent() {
        for port in ports { port.isSilent = true }
    }
}

extension QUICCloseReason {
    /// Whether it is what a server said. What refuses a first packet comes before any packet that a server's keys authenticate.
    fileprivate var isAnswer: Bool {
        switch self {
        case .handshakeFailed, .peerApplication, .peerTransport, .statelessReset, .versionNegotiation: true
        case .idleTimeout, .handshakeTimeout, .localApplication, .localTransport, .pathTooSmall, .abandoned: false
        }
    }
}
