public import HTTPTypes
public import Logging
public import NIOCore
public import QUICEngine
public import QUICTransport

/// Answers one request: reads its body as far as it likes, and sends one response.
///
/// It runs in a task of its own on the connection's event loop, where reads and writes change no thread, so it must not block: see
/// ``/QUICTransport/QUICLoopExecutor``. It begins within the event that brought the header section, once everything that came with
/// it was read, and until it first waits nothing else of the loop goes on.
///
/// The task is cancelled when the client gives the request up or the connection ends. A handler that throws, or returns without a
/// response, is answered for with 500 (408 and 413 where it passes on that the body was too slow or too large); one that leaves a
/// response unfinished resets its stream with H3_INTERNAL_ERROR. What it didn't read of the request's body is refused with
/// H3_NO_ERROR. A client that waits to be asked for the body (RFC 9110 section 10.1.1) is asked, with an interim 100, when the
/// handler first waits for it.
public typealias HTTP3Handler =
    @Sendable (_ request: HTTPRequest, _ body: HTTP3Body, _ responder: HTTP3Responder) async throws -> Void

/// How requests are served.
public struct HTTP3ServerOptions: Sendable {
    /// What is accepted.
    public var limits = HTTP3Limits()
    /// Connections at a time, over all ports of an ``HTTP3Service``; nil: as many as the transport takes. More are closed with
    /// H3_EXCESSIVE_LOAD, and their requests are rejected. Those whose handshake isn't complete don't count: how many there may be,
    /// also from one address, are limits of the transport's. From seven eighths on, whose handshake completes takes the place of that for
    /// which nothing has been done for longest: one without a request, or whose client takes no answer, is told (GOAWAY) and closed
    /// with H3_NO_ERROR. One whose request is worked on stays. Of fewer than eight none gives way.
    public var connections: Int?
    /// Decides about requests that came in 0-RTT packets, which an attacker may have sent again (RFC 8470): false answers with 425
    /// Too Early, and the client sends again after the handshake. Unless set, safe methods are served (RFC 9110 section 9.2.1).
    /// Called on the connection's loop.
    public var acceptsEarlyRequest: @Sendable (HTTPRequest) -> Bool = { $0.method.isSafe }
    /// Makes the answer to a request that no handler answers, from its status: 408, 413, 425, 431, 500 or 501, and from what the
    /// handler threw, if one did: an ``HTTP3Error`` says whether it ``HTTP3Error/isCausedByPeer``. A `Content-Length` has to be right;
    /// the body is left out where the method has none. Unless set, the status alone. Called on the connection's loop.
    public var refusal:
        (@Sendable (_ status: HTTPResponse.Status, _ failure: (any Error)?) -> (head: HTTPResponse, body: ByteBuffer))?
    /// For what ends requests and connections, at debug level; nothing of a request's fields or body is logged.
    public var logger = Logger(label: "longline.http3")

    /// The defaults.
    public init() {}
}

/// HTTP/3 on one accepted connection: what a QUIC server hands the connections to that agreed on `h3`.
///
/// It is the connection's handler: return it from the handler factory of
/// ``/QUICTransport/QUICServer/bind(addresses:configuration:group:handlerFactory:)``, or from an
/// ``/QUICTransport/ApplicationProtocolHandler`` where the port serves other protocols, too. ``HTTP3Server`` does it for a port of
/// its own. Confined to the connection's event loop.
public final class HTTP3ServerSession: QUICConnectionHandler {
    let session: Session?
    private let handler: HTTP3Handler
    private let service: HTTP3Service
    @exclusivity(unchecked) private var running = 0
    /// There is no place for it, as far as is known: its requests are rejected, and it ends with its handshake if it is so still.
    @exclusivity(unchecked) private var isSurplus = false

    /// A session for a connection that was just accepted, before any of its events was handled elsewhere.
    /// - Parameters:
    ///   - connection: one that agrees on ALPN `h3`; others are closed with H3_VERSION_FALLBACK.
    ///   - service: counts, and drains all sessions together.
    ///   - handler: answers the requests.
    public init(_ connection: QUICLoopConnection, service: HTTP3Service, handler: @escaping HTTP3Handler) {
        self.handler = handler
        self.service = service
        session = Session(
            connection, limits: service.options.limits, meter: service.meter, logger: service.options.logger)
        guard let session else {
            connection.close(code: HTTP3ErrorCode.internalError.rawValue, reason: "no memory")
            return
        }
        // The session's owner outlives it: the connection keeps this object until `closed`, which lets go of the closures.
        session.refusal = service.options.refusal
        session.onRequest = { [unowned self] exchange, head in received(head, exchange) }
        isSurplus = service.add(session)
        session.onClosed = { [service] _ in service.remove(session) }
    }

    /// Called by the connection.
    public func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .handshakeCompleted(let info) = event { judge(info) }
        session?.handle(event)
    }

    private func judge(_ info: HandshakeInfo) {
        if info.applicationProtocol != HTTP3Service.applicationProtocol {
            session?.close(.versionFallback, reason: "the connection doesn't speak h3")
        } else if let session {
            isSurplus = !service.establish(session)
            guard isSurplus else { return }
            session.meter.count(.surplusConnections)
            session.close(.excessiveLoad, reason: "there are too many connections")
        }
    }

    /// Called by the connection.
    public func batchEnded(on connection: QUICLoopConnection) { session?.batchEnded() }

    /// Takes no new requests, tells the client so (GOAWAY), lets those under way finish, and closes with H3_NO_ERROR. On the loop.
    public func drain() { session?.drain() }

    // MARK: Requests

    private func received(_ head: RequestHead, _ exchange: Exchange) {
        guard let session else { return }
        if exchange.isEarly { session.meter.count(.earlyRequests) }
        if let status = refusal(of: head, exchange) {
            if status == .tooEarly { session.meter.count(.tooEarly) }
            exchange.refuse(status)
            // The whole answer is on its way: the rest of the request is of no use (RFC 9114 section 4.1).
            return exchange.stopReading(.noError)
        }
        guard !isSurplus, running < session.limits.concurrentHandlers else {
            session.meter.count(.rejected)
            return exchange.abandon(.requestRejected, .goingAway)
        }
        start(head.request, exchange, session)
    }

    /// The status that answers a request which no handler sees.
    private func refusal(of head: RequestHead, _ exchange: Exchange) -> HTTPResponse.Status? {
        // Neither CONNECT nor its extension (RFC 9220) is implemented.
        if head.request.method == .connect { return .notImplemented }
        if exchange.isEarly, !service.options.acceptsEarlyRequest(head.request) { return .tooEarly }
        if let limit = session?.limits.bodySize, let length = head.contentLength, length > limit {
            return .contentTooLarge
        }
        return nil
    }

    /// The handler begins at once, within the event; where it has to wait, it goes on in the ticks of the loop.
    private func start(_ request: HTTPRequest, _ exchange: Exchange, _ session: Session) {
        let connection = session.connection
        let reference = OnLoop(exchange, eventLoop: connection.eventLoop)
        let (isEarly, stream, remote) = (exchange.isEarly, exchange.id, connection.path?.remote)
        let handler = self.handler
        running += 1
        exchange.handling = self
        exchange.beginWork()
        let task = Task.immediate(executorPreference: connection.executor) {
            var failure: (any Error)?
            do {
                try await handler(
                    request, HTTP3Body(exchange: reference, owner: nil),
                    HTTP3Responder(exchange: reference, isEarly: isEarly, streamID: stream, remote: remote))
            } catch {
                failure = error
            }
            let outcome = failure
            if let exchange = reference.here {
                exchange.handled(outcome)
            } else {
                reference.perform { $0.handled(outcome) }
            }
        }
        guard exchange.isHandling else { return }
        exchange.task = task
        // It may have given the exchange up before there was a task to cancel.
        if case .failed = exchange.sending { task.cancel() }
    }

    func handled(_ exchange: Exchange, _ failure: (any Error)?) {
        running -= 1
        if let failure { log(failure, exchange) }
        switch exchange.sending {
        case .head: exchange.refuse(Self.status(for: failure, of: exchange), after: failure)
        case .body where !exchange.finishes:
            exchange.abandon(.internalError, .state("the handler left the response unfinished"))
        case .body, .ended, .failed: break
        }
        exchange.stopReading(.noError)
        exchange.retireIfDone()
        exchange.session.needsFlush()
    }

    private static func status(for failure: (any Error)?, of exchange: Exchange) -> HTTPResponse.Status {
        switch (failure as? HTTP3Error)?.code {
        case .bodyTooLarge: .contentTooLarge
        case .timeout: .requestTimeout
        // The request's trailers; where it is the response that the client takes none of, the request is not to blame.
        case .fieldSectionTooLarge where exchange.hasFailedReceiving: .requestHeaderFieldsTooLarge
        default: .internalServerError
        }
    }

    /// What the client did is no news, and neither is the cancellation that follows.
    private func log(_ failure: any Error, _ exchange: Exchange) {
        guard !(failure is CancellationError), service.options.logger.logLevel <= .debug else { return }
        var metadata = exchange.connection.logMetadata
        metadata["http3.stream"] = "\(exchange.id.rawValue)"
        metadata["error"] = "\(failure)"
        service.options.logger.debug("a request's handler failed", metadata: metadata)
    }
}

extension HTTPRequest.Method {
    /// Whether a request changes nothing at the server (RFC 9110 section 9.2.1), so that a repetition does no harm.
    var isSafe: Bool { self == .get || self == .head || self == .options || self == .trace }
}
