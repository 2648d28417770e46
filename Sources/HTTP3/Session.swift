internal import DequeModule
internal import HTTPTypes
internal import Logging
internal import NIOCore
internal import QUICEngine
internal import QUICTransport

/// One connection of HTTP/3, on either side, confined to its event loop: settings, QPACK, GOAWAY, and a table of exchanges.
///
/// ```
///  starting --handshake, or 0-RTT possible--> open --drain()--> draining --no exchange left--> closed
///      \                                       |                   |                             ^
///       +--------------- connection closed, or a rule was broken --+-----------------------------+
/// ```
final class Session {
    enum State { case starting, open, draining, closed }

    let connection: QUICLoopConnection
    let isServer: Bool
    let limits: HTTP3Limits
    let meter: Meter
    let logger: Logger
    /// Server: what to do with a request. Called once for each, when its header section and what came with that were read.
    @exclusivity(unchecked) var onRequest: ((Exchange, RequestHead) -> Void)?
    /// Server: makes the answer that no handler gives.
    @exclusivity(unchecked) var refusal:
        ((HTTPResponse.Status, (any Error)?) -> (head: HTTPResponse, body: ByteBuffer))?
    /// Called once, when the connection is over.
    @exclusivity(unchecked) var onClosed: ((QUICCloseReason) -> Void)?
    /// Server: told when a request is worked on, when none is any more, and then at most once a second that an answer goes on.
    @exclusivity(unchecked) var onWork: ((_ isWorking: Bool) -> Void)?
    /// Client: something changed that requests may wait for.
    @exclusivity(unchecked) var onProgress: (() -> Void)?

    @exclusivity(unchecked) var state = State.starting
    @exclusivity(unchecked) var closeReason: QUICCloseReason?
    /// The peer broke a rule: what it sent is worth nothing any more.
    @exclusivity(unchecked) private(set) var isBroken = false
    @exclusivity(unchecked) var isHandshakeComplete = false
    @exclusivity(unchecked) private(set) var exchanges: [QUICStreamID: Exchange] = [:]
    /// The one of the last event, which is most often the next one's, too.
    @exclusivity(unchecked) private var lastExchange: Exchange?
    @exclusivity(unchecked) var inbound: [QUICStreamID: InboundStream] = [:]
    @exclusivity(unchecked) var outbound = OutboundStreams()
    @exclusivity(unchecked) var control: ControlStreamReader
    @exclusivity(unchecked) var peerSettings: PeerSettings?
    /// Which streams the peer has opened, each once.
    @exclusivity(unchecked) var peerStreams = Set<UInt64>()
    /// The peer's decoder stream, which isn't read before its settings: they decide which encoder it talks to.
    @exclusivity(unchecked) var heldDecoderStream: QUICStreamID?
    /// Frames of the control stream that are complete and not yet acted on: those of one read.
    @exclusivity(unchecked) var controlFrames: [ControlFrame] = []

    let encoder: FieldEncoder
    let decoder: FieldDecoder
    @exclusivity(unchecked) var messages = MessageReader()
    @exclusivity(unchecked) var lines = FieldLines()
    @exclusivity(unchecked) private var scratch: ByteBuffer?
    private static let largestScratch = 2 << 10
    /// Exchanges whose sections wait for table entries; the limit is `blockedStreams`.
    @exclusivity(unchecked) var blocked: [QUICStreamID] = []

    /// Server: the request stream behind all that came.
    @exclusivity(unchecked) var nextRequestStream: UInt64 = 0
    /// What we said in GOAWAY, and what the peer said.
    @exclusivity(unchecked) var sentGoaway: UInt64?
    @exclusivity(unchecked) var receivedGoaway: UInt64?
    @exclusivity(unchecked) private var maxPushID: UInt64?
    /// Server: priorities of requests that haven't come yet (RFC 9218 section 7.1). Limited by ``heldPriorities``: the first goes of those
    /// that a later request overtook, as they may be over; where there is none, the first of all.
    @exclusivity(unchecked) var earlyPriorities: [(stream: UInt64, priority: HTTP3Priority)] = []
    static let heldPriorities = 64
    /// Server: requests that the client gives up.
    @exclusivity(unchecked) private var cancellations: RateLimit
    /// Server: what the client takes of its responses.
    @exclusivity(unchecked) var pace = ResponsePace()
    @exclusivity(unchecked) var sweep: Scheduled<Void>?
    @exclusivity(unchecked) var finalGoaway: Scheduled<Void>?
    /// Waits for what the client has to get before the end, and for how much longer at most.
    @exclusivity(unchecked) var farewell: Scheduled<Void>?
    @exclusivity(unchecked) var patience = Session.longestFarewell
    /// Server: requests that are worked on.
    @exclusivity(unchecked) var working = 0
    /// Server: when it was last told that an answer goes on.
    @exclusivity(unchecked) var advancedAt = NIODeadline.uptimeNanoseconds(0)
    /// Server: since when there is no request, and what looks at that.
    @exclusivity(unchecked) var idleSince = NIODeadline.now()
    @exclusivity(unchecked) var idleTimer: Scheduled<Void>?
    @exclusivity(unchecked) private var inBatch = false
    @exclusivity(unchecked) private var flushScheduled = false

    /// - Returns: nil: no memory.
    init?(_ connection: QUICLoopConnection, limits: HTTP3Limits, meter: Meter, logger: Logger) {
        let limits = limits.effective
        guard let encoder = FieldEncoder(),
            let decoder = FieldDecoder(capacity: limits.tableCapacity, blockedStreams: limits.blockedStreams)
        else { return nil }
        self.connection = connection
        isServer = connection.isServer
        self.limits = limits
        self.meter = meter
        self.logger = logger
        self.encoder = encoder
        self.decoder = decoder
        control = ControlStreamReader(isServer: connection.isServer)
        cancellations = RateLimit(limits.cancellations)
    }

    // MARK: Events

    func handle(_ event: QUICConnectionEvent) {
        if case .closed(let reason) = event { return ended(reason) }
        guard state != .closed else { return }
        inBatch = true
        switch event {
        case .accepted, .earlyDataPossible: begin()
        case .handshakeCompleted:
            isHandshakeComplete = true
            meter.count(.connections)
            if isServer, let limit = limits.openRequests { connection.raiseBidirectionalStreamLimit(to: limit) }
            begin()
            onProgress?()
        case .streamOpened(let stream): opened(stream)
        case .streamReadable(let stream): readable(stream)
        case .streamWritable(let stream):
            if let exchange = exchange(stream) { exchange.writable() } else { flushOutbound() }
        case .streamReset(let stream, let code): wasReset(stream, code)
        case .stopSending(let stream, let code): wasStopped(stream, code)
        case .streamClosed(let stream): closed(stream)
        case .streamsAvailable(let bidirectional):
            if bidirectional { onProgress?() } else { flushOutbound() }
        default: break
        }
    }

    func batchEnded() {
        inBatch = false
        guard state != .closed else { return }
        flushOutbound()
        closeIfDrained()
    }

    /// What tasks caused between two batches leaves with the loop's turn.
    func needsFlush() {
        guard !inBatch, !flushScheduled, state != .closed else { return }
        flushScheduled = true
        connection.eventLoop.assumeIsolated().execute {
            self.flushScheduled = false
            guard self.state != .closed else { return }
            self.flushOutbound()
            self.closeIfDrained()
        }
    }

    private func begin() {
        guard state == .starting else { return }
        state = .open
        // The port's other protocols may have announced that they take some, and a flood costs us more than the peer.
        connection.refuseDatagrams()
        watchIdleness()
        outbound.control.writeVarint(StreamType.control)
        var settings = ByteBuffer()
        settings.writeVarint(0x6)
        settings.writeVarint(UInt64(limits.fieldSectionSize))
        if limits.tableCapacity > 0 {
            settings.writeVarint(0x1)
            settings.writeVarint(UInt64(limits.tableCapacity))
            settings.writeVarint(0x7)
            settings.writeVarint(UInt64(limits.blockedStreams))
        }
        // One that means nothing, so that peers can't forget to pass over those (RFC 9114 section 7.2.4.1).
        settings.writeVarint(0x1f * UInt64.random(in: 1...1 << 20) + 0x21)
        settings.writeVarint(0)
        outbound.control.writeFrameHeader(FrameType.settings, length: settings.readableBytes)
        outbound.control.writeBuffer(&settings)
        flushOutbound()
        onProgress?()
    }

    private func opened(_ stream: QUICStreamID) {
        guard stream.isBidirectional else {
            inbound[stream] = InboundStream()
            return
        }
        guard isServer else {
            return fail(.connection(.streamCreationError, "a server opened a request stream"))
        }
        nextRequestStream = max(nextRequestStream, stream.rawValue + 4)
        let exchange = Exchange(stream, session: self)
        if let limit = sentGoaway, stream.rawValue >= limit {
            meter.count(.rejected)
            add(exchange)
            return exchange.abandon(.requestRejected, .goingAway)
        }
        add(exchange)
        exchange.deadline = .now() + limits.requestHeadTimeout
        if let index = earlyPriorities.firstIndex(where: { $0.stream == stream.rawValue }) {
            exchange.priority = earlyPriorities.remove(at: index).priority
            exchange.isPriorityUpdated = true
        }
        connection.setPriority(exchange.priority.stream, of: stream)
        scheduleSweep()
    }

    // MARK: Exchanges

    func exchange(_ stream: QUICStreamID) -> Exchange? {
        if let lastExchange, lastExchange.id == stream { return lastExchange }
        guard let found = exchanges[stream] else { return nil }
        lastExchange = found
        return found
    }

    func add(_ exchange: Exchange) {
        exchanges[exchange.id] = exchange
        lastExchange = exchange
    }

    /// Whether a request is under way that the connection's end waits for.
    var isBusy: Bool { exchanges.values.contains { !$0.isLeftBehind && !$0.isOver } }

    /// An exchange is over; its table entry with it.
    func remove(_ exchange: Exchange) {
        if lastExchange === exchange { lastExchange = nil }
        exchanges[exchange.id] = nil
        // Others may be there that are over but for their client's end of the stream.
        watchIdleness()
        if !blocked.isEmpty { blocked.removeAll { $0 == exchange.id } }
        if state == .draining { needsFlush() }
    }

    private func readable(_ stream: QUICStreamID) {
        if let exchange = exchange(stream) {
            exchange.readable()
        } else if !stream.isBidirectional {
            readUnidirectional(stream)
        }
    }

    private func wasReset(_ stream: QUICStreamID, _ code: UInt64) {
        if let exchange = exchange(stream) { return exchange.wasReset(code) }
        guard let kind = inbound.removeValue(forKey: stream)?.kind, kind.isCritical else { return }
        fail(.connection(.closedCriticalStream, "the peer reset a stream that the connection needs"))
    }

    private func wasStopped(_ stream: QUICStreamID, _ code: UInt64) {
        if let exchange = exchange(stream) { return exchange.wasStopped(code) }
        guard outbound.contains(stream) else { return }
        fail(.connection(.closedCriticalStream, "the peer refused a stream that the connection needs"))
    }

    private func closed(_ stream: QUICStreamID) {
        if let exchange = exchange(stream) { return exchange.closed() }
        if heldDecoderStream == stream {
            return fail(.connection(.closedCriticalStream, "the peer ended a stream that the connection needs"))
        }
        readUnidirectional(stream)
        inbound[stream] = nil
    }

    // MARK: Sections

    /// An empty buffer for a message's first bytes: the memory of the last one's, if nobody holds that.
    func takeScratch(_ capacity: Int) -> ByteBuffer {
        var buffer = scratch ?? ByteBufferAllocator().buffer(capacity: capacity)
        scratch = nil
        buffer.clear(minimumCapacity: capacity)
        return buffer
    }

    func keepScratch(_ buffer: ByteBuffer) {
        if buffer.storageCapacity <= Self.largestScratch { scratch = buffer }
    }

    /// Gathers a request's header section in ``lines``.
    /// - Returns: the content length that it states.
    /// - Throws: ``HTTP3Error`` if it can't be sent, or the peer doesn't take one as large.
    func gather(_ request: HTTPRequest) throws -> UInt64? {
        lines.removeAll()
        let length = try lines.append(request)
        try checkSize()
        return length
    }

    private func checkSize() throws {
        guard let limit = peerSettings?.fieldSectionSize, UInt64(lines.size) > limit else { return }
        throw HTTP3Error(
            .fieldSectionTooLarge, "the section has \(lines.size) bytes, and the peer takes \(limit)",
            advice: "Send fewer or shorter fields.")
    }

    /// Appends a HEADERS frame with the lines gathered in ``lines``.
    func encodeLines(for stream: QUICStreamID, into buffer: inout ByteBuffer) throws {
        try checkSize()
        guard
            encoder.encode(
                lines, for: stream.rawValue, usesTable: encoder.hasTable && !isEncoderHeldUp, into: &buffer,
                instructions: &outbound.encoder)
        else {
            throw HTTP3Error(.invalidState, "the QPACK encoder has failed", advice: "Connect again.")
        }
        if outbound.encoder.readableBytes > 0 { flushOutbound() }
    }

    /// Whether an instruction for the peer's table couldn't leave at once.
    private var isEncoderHeldUp: Bool {
        outbound.encoder.readableBytes > 0
            || (outbound.encoderStream.map { connection.unsentBytes($0) > OutboundStreams.heldUp } ?? false)
    }

    /// Sections that waited are tried again.
    func retryBlocked() {
        guard !blocked.isEmpty else { return }
        let waiting = blocked
        blocked.removeAll(keepingCapacity: true)
        for stream in waiting { exchange(stream)?.retryBlocked() }
    }

    // MARK: The end

    func fail(_ violation: Violation, of exchange: Exchange? = nil) {
        switch violation {
        case .stream(let code, let what):
            meter.count(.malformed)
            log("a request is malformed", what, code)
            let wasHandled = exchange?.isHandling ?? false
            exchange?.abandon(code, .malformed(what, code))
            // To have us give up what was begun is to give it up (CVE-2025-8671).
            if wasHandled { limitCancellations() }
        case .connection(let code, let what):
            guard state != .closed else { return }
            isBroken = true
            meter.count(.protocolErrors)
            log("the peer broke a rule", what, code)
            close(code, reason: what)
        }
    }

    /// The peer gave an exchange up.
    func limitCancellations() {
        guard isServer, state != .closed, !cancellations.admits(.now()) else { return }
        fail(.connection(.excessiveLoad, "the client gives up too many requests"))
    }

    /// The peer has the whole answer of an exchange.
    func noteAnswered() { cancellations.forgive() }

    private func log(_ message: Logger.Message, _ what: String, _ code: HTTP3ErrorCode) {
        guard logger.logLevel <= .debug else { return }
        logger.debug(
            message,
            metadata: connection.logMetadata.merging(["http3.code": "\(code)", "http3.cause": "\(what)"]) { $1 })
    }

    func close(_ code: HTTP3ErrorCode, reason: String = "") {
        guard state != .closed else { return }
        state = .closed
        connection.close(code: code.rawValue, reason: reason)
    }

    private func ended(_ reason: QUICCloseReason) {
        state = .closed
        closeReason = reason
        sweep?.cancel()
        finalGoaway?.cancel()
        farewell?.cancel()
        idleTimer?.cancel()
        let error = HTTP3Error.closed(reason)
        let all = exchanges
        exchanges.removeAll()
        lastExchange = nil
        inbound.removeAll()
        for exchange in all.values { exchange.connectionClosed(error) }
        onRequest = nil
        onWork = nil
        onProgress?()
        onProgress = nil
        onClosed?(reason)
        onClosed = nil
    }

    // MARK: What the peer's control stream says

    func received(_ frame: ControlFrame) throws(Violation) {
        switch frame {
        case .settings(let settings):
            peerSettings = settings
            encoder.allow(
                peerCapacity: settings.tableCapacity, blockedStreams: settings.blockedStreams,
                ownCapacity: limits.encoderTableCapacity)
            if let stream = heldDecoderStream {
                heldDecoderStream = nil
                readUnidirectional(stream)
            }
        case .goaway(let id): try receivedGoaway(id)
        case .maxPushID(let id):
            guard id >= maxPushID ?? 0 else { throw .connection(.idError, "MAX_PUSH_ID became smaller") }
            maxPushID = id
        case .cancelPush:
            throw .connection(.idError, "CANCEL_PUSH for a push that was not promised")
        case .priorityUpdate(let stream, let priority): try update(stream, priority)
        }
    }

    private func update(_ id: UInt64, _ priority: HTTP3Priority) throws(Violation) {
        // RFC 9218 section 7.2.
        if let limit = connection.peerBidirectionalStreamLimit, id >> 2 >= limit {
            throw .connection(.idError, "PRIORITY_UPDATE for a stream that may not be opened")
        }
        if let exchange = exchange(QUICStreamID(rawValue: id)) {
            guard !exchange.isPriorityDecided else { return }
            exchange.isPriorityUpdated = true
            exchange.setPriority(priority)
        } else {
            // One that is over is not told from one that a later one overtook on the way: it only takes a place.
            earlyPriorities.removeAll { $0.stream == id }
            if earlyPriorities.count >= Self.heldPriorities {
                let over = earlyPriorities.firstIndex { $0.stream < nextRequestStream }
                if over == nil, id < nextRequestStream { return }
                earlyPriorities.remove(at: over ?? 0)
            }
            earlyPriorities.append((id, priority))
        }
    }
}
