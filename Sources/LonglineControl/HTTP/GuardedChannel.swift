import HummingbirdCore
import Logging
import NIOCore
import NIOHTTP2
import NIOSSL
import NIOTLS
import Synchronization

/// Hummingbird's channel with our guard on each connection.
struct GuardedChannel<Base: ServerChildChannel>: ServerChildChannel {
    let base: Base
    let connections: OpenConnections
    let timeouts: ConnectionGuard.Timeouts
    /// Bytes of a request's headers over HTTP/2.
    let headerBytes: Int

    func setup(channel: any Channel, logger: Logger) -> EventLoopFuture<Base.Value> {
        do { try channel.pipeline.syncOperations.addHandler(ConnectionGuard(timeouts)) } catch {
            return channel.eventLoop.makeFailedFuture(error)
        }
        connections.add(channel)
        return base.setup(channel: channel, logger: logger).flatMapThrowing { [headerBytes] value in
            let pipeline = channel.pipeline.syncOperations
            let watch = HandshakeWatch(
                guarded: try pipeline.handler(type: ConnectionGuard.self), headerBytes: headerBytes)
            try pipeline.addHandler(watch, position: .after(pipeline.handler(type: NIOSSLServerHandler.self)))
            return value
        }
    }

    func handle(value: Base.Value, logger: Logger) async { await base.handle(value: value, logger: logger) }
}

/// The connections of a listener.
final class OpenConnections: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var isOver = false
    }

    private let state = Mutex(State())

    /// A connection that was accepted, which has its guard. Closed at once where the listener has ended.
    func add(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        let isLate = state.withLock { state in
            state.channels[id] = channel
            return state.isOver
        }
        channel.closeFuture.whenComplete { _ in self.state.withLock { $0.channels[id] = nil } }
        if isLate { Self.end(channel) }
    }

    /// Closes all, and each that is still to come.
    func endAll() {
        let channels = state.withLock { state in
            state.isOver = true
            return Array(state.channels.values)
        }
        for channel in channels { Self.end(channel) }
    }

    private static func end(_ channel: any Channel) {
        channel.eventLoop.execute {
            // One without a guard is closed already.
            try? channel.pipeline.syncOperations.handler(type: ConnectionGuard.self).end()
        }
    }
}

/// Tells the guard when TLS is up; for HTTP/2, says how large headers may be, where Hummingbird leaves the protocol's library its
/// 16 KiB, and puts ``ClientPings`` before Hummingbird.
private final class HandshakeWatch: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let guarded: ConnectionGuard
    private let headerBytes: Int

    init(guarded: ConnectionGuard, headerBytes: Int) {
        self.guarded = guarded
        self.headerBytes = headerBytes
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // The handlers for what was negotiated are there when this returns.
        context.fireUserInboundEventTriggered(event)
        guard case .handshakeCompleted? = event as? TLSUserEvent else { return }
        guarded.handshakeCompleted()
        let pipeline = context.pipeline.syncOperations
        guard let http2 = try? pipeline.handler(type: NIOHTTP2Handler.self) else { return }
        try? pipeline.addHandler(ClientPings(), position: .after(http2))
        let setting = HTTP2Setting(parameter: .maxHeaderListSize, value: headerBytes)
        let frame = HTTP2Frame(streamID: .rootStream, payload: .settings(.settings([setting])))
        context.channel.writeAndFlush(frame, promise: nil)
    }
}

@available(*, unavailable)
extension HandshakeWatch: Sendable {}

/// Keeps a client's PINGs from Hummingbird, which ends a connection at the third of its life that comes within 30 seconds of
/// another, with what is under way and without a word. `NIOHTTP2Handler` has answered them, and ends a flood: behind 200 PINGs and
/// SETTINGS in 30 seconds it says GOAWAY. The answers to Hummingbird's own PINGs pass.
private final class ClientPings: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame
    typealias InboundOut = HTTP2Frame

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .ping(_, ack: false) = unwrapInboundIn(data).payload { return }
        context.fireChannelRead(data)
    }
}

@available(*, unavailable)
extension ClientPings: Sendable {}
