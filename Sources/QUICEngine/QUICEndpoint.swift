import CQUICShim

/// All QUIC connections of one event loop: datagrams in, datagrams, events and the next deadline out. It reads no
/// clock, socket or random source of its own. Not thread-safe: one owner calls it.
///
/// The owner's loop: for each datagram `receive`; at `nextDeadline` `handleDeadline`; then `pollEvent` until nil,
/// reacting through the connections; then `pollTransmit` until nil; then `pollEvent` again, because writing can end a
/// connection, and `pollTransmit` behind what that gave; then look at `nextDeadline`.
public final class QUICEndpoint: CustomReflectable {
    /// What was counted since the start.
    @exclusivity(unchecked) public internal(set) var counters = EndpointCounters()
    /// Whether new connections are accepted; off while draining.
    public var acceptsConnections = true

    let configuration: EndpointConfiguration
    let staticKey: [UInt8]
    let storage: EngineStorage
    let server: ServerRole?
    var random: RandomSource { storage.random }
    var layout: ConnectionIDLayout { storage.layout }
    var resetTokens: ResetTokens { storage.resetTokens }

    @exclusivity(unchecked) var routes: [ConnectionID: ConnectionRoute] = [:]
    /// Routes of retired IDs, and of connections in their closing or draining period.
    var lingering = LingeringRoutes()
    var resetTokenOwners: [[UInt8]: QUICEngineConnection] = [:]
    var connections: [UInt64: QUICEngineConnection] = [:]
    @exclusivity(unchecked) var deadlines = DeadlineQueue()
    /// Connections in their closing or draining period. A test lowers the limit.
    private var closedConnections = 0
    var maxClosedConnections = 16384
    var handshakesInProgress = 0
    /// Server: those that ended before they were complete.
    var unfinishedHandshakes = RecentCount()
    var handshakesByAddress: [UInt64: Int] = [:]
    /// Established connections by where they came from.
    var connectionsByAddress: [UInt64: Int] = [:]
    /// Server: what its connections have out of order, by where they came from.
    @exclusivity(unchecked) var readMemoryByAddress: [UInt64: AddressReadMemory] = [:]
    /// A test lowers it.
    var maxReadMemoryPerAddress: Int
    /// Server: what its connections have to send, by where they came from.
    var sendMemoryByAddress: [UInt64: AddressSendMemory] = [:]
    /// A test lowers it.
    var maxSendMemoryPerAddress: Int
    /// Those whose writers have not all been told of the room that there is, and when the next ones are.
    var unofferedSendMemory: [AddressSendMemory] = []
    /// The same of connections with first bytes that are free.
    var unservedWriters: [QUICEngineConnection] = []
    @exclusivity(unchecked) var sendMemoryOffer: QUICInstant?
    /// Packets that belong to no connection: refusals, resets, repeated closes.
    var loosePackets = FIFO<(bytes: [UInt8], path: QUICPath, ecn: ECNCodepoint)>()
    /// From the clock of our calls to the wall clock; nil: not needed yet.
    var wallClockOffset: UInt64?
    var usedTokens = UsedTokens()
    var resetLimit: RateLimit
    var refusalLimit: RateLimit
    /// Test hook, see `ConnectionContext.rewrite`.
    package var rewrite: ((UnsafeMutableRawBufferPointer, UnsafeRawBufferPointer) -> Void)?

    private var nextHandle: UInt64 = 1
    @exclusivity(unchecked) private var sendQueue = FIFO<QUICEngineConnection>()
    /// Local addresses that take nothing now, and the connections that had something to send by them.
    @exclusivity(unchecked) private var fullLocals: Set<QUICSocketAddress> = []
    @exclusivity(unchecked) private var held: [QUICEngineConnection] = []
    @exclusivity(unchecked) private var events = WaitingEvents()
    /// Connections whose peers wait until less is held. By name: one that has ended must not be held, with all that it holds, until
    /// there is less.
    @exclusivity(unchecked) private var withheld: [ConnectionHandle] = []
    private var clientCredentials: [ClientCredentials: TLSCredentials] = [:]

    private struct ClientCredentials: Hashable {
        var verification: TLSClientVerification
        var identity: TLSClientIdentity?
    }

    static let maxLoosePackets = 256
    /// Bytes for a connection whose handshake isn't complete: what ngtcp2, the TLS library and we keep of it.
    static let halfOpenCost = 32 << 10
    /// What ngtcp2 gives one connection.
    static let expectedIDs = 8
    /// See `endForStreamRecords`. A test lowers it.
    var maxPeerStreamRecords = 4096
    /// See `hasUsedUpIDs`. A test lowers it.
    var maxGivenIDs = llq_gives_ids_unacknowledged() != 0 ? 4096 : Int.max

    /// Makes an endpoint.
    /// - Parameters:
    ///   - configuration: checked here.
    ///   - random: cryptographically secure except in tests; the only randomness in what the engine itself
    ///     decides. TLS keys come from the TLS library's own source.
    /// - Throws: `invalidConfiguration`.
    public init(configuration: EndpointConfiguration, random: any RandomNumberGenerator) throws(QUICError) {
        if let key = configuration.staticKey, key.count != 32 {
            throw QUICError(
                .invalidConfiguration, "The static key has \(key.count) bytes instead of 32",
                advice: "Draw 32 random bytes once and keep them.")
        }
        self.configuration = configuration
        let random = RandomSource(random)
        let layout = try ConnectionIDLayout(configuration)
        staticKey = configuration.staticKey ?? random.bytes(32)
        let resetTokens = try ResetTokens(staticKey: staticKey, serverID: configuration.serverID)
        storage = EngineStorage(random: random, layout: layout, resetTokens: resetTokens)
        resetLimit = RateLimit(perSecond: configuration.statelessResetsPerSecond)
        refusalLimit = RateLimit(perSecond: configuration.refusalsPerSecond)
        server = try configuration.server.map { configuration throws(QUICError) in try ServerRole(configuration) }
        maxReadMemoryPerAddress = Self.readMemoryShare(of: configuration)
        maxSendMemoryPerAddress = Self.sendMemoryShare(of: configuration)
    }

    /// Nothing: an endpoint refers to all its connections.
    public var customMirror: Mirror { Mirror(self, children: [:]) }

    /// Connections that have something to send or to receive: those that aren't closed, and those whose CONNECTION_CLOSE waits
    /// for what was written before it.
    public var connectionCount: Int { connections.count }

    /// Bytes that all connections hold, as ``EndpointConfiguration/maxBufferedBytes`` counts them.
    public var bufferedBytes: Int { storage.memory.held + handshakesInProgress * Self.halfOpenCost }

    /// Whether they hold too much for more.
    var isFull: Bool { bufferedBytes >= configuration.maxBufferedBytes }

    func noteWithheld(_ connection: QUICEngineConnection) {
        withheld.append(connection.handle)
        counters.windowsWithheld += 1
    }

    private func grantWithheld() {
        let waiting = withheld
        withheld = []
        for handle in waiting { connections[handle.rawValue]?.grantWithheldWindow() }
    }

    /// Lets timers act that are due; at any other time it does nothing.
    public func handleDeadline(now: QUICInstant) {
        setDeadlines()
        if let instant = sendMemoryOffer, instant <= now { offerSendMemory(now: now) }
        // First all, then each: one whose deadline stays in the past is not served twice.
        var due: [DeadlineOwner] = []
        while let owner = deadlines.popDue(now: now) { due.append(owner) }
        for owner in due {
            if let connection = owner as? QUICEngineConnection { connection.handleExpiry(now: now) }
        }
        while let routes = lingering.popDue(now: now) {
            for route in routes { forget(route) }
        }
    }

    private func forget(_ route: ConnectionRoute) {
        for id in route.ids { removeRoute(id, to: route) }
        if route.isRetiredID { route.formerOwner?.retiredIDs -= 1 } else { closedConnections -= 1 }
    }

    /// Of connections to which something happened since they wrote last.
    private func setDeadlines() { sendQueue.forEach { deadlines.set($0.currentDeadline(), for: $0) } }

    /// Unless the ID leads elsewhere by now.
    private func removeRoute(_ id: ConnectionID, to route: ConnectionRoute) {
        if let index = routes.index(forKey: id), routes[index].value === route { routes.remove(at: index) }
    }

    /// When `handleDeadline` wants to be called; nil: only after another call.
    public var nextDeadline: QUICInstant? {
        setDeadlines()
        let timer = Self.earlier(deadlines.next(), lingering.next)
        return sendMemoryOffer == nil ? timer : Self.earlier(timer, sendMemoryOffer)
    }

    private static func earlier(_ first: QUICInstant?, _ second: QUICInstant?) -> QUICInstant? {
        guard let first, let second else { return first ?? second }
        return min(first, second)
    }

    /// Writes the next run of datagrams. nil: nothing to send now; ask again after any other call.
    /// - Parameters:
    ///   - buffer: at least 1,500 bytes; 64 KiB let a run use all that GSO allows.
    ///   - now: the time of this call.
    public func pollTransmit(into buffer: UnsafeMutableRawBufferPointer, now: QUICInstant) -> QUICTransmit? {
        precondition(buffer.count >= 1500, "the buffer must hold a packet")
        if !withheld.isEmpty, !isFull { grantWithheld() }
        while let packet = loosePackets.popFirst() {
            // Nobody relies on these.
            if !fullLocals.isEmpty, fullLocals.contains(packet.path.local) { continue }
            buffer.copyBytes(from: packet.bytes)
            return count(
                QUICTransmit(
                    path: packet.path, ecn: packet.ecn, segmentSize: packet.bytes.count, length: packet.bytes.count))
        }
        // One run each, in turn: nobody waits for a bulk transfer to end.
        while let connection = sendQueue.popFirst() {
            if !fullLocals.isEmpty, fullLocals.contains(connection.lastPath.local) {
                hold(connection)
                continue
            }
            connection.isScheduled = false
            let (run, more) = connection.produce(into: buffer, now: now)
            if more { schedule(connection) }
            if connection.shim != nil { deadlines.set(connection.currentDeadline(), for: connection) }
            if let run { return count(run) }
        }
        return nil
    }

    /// Tells that a local address takes nothing at present, its socket's buffer being full, or that it does again. Until then
    /// `pollTransmit` passes over the connections whose path it belongs to; the others go on.
    public func setTakesPackets(_ takes: Bool, at local: QUICSocketAddress) {
        if !takes {
            fullLocals.insert(local)
        } else if fullLocals.remove(local) != nil {
            for connection in held {
                connection.isHeld = false
                sendQueue.append(connection)
            }
            held.removeAll()
        }
    }

    /// A connection behind a full socket has a new path: it goes on if that path's socket takes packets.
    func release(_ connection: QUICEngineConnection) {
        guard connection.isHeld, !fullLocals.contains(connection.lastPath.local) else { return }
        held.removeAll { $0 === connection }
        connection.isHeld = false
        sendQueue.append(connection)
    }

    private func hold(_ connection: QUICEngineConnection) {
        guard connection.shim != nil else {
            connection.isScheduled = false
            return
        }
        connection.isHeld = true
        held.append(connection)
        deadlines.set(connection.currentDeadline(), for: connection)
    }

    private func count(_ run: QUICTransmit) -> QUICTransmit {
        counters.datagramsSent += UInt64((run.length + run.segmentSize - 1) / run.segmentSize)
        counters.bytesSent += UInt64(run.length)
        return run
    }

    /// The next event: those of each connection come in their order, and connections take turns of a few events, so that none waits for
    /// all that others have. Taking `streamClosed` may let the peer open another stream in its place: `pollTransmit` has something to
    /// send then.
    public func pollEvent() -> (QUICEngineConnection, QUICConnectionEvent)? {
        while let (connection, event) = events.popFirst() {
            if let event {
                if case .streamClosed(let stream) = event { connection.closeIsTaken(of: stream) }
                return (connection, event)
            }
            if let (bytes, isEarly) = connection.takeReceivedDatagram() {
                return (connection, .datagram(bytes, isEarly: isEarly))
            }
        }
        return nil
    }

    /// Events that `pollEvent` has yet to give. Those of one connection are bounded by what its peer may have open: streams whose last
    /// event waits count among them. All together are bounded only by the number of connections.
    public var waitingEventCount: Int { events.count }

    /// Closes every connection with an application code.
    public func closeAll(code: UInt64, reason: String, now: QUICInstant) {
        for handle in connections.keys.sorted() { connections[handle]?.close(code: code, reason: reason, now: now) }
    }

    /// Starts a connection; its first flight is ready in `pollTransmit`. With a ticket that allows it, streams opened
    /// and written before that leave as 0-RTT. Throws `invalidConfiguration`, `invalidCertificate`, `connectionLimit`.
    public func connect(
        to remote: QUICSocketAddress, from local: QUICSocketAddress, configuration client: ClientConfiguration,
        now: QUICInstant
    ) throws(QUICError) -> QUICEngineConnection {
        try client.validate()
        guard !isFull else {
            throw QUICError(
                .connectionLimit, "The endpoint's connections hold \(bufferedBytes) bytes, its limit",
                advice: "Read what came, or raise maxBufferedBytes.")
        }
        guard connections.count < configuration.maxConnections else {
            throw QUICError(
                .connectionLimit, "The endpoint has \(connections.count) connections, its limit",
                advice: "Close some, or raise maxConnections.")
        }
        let names = try ALPN.encode(client.applicationProtocols)
        let trust = try credentials(for: client)
        let priority = try TLSPriority.shared(client.cipherSuites)
        let path = QUICPath(local: local, remote: remote)
        let id = layout.make(random: random)
        // RFC 9000 section 7.2: at least 8 unpredictable bytes.
        let original = random.bytes(18).withUnsafeBytes { ConnectionID($0) }
        let qlog = client.qlog?(QLogSubject(originalDestinationID: original.bytes, isServer: false))
        let context = makeContext(server: nil, keyLog: client.keyLog, certificates: nil, qlog: qlog)
        let shim = try ClientShim.make(
            client: client, alpn: names, trust: trust, priority: priority, context: context, path: path, id: id,
            destination: original, now: now)
        let connection = add(
            client: client, settings: client.transport, context: context, tlsObjects: [trust, priority],
            original: original, path: path, now: now)
        connection.shim = shim
        addRoute(id, to: connection)
        counters.connectionsInitiated += 1
        if llq_conn_early_data_possible(shim) != 0 { emit(.earlyDataPossible, from: connection) }
        connection.processNotes()
        schedule(connection)
        return connection
    }

    private func credentials(for client: ClientConfiguration) throws(QUICError) -> TLSCredentials {
        let key = ClientCredentials(verification: client.verification, identity: client.identity)
        if let known = clientCredentials[key] { return known }
        let loaded = try TLSCredentials.client(client.verification, identity: client.identity)
        // A client speaks to few servers; a program that invents authorities all the time gets no cache.
        if clientCredentials.count >= 16 { clientCredentials.removeAll() }
        clientCredentials[key] = loaded
        return loaded
    }

    // MARK: for the connections

    func makeContext(
        server: ServerRole?, keyLog: ClientConfiguration.KeyLog?, certificates: CertificateTable?, qlog: QLogWriter?
    ) -> ConnectionContext {
        ConnectionContext(
            storage: storage, ticketMasters: server?.ticketMasters, antiReplay: server?.antiReplay, keyLog: keyLog,
            certificates: certificates, qlog: qlog, rewrite: rewrite)
    }

    func add(
        client: ClientConfiguration?, settings: TransportSettings, context: ConnectionContext, tlsObjects: [AnyObject],
        original: ConnectionID, path: QUICPath, now: QUICInstant
    ) -> QUICEngineConnection {
        let connection = QUICEngineConnection(
            handle: ConnectionHandle(rawValue: nextHandle), endpoint: self, client: client, settings: settings,
            context: context, tlsObjects: tlsObjects, original: original, path: path, now: now)
        nextHandle += 1
        connections[connection.handle.rawValue] = connection
        return connection
    }

    func emit(_ event: QUICConnectionEvent, from connection: QUICEngineConnection) {
        events.append(event, of: connection)
    }

    func emitDatagram(from connection: QUICEngineConnection) {
        events.append(nil, of: connection)
    }

    /// - Parameter quietly: there may be nothing to write but acknowledgements, which may wait for company.
    func schedule(_ connection: QUICEngineConnection, quietly: Bool = false) {
        guard connection.shim != nil else { return }
        if !quietly { connection.writesAtOnce = true }
        guard !connection.isScheduled else {
            // Its timers go on; those of the others are set when they have their turn.
            if connection.isHeld { deadlines.set(connection.currentDeadline(), for: connection) }
            return
        }
        connection.isScheduled = true
        sendQueue.append(connection)
    }

    /// Packets with this ID are the connection's from now on.
    func addRoute(_ id: ConnectionID, to connection: QUICEngineConnection) {
        connection.route.ids.append(id)
        routes[id] = connection.route
    }

    /// A peer that moved retires an ID while packets that it sent with it may still be on their way, on a slower path or in
    /// another loop's queue. A stateless reset for one of them would end the living connection, so they are dropped
    /// without an answer for a while.
    func removeRoute(_ id: ConnectionID, of connection: QUICEngineConnection) {
        if let index = connection.route.ids.firstIndex(of: id) { connection.route.ids.remove(at: index) }
        // A peer that retires faster than any honest one has to live with the resets.
        guard let shim = connection.shim, connection.retiredIDs < Self.maxRetiredIDs else {
            routes[id] = nil
            return
        }
        connection.retiredIDs += 1
        let retired = ConnectionRoute(retired: id, of: connection)
        routes[id] = retired
        let period = max(3 * llq_conn_pto(shim), Self.retiredIDLinger)
        lingering.insert(retired, until: connection.now.advanced(byNanoseconds: period))
    }

    /// Nanoseconds; above what a loaded machine holds a packet up.
    private static let retiredIDLinger: UInt64 = 1_000_000_000
    /// Per connection.
    static let maxRetiredIDs = 32

    func addResetToken(_ token: [UInt8], for connection: QUICEngineConnection) { resetTokenOwners[token] = connection }
    /// Unless another connection's peer has named the same one since: what that says of its connection stays.
    func removeResetToken(_ token: [UInt8], of connection: QUICEngineConnection) {
        if resetTokenOwners[token] === connection { resetTokenOwners[token] = nil }
    }

    func sendLoose(_ bytes: [UInt8], path: QUICPath, ecn: ECNCodepoint = .notECT) {
        guard loosePackets.count < Self.maxLoosePackets else { return }
        loosePackets.append((bytes, path, ecn))
    }

    func handshakeEnded(_ connection: QUICEngineConnection, completed info: HandshakeInfo?) {
        if let info {
            counters.handshakesCompleted += 1
            if info.resumed { counters.handshakesResumed += 1 }
            if info.earlyData == .accepted { counters.earlyDataAccepted += 1 }
            if info.earlyData == .rejected { counters.earlyDataRejected += 1 }
        } else {
            counters.handshakesFailed += 1
        }
        guard connection.countsAsHandshake else { return }
        connection.countsAsHandshake = false
        handshakesInProgress -= 1
        if info == nil { unfinishedHandshakes.add(now: connection.now) }
        let key = connection.handshakeAddressKey
        if let count = handshakesByAddress[key] { handshakesByAddress[key] = count > 1 ? count - 1 : nil }
        if info != nil {
            connection.countsForAddress = true
            connectionsByAddress[key, default: 0] += 1
        }
        if info != nil, let original = connection.originalID {
            // The client has our connection ID now and uses its first choice no more.
            removeRoute(original, to: connection.route)
            connection.originalID = nil
        }
    }

    /// Frees a connection's state and leaves what the closing or draining period needs; nothing where it doesn't linger.
    func retire(
        _ connection: QUICEngineConnection, packet: WrittenClose?, alreadySent: Bool = false, lingers: Bool = true
    ) {
        guard let shim = connection.shim else { return }
        let period = 3 * llq_conn_pto(shim)
        llq_conn_free(shim)
        connection.shim = nil
        connection.forgetReadMemory()
        connection.dropQueuedDatagrams()
        leaveSendMemory(connection)
        connection.quietAfter = connection.now.advanced(byNanoseconds: period)
        connection.sendQueue.removeAll()
        deadlines.set(nil, for: connection)
        connections[connection.handle.rawValue] = nil
        if connection.countsForAddress, let count = connectionsByAddress[connection.handshakeAddressKey] {
            connectionsByAddress[connection.handshakeAddressKey] = count > 1 ? count - 1 : nil
        }
        for token in connection.resetTokens { removeResetToken(token, of: connection) }
        let route = connection.route
        route.connection = nil
        if let original = connection.originalID { route.ids.append(original) }
        if lingers, closedConnections < maxClosedConnections {
            route.close = packet.map { RepeatedClose(packet: $0) }
            closedConnections += 1
            lingering.insert(route, until: connection.now.advanced(byNanoseconds: period))
        } else {
            // Or under a flood of connections that end at once: late packets meet a stateless reset instead.
            for id in route.ids { removeRoute(id, to: route) }
        }
        if let packet, !alreadySent { sendLoose(packet.bytes, path: packet.path, ecn: packet.ecn) }
    }
}
