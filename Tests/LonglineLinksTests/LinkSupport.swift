import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Synchronization
import Testing

/// What a link told its handler.
enum LinkEvent: Sendable, Equatable {
    case established
    case handshake(resumed: Bool, early: Bool)
    case frame(Frame, LaneID, early: Bool)
    case datagram(Frame)
    case invalid(FrameError.Code, LaneID)
    case laneFinished(LaneID)
    case writability(LaneID, Bool)
    case overfull(LaneID)
    case stopped(LaneID)
    case delivered(LaneID, question: UInt64)
    case pathChanged
    case ticket([UInt8])
    case closed(LinkCloseReason)
    case batchEnded
}

/// The events of one side, in order, for tests to wait on.
final class LinkLog: Sendable {
    private let stream: AsyncStream<LinkEvent>
    private let continuation: AsyncStream<LinkEvent>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    func record(_ event: LinkEvent) { continuation.yield(event) }

    /// The next event that `match` turns into something; those before it are passed over.
    func next<Value: Sendable>(_ match: @Sendable (LinkEvent) -> Value?) async throws -> Value {
        for await event in stream {
            if let value = match(event) { return value }
        }
        throw CancellationError()
    }

    func frame() async throws -> (frame: Frame, lane: LaneID, early: Bool) {
        try await next { if case .frame(let frame, let lane, let early) = $0 { (frame, lane, early) } else { nil } }
    }

    func closed() async throws -> LinkCloseReason {
        try await next { if case .closed(let reason) = $0 { reason } else { nil } }
    }
}

/// Records what comes and answers as a test wants. Confined to its loop.
final class TestHandler: LinkHandler {
    let log: LinkLog
    private let react: (LinkEvent, any Link) -> Void

    init(log: LinkLog, react: @escaping (LinkEvent, any Link) -> Void = { _, _ in }) {
        self.log = log
        self.react = react
    }

    private func note(_ event: LinkEvent, _ link: any Link) {
        log.record(event)
        react(event, link)
    }

    func linkEstablished(_ link: any Link) { note(.established, link) }
    func handshakeCompleted(_ link: any Link, info: LinkHandshake) {
        #expect(info.applicationProtocol == "longline/1")
        note(.handshake(resumed: info.resumed, early: info.earlyDataAccepted), link)
    }
    func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link) {
        note(.frame(frame, lane, early: early), link)
    }
    func receivedDatagram(_ frame: Frame, link: any Link) { note(.datagram(frame), link) }
    func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link) { note(.invalid(error.code, lane), link) }
    func laneFinished(_ lane: LaneID, link: any Link) { note(.laneFinished(lane), link) }
    func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link) {
        note(.writability(lane, writable), link)
    }
    func laneOverfull(_ lane: LaneID, link: any Link) { note(.overfull(lane), link) }
    func laneStopped(_ lane: LaneID, link: any Link) { note(.stopped(lane), link) }
    func laneDelivered(_ lane: LaneID, question: UInt64, link: any Link) {
        note(.delivered(lane, question: question), link)
    }
    func pathChanged(_ link: any Link) { note(.pathChanged, link) }
    func sessionTicketReceived(_ ticket: [UInt8], link: any Link) { note(.ticket(ticket), link) }
    func batchEnded(_ link: any Link) { note(.batchEnded, link) }
    func linkClosed(_ link: any Link, reason: LinkCloseReason) { note(.closed(reason), link) }
}

func wallClock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec)
}

let certificate: DevelopmentCertificate = {
    do {
        return try DevelopmentCertificate.generate(names: ["localhost"], now: wallClock())
    } catch {
        fatalError("no development certificate: \(error)")
    }
}()

func serverTLS(protocols: [String] = [QUICLinkProtocol.applicationProtocol]) throws -> TLSServerContext {
    var random = SystemRandomNumberGenerator()
    return try TLSServerContext(
        credentials: certificate.credentials, applicationProtocols: protocols,
        ticketKeys: TicketKeyRing(random: &random, now: wallClock()), replayStore: ReplayStore(capacity: 1000))
}

/// A listener and a connector on loops of their own, gone when the body is done.
/// - Parameters:
///   - sendMemory: what the server's connections may have written together that is not acknowledged; nil: as by default.
///   - waitingBytes: what may wait on all lanes of a server's link; nil: as by default.
func withLinks(
    sendMemory: Int? = nil, waitingBytes: Int? = nil,
    react: @escaping @Sendable (LinkEvent, any Link) -> Void = { _, _ in },
    body: (_ connector: QUICLinkConnector, _ target: QUICLinkTarget, _ server: LinkLog, _ loop: any EventLoop)
        async throws
        -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
    let serverLog = LinkLog()
    var configuration = QUICLinkServerConfiguration(tls: try serverTLS())
    configuration.quic.endpoint.maxUnacknowledgedBytesPerAddress = sendMemory
    if let waitingBytes { configuration.maximumWaitingBytes = waitingBytes }
    let listener = try await QUICLinkListener.bind(
        addresses: [SocketAddress(ipAddress: "127.0.0.1", port: 0)], configuration: configuration, group: group
    ) { _ in TestHandler(log: serverLog, react: react) }
    let connector = QUICLinkConnector()
    let target = QUICLinkTarget(
        host: "127.0.0.1", port: listener.localAddresses.first?.port ?? 0, serverName: "localhost",
        verification: .certificateAuthority(pem: certificate.certificatePEM))
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await body(connector, target, serverLog, group.next()))
    } catch {
        outcome = .failure(error)
    }
    await connector.shutdownGracefully()
    await listener.shutdownGracefully(timeout: .seconds(1))
    try await group.shutdownGracefully()
    try outcome.get()
}

extension QUICLinkConnector {
    /// Opens a link whose handler does `react`, and returns its log.
    func link(
        _ target: QUICLinkTarget, on loop: any EventLoop,
        react: @escaping @Sendable (LinkEvent, any Link) -> Void = { _, _ in }
    ) async throws -> LinkLog {
        let log = LinkLog()
        try await loop.submit {
            _ = self.open(target, on: loop, handler: TestHandler(log: log, react: react))
        }.get()
        return log
    }
}

func ping(_ nonce: UInt64) -> Frame { .ping(Ping(nonce: nonce)) }
func pong(_ nonce: UInt64) -> Frame { .pong(Pong(nonce: nonce, observedAddress: "somewhere")) }
