import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

@testable import LonglineServer

/// What the server does to a link.
enum ServerSaid: Sendable {
    case frame(Frame, LaneID)
    case finished(LaneID)
    case prioritized(LaneID, Urgency)
    case polled
    case closed(CloseCode, String)
}

/// A link in memory: what the server says goes into a stream, what a test sends goes to the handler.
final class FakeLink: Link {
    let kind = LinkKind.quic
    let eventLoop: any EventLoop
    let remoteAddress: String
    /// What came of frames whose end has not come.
    var partialBytes = 0
    /// Told that the link is gone, after the server closed it.
    weak var handler: (any LinkHandler)?
    private let said: AsyncStream<ServerSaid>.Continuation
    private var isClosed = false
    /// Whether the device takes what it is sent.
    private let drains: Bool
    /// What waits on each lane of a device that doesn't.
    private var waiting: [LaneID: ByteBuffer] = [:]

    init(eventLoop: any EventLoop, remoteAddress: String, drains: Bool, said: AsyncStream<ServerSaid>.Continuation) {
        self.eventLoop = eventLoop
        self.remoteAddress = remoteAddress
        self.drains = drains
        self.said = said
    }

    func openLane(_ lane: LaneID) {}
    func prioritize(_ lane: LaneID, _ urgency: Urgency) { said.yield(.prioritized(lane, urgency)) }
    func pollSockets() { said.yield(.polled) }
    func send(_ frame: Frame, lane: LaneID) {
        guard !isClosed else { return }
        said.yield(.frame(frame, lane))
        if !drains { try? FrameEncoder.encode(frame, into: &waiting[lane, default: ByteBuffer()]) }
    }

    /// As a link does when its tick is over, for a device that takes nothing.
    func flush() {
        for (lane, bytes) in waiting where bytes.readableBytes > 512 << 10 { handler?.laneOverfull(lane, link: self) }
    }
    func reportWhenDrained(_ lane: LaneID) {}
    func reportWhenDelivered(_ lane: LaneID, question: UInt64) {
        guard drains else { return }
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute {
            bound.value.handler?.laneDelivered(lane, question: question, link: bound.value)
            bound.value.handler?.batchEnded(bound.value)
        }
    }
    func finishLane(_ lane: LaneID) { said.yield(.finished(lane)) }
    func isWritable(_ lane: LaneID) -> Bool { true }

    func close(_ code: CloseCode, reason: String) {
        guard !isClosed else { return }
        isClosed = true
        said.yield(.closed(code, reason))
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        eventLoop.execute { bound.value.handler?.linkClosed(bound.value, reason: .local) }
    }
}

/// A device's end of a ``FakeLink``.
final class FakeWire: DeviceWire {
    private struct Ends {
        let link: FakeLink
        let handler: any LinkHandler
    }

    private let eventLoop: any EventLoop
    private let ends: NIOLoopBound<Ends>

    init(
        runtime: ServerRuntime, loop: LoopReference, early: Bool, remoteAddress: String, drains: Bool = true,
        said: AsyncStream<ServerSaid>.Continuation
    ) async throws {
        let eventLoop = loop.eventLoop
        self.eventLoop = eventLoop
        ends = try await eventLoop.submit {
            let link = FakeLink(eventLoop: eventLoop, remoteAddress: remoteAddress, drains: drains, said: said)
            let handler = runtime.makeHandler(on: eventLoop)
            link.handler = handler
            handler.linkEstablished(link)
            if !early { handler.handshakeCompleted(link, info: Self.handshake) }
            handler.batchEnded(link)
            return NIOLoopBound(Ends(link: link, handler: handler), eventLoop: eventLoop)
        }.get()
    }

    private static let handshake = LinkHandshake(
        applicationProtocol: "longline/1", resumed: false, earlyDataAccepted: false, duration: .milliseconds(1))

    func send(_ frames: [(Frame, LaneID)], early: Bool) async throws {
        try await onLoop { ends in
            for (frame, lane) in frames { ends.handler.received(frame, lane: lane, early: early, link: ends.link) }
        }
    }

    func completeHandshake(behind frames: [(Frame, LaneID)]) async throws {
        try await onLoop { ends in
            ends.handler.handshakeCompleted(ends.link, info: Self.handshake)
            for (frame, lane) in frames { ends.handler.received(frame, lane: lane, early: false, link: ends.link) }
        }
    }

    func drop() async throws { try await onLoop { $0.handler.linkClosed($0.link, reason: .idleTimeout) } }

    func sendInvalid(_ error: FrameError) async throws {
        try await onLoop { $0.handler.receivedInvalid(error, lane: .control, link: $0.link) }
    }

    /// So many bytes came of frames whose end has not come.
    func holdBack(_ bytes: Int) async throws { try await onLoop { $0.link.partialBytes = bytes } }

    private func onLoop(_ body: @escaping @Sendable (Ends) -> Void) async throws {
        try await eventLoop.submit { [ends] in
            body(ends.value)
            ends.value.handler.batchEnded(ends.value.link)
            ends.value.link.flush()
        }.get()
    }
}
