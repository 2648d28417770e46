public import Logging
public import NIOCore
public import QUICEngine

/// A QUIC connection for tasks, usable from any thread. Letting go of the last reference, its streams included, closes it
/// with code 0.
public final class QUICConnection: Sendable {
    private let eventLoop: any EventLoop
    private let state: NIOLoopBound<AsyncConnectionState>
    private let inbound: Mailbox<OpenedStream>
    private let incomingDatagrams: Mailbox<QUICDatagram>
    /// Runs tasks on the connection's loop: for those that exchange many small messages with it.
    public let executor: QUICLoopExecutor
    private let logger: Logger
    /// Whether this side accepted the connection.
    public let isServer: Bool
    /// A number that is never used again for another connection of the same loop, for logs.
    public let id: UInt64

    /// On the loop only.
    init(state: AsyncConnectionState, of connection: QUICLoopConnection) {
        eventLoop = connection.eventLoop
        executor = connection.driver.executor
        logger = connection.driver.logger
        isServer = connection.isServer
        id = connection.id
        self.state = NIOLoopBound(state, eventLoop: eventLoop)
        inbound = state.inbound
        incomingDatagrams = state.datagrams
    }

    deinit {
        perform { $0.connection?.close(code: 0, reason: "") }
    }

    // MARK: Streams and datagrams

    /// Opens a stream; suspends while the peer allows no more.
    /// - Parameters:
    ///   - bidirectional: whether the peer may send on it, too.
    ///   - priority: when it may send, among the streams of this connection.
    /// - Throws: ``QUICTransportError`` with `connectionClosed`, or `CancellationError`.
    public func openStream(
        bidirectional: Bool = true, priority: StreamPriority = .standard
    ) async throws -> QUICStream {
        let opened = try await wait { $0.open(bidirectional: bidirectional, priority: priority, $1) }
        return QUICStream(opened, connection: self)
    }

    /// The streams that the peer opens, in order; ends with the connection. Each goes to one task only. As many wait to be
    /// taken as the peer may have open: ``/QUICEngine/TransportSettings/maxBidirectionalStreams`` and
    /// ``/QUICEngine/TransportSettings/maxUnidirectionalStreams``.
    public var inboundStreams: InboundStreams { InboundStreams(connection: self) }

    /// The datagrams that come in; ends with the connection. At most
    /// ``/QUICEngine/TransportSettings/receivedDatagramLimit`` wait to be taken; the oldest is dropped beyond, and counted in
    /// ``QUICTransportCounters/datagramsNotTaken``. Each goes to one task only.
    public var datagrams: Datagrams { Datagrams(connection: self) }

    /// Waits for the next datagram, as ``datagrams`` does, and tells whether an attacker may have sent it again.
    /// - Returns: nil once the connection has ended and every datagram that waited was taken.
    /// - Throws: `CancellationError`; no datagram is lost by it.
    public func nextDatagram() async throws -> QUICDatagram? {
        let datagram = try await incomingDatagrams.next()
        // Not for each: one that comes counts anew those that wait.
        if incomingDatagrams.isRecordStale { onLoop { $0.countDatagrams() } }
        return datagram
    }

    /// Sends an unreliable datagram, without waiting for what becomes of it.
    /// - Parameters:
    ///   - bytes: at most ``maxDatagramSize()``.
    ///   - lifetime: what couldn't leave within it is dropped; nil: it waits as long as the connection lives.
    /// - Returns: false if the queue was full and the datagram was dropped.
    /// - Throws: ``QUICTransportError`` (`datagramRefused`, `connectionClosed`).
    @discardableResult
    public func sendDatagram(_ bytes: ByteBuffer, lifetime: TimeAmount? = nil) async throws -> Bool {
        try await call { try $0.sendDatagram(bytes, lifetime: lifetime) }
    }

    /// Sends an unreliable datagram and waits until it is known what became of it: at least a round trip.
    /// - Parameters:
    ///   - bytes: at most ``maxDatagramSize()``.
    ///   - lifetime: what couldn't leave within it is dropped; nil: it waits as long as the connection lives.
    /// - Throws: ``QUICTransportError`` (`datagramRefused`, `connectionClosed`), or `CancellationError`; the datagram may
    ///   have left then.
    public func deliverDatagram(_ bytes: ByteBuffer, lifetime: TimeAmount? = nil) async throws -> DatagramOutcome {
        try await wait { $0.deliverDatagram(bytes, lifetime: lifetime, $1) }
    }

    /// The largest datagram that can be sent now, in bytes; nil: none. It depends on the path, so it changes: a datagram of
    /// at most 1,100 bytes fits every path.
    public func maxDatagramSize() async -> Int? {
        try? await call { $0.connection?.maxDatagramSize }
    }

    // MARK: The connection

    /// What the handshake agreed on, once it is complete; also after the end.
    /// - Throws: ``QUICTransportError`` where the connection ended before, or `CancellationError`.
    public func handshake() async throws -> HandshakeInfo {
        try await wait { $0.waitHandshake($1) }
    }

    /// Present numbers; nil once it is closed.
    public func statistics() async -> ConnectionStatistics? {
        try? await call { $0.connection?.statistics() }
    }

    /// The peer's address; nil once it is closed. A client's changes when it migrates or its NAT binds it anew.
    public func remoteAddress() async -> SocketAddress? {
        try? await call { $0.connection?.remoteAddress }
    }

    /// The local address; nil once it is closed. Differs from the socket's own after ``rebind()``.
    public func localAddress() async -> SocketAddress? {
        try? await call { $0.connection?.localAddress }
    }

    /// What a log line about this connection should carry: `quic.connection`, which the peer's logs and qlog traces have
    /// too, and `quic.role`. Empty once it is closed.
    public func logMetadata() async -> Logger.Metadata {
        (try? await call { $0.connection?.logMetadata }) ?? [:]
    }

    /// Starts a key update (RFC 9001 section 6), which also happens by itself in good time.
    /// - Returns: false if that isn't possible now: the last update isn't confirmed yet, or the handshake.
    @discardableResult
    public func requestKeyUpdate() async -> Bool {
        (try? await call { $0.connection?.requestKeyUpdate() }) ?? false
    }

    /// Keying material for the application that both sides compute alike and nobody else can (RFC 8446 section 7.5), for
    /// instance to bind a login to this connection.
    /// - Parameters:
    ///   - label: tells uses apart; from 1 to 249 bytes.
    ///   - context: anything; both sides must give the same.
    ///   - count: bytes wanted, from 1 to 8160.
    /// - Throws: ``QUICTransportError`` (`connectionClosed`, `engine` before the handshake is complete).
    public func exportKeyingMaterial(label: String, context: [UInt8] = [], count: Int) async throws -> [UInt8] {
        try await call { try $0.exportKeyingMaterial(label: label, context: context, count: count) }
    }

    /// Client: moves to another local address (port 0: any port); returns when the new path was validated.
    /// - Throws: ``QUICTransportError`` (`pathChangeFailed`, also where the server's address is of another family, `superseded`,
    ///   `connectionClosed`); the old path stays then, or that of an earlier move that this one was to take the place of. Or `CancellationError`; the move goes on then, only nobody
    ///   waits for it.
    public func migrate(to local: SocketAddress) async throws {
        try await change { $0.migrate(toLocal: local, promise: $1) }
    }

    /// Client: goes on from a new local port as if a NAT had bound it anew; returns when the new socket is in use, without a
    /// round trip.
    /// - Throws: ``QUICTransportError`` (`pathChangeFailed`, `connectionClosed`), or
    ///   `CancellationError` as `migrate`.
    public func rebind() async throws {
        try await change { $0.rebind(promise: $1) }
    }

    /// Closes with an application code (below 2^62) and reason, which the peer sees. What was written goes out first as far as peer
    /// and network allow within two probe timeouts, and nothing of it is sent again: to be sure, wait for
    /// ``QUICStream/delivered()``, or let the peer say that it has everything.
    public func close(code: UInt64 = 0, reason: String = "") {
        perform { $0.connection?.close(code: code, reason: reason) }
    }

    /// Waits for the connection's end.
    /// - Throws: `CancellationError`; the connection stays as it is then.
    public func closed() async throws -> QUICCloseReason {
        try await wait { $0.waitClosed($1) }
    }

    // MARK: Inside

    /// As many streams as the peer may have open by ``/QUICEngine/TransportSettings``.
    var streamLimit: Int { inbound.limit }

    /// Writes down that a task which served this connection failed; its cancellation is no failure.
    func logFailure(of what: String, _ error: any Error, stream: QUICStreamID? = nil) async {
        guard logger.logLevel <= .debug, !(error is CancellationError) else { return }
        var metadata = await logMetadata()
        metadata["error"] = "\(error)"
        if let stream { metadata["quic.stream"] = "\(stream)" }
        logger.debug("the body that served a \(what) failed", metadata: metadata)
    }

    /// Runs on the loop, some time.
    func perform(_ body: @escaping @Sendable (AsyncConnectionState) -> Void) {
        let state = self.state
        eventLoop.execute { body(state.value) }
    }

    /// Runs on the loop: at once where we are on it.
    func onLoop(_ body: @escaping @Sendable (AsyncConnectionState) -> Void) {
        if eventLoop.inEventLoop { body(state.value) } else { perform(body) }
    }

    /// The loop's side for a task that runs on the loop and wasn't cancelled: it can have at once what is there.
    var stateAtHand: AsyncConnectionState? {
        eventLoop.inEventLoop && !Task.isCancelled ? state.value : nil
    }

    /// Runs on the loop and returns what came of it.
    func call<Result: Sendable>(
        _ body: @escaping @Sendable (AsyncConnectionState) throws -> Result
    ) async throws -> Result {
        let state = self.state
        if eventLoop.inEventLoop { return try body(state.value) }
        return try await eventLoop.submit { try body(state.value) }.get()
    }

    /// Suspends until the loop's side resumes the waiter, which it forgets if the task is cancelled.
    func wait<Value: Sendable>(
        cancelled: @escaping @Sendable () -> Void = {},
        _ body: @escaping @Sendable (AsyncConnectionState, Waiter<Value>) -> Void
    ) async throws -> Value {
        let state = self.state
        let forget: @Sendable () -> Void = { [self] in
            cancelled()
            perform { $0.forgetCancelled() }
        }
        let eventLoop = self.eventLoop
        return try await Waiter<Value>().wait(
            { waiter in
                if eventLoop.inEventLoop {
                    body(state.value, waiter)
                } else {
                    eventLoop.execute { body(state.value, waiter) }
                }
            }, cancelled: forget)
    }

    private func change(
        _ body: @escaping @Sendable (QUICLoopConnection, EventLoopPromise<Void>) -> Void
    ) async throws {
        try await wait { (state, waiter: Waiter<Void>) in
            guard let connection = state.connection else { return waiter.finish(.failure(state.gone)) }
            let promise = connection.eventLoop.makePromise(of: Void.self)
            promise.futureResult.whenComplete { waiter.finish($0) }
            body(connection, promise)
        }
    }

    func nextInboundStream() async throws -> QUICStream? {
        guard let opened = try await inbound.next() else { return nil }
        return QUICStream(opened, connection: self)
    }
}

/// A datagram that came in.
public struct QUICDatagram: Sendable, Hashable {
    /// What the peer sent.
    public var bytes: ByteBuffer
    /// Whether it came in a 0-RTT packet, before the handshake was complete: an attacker may have sent it again. Only a
    /// listener that yields connections early sees such.
    public var isEarly: Bool

    /// Makes a datagram.
    public init(bytes: ByteBuffer, isEarly: Bool) {
        self.bytes = bytes
        self.isEarly = isEarly
    }
}

/// What became of a datagram.
public enum DatagramOutcome: Sendable, Hashable {
    /// The peer's QUIC stack has it; that its application takes it is not said.
    case acknowledged
    /// Its packet was declared lost, which can be wrong, or the path became too small for it.
    case lost
    /// It couldn't leave within its lifetime.
    case expired
    /// The queue was full; it was dropped.
    case queueFull
}

extension QUICConnection {
    /// The streams a peer opens.
    public struct InboundStreams: AsyncSequence, Sendable {
        let connection: QUICConnection

        /// Takes one stream after another.
        public struct AsyncIterator: AsyncIteratorProtocol {
            let connection: QUICConnection

            /// Waits for the next stream that the peer opens.
            /// - Returns: nil once the connection has ended and every stream opened before was taken.
            /// - Throws: `CancellationError`; no stream is lost.
            public mutating func next() async throws -> QUICStream? { try await connection.nextInboundStream() }
        }

        /// Another taker: several share the streams, each goes to one of them.
        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(connection: connection) }
    }

    /// The datagrams a peer sends.
    public struct Datagrams: AsyncSequence, Sendable {
        let connection: QUICConnection

        /// Takes one datagram after another.
        public struct AsyncIterator: AsyncIteratorProtocol {
            let connection: QUICConnection

            /// Waits for the next datagram.
            /// - Returns: nil once the connection has ended and every datagram that waited was taken.
            /// - Throws: `CancellationError`; no datagram is lost by it.
            public mutating func next() async throws -> ByteBuffer? { try await connection.nextDatagram()?.bytes }
        }

        /// Another taker: several share the datagrams, each goes to one of them.
        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(connection: connection) }
    }
}

extension QUICClient {
    /// Connects, and returns when the handshake is complete.
    /// - Parameters:
    ///   - host: a name or a numeric address; the name that is verified is `configuration.serverName`.
    ///   - port: the server's UDP port.
    ///   - configuration: name, protocols, trust, settings. Its own ticket goes before that of the session cache.
    ///   - localAddress: where to send from; nil lets the routing table choose, and a wildcard lets it choose a host of its family.
    ///   - returnsEarly: return as soon as 0-RTT data can be sent, if a ticket allows that. What is sent before
    ///     ``QUICConnection/handshake()`` returned may be repeated by an attacker, and the server is not yet known to
    ///     be the right one.
    ///   - eventLoop: the loop that owns the connection.
    /// - Throws: ``QUICTransportError`` with `connectFailed`, whose ``QUICTransportError/closeReason`` says why, or `shutDown`
    ///   once the client was shut down; or `CancellationError`, after which the attempt is given up.
    public func connect(
        host: String, port: Int, configuration: ClientConfiguration, localAddress: SocketAddress? = nil,
        returnsEarly: Bool = false, on eventLoop: any EventLoop
    ) async throws -> QUICConnection {
        let connection = try await eventLoop.submit { () -> QUICConnection in
            guard !self.isShutDown else {
                throw QUICTransportError(.shutDown, "the client was shut down", advice: "Make another client.")
            }
            let state = AsyncConnectionState(
                readiness: returnsEarly ? .earlyData : .handshake, settings: configuration.transport)
            let connection = self.connect(
                host: host, port: port, configuration: configuration, localAddress: localAddress, on: eventLoop,
                handler: state)
            state.attach(connection)
            return QUICConnection(state: state, of: connection)
        }.get()
        try await connection.wait { $0.waitReady(returnsEarly ? .earlyData : .handshake, $1) }
        return connection
    }
}
