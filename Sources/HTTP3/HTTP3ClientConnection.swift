public import HTTPTypes
public import NIOCore
public import QUICEngine
public import QUICTransport

/// A client's connection to a server: sends requests, any number at a time, from any task. Letting go of the last reference, its
/// responses included, closes it with H3_NO_ERROR.
public final class HTTP3ClientConnection: Sendable {
    private let handler: OnLoop<ClientSession>
    let session: OnLoop<Session>
    /// Runs tasks on the connection's event loop: for those that make many small requests.
    public let executor: QUICLoopExecutor

    /// On the loop only.
    init(_ handler: ClientSession, _ session: Session, executor: QUICLoopExecutor) {
        let eventLoop = session.connection.eventLoop
        self.handler = OnLoop(handler, eventLoop: eventLoop)
        self.session = OnLoop(session, eventLoop: eventLoop)
        self.executor = executor
    }

    deinit { session.perform { $0.close(.noError) } }

    /// Waits until requests can be sent, or with `early` until they can be in 0-RTT packets. The connection may have other users: it
    /// stays open when the task is cancelled.
    func ready(early: Bool) async throws {
        try await handler.wait(cancelled: { $0.forgetCancelled() }, { $0.waitReady(early: early, $1) })
    }

    // MARK: Requests

    /// Sends a request whose body is whole, and waits for the response's header section.
    ///
    /// A cancelled call cancels the request: its stream ends with H3_REQUEST_CANCELLED. A request that left in 0-RTT packets and
    /// is answered with 425 (Too Early) is sent once more after the handshake.
    /// - Parameters:
    ///   - request: method, scheme, authority, path and fields. CONNECT isn't supported. The server's certificate was verified for the
    ///     configuration's name alone: that it speaks for another authority, or for another scheme than https, is the caller's to know
    ///     (RFC 9114 section 3.3).
    ///   - body: all of the body.
    ///   - trailers: a trailer section.
    ///   - priority: goes into the `Priority` field; nil: the request's own field, if any, is sent as it is.
    ///   - onInformational: gets interim responses (RFC 9110 section 15.2), on the connection's loop; at most 100.
    /// - Throws: ``HTTP3Error``: `invalidMessage`, `fieldSectionTooLarge`, `malformedMessage`, `streamReset`, `connectionClosed`,
    ///   `tooManyRequests`; with `goingAway` and `requestRejected` the request was not processed
    ///   (``HTTP3Error/wasNotProcessed``). `CancellationError`.
    public func request(
        _ request: HTTPRequest, body: ByteBuffer? = nil, trailers: HTTPFields? = nil, priority: HTTP3Priority? = nil,
        onInformational: (@Sendable (HTTPResponse) -> Void)? = nil
    ) async throws -> HTTP3ClientResponse {
        let whole = ClientSession.Request(
            request: request, body: body, trailers: trailers, isWhole: true, onInformational: onInformational,
            priority: priority)
        let exchange = try await open(whole)
        let response = try await exchange.response()
        guard response.status == .tooEarly, await exchange.wasEarly else { return response }
        // The server doesn't take it from whoever may have recorded it, and takes it once we have shown that we didn't
        // (RFC 8470 section 5.2). Of what isn't early there is no second try.
        response.cancel()
        try await ready(early: false)
        return try await open(whole).response()
    }

    /// Sends a request's header section; the body follows through the exchange's writer, also while the response comes in.
    /// - Parameters: as ``request(_:body:trailers:priority:onInformational:)``.
    /// - Throws: as ``request(_:body:trailers:priority:onInformational:)``.
    public func start(
        _ request: HTTPRequest, priority: HTTP3Priority? = nil,
        onInformational: (@Sendable (HTTPResponse) -> Void)? = nil
    ) async throws -> HTTP3ClientExchange {
        try await open(
            ClientSession.Request(
                request: request, body: nil, trailers: nil, isWhole: false, onInformational: onInformational,
                priority: priority))
    }

    /// Sends a request with a body that is made while it is sent, and takes the response meanwhile.
    ///
    /// Both closures run at the same time. The writer is finished when `send` returns. When `receive` returns first, `send` is
    /// cancelled, and what it has not sent by then is given up: the server sees H3_REQUEST_CANCELLED and not the end of the body. When
    /// either throws, the exchange is cancelled, unless it was the server that refused the rest of the body
    /// (``HTTP3Error/Code/bodyRefused``), or the connection's end that cut it off: the response may be whole.
    /// - Returns: what `receive` returns.
    /// - Throws: what the closures throw, and as ``request(_:body:trailers:priority:onInformational:)``.
    public func withRequest<Result: Sendable>(
        _ request: HTTPRequest, priority: HTTP3Priority? = nil,
        send: @escaping @Sendable (HTTP3BodyWriter) async throws -> HTTPFields?,
        receive: @escaping @Sendable (HTTP3ClientResponse) async throws -> Result
    ) async throws -> Result {
        let exchange = try await start(request, priority: priority)
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask {
                do {
                    let trailers = try await send(exchange.writer)
                    // Many a sequence just ends when its task is cancelled: the body isn't whole then, though nothing was thrown.
                    if Task.isCancelled {
                        exchange.giveUpSending()
                    } else {
                        try await exchange.writer.finish(trailers: trailers)
                    }
                } catch let error as HTTP3Error where [.bodyRefused, .connectionClosed].contains(error.code) {
                    // The response says why, and may have come whole before the connection's end (RFC 9114 section 4.1).
                    guard await exchange.hasFailedSending else { throw error }
                }
                return nil
            }
            group.addTask { try await receive(try await exchange.response()) }
            do {
                while let result = try await group.next() {
                    guard let result else { continue }
                    group.cancelAll()
                    return result
                }
            } catch {
                exchange.cancel()
                throw error
            }
            throw CancellationError()
        }
    }

    private func open(_ request: ClientSession.Request) async throws -> HTTP3ClientExchange {
        if let handler = handler.here, let exchange = try handler.openAtOnce(request) {
            return HTTP3ClientExchange(exchange, connection: self)
        }
        let exchange: OnLoop<Exchange> = try await handler.wait(
            cancelled: { $0.forgetCancelled() }, { $0.open(request, $1) })
        return HTTP3ClientExchange(exchange, connection: self)
    }

    func prioritize(_ exchange: OnLoop<Exchange>, _ priority: HTTP3Priority) {
        handler.perform { handler in exchange.here.map { handler.prioritize($0, priority) } }
    }

    // MARK: The connection

    /// The largest header or trailer section that the server takes, in bytes (RFC 9114 section 4.2.2); nil: not known, or any.
    public func maxFieldSectionSize() async -> UInt64? {
        try? await session.call { $0.peerSettings?.fieldSectionSize }
    }

    /// What the handshake agreed on; nil before it is complete, and after the end.
    public func handshake() async -> HandshakeInfo? { try? await session.call { $0.connection.handshake } }

    /// The transport's numbers; nil once it is closed.
    public func transportStatistics() async -> ConnectionStatistics? {
        try? await session.call { $0.connection.statistics() }
    }

    /// Whether it takes requests: false once it is closed, or either side has said that it goes away (GOAWAY).
    public func isUsable() async -> Bool {
        (try? await session.call { $0.state == .open || $0.state == .starting }) ?? false
    }

    /// Closes with H3_NO_ERROR at once; requests under way fail.
    public func close() { session.perform { $0.close(.noError) } }

    /// Takes no more requests, lets those under way finish, closes with H3_NO_ERROR, and returns when it is closed. A cancelled call
    /// closes at once.
    public func shutdownGracefully() async {
        session.perform { $0.drain() }
        do {
            _ = try await closed()
        } catch {
            close()
        }
    }

    /// Waits for the connection's end.
    /// - Throws: `CancellationError`.
    public func closed() async throws -> QUICCloseReason {
        try await handler.wait(cancelled: { $0.forgetCancelled() }, { $0.waitClosed($1) })
    }
}
