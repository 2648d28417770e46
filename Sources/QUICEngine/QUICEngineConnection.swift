import CQUICShim

/// One QUIC connection of an endpoint, which alone makes them. Calls take effect at the next `pollTransmit`. Not
/// thread-safe: it belongs to its endpoint's owner.
///
/// ```
/// handshaking --completed--> established --confirmed--> (may migrate)
///      \____________________________\________ close, error, timeout ----> closed
/// ```
/// Once closed it holds no C objects; what the peer may still send is answered by its `ConnectionRoute`.
///
/// What every packet touches is free of exclusivity checks, which cost a tenth of the time of small requests: an access
/// never spans a call to the owner, and callbacks of C only take notes.
public final class QUICEngineConnection: DeadlineOwner, CustomStringConvertible, CustomReflectable {
    /// Its number.
    public let handle: ConnectionHandle
    /// Whether we are the server.
    public let isServer: Bool
    /// For the owner; the engine only holds it.
    public var userData: AnyObject?
    /// What the handshake agreed on; nil until it is complete.
    @exclusivity(unchecked) public internal(set) var handshake: HandshakeInfo?

    let settings: TransportSettings
    unowned let endpoint: QUICEndpoint
    let context: ConnectionContext
    /// Keeps alive what the TLS session points to.
    let tlsObjects: [AnyObject]
    let createdAt: QUICInstant
    private let original: ConnectionID
    /// Behind a reference: a server's connections, of which there are many, would have room for it, some 400 bytes.
    private let clientBox: ClientBox?
    /// The C connection; nil once closed.
    @exclusivity(unchecked) var shim: OpaquePointer?
    @exclusivity(unchecked) var now: QUICInstant

    @exclusivity(unchecked) var streams = StreamTable()
    /// Bytes in the send buffers of all streams.
    @exclusivity(unchecked) var sendBufferBytes = 0 {
        didSet { addressSendMemory?.total += sendBufferBytes - oldValue }
    }
    /// Server: what all connections from its first address have in theirs; nil once it is over.
    @exclusivity(unchecked) var addressSendMemory: AddressSendMemory?
    /// What each of its streams may have of that in any case.
    @exclusivity(unchecked) var firstBytes = FirstBytes()
    /// Where it is among those that wait for room there; nil: it doesn't.
    @exclusivity(unchecked) var sendWaiterIndex: Int?
    /// Some of its writers are to be told a little later that there is room.
    @exclusivity(unchecked) var isUnserved = false
    /// The stream that was first when room in that was last told of.
    @exclusivity(unchecked) var firstWoken = UInt64.max
    /// A write was short because of all streams together.
    @exclusivity(unchecked) var owesWritableToAll = false
    /// Of the bytes in send buffers, those of streams below the standard urgency.
    @exclusivity(unchecked) var backgroundBytes = 0
    /// A write was short because of these streams together.
    @exclusivity(unchecked) var owesWritableToBackground = false
    /// A write to a stream above the standard urgency was short because of all streams together.
    @exclusivity(unchecked) var owesWritableToUrgent = false
    /// Streams with something to send, in the order of their priorities.
    @exclusivity(unchecked) var sendQueue = SendQueue()
    /// Streams whose end left by itself, and is not known to be with the peer.
    var loneEnds = 0
    var joinedEnds = JoinedEnds()
    /// The peer's unidirectional streams that ended, of which ngtcp2 keeps a record as long as it keeps the connection.
    var peerStreamRecords = 0
    /// Connection IDs that the peer was given after the handshake.
    var givenIDs = 0
    /// Bidirectional streams that the peer may have open beyond what the settings said.
    var raisedStreams: UInt64 = 0
    /// Bidirectional streams of the peer that are over and that it may have others for.
    var renewedStreams: UInt64 = 0
    /// Bidirectional streams of this side.
    @exclusivity(unchecked) var openedStreams = 0
    /// See `allowedReadMemory`.
    let readMemoryLimit: Int
    /// What of what ngtcp2 holds of what it read is counted among the endpoint's.
    @exclusivity(unchecked) var countedReadMemory = 0
    var owesStreamCredit = (bidirectional: false, unidirectional: false)
    /// Client: streams opened before the handshake completed, to be opened again if 0-RTT is refused.
    var earlyStreams: [EngineStream] = []
    var streamsToReopen = FIFO<EngineStream>()
    var earlyData = HandshakeInfo.EarlyData.notAttempted

    @exclusivity(unchecked) var datagramsToSend = DatagramQueue()
    /// Their bytes, as counted among the endpoint's and those of the address.
    @exclusivity(unchecked) var countedDatagramBytes = 0
    /// What the application was last told.
    var reportedDatagramSize: Int?
    @exclusivity(unchecked) var datagramsInFlight = DatagramsInFlight()
    var receivedDatagrams = FIFO<(bytes: [UInt8], isEarly: Bool)>()
    /// Bytes that the owner has taken and keeps for an application that hasn't asked for them yet: they count among what the
    /// endpoint's connections hold.
    @exclusivity(unchecked) public var bytesKeptByOwner = 0 {
        didSet { context.storage.memory.held += bytesKeptByOwner - oldValue }
    }
    /// Over all streams, those that are gone by now among them.
    @exclusivity(unchecked) var withheldWindow: UInt64 = 0

    /// How packets find us.
    let route = ConnectionRoute()
    /// Connection IDs that we gave the peer.
    var localIDs: [ConnectionID] { route.ids }
    /// IDs the peer retired whose late packets are dropped for a while.
    var retiredIDs = 0
    var originalID: ConnectionID?
    var resetTokens: Set<[UInt8]> = []
    var lastPath: QUICPath
    /// Server: paths that the policy let in, the latest last.
    var knownPaths: [QUICPath] = []
    /// Client: the local address that was last known to reach the server.
    var provenLocal: QUICSocketAddress
    /// Client: what the server said it speaks, when it refused what we do.
    var offeredVersions: [QUICVersion] = []
    /// `packetsSent` when the key was updated last.
    private var packetsAtKeyUpdate: UInt64 = 0
    var gotStatelessReset = false
    var ticketsReported = 0
    var tokensReported = 0
    /// Server: counted among the endpoint's handshakes in progress.
    var countsAsHandshake = false
    /// Server: counted among the established connections of its first address.
    var countsForAddress = false
    var handshakeAddressKey: UInt64 = 0

    /// What the owner is to be told yet.
    @exclusivity(unchecked) var waitingEvents = WaitingEvents.List()
    /// A packet that didn't fit the GSO run it was made for; it goes first next time.
    @exclusivity(unchecked) var heldPacket: (bytes: [UInt8], path: QUICPath, ecn: ECNCodepoint)?
    @exclusivity(unchecked) var isScheduled = false
    /// Whether it was scheduled for more than to acknowledge what came.
    @exclusivity(unchecked) var writesAtOnce = true
    /// Until when what came waits for its acknowledgement, and no longer than for ngtcp2's other timers; nil: nothing does.
    @exclusivity(unchecked) var acknowledgesBy: QUICInstant?
    /// Client: see ``PathFollowUp``.
    var pathFollowUp = PathFollowUp()
    /// Bytes taken of streams since packets were written last: the peer may be waiting for room.
    @exclusivity(unchecked) var takenSinceWrite: UInt64 = 0
    /// Its turn came while its socket took nothing, and comes again when it does.
    @exclusivity(unchecked) var isHeld = false
    /// ngtcp2's next instant as it was after the last write; nil: something happened since.
    @exclusivity(unchecked) var expiry: UInt64?
    /// When pacing lets the next packet leave.
    @exclusivity(unchecked) var pacedUntil: QUICInstant?
    /// When `handleExpiry` was last called.
    private var expiryHandled: QUICInstant?
    /// `close` was called; what is buffered goes out as far as it may, then CONNECTION_CLOSE.
    @exclusivity(unchecked) var pendingClose: (code: UInt64, reason: String, at: QUICInstant)?
    /// Why it is closed, which the event `closed` tells behind those that came before; nil while it lives.
    @exclusivity(unchecked) public internal(set) var closeReason: QUICCloseReason? { didSet { isClosed = true } }

    @exclusivity(unchecked) var bytesSent: UInt64 = 0
    @exclusivity(unchecked) var packetsSent: UInt64 = 0
    @exclusivity(unchecked) var bytesReceived: UInt64 = 0
    @exclusivity(unchecked) var datagramsReceived: UInt64 = 0
    /// Packets that only the peer can have made, unless somebody sent a captured one again; see `ConnectionStatistics`.
    public internal(set) var packetsReceived: UInt64 = 0

    init(
        handle: ConnectionHandle, endpoint: QUICEndpoint, client: ClientConfiguration?, settings: TransportSettings,
        context: ConnectionContext, tlsObjects: [AnyObject], original: ConnectionID, path: QUICPath, now: QUICInstant
    ) {
        self.handle = handle
        self.endpoint = endpoint
        clientBox = client.map { ClientBox($0) }
        self.settings = settings
        readMemoryLimit = Self.readMemoryLimit(settings)
        self.context = context
        self.tlsObjects = tlsObjects
        self.original = original
        self.isServer = client == nil
        self.lastPath = path
        self.provenLocal = path.local
        self.createdAt = now
        self.now = now
        super.init()
        route.connection = self
    }

    private final class ClientBox {
        let configuration: ClientConfiguration
        init(_ configuration: ClientConfiguration) { self.configuration = configuration }
    }

    /// Client: as it was made; nil on a server.
    var client: ClientConfiguration? { clientBox?.configuration }

    deinit {
        if let shim { llq_conn_free(shim) }
        var rest = sendBufferBytes + countedDatagramBytes + countedReadMemory + bytesKeptByOwner
        for stream in streams.all { rest += stream.receiveBuffer.count }
        receivedDatagrams.forEach { rest += $0.bytes.count }
        context.storage.memory.held -= rest
    }

    /// When its closing or draining period is over (RFC 9000 section 10.2), three probe timeouts after its last packet. nil
    /// until then: it lives, or what was written before its close is still on its way out.
    public internal(set) var quietAfter: QUICInstant?

    /// The present probe timeout, without what it was doubled by (RFC 9002 section 6.2.1); nil once ``quietAfter`` is set.
    public var probeTimeout: QUICDuration? { shim.map { .nanoseconds(llq_conn_pto($0)) } }

    /// Whether it is closing or closed: every call that needs it alive throws `closed`.
    @exclusivity(unchecked) public private(set) var isClosed = false

    /// The connection ID that the client chose first: both sides, their logs and qlog know the connection by it.
    public var originalDestinationID: [UInt8] { original.bytes }
    /// The same in hexadecimal digits.
    public var originalDestinationIDText: String { original.bytes.hexadecimal }

    public var description: String { "\(isServer ? "server" : "client") \(handle)" }
    /// Nothing: a connection refers to its whole endpoint.
    public var customMirror: Mirror { Mirror(self, children: [:]) }

    /// Where packets go now.
    public var path: QUICPath { lastPath }

    /// Closes with an application code. What was written goes out first as far as peer and network allow within two
    /// probe timeouts; to be sure of delivery finish streams and wait for `streamClosed`. The event `closed` follows at
    /// once.
    public func close(code: UInt64, reason: String, now: QUICInstant) {
        guard !isClosed, shim != nil else { return }
        advance(to: now)
        let code = ApplicationCode.carried(code)
        let reason = String(decoding: reason.utf8.prefix(1024), as: UTF8.self)
        pendingClose = (code, reason, self.now)
        end(.localApplication(code: code, reason: reason))
        endpoint.schedule(self)
    }

    /// Starts a key update (RFC 9001 section 6).
    /// - Returns: false while an earlier one isn't acknowledged, or before the handshake is confirmed.
    @discardableResult
    public func requestKeyUpdate(now: QUICInstant) -> Bool {
        guard let shim, !isClosed, handshake != nil else { return false }
        advance(to: now)
        let started = llq_conn_update_key(shim, self.now.nanoseconds) == 0
        if started { packetsAtKeyUpdate = packetsSent }
        afterInput()
        return started
    }

    /// Keying material for the application that both sides compute alike and nobody else can (RFC 8446 section 7.5), for
    /// instance to bind a login to this connection (RFC 9266).
    /// - Parameters:
    ///   - label: tells uses apart; from 1 to 249 bytes, registered or of your own.
    ///   - context: anything; both sides must give the same.
    ///   - count: bytes wanted, from 1 to 8160.
    /// - Throws: `closed`; `notEstablished` before the handshake is complete; `invalidConfiguration` for other lengths.
    public func exportKeyingMaterial(label: String, context: [UInt8], count: Int) throws(QUICError) -> [UInt8] {
        let shim = try alive()
        guard handshake != nil else {
            throw QUICError(
                .notEstablished, "There are no keys before the handshake is complete",
                advice: "Wait for `handshakeCompleted`.")
        }
        guard (1...249).contains(label.utf8.count), (1...8160).contains(count) else {
            throw QUICError(
                .invalidConfiguration, "A label of \(label.utf8.count) bytes for \(count) bytes isn't possible",
                advice: "Use a label of 1 to 249 bytes, and ask for 1 to 8160.")
        }
        var label = label
        var material = [UInt8](repeating: 0, count: count)
        let result = label.withUTF8 { label in
            label.withMemoryRebound(to: CChar.self) {
                llq_tls_export(shim, $0.baseAddress, $0.count, context, context.count, &material, count)
            }
        }
        guard result == 0 else {
            throw QUICError(
                .internalError, "The TLS library can't export keying material", cause: tlsErrorName(result),
                advice: "Use a shorter label, or ask for fewer bytes.")
        }
        return material
    }

    /// Sends a packet that the peer must acknowledge, whatever else there is to send: shows the peer where we are now, and
    /// whether the path lives. Does nothing before the handshake is complete.
    public func ping(now: QUICInstant) {
        guard let shim, !isClosed, handshake != nil else { return }
        advance(to: now)
        llq_conn_elicit(shim)
        endpoint.schedule(self)
    }

    /// Present numbers.
    public func statistics(now: QUICInstant) -> ConnectionStatistics {
        var result = ConnectionStatistics(path: lastPath)
        if let shim {
            var stats = llq_stats()
            llq_conn_stats(shim, &stats)
            result.latestRTT = .nanoseconds(stats.latest_rtt)
            result.minimumRTT = .nanoseconds(stats.min_rtt)
            result.smoothedRTT = .nanoseconds(stats.smoothed_rtt)
            result.rttVariation = .nanoseconds(stats.rtt_variation)
            result.congestionWindow = stats.congestion_window
            result.bytesInFlight = stats.bytes_in_flight
            result.keyUpdates = llq_conn_key_updates(shim)
            if context.qlog != nil { result.packetsLost = llq_conn_packets_lost(shim) }
        }
        result.bytesSent = bytesSent
        result.packetsSent = packetsSent
        result.bytesReceived = bytesReceived
        result.datagramsReceived = datagramsReceived
        result.packetsReceived = packetsReceived
        result.sendBufferBytes = sendBufferBytes
        result.age = .nanoseconds(max(now.nanoseconds, createdAt.nanoseconds) - createdAt.nanoseconds)
        result.handshake = handshake
        return result
    }

    // MARK: for the endpoint and the other files of this class

    func alive() throws(QUICError) -> OpaquePointer {
        guard let shim, !isClosed else {
            throw QUICError(.closed, "The connection is closed", advice: "Connect again.")
        }
        return shim
    }

    /// Time never goes back within a connection, whatever the owner's clock does.
    func advance(to now: QUICInstant) { self.now = max(self.now, now) }

    func emit(_ event: QUICConnectionEvent) {
        // A connection that lingers to send what was written before its close has told its end already.
        if isClosed {
            guard case .closed = event else { return }
        }
        endpoint.emit(event, from: self)
    }

    func errorName(_ code: Int32) -> String { String(cString: llq_error_name(code)) }

    /// Long before a key may protect no more packets (RFC 9001 section 6.6) it is updated. The peer may not be ready, then
    /// it is tried again.
    func updateKeyIfDue() {
        guard packetsSent &- packetsAtKeyUpdate >= settings.packetsPerKey else { return }
        if !requestKeyUpdate(now: now) { packetsAtKeyUpdate += settings.packetsPerKey / 16 }
    }

    /// Takes datagrams that lie one behind the other, all `segmentSize` long but perhaps the last.
    /// - Returns: what came of it: `LLQ_OK`, or what ended the connection.
    @discardableResult
    func receive(
        _ datagrams: UnsafeRawBufferPointer, segmentSize: Int, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) -> Int32 {
        guard let shim, let base = datagrams.baseAddress else { return Int32(LLQ_OK) }
        let count = (datagrams.count + segmentSize - 1) / segmentSize
        guard admits(path) else {
            endpoint.counters.datagramsFromRefusedPaths += UInt64(count)
            return Int32(LLQ_OK)
        }
        advance(to: now)
        bytesReceived += UInt64(datagrams.count)
        datagramsReceived += UInt64(count)
        var from = path.shim
        if handshake == nil, isServer { endpoint.server?.antiReplay?.host = path.remote.hostKey }
        // From elsewhere comes what moves the connection: the new path is to be validated.
        let isElsewhere = path != lastPath
        let timers = acknowledgesBy == nil ? expiry ?? llq_conn_expiry(shim) : nil
        let result = llq_conn_read(
            shim, &from, ecn.rawValue, base.assumingMemoryBound(to: UInt8.self), datagrams.count, segmentSize,
            allowedReadMemory, self.now.nanoseconds)
        packetsReceived = llq_conn_packets_authenticated(shim)
        processNotes()
        if result != 0 { fail(result) }
        if handshake != nil { updateKeyIfDue() }
        if let timers { noteUnacknowledged(others: timers) }
        afterInput(quietly: !isElsewhere)
        return result
    }

    @discardableResult
    func receive(
        _ datagram: UnsafeRawBufferPointer, path: QUICPath, ecn: ECNCodepoint, now: QUICInstant
    ) -> Int32 {
        receive(datagram, segmentSize: max(datagram.count, 1), path: path, ecn: ecn, now: now)
    }

    func handleExpiry(now: QUICInstant) {
        guard let shim else { return }
        advance(to: now)
        expiryHandled = self.now
        if let instant = pacedUntil, instant <= self.now { pacedUntil = nil }
        expireDatagrams()
        if pathFollowUp.isTime(now: self.now) { llq_conn_elicit(shim) }
        let result = llq_conn_handle_expiry(shim, self.now.nanoseconds)
        processNotes()
        if result != 0 { fail(result) }
        afterInput()
    }

    /// After anything that may have changed what is to be sent or when to wake up.
    /// - Parameter quietly: what is to be sent now may wait for more.
    func afterInput(quietly: Bool = false) {
        if peerStreamRecords > endpoint.maxPeerStreamRecords { endForStreamRecords() }
        if givenIDs > endpoint.maxGivenIDs, hasUsedUpIDs { endForGivenIDs() }
        if let shim, countReadMemory(shim) { endpoint.boundReadMemory(of: handshakeAddressKey, now: now) }
        guard let shim else { return }
        loseDatagrams(shim)
        noticePath(shim)
        reportDatagramSize()
        expiry = nil
        endpoint.schedule(self, quietly: quietly)
    }

    /// When it wants to be woken. ngtcp2 may still name an instant that was handled, until it has sent what that asked for;
    /// while pacing or the congestion window holds that back, asking again at once would spin, so it is asked a
    /// millisecond later.
    func currentDeadline() -> QUICInstant? {
        guard let shim else { return nil }
        let unsent = datagramsToSend.earliestDeadline?.nanoseconds ?? UInt64.max
        let sent = datagramLossDeadline(shim)?.nanoseconds ?? UInt64.max
        let closes = lingersUntil?.nanoseconds ?? UInt64.max
        let followUp = pathFollowUp.due?.nanoseconds ?? UInt64.max
        let timers = acknowledgesBy?.nanoseconds ?? self.expiry ?? llq_conn_expiry(shim)
        let expiry = min(timers, unsent, sent, closes, followUp)
        guard expiry != UInt64.max else { return nil }
        if let handled = expiryHandled, expiry <= handled.nanoseconds {
            return handled.advanced(byNanoseconds: 1_000_000)
        }
        return QUICInstant(nanoseconds: expiry)
    }
}
