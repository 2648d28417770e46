import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine

/// A device's end of a real link over QUIC.
final class QUICWire: DeviceWire {
    /// Confined to the link's loop.
    private final class Handler: LinkHandler {
        let said: AsyncStream<ServerSaid>.Continuation
        var opened: Set<LaneID> = [.control]
        var link: QUICLink?

        init(said: AsyncStream<ServerSaid>.Continuation) { self.said = said }

        func linkEstablished(_ link: any Link) {}
        func handshakeCompleted(_ link: any Link, info: LinkHandshake) {}
        func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link) { said.yield(.frame(frame, lane)) }
        func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link) {}
        func laneFinished(_ lane: LaneID, link: any Link) { said.yield(.finished(lane)) }
        func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link) {}
        func batchEnded(_ link: any Link) {}

        func linkClosed(_ link: any Link, reason: LinkCloseReason) {
            if case .peer(let code, let text) = reason {
                said.yield(.closed(code, text))
            } else {
                said.yield(.closed(.normal, "\(reason)"))
            }
            said.finish()
            self.link = nil
        }
    }

    private let eventLoop: any EventLoop
    private let handler: NIOLoopBound<Handler>

    init(connector: QUICLinkConnector, target: QUICLinkTarget, said: AsyncStream<ServerSaid>.Continuation) async throws
    {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.any()
        self.eventLoop = eventLoop
        handler = try await eventLoop.submit {
            let handler = Handler(said: said)
            handler.link = connector.open(target, on: eventLoop, handler: handler)
            return NIOLoopBound(handler, eventLoop: eventLoop)
        }.get()
    }

    func send(_ frames: [(Frame, LaneID)], early: Bool) async throws {
        try await eventLoop.submit { [handler] in
            let handler = handler.value
            for (frame, lane) in frames {
                if handler.opened.insert(lane).inserted { handler.link?.openLane(lane) }
                handler.link?.send(frame, lane: lane)
            }
        }.get()
    }

    func completeHandshake(behind frames: [(Frame, LaneID)]) async throws {}

    /// QUIC has no way to vanish in order: the link is closed.
    func drop() async throws {
        try await eventLoop.submit { [handler] in handler.value.link?.close(.normal, reason: "") }.get()
    }

    func sendInvalid(_ error: FrameError) async throws {}
}
