import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import QUICTransport
import Synchronization

@testable import LonglineClient

/// A service in memory: accepts, refuses, cuts and answers as a test says, and keeps a ledger by the protocol's rule.
///
/// Its links run on the client's loop; what tests ask and change is behind a lock.
final class FakeService: LinkConnector {
    /// What becomes of one attempt.
    enum Answer: Sendable {
        /// The connect is accepted.
        case accept
        /// The connect is accepted, and a firewall loses the flow behind it: nothing comes through any more, in either direction.
        case acceptThenSilence
        /// No link comes up.
        case fail(ClientError)
        /// The link comes up, and the connect is answered by this.
        case close(Close)
        /// The link comes up, and nothing answers.
        case silence
        /// The TLS handshake fails.
        case handshakeFailure
        /// Nothing answers the TLS handshake, and the transport says so.
        case handshakeTimeout
        /// Nothing answers it, and the transport is still waiting.
        case nobody
        /// The transport still looks for the host, and has sent nothing.
        case noHost
    }

    struct Entered: Equatable, Sendable {
        var channel: ChannelID
        var producer: ProducerID
        var publish: Publish
    }

    struct State: Sendable {
        /// Answers for the next attempts; afterwards every attempt is accepted.
        var answers: [Answer] = []
        var requests: [LinkRequest] = []
        var connects: [Connect] = []
        var entered: [Entered] = []
        var refusals: [RefusalCode] = []
        var acknowledged: [ChannelID: Offset] = [:]
        /// The urgencies of lanes, in the order in which the client said them.
        var urgencies: [Urgency] = []
        var log: [ChannelID: [Deliver]] = [:]
        var rooms: [RoomRequest] = []
        var closes: [Close] = []
        var migrations = 0
        var migrationFails = false
        /// Whether links confirm their handshakes.
        var confirmsHandshake = true
        /// How many packets came, as links count them.
        var packets: UInt64 = 0
        /// A path change ends after its link, as a real one can.
        var migrationOutlivesLink = false
        /// Cut the link instead of answering when so many more publishes were entered.
        var cutIn: Int?
        /// Cut the link instead of answering the next room request.
        var cutsRoomRequest = false
        /// Whether room requests are left without an answer.
        var leavesRoomRequests = false
        /// IDs of this producer are answered as used with another tag.
        var spentProducer: ProducerID?
        /// Refuse payloads that begin so.
        var refusedPrefix: String?
        var refusedCode = RefusalCode.forbidden
        /// What CONNECTED says.
        var version: UInt32 = 1
        var credentialExpiry: UInt64 = 0
        var channels: [ChannelAnswer] = []
        /// Connects with a lower number are stale.
        var newestConnect: UInt64 = 0
        var refreshed: [String] = []
        var modes: [SessionMode] = []
        /// Every frame that a client sent.
        var frames: [Frame] = []
        /// Where users are; those that are not named are offline. What refuses the next requests.
        var presences: [UserID: PresenceUpdate] = [:]
        var presenceRefusals: [RefusalCode] = []
        /// Users whose presence the token does not allow to be told of.
        var presenceForbidden: Set<UserID> = []
        /// Whether requests for presence are left without an answer; whether they are answered, and nobody's presence is told.
        var leavesPresence = false
        var withholdsPresence = false
        /// Logouts that came, and what answers them; nil: nothing does.
        var logouts = 0
        var logoutAnswer: Close? = Close(code: .loggedOut)
        /// Erasures of the account that came, and what answers them.
        var erasures = 0
        var erasureAnswer = Frame.close(Close(code: .loggedOut))
    }

    let state = Mutex(State())
    private let links = Mutex<[NIOLoopBound<FakeLink>]>([])
    static let epoch: Epoch = 77

    func open(
        _ request: LinkRequest, on loop: any EventLoop, handler: any LinkHandler,
        failed: @escaping (ClientError) -> Void
    ) -> any LinkAttempt {
        let answer = state.withLock { state -> Answer in
            state.requests.append(request)
            return state.answers.isEmpty ? .accept : state.answers.removeFirst()
        }
        let link = FakeLink(service: self, eventLoop: loop, handler: handler, answer: answer, request: request)
        let bound = NIOLoopBound(link, eventLoop: loop)
        links.withLock { $0.append(bound) }
        let failed = NIOLoopBound(failed, eventLoop: loop)
        loop.execute {
            switch answer {
            case .fail(let error): failed.value(error)
            case .handshakeFailure: bound.value.end(.handshakeFailed("certificate"))
            case .handshakeTimeout: bound.value.end(.handshakeTimeout)
            case .nobody, .noHost: break
            case .accept, .acceptThenSilence, .close, .silence: bound.value.establish()
            }
        }
        return link
    }

    /// Cuts the newest link, as a lost network does that the transport noticed.
    func cut() {
        guard let link = links.withLock({ $0.last }) else { return }
        link.eventLoop.execute { link.value.end(.failed("cut")) }
    }

    /// The newest link's client is gone without a word: nothing leaves it any more, and nothing reaches it.
    func silence() {
        guard let link = links.withLock({ $0.last }) else { return }
        link.eventLoop.execute { link.value.goSilent() }
    }

    /// Says something on the newest link.
    func send(_ frame: Frame, lane: LaneID = .control) {
        guard let link = links.withLock({ $0.last }) else { return }
        link.eventLoop.execute { link.value.deliver(frame, lane: lane) }
    }

    /// Says something about a channel on the newest link.
    func send(_ frame: Frame, in channel: ChannelID, epoch: Epoch = FakeService.epoch) {
        guard let link = links.withLock({ $0.last }) else { return }
        link.eventLoop.execute { link.value.deliver(frame, in: channel, epoch: epoch) }
    }

    /// Enters a message of someone else, and delivers it on the newest link.
    /// - Parameter origin: of a direct one, where the sender's record stands.
    func post(
        _ text: String, in channel: ChannelID, producer: ProducerID = ProducerID(high: 9, low: 9),
        kind: EntryKind = .message, origin: Position? = nil
    ) throws {
        let (sender, device) = (try UserID("zoe"), try DeviceID("d"))
        state.withLock { state in
            let offset = UInt64((state.log[channel]?.count ?? 0) + 1)
            let entry = Entry(
                offset: offset, previous: offset - 1, kind: kind, sender: sender, device: device,
                producer: producer, publishID: offset, recipient: nil, origin: origin, time: 0, expiry: 0,
                payload: ByteBuffer(string: text))
            state.log[channel, default: []].append(Deliver(entry: entry, redelivered: false))
        }
        guard let link = links.withLock({ $0.last }) else { return }
        link.eventLoop.execute { link.value.deliverLog() }
    }
}

/// One link of the fake service; confined to the client's loop.
final class FakeLink: MobileLink, LinkAttempt {
    let kind = LinkKind.quic
    let eventLoop: any EventLoop
    /// Every machine has a route to it.
    let remoteAddress = "127.0.0.1:443"
    private(set) var localAddress: SocketAddress?
    private let service: FakeService
    private var handler: (any LinkHandler)?
    private let answer: FakeService.Answer
    private let request: LinkRequest
    private var lanes: [LaneID: ChannelID] = [:]
    private var own: [ChannelID: LaneID] = [:]
    private var epochs: [LaneID: Epoch] = [:]
    private var sent: [ChannelID: Offset] = [:]
    private var producer = ProducerID(high: 0, low: 0)
    private var isConnected = false
    private var isSilent = false
    private var pendingMove: ((Result<Void, any Error>) -> Void)?

    init(
        service: FakeService, eventLoop: any EventLoop, handler: any LinkHandler, answer: FakeService.Answer,
        request: LinkRequest
    ) {
        self.service = service
        self.eventLoop = eventLoop
        self.handler = handler
        self.answer = answer
        self.request = request
        localAddress = try? SocketAddress(ipAddress: "192.0.2.77", port: 1000)
    }

    func establish() {
        handler?.linkEstablished(self)
        handler?.handshakeCompleted(
            self,
            info: LinkHandshake(
                applicationProtocol: "longline/1", resumed: request.sessionTicket != nil,
                earlyDataAccepted: request.earlyData, duration: .milliseconds(1)))
        handler?.batchEnded(self)
    }

    func abandon() { handler = nil }

    func end(_ reason: LinkCloseReason) {
        let handler = handler
        self.handler = nil
        handler?.linkClosed(self, reason: reason)
        guard let completed = pendingMove else { return }
        pendingMove = nil
        let bound = NIOLoopBound(completed, eventLoop: eventLoop)
        // When a client that was let go is gone for sure.
        eventLoop.scheduleTask(in: .milliseconds(20)) {
            bound.value(.failure(ClientError(.disconnected, message: "closed")))
        }
    }

    func deliver(_ frame: Frame, lane: LaneID) {
        guard !isSilent else { return }
        handler?.packetReceived(self)
        handler?.received(frame, lane: lane, early: false, link: self)
        handler?.batchEnded(self)
    }

    /// The client's frames are answered in a later turn, as by a peer.
    private func reply(_ body: @escaping (FakeLink) -> Void) {
        let bound = NIOLoopBound((self, body), eventLoop: eventLoop)
        eventLoop.execute { bound.value.1(bound.value.0) }
    }

    private func laneFor(_ channel: ChannelID, epoch: Epoch = FakeService.epoch) -> LaneID {
        if let lane = own[channel], epochs[lane] == epoch { return lane }
        let lane = LaneID(rawValue: UInt64(epochs.count + 1))
        own[channel] = lane
        epochs[lane] = epoch
        deliver(.lane(LaneHeader(channel: channel, epoch: epoch)), lane: lane)
        return lane
    }

    func deliver(_ frame: Frame, in channel: ChannelID, epoch: Epoch) {
        deliver(frame, lane: laneFor(channel, epoch: epoch))
    }

    // MARK: Link

    func openLane(_ lane: LaneID) {}
    func prioritize(_ lane: LaneID, _ urgency: Urgency) { service.state.withLock { $0.urgencies.append(urgency) } }
    func reportWhenDelivered(_ lane: LaneID, question: UInt64) {}
    func reportWhenDrained(_ lane: LaneID) {
        reply { link in
            link.handler?.laneWritabilityChanged(lane, writable: true, link: link)
            link.handler?.batchEnded(link)
        }
    }
    func finishLane(_ lane: LaneID) { lanes[lane] = nil }
    func isWritable(_ lane: LaneID) -> Bool { true }
    func goSilent() { isSilent = true }
    var isHandshakeConfirmed: Bool { service.state.withLock { $0.confirmsHandshake } }

    func close(_ code: CloseCode, reason: String) { reply { $0.end(.local) } }

    var linkStatistics: LinkStatistics? {
        if case .noHost = answer { return nil }
        return LinkStatistics(
            latestRTT: .zero, smoothedRTT: .zero, minimumRTT: .zero, congestionWindow: 0, bytesSent: 1_200,
            bytesReceived: 0, packetsSent: 1, packetsReceived: service.state.withLock { $0.packets }, localAddress: "",
            remoteAddress: remoteAddress)
    }

    func migrate(to local: SocketAddress?, completed: @escaping (Result<Void, any Error>) -> Void) {
        let (fails, waits) = service.state.withLock { state in
            state.migrations += 1
            return (state.migrationFails, state.migrationOutlivesLink)
        }
        // A newer move takes the place of the one that is under way, as a real link's does.
        if let old = pendingMove {
            pendingMove = nil
            old(.failure(QUICTransportError(.superseded, "a newer change of path", advice: "")))
        }
        guard !waits else {
            pendingMove = completed
            return
        }
        reply { link in
            if fails { return completed(.failure(ClientError(.migrationFailed, message: "no"))) }
            link.localAddress = local ?? (try? SocketAddress(ipAddress: "192.0.2.77", port: 2000))
            link.handler?.pathChanged(link)
            completed(.success(()))
        }
    }

    func send(_ frame: Frame, lane: LaneID) {
        guard !isSilent else { return }
        var bytes = ByteBuffer()
        // As a real link does.
        guard (try? FrameEncoder.encode(frame, into: &bytes)) != nil else { return close(.internalError, reason: "") }
        reply { $0.answer(frame, lane: lane) }
    }

    private func answer(_ frame: Frame, lane: LaneID) {
        guard handler != nil else { return }
        service.state.withLock { $0.frames.append(frame) }
        switch frame {
        case .connect(let connect): answer(connect)
        case .mode(let mode): service.state.withLock { $0.modes.append(mode) }
        case .lane(let header): lanes[lane] = header.channel
        case .publish(let publish): if isConnected, let channel = lanes[lane] { enter(publish, in: channel) }
        case .acknowledge(let acknowledge):
            guard let channel = lanes[lane] else { return }
            service.state.withLock { $0.acknowledged[channel] = acknowledge.offset }
        case .join(let room), .leave(let room):
            let cuts = service.state.withLock { state in
                state.rooms.append(room)
                defer { state.cutsRoomRequest = false }
                return state.cutsRoomRequest
            }
            if cuts { return end(.failed("cut")) }
            if service.state.withLock({ $0.leavesRoomRequests }) { return }
            let position = Position(epoch: FakeService.epoch, offset: 5)
            deliver(.roomAnswer(RoomAnswer(request: room.request, refusal: nil, position: position)), lane: .control)
        case .refresh(let refresh): service.state.withLock { $0.refreshed.append(refresh.token) }
        case .logout:
            let answer = service.state.withLock { state in
                state.logouts += 1
                return state.logoutAnswer
            }
            if let answer { deliver(.close(answer), lane: .control) }
        case .eraseAccount:
            let answer = service.state.withLock { state in
                state.erasures += 1
                return state.erasureAnswer
            }
            deliver(answer, lane: .control)
        case .subscribe(let request):
            if service.state.withLock({ $0.leavesPresence }) { return }
            let (refusal, updates) = service.state.withLock { state -> (RefusalCode?, [PresenceUpdate]) in
                var refusal = state.presenceRefusals.isEmpty ? nil : state.presenceRefusals.removeFirst()
                if !state.presenceForbidden.isDisjoint(with: request.users) { refusal = .forbidden }
                let updates = request.users.map {
                    state.presences[$0] ?? PresenceUpdate(user: $0, state: .offline, lastSeen: 0)
                }
                return (refusal, state.withholdsPresence ? [] : updates)
            }
            deliver(
                .presenceAnswer(PresenceAnswer(request: request.request, refusal: refusal, retryAfter: 1)),
                lane: .control)
            if refusal == nil { for update in updates { deliver(.presence(update), lane: .control) } }
        case .close(let close): service.state.withLock { $0.closes.append(close) }
        case .ping(let ping):
            deliver(.pong(Pong(nonce: ping.nonce, observedAddress: "198.51.100.1:1")), lane: .control)
        default: break
        }
    }

    private func answer(_ connect: Connect) {
        let (expiry, version, channels) = service.state.withLock { state in
            state.connects.append(connect)
            for cursor in connect.cursors { state.acknowledged[cursor.channel] = cursor.position.offset }
            return (state.credentialExpiry, state.version, state.channels)
        }
        let isStale = service.state.withLock { connect.connectNumber < $0.newestConnect }
        if isStale { return deliver(.close(Close(code: .stale)), lane: .control) }
        switch answer {
        case .silence, .fail, .handshakeFailure, .handshakeTimeout, .nobody, .noHost: return
        case .close(let close): return deliver(.close(close), lane: .control)
        case .accept, .acceptThenSilence: break
        }
        producer = connect.producer
        isConnected = true
        deliver(
            .connected(
                Connected(
                    version: version, session: 1, resumed: false, serverTime: 0, observedAddress: "198.51.100.1:1",
                    credentialExpiry: expiry,
                    limits: SessionLimits(
                        maximumPayload: 15_000, channelWindow: 65_536, maximumUnacknowledged: 1024,
                        minimumHeartbeat: 1000, idleTimeout: 30_000),
                    cursorVersion: 0, channels: channels)), lane: .control)
        deliver(.ticket(Ticket(ticket: ByteBuffer(string: "resume"), expiry: .max)), lane: .control)
        handler?.sessionTicketReceived(Array("tls".utf8), link: self)
        deliverLog()
        if case .acceptThenSilence = answer { goSilent() }
    }

    /// The ledger's rule: ID > last and after <= last is entered; anything else is answered as the protocol says.
    private func enter(_ publish: Publish, in channel: ChannelID) {
        enum Outcome { case answer(Frame), cut }
        let producer = producer
        let outcome = service.state.withLock { state -> Outcome in
            let known = state.entered.filter { $0.channel == channel && $0.producer == producer }
            let position = Position(epoch: FakeService.epoch, offset: publish.id)
            func refuse(_ code: RefusalCode) -> Outcome {
                state.refusals.append(code)
                return .answer(.refused(Refused(id: publish.id, code: code, lastID: known.last?.publish.id ?? 0)))
            }
            if state.spentProducer == producer { return refuse(.idReused) }
            let last = known.last?.publish.id ?? 0
            // What was entered before is acknowledged again, whatever is refused now.
            if publish.id > last, let prefix = state.refusedPrefix, String(buffer: publish.payload).hasPrefix(prefix) {
                return refuse(state.refusedCode)
            }
            if publish.id <= last {
                // It forgets nothing: an ID that it does not know was passed over.
                guard let row = known.first(where: { $0.publish.id == publish.id }) else { return refuse(.idReused) }
                guard row.publish.tag == publish.tag else { return refuse(.idReused) }
            } else {
                if publish.after > last { return refuse(.outOfOrder) }
                state.entered.append(FakeService.Entered(channel: channel, producer: producer, publish: publish))
                if let left = state.cutIn {
                    state.cutIn = left > 1 ? left - 1 : nil
                    if left <= 1 { return .cut }
                }
            }
            return .answer(.published(Published(id: publish.id, position: position, time: 1)))
        }
        switch outcome {
        case .answer(let frame): deliver(frame, lane: laneFor(channel))
        case .cut: end(.failed("cut"))
        }
    }

    /// Sends what the log holds beyond what was sent and acknowledged.
    func deliverLog() {
        guard isConnected, handler != nil else { return }
        let (log, acknowledged) = service.state.withLock { ($0.log, $0.acknowledged) }
        for (channel, entries) in log {
            let from = max(sent[channel] ?? 0, acknowledged[channel] ?? 0)
            for entry in entries where entry.entry.offset > from {
                deliver(.deliver(entry), lane: laneFor(channel))
                sent[channel] = entry.entry.offset
            }
        }
    }
}
