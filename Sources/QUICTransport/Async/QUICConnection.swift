public import NIOCore
public import QUICEngine

/// A QUIC connection for tasks, usable from any thread. Letting go of the last reference, its streams included, closes it
/// with code 0.
public final class QUICConnection: Sendable {
    private let eventLoop: any EventLoop
    private let state: NIOLoopBound<AsyncConnectionState>

    /// On the loop only.
    init(state: AsyncConnectionState, eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.state = NIOLoopBound(state, eventLoop: eventLoop)
    }

    deinit {
        perform { $0.connection?.close(code: 0, reason: "") }
    }

    // MARK: Streams and datagrams

    /// Opens a stream; suspends while the peer allows no more.
    /// - Throws: ``QUICTransportError`` with `connectionClosed`, or `CancellationError`.
    public func openStream(bidirectional: Bool = true) async throws -> QUICStream {
        let id = try await wait { $0.open(bidirectional: bidirectional, $1) }
        return QUICStream(id: id, connection: self)
    }

    /// The streams that the peer opens, in order; ends with the connection. Each goes to one task only.
    public var inboundStreams: InboundStreams { InboundStreams(connection: self) }

    /// The datagrams that come in; ends with the connection. At most 256 wait, the oldest goes first.
    public var datagrams: Datagrams { Datagrams(connection: self) }

    /// Sends an unreliable datagram.
    /// - Returns: false if the queue was full and the datagram was dropped.
    /// - Throws: ``QUICTransportError`` (`datagramRefused`, `connectionClosed`).
    @discardableResult
    public func sendDatagram(_ bytes: ByteBuffer) async throws -> Bool {
        try await call { state in
            guard let connection = state.connection else { return false }
            do throws(QUICError) {
                return try connection.sendDatagram(bytes, id: 0)
            } catch {
                throw QUICTransportError(error)
            }
        }
    }

    /// The largest datagram that can be sent now; nil: none.
    public func maxDatagramSize() async -> Int? {
        try? await call { $0.connection?.maxDatagramSize }
    }

    // MARK: The connection

    /// What the handshake agreed on, once it is complete.
    /// - Throws: ``QUICTransportError``, or `CancellationError`.
    public func handshake() async throws -> HandshakeInfo {
        try await wait { $0.waitHandshake($1) }
    }

    /// Present numbers; nil once it is closed.
    public func statistics() async -> ConnectionStatistics? {
        try? await call { $0.connection?.statistics() }
    }

    /// Client: moves to another local address (port 0: any port); returns when the new path was validated.
    /// - Throws: ``QUICTransportError`` (`pathChangeFailed`, `superseded`, `connectionClosed`); the old path stays then.
    public func migrate(to local: SocketAddress) async throws {
        try await change { $0.migrate(toLocal: local, promise: $1) }
    }

    /// Client: goes on from a new local port as if a NAT had bound it anew.
    /// - Throws: ``QUICTransportError`` (`pathChangeFailed`, `connectionClosed`).
    public func rebind() async throws {
        try await change { $0.rebind(promise: $1) }
    }

    /// Closes with an application code and reason, which the peer sees. What wasn't yet delivered is dropped: finish
    /// streams, and let the peer say that it has everything, first.
    public func close(code: UInt64 = 0, reason: String = "") {
        perform { $0.connection?.close(code: code, reason: reason) }
    }

    /// Waits for the connection's end.
    /// - Throws: `CancellationError`; the connection stays as it is then.
    public func closed() async throws -> QUICCloseReason {
        try await wait { $0.waitClosed($1) }
    }

    // MARK: Inside

    /// Runs on the loop, some time.
    func perform(_ body: @escaping @Sendable (AsyncConnectionState) -> Void) {
        let state = self.state
        eventLoop.execute { body(state.value) }
    }

    /// Runs on the loop and returns what came of it.
    func call<Result: Sendable>(
        _ body: @escaping @Sendable (AsyncConnectionState) throws -> Result
    ) async throws -> Result {
        let state = self.state
        return try await eventLoop.submit { try body(state.value) }.get()
    }

    /// Suspends until the loop's side resumes the waiter.
    func wait<Value: Sendable>(
        cancelled: @escaping @Sendable () -> Void = {},
        _ body: @escaping @Sendable (AsyncConnectionState, Waiter<Value>) -> Void
    ) async throws -> Value {
        let state = self.state
        let eventLoop = self.eventLoop
        return try await Waiter<Value>().wait(
            { waiter in eventLoop.execute { body(state.value, waiter) } }, cancelled: cancelled)
    }

    private func change(
        _ body: @escaping @Sendable (QUICLoopConnection, EventLoopPromise<Void>) -> Void
    ) async throws {
        let state = self.state
        let promise = eventLoop.makePromise(of: Void.self)
        eventLoop.execute {
            guard let connection = state.value.connection else {
                return promise.fail(
                    QUICTransportError(.connectionClosed, "the connection is closed", advice: "Connect again."))
            }
            body(connection, promise)
        }
        try await promise.futureResult.get()
    }

    func nextInboundStream() async throws -> QUICStream? {
        let mailbox = try await call { $0.inbound }
        guard let id = try await mailbox.next() else { return nil }
        return QUICStream(id: id, connection: self)
    }

    func nextDatagram() async throws -> ByteBuffer? {
        let mailbox = try await call { $0.datagrams }
        return try await mailbox.next()
    }
}

extension QUICConnection {
    /// The streams a peer opens.
    public struct InboundStreams: AsyncSequence, Sendable {
        let connection: QUICConnection

        /// Takes one stream after another.
        public struct AsyncIterator: AsyncIteratorProtocol {
            let connection: QUICConnection

            public mutating func next() async throws -> QUICStream? { try await connection.nextInboundStream() }
        }

        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(connection: connection) }
    }

    /// The datagrams a peer sends.
    public struct Datagrams: AsyncSequence, Sendable {
        let connection: QUICConnection

        /// Takes one datagram after another.
        public struct AsyncIterator: AsyncIteratorProtocol {
            let connection: QUICConnection

            public mutating func next() async throws -> ByteBuffer? { try await connection.nextDatagram() }
        }

        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(connection: connection) }
    }
}

extension QUICClient {
    /// Connects.
    /// - Parameters:
    ///   - returnsEarly: return as soon as 0-RTT data can be sent, if a ticket allows that. What is sent before
    ///     ``QUICConnection/handshake()`` returned may be repeated by an attacker, and the server is not yet known to
    ///     be the right one.
    ///   - eventLoop: the loop that owns the connection.
    /// - Throws: ``QUICTransportError`` with `connectFailed`, or `CancellationError`, after which the attempt is given up.
    public func connect(
        host: String, port: Int, configuration: ClientConfiguration, localAddress: SocketAddress? = nil,
        returnsEarly: Bool = false, on eventLoop: any EventLoop
    ) async throws -> QUICConnection {
        let connection = try await eventLoop.submit { () -> QUICConnection in
            let state = AsyncConnectionState(
                readiness: returnsEarly ? .earlyData : .handshake,
                streamLimit: Int(
                    clamping: configuration.transport.maxBidirectionalStreams
                        &+ configuration.transport.maxUnidirectionalStreams))
            state.attach(
                self.connect(
                    host: host, port: port, configuration: configuration, localAddress: localAddress, on: eventLoop,
                    handler: state))
            return QUICConnection(state: state, eventLoop: eventLoop)
        }.get()
        try await connection.wait { $0.waitReady(returnsEarly ? .earlyData : .handshake, $1) }
        return connection
    }
}
