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
        let (connections, id) = (self.connections, ObjectIdentifier(channel))
        let guarded = ConnectionGuard(timeouts) { connections.changed(id, isWorking: $0) }
        do { try channel.pipeline.syncOperations.addHandler(guarded) } catch {
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
///
/// Who connects and then says nothing, or takes no answer, has a place for as long as `idleTimeout`. Once few places are left, each who
/// comes takes that of the connection for which nothing has been done for longest, handshakes among them: idle ones keep nobody waiting.
final class OpenConnections: Sendable {
    private struct Connection {
        let channel: any Channel
        /// The turn at which it was left without a request that is worked on; nil: it has one, or is being ended.
        var idleSince: UInt64?
    }

    private struct State {
        var connections: [ObjectIdentifier: Connection] = [:]
        /// Counts how often one was left without a request.
        var turn: UInt64 = 0
        var isOver = false

        mutating func nextTurn() -> UInt64 {
            turn += 1
            return turn
        }

        /// Looks at each: so it is only where few places are left.
        mutating func takeLongestIdle() -> (any Channel)? {
            var longest: (id: ObjectIdentifier, since: UInt64)?
            for (id, connection) in connections {
                guard let since = connection.idleSince, since < longest?.since ?? .max else { continue }
                longest = (id, since)
            }
            guard let longest else { return nil }
            connections[longest.id]?.idleSince = nil
            return connections[longest.id]?.channel
        }
    }

    /// From so many on, who comes takes the place of one without a request.
    private let crowd: Int
    private let state = Mutex(State())

    /// - Parameter limit: how many there may be. Of fewer than eight none is ended for another.
    init(limit: Int) { crowd = limit < 8 ? .max : limit - limit / 8 }

    /// A connection that was accepted, which has its guard. Closed at once where the listener has ended.
    func add(_ channel: any Channel) {
        let id = ObjectIdentifier(channel)
        let (isLate, idle) = state.withLock { state in
            let idle = state.connections.count >= crowd ? state.takeLongestIdle() : nil
            let turn = state.nextTurn()
            state.connections[id] = Connection(channel: channel, idleSince: turn)
            return (state.isOver, idle)
        }
        channel.closeFuture.whenComplete { _ in self.state.withLock { $0.connections[id] = nil } }
        if let idle { Self.guarded(idle) { $0.endIfIdle() } }
        if isLate { Self.guarded(channel) { $0.end() } }
    }

    /// A connection has a request that is worked on, or has none any more.
    func changed(_ id: ObjectIdentifier, isWorking: Bool) {
        state.withLock { state in
            let since: UInt64? = isWorking ? nil : state.nextTurn()
            state.connections[id]?.idleSince = since
        }
    }

    /// Closes all, and each that is still to come.
    func endAll() {
        let channels = state.withLock { state in
            state.isOver = true
            return state.connections.values.map(\.channel)
        }
        for channel in channels { Self.guarded(channel) { $0.end() } }
    }

    private static func guarded(_ channel: any Channel, _ work: @escaping @Sendable (ConnectionGuard) -> Void) {
        channel.eventLoop.execute {
            // One without a guard is closed already.
            guard let guarded = try? channel.pipeline.syncOperations.handler(type: ConnectionGuard.self) else { return }
            work(guarded)
        }
    }
}

/// Tells the guard when TLS is up; for HTTP/2, says how large headers may be, where Hummingbird leaves the protocol's library its
/// 16 KiB, and puts ``ClientPings`` and ``CloseBehindAnswers`` before Hummingbird.
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
        try? pipeline.addHandler(CloseBehindAnswers(), position: .after(http2))
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

/// Has a connection of HTTP/2 end behind its last answer. Hummingbird closes one that is to end when its last stream is done with: so
/// it is once the end of the answer was written, which leaves only with the flush behind it, and what has not left is dropped.
private final class CloseBehindAnswers: ChannelOutboundHandler {
    typealias OutboundIn = HTTP2Frame
    typealias OutboundOut = HTTP2Frame

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        // The flush comes in this turn of the loop.
        context.eventLoop.execute { bound.value.close(mode: mode, promise: promise) }
    }
}

@available(*, unavailable)
extension CloseBehindAnswers: Sendable {}
