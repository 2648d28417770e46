public import LonglineSession
public import LonglineWire
public import NIOCore
public import QUICEngine
internal import QUICTransport

/// A link on one QUIC connection: lane 0 is the client's first bidirectional stream, lane n the sender's n-th
/// unidirectional stream. The close code travels in CONNECTION_CLOSE.
///
/// ```
///  connecting --early data possible, or handshake--> established --close()--> closing --all acknowledged--> closed
///       |                                                |                       | or a second passed         ^
///       +------------------ connection closed -----------+-----------------------+----------------------------+
/// ```
/// A link that is closing reads nothing more: flow control stops a peer that goes on sending.
///
/// Confined to its event loop, as every link.
public final class QUICLink: Link {
    enum State { case connecting, established, closing, closed }

    /// How long a close waits for what was queued before it.
    private static let closePatience = TimeAmount.seconds(1)
    private static let closePollInterval = TimeAmount.milliseconds(5)
    /// One lane in so many begins with a frame of a type that nobody knows, so that peers can't forget to skip those.
    private static let greaseInterval: UInt64 = 16
    /// Bytes taken from a stream at once.
    private static let readSize = 64 << 10

    public let kind = LinkKind.quic
    public let eventLoop: any EventLoop
    /// Whether this side accepted the connection.
    public let isServer: Bool

    private(set) var state = State.connecting
    private(set) var handler: (any LinkHandler)?
    private var random: any RandomNumberGenerator
    private(set) var connection: QUICLoopConnection?
    private let startedAt = NIODeadline.now()
    private var lastRemoteAddress = ""
    private(set) var control: QUICStreamID?
    /// Early data can't be meant any more.
    private(set) var isHandshakeComplete = false
    /// Whether the server is known to have the client's last flight: before that a connection can't move to another path (RFC 9000
    /// section 9), and a session may be up already, as a server answers early data at once.
    public private(set) var isHandshakeConfirmed = false
    var signals = SignalDatagrams()
    private var inbound: [QUICStreamID: InboundLane] = [:]
    private(set) var outbound: [LaneID: OutboundLane] = [:]
    /// What waits on all of these, and how much may.
    private var waitingBytes = 0
    private let maximumWaitingBytes: Int
    private var lanesByStream: [QUICStreamID: LaneID] = [:]
    /// Lanes that wait for stream credit, in the order of their numbers.
    private var unopened: [LaneID] = []
    private var dirty: [LaneID] = []
    /// Lanes of which somebody wants to know when they are delivered, with the number of the last question.
    private var undelivered: [LaneID: UInt64] = [:]
    private var inBatch = false
    private var flushScheduled = false
    private var closeDeadline: NIODeadline?
    private var closing: (code: CloseCode, reason: String)?

    init(
        eventLoop: any EventLoop, isServer: Bool, handler: any LinkHandler, maximumWaitingBytes: Int = .max,
        random: any RandomNumberGenerator = SystemRandomNumberGenerator()
    ) {
        self.maximumWaitingBytes = maximumWaitingBytes
        self.eventLoop = eventLoop
        self.random = random
        self.isServer = isServer
        self.handler = handler
        outbound[.control] = OutboundLane()
    }

    /// The connection beneath; given once, before any event.
    func attach(_ connection: QUICLoopConnection) { self.connection = connection }

    // MARK: Facts

    public var remoteAddress: String {
        if let address = connection?.path?.remote { return "\(address)" }
        return lastRemoteAddress
    }

    /// The address and port of this side; nil before the first packet and after the end.
    public var localAddress: SocketAddress? { connection?.localAddress }

    /// The connection's numbers; nil before the first packet and after the end.
    public var statistics: ConnectionStatistics? { connection?.statistics() }

    public var partialBytes: Int {
        inbound.values.reduce(0) { $0 + ($1.id == .control ? 0 : $1.heldBytes) }
    }

    // MARK: Link

    public var laneLimit: Int {
        // Those that are open count once more when they end, as far as a peer keeps to what it said first.
        let open = lanesByStream.count - (control == nil ? 0 : 1)
        return open + (connection?.streamsLeft(bidirectional: false) ?? 0)
    }

    public func openLane(_ lane: LaneID) {
        guard state == .connecting || state == .established, outbound[lane] == nil else { return }
        // The stream's number is the lane's: they are opened in order, one after another.
        assert(lane.rawValue > (unopened.last?.rawValue ?? 0), "lanes are opened in the order of their numbers")
        var out = OutboundLane()
        if UInt64.random(in: 0..<Self.greaseInterval, using: &random) == 0 {
            FrameEncoder.grease(using: &random, into: &out.pending)
        }
        waitingBytes += out.pending.readableBytes
        outbound[lane] = out
        unopened.append(lane)
        openStreams()
    }

    public func prioritize(_ lane: LaneID, _ urgency: Urgency) {
        guard lane != .control, outbound[lane] != nil else { return }
        outbound[lane]?.urgency = urgency
        if let stream = outbound[lane]?.stream { setPriority(of: stream, lane: lane) }
    }

    private func setPriority(of stream: QUICStreamID, lane: LaneID) {
        guard let priority = outbound[lane]?.priority(isControl: lane == .control) else { return }
        connection?.setPriority(priority, of: stream)
    }

    public func send(_ frame: Frame, lane: LaneID) {
        guard state == .connecting || state == .established, let index = outbound.index(forKey: lane) else { return }
        let before = outbound.values[index].pending.readableBytes
        do throws(FrameError) {
            if try outbound.values[index].append(frame) { mark(lane) }
            waitingBytes += outbound.values[index].pending.readableBytes - before
        } catch {
            // An error of this side. Going on without the frame would leave a hole that the peer can't see.
            return close(.internalError, reason: "a frame that can't be sent: \(error.code)")
        }
        // At once: before the flush, a payload whose bytes are in memory would put megabytes here.
        guard state == .established, let changed = outbound.values[index].updateWritability() else { return }
        handler?.laneWritabilityChanged(lane, writable: changed, link: self)
    }

    public func pollSockets() { connection?.pollSockets() }

    public func finishLane(_ lane: LaneID) {
        guard state == .connecting || state == .established, outbound[lane]?.finishes == false else { return }
        outbound[lane]?.finishes = true
        mark(lane)
    }

    public func isWritable(_ lane: LaneID) -> Bool {
        guard state == .connecting || state == .established, let out = outbound[lane] else { return false }
        return out.isWritable
    }

    public func reportWhenDrained(_ lane: LaneID) {
        guard state == .connecting || state == .established, outbound[lane] != nil else { return }
        outbound[lane]?.owesReport = true
        mark(lane)
    }

    public func reportWhenDelivered(_ lane: LaneID, question: UInt64) {
        guard state == .connecting || state == .established else { return }
        outbound[lane]?.awaitDelivery()
        undelivered[lane] = question
    }

    public func close(_ code: CloseCode, reason: String) {
        eventLoop.preconditionInEventLoop()
        guard state == .connecting || state == .established else { return }
        let hadData = state == .established
        state = .closing
        closing = (code, reason)
        closeDeadline = .now() + Self.closePatience
        for stream in inbound.keys { inbound[stream]?.abandon() }
        guard hadData else { return finishClosing() }
        // A server drops what comes behind CLOSE: what this side said before, on other lanes, goes first.
        if !isServer, let control {
            connection?.setPriority(StreamPriority(urgency: StreamPriority.leastUrgent), of: control)
        }
        flush()
        scheduleClosePoll()
    }

    /// Client: gives the link up without a word to the server. The handler hears nothing any more.
    public func abandon() {
        handler = nil
        state = .closed
        connection?.abandon()
        connection = nil
    }

    // MARK: Events

    func handle(_ event: QUICConnectionEvent) {
        inBatch = true
        switch event {
        case .accepted, .earlyDataPossible: establish()
        case .handshakeCompleted(let info):
            establish()
            report(info)
        case .streamOpened(let stream): opened(stream)
        case .streamReadable(let stream): read(stream)
        case .streamWritable(let stream): if let lane = lanesByStream[stream] { mark(lane) }
        case .streamReset(let stream, _): reset(stream)
        case .stopSending(let stream, _): stopped(stream)
        case .streamClosed(let stream): closed(stream)
        case .streamsAvailable: openStreams()
        case .sessionTicket(let ticket): handler?.sessionTicketReceived(ticket.bytes, link: self)
        case .addressToken(let token): handler?.addressTokenReceived(token, link: self)
        case .handshakeConfirmed: isHandshakeConfirmed = true
        case .pathChanged: handler?.pathChanged(self)
        case .closed(let reason): ended(reason)
        case .datagram(let bytes, _): received(datagram: bytes)
        case .earlyDataRejected, .datagramAcknowledged, .datagramLost, .datagramExpired,
            .maxDatagramSizeChanged, .pathValidated, .pathFailed, .streamDelivered:
            break
        }
    }

    func packetsReceived() {
        if state == .established { handler?.packetReceived(self) }
        if state == .closing { pollClose() }
    }

    func batchEnded() {
        if state != .closed {
            // The handler's own sends of this batch leave together with what was marked before.
            inBatch = true
            if !undelivered.isEmpty { reportDeliveries() }
            if state != .connecting { handler?.batchEnded(self) }
        }
        inBatch = false
        flush()
    }

    private func establish() {
        guard state == .connecting else { return }
        state = .established
        lastRemoteAddress = remoteAddress
        handler?.linkEstablished(self)
        openStreams()
    }

    private func report(_ info: HandshakeInfo) {
        isHandshakeComplete = true
        guard state == .established else { return }
        handler?.handshakeCompleted(
            self,
            info: LinkHandshake(
                applicationProtocol: info.applicationProtocol ?? "", resumed: info.resumed,
                earlyDataAccepted: info.earlyData == .accepted, duration: .now() - startedAt))
    }

    private func ended(_ reason: QUICCloseReason) {
        guard state != .closed else { return }
        state = .closed
        connection = nil
        inbound.removeAll()
        outbound.removeAll()
        let handler = self.handler
        self.handler = nil
        handler?.linkClosed(self, reason: LinkCloseReason(reason))
    }

    // MARK: Reading

    private func opened(_ stream: QUICStreamID) {
        if stream.isBidirectional {
            // The client's first one is lane 0; nobody opens another.
            guard isServer, stream.ordinal == 0 else {
                connection?.reset(stream, code: UInt64(CloseCode.unexpectedFrame.rawValue))
                connection?.stopSending(stream, code: UInt64(CloseCode.unexpectedFrame.rawValue))
                return
            }
            bindControl(stream)
        } else {
            inbound[stream] = InboundLane(id: LaneID(rawValue: stream.ordinal + 1))
        }
    }

    private func bindControl(_ stream: QUICStreamID) {
        control = stream
        inbound[stream] = InboundLane(id: .control)
        lanesByStream[stream] = .control
        outbound[.control]?.stream = stream
        setPriority(of: stream, lane: .control)
        mark(.control)
    }

    private func read(_ stream: QUICStreamID) {
        while state != .closing, let connection, inbound[stream]?.isOver == false {
            let early = isServer && connection.isEarly(stream)
            guard let piece = try? connection.read(stream, maximumBytes: Self.readSize) else { return }
            inbound[stream]?.append(piece.bytes, early: early)
            deliver(stream)
            if piece.finished { return finish(stream) }
            if piece.bytes.readableBytes == 0 { return }
        }
    }

    private func deliver(_ stream: QUICStreamID) {
        // The handler may close the link between two frames: nothing is delivered then.
        while state == .established, let lane = inbound[stream]?.id {
            do throws(FrameError) {
                guard let (frame, early) = try inbound[stream]?.next() else { return }
                handler?.received(frame, lane: lane, early: early, link: self)
            } catch {
                // The handler closes, and nothing more is read. To stop the stream would overtake `CLOSE`, and hide why.
                handler?.receivedInvalid(error, lane: lane, link: self)
                return
            }
        }
    }

    private func finish(_ stream: QUICStreamID) {
        guard state == .established, let lane = inbound[stream]?.id else { return }
        do throws(FrameError) {
            try inbound[stream]?.finish()
            handler?.laneFinished(lane, link: self)
        } catch {
            handler?.receivedInvalid(error, lane: lane, link: self)
        }
    }

    private func reset(_ stream: QUICStreamID) {
        guard let lane = inbound[stream], !lane.isOver else { return }
        inbound[stream]?.abandon()
        guard state == .established else { return }
        if lane.id == .control {
            handler?.laneStopped(lane.id, link: self)
        } else {
            handler?.laneFinished(lane.id, link: self)
        }
    }

    private func closed(_ stream: QUICStreamID) {
        read(stream)
        inbound[stream] = nil
        guard let lane = lanesByStream.removeValue(forKey: stream), lane != .control else { return }
        waitingBytes -= outbound.removeValue(forKey: lane)?.pending.readableBytes ?? 0
    }

    // MARK: Writing

    private func stopped(_ stream: QUICStreamID) {
        guard let lane = lanesByStream[stream], let out = outbound[lane] else { return }
        outbound[lane]?.isDead = true
        outbound[lane]?.pending.clear()
        waitingBytes -= out.pending.readableBytes
        mark(lane)
        // One that wants nothing behind the last frame has lost nothing.
        if state == .established, !out.finished { handler?.laneStopped(lane, link: self) }
    }

    private func openStreams() {
        guard state == .established || state == .closing, let connection else { return }
        do throws(QUICError) {
            if !isServer, control == nil {
                guard let stream = try connection.openStream(bidirectional: true) else { return }
                bindControl(stream)
            }
            while let lane = unopened.first {
                guard let stream = try connection.openStream(bidirectional: false) else { return }
                assert(stream.ordinal + 1 == lane.rawValue, "lane n is the sender's n-th unidirectional stream")
                unopened.removeFirst()
                lanesByStream[stream] = lane
                outbound[lane]?.stream = stream
                if outbound[lane]?.urgency != .chat { setPriority(of: stream, lane: lane) }
                mark(lane)
            }
        } catch {
            // The connection is closing; its last event follows.
        }
    }

    private func mark(_ lane: LaneID) {
        dirty.append(lane)
        guard !inBatch, !flushScheduled else { return }
        flushScheduled = true
        eventLoop.assumeIsolated().execute {
            self.flushScheduled = false
            self.flush()
        }
    }

    private func flush() {
        guard state == .established || state == .closing else { return }
        let lanes = dirty
        dirty.removeAll(keepingCapacity: true)
        var reported = false
        for lane in lanes {
            let told = flush(lane)
            reported = reported || told
        }
        let isOverfull = outbound.count > OutboundLane.lanesLimit || waitingBytes > maximumWaitingBytes
        if state == .established, isOverfull, let last = lanes.last {
            handler?.laneOverfull(last, link: self)
            reported = true
        }
        // Nothing else may ever come that the handler would work off what it was told with.
        if reported, state == .established { handler?.batchEnded(self) }
    }

    /// - Returns: whether the handler was told of the lane.
    private func flush(_ lane: LaneID) -> Bool {
        // The lane leaves the table while it is written, so that its buffer has one owner.
        guard var out = outbound.removeValue(forKey: lane) else { return false }
        let before = out.pending.readableBytes
        if let stream = out.stream, let connection, !out.isDead, !out.finished {
            let finish = out.finishes
            do throws(QUICError) {
                if out.pending.readableBytes > 0 || finish {
                    out.written += UInt64(try connection.write(&out.pending, to: stream, finish: finish))
                    out.finished = finish && out.pending.readableBytes == 0
                }
                if out.pending.readableBytes == 0 { out.pending.clear() } else { out.pending.discardReadBytes() }
            } catch {
                out.isDead = true
                out.pending.clear()
            }
        }
        let changed = out.updateWritability()
        let isOverfull = out.isOverfull
        waitingBytes += out.pending.readableBytes - before
        outbound[lane] = out
        guard state == .established else { return false }
        if let changed { handler?.laneWritabilityChanged(lane, writable: changed, link: self) }
        if isOverfull { handler?.laneOverfull(lane, link: self) }
        return changed != nil || isOverfull
    }

    /// Whatever came may have been an acknowledgement.
    private func reportDeliveries() {
        guard state == .established else { return }
        for lane in undelivered.keys.filter(isDelivered).sorted() {
            guard let question = undelivered.removeValue(forKey: lane) else { continue }
            handler?.laneDelivered(lane, question: question, link: self)
        }
    }

    private func isDelivered(_ lane: LaneID) -> Bool {
        guard let out = outbound[lane] else { return true }
        let unacknowledged = out.stream.flatMap { connection?.unacknowledgedBytes($0) }
        return out.isDelivered(unacknowledged: unacknowledged ?? 0)
    }

    // MARK: Closing

    private func scheduleClosePoll() {
        eventLoop.assumeIsolated().scheduleTask(in: Self.closePollInterval) {
            guard self.state == .closing else { return }
            self.pollClose()
            if self.state == .closing, self.closing != nil { self.scheduleClosePoll() }
        }
    }

    /// Closes once the peer has acknowledged everything that was sent before, so that no last word is lost.
    private func pollClose() {
        guard closing != nil, let connection, let closeDeadline else { return }
        let waits = outbound.values.contains { !$0.isDead && $0.pending.readableBytes > 0 }
        let unacknowledged = connection.statistics()?.sendBufferBytes ?? 0
        if (waits || unacknowledged > 0) && .now() < closeDeadline { return }
        finishClosing()
    }

    private func finishClosing() {
        guard let closing else { return }
        self.closing = nil
        connection?.close(code: UInt64(closing.code.rawValue), reason: closing.reason)
    }
}

extension LinkCloseReason {
    init(_ reason: QUICCloseReason) {
        switch reason {
        case .localApplication: self = .local
        case .peerApplication(let code, let reason):
            self = .peer(code: CloseCode(rawValue: UInt32(clamping: code)), reason: reason)
        case .idleTimeout: self = .idleTimeout
        case .handshakeFailed(let error) where error.code.precedesFirstPacket: self = .failed(reason.summary)
        case .handshakeFailed, .versionNegotiation: self = .handshakeFailed(reason.summary)
        case .handshakeTimeout: self = .handshakeTimeout
        default: self = .failed(reason.summary)
        }
    }
}

/// Forwards a connection's calls, so that they aren't part of the link's public face.
final class QUICLinkEvents: QUICConnectionHandler {
    private let link: QUICLink

    init(_ link: QUICLink) { self.link = link }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) { link.handle(event) }
    func batchEnded(on connection: QUICLoopConnection) { link.batchEnded() }
    func packetsReceived(on connection: QUICLoopConnection) { link.packetsReceived() }
}
