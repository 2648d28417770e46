public import HTTPTypes
import Hummingbird
import Logging
public import NIOCore
import Synchronization

/// Answers every request of the control layer, whatever HTTP it came by: HTTP/1.1 and HTTP/2 here, HTTP/3 wherever there is a
/// listener for it.
///
/// A value without a connection: it may be called from anywhere, any number of times at once.
public struct ControlResponder: Sendable {
    let table: RouteTable
    private let router: RouterResponder<ControlContext>
    private let logger: Logger
    private let audit: Logger
    private let requestTimeout: Duration
    private let headerFields: Int
    private let overdue: OverdueWork
    private let requests: RequestCounters
    private let dates = DateHeader()

    /// - Parameters:
    ///   - logger: for requests that fail, which anybody causes: limited in rate.
    ///   - audit: for what was done.
    init(table: RouteTable, logger: Logger, audit: Logger, limits: ControlLimits, requests: RequestCounters) {
        self.table = table
        self.logger = logger
        self.audit = audit
        requestTimeout = limits.requestTimeout
        headerFields = limits.headerFields
        overdue = OverdueWork(limit: limits.overdueRequests)
        self.requests = requests
        let router = Router(context: ControlContext.self, options: .autoGenerateHeadEndpoints)
        for route in table.routes {
            router.on(RouterPath(route.path), method: route.method) { request, context in
                try await route.handle(request, context)
            }
        }
        self.router = router.buildResponder()
    }

    /// Answers a request.
    /// - Parameters:
    ///   - request: its head; `path` with the query.
    ///   - body: its body as it comes. What is not needed is not read.
    ///   - remoteAddress: where it comes from; nil: not known, which is nowhere near.
    ///   - listener: what it came by: operators' routes exist on ``ControlListener/admin`` only.
    /// - Returns: the answer, also of a failure. Nothing is thrown.
    public func respond<Body: AsyncSequence & Sendable>(
        to request: HTTPRequest, body: Body, from remoteAddress: SocketAddress?, on listener: ControlListener
    ) async -> ControlResponse where Body.Element == ByteBuffer, Body.AsyncIterator: SendableMetatype {
        await respond(
            to: Request(head: request, body: RequestBody(asyncSequence: body)), from: remoteAddress, on: listener)
    }

    /// - Parameter problem: what the listener saw to be wrong with the request already.
    func respond(
        to request: Request, from remote: SocketAddress?, on listener: ControlListener, unless problem: Problem? = nil
    ) async -> ControlResponse {
        let requestID = RequestName.next()
        let start = ContinuousClock.now
        let logger = Self.naming(requestID, self.logger)
        let context = ControlContext(
            source: ControlRequestSource(
                logger: logger, audit: Self.naming(requestID, audit), requestID: requestID, listener: listener,
                remote: remote))
        var path: String?
        var response: Response
        var isGivenUp = false
        do {
            if let problem { throw problem }
            guard request.headers.count <= headerFields else {
                throw Problem(.headersTooLarge, "a request has at most \(headerFields) header fields")
            }
            let route = try table.route(request.method, request.uri.path, on: listener)
            path = route.path
            guard overdue.hasRoom || route.listener == .admin else { throw Problem(.overloaded, retryAfter: 1) }
            let use = BodyUse()
            let watched = Request(
                head: request.head, body: RequestBody(asyncSequence: WatchedBody(body: request.body, use: use)))
            response = try await overdue.run(atMost: requestTimeout, when: { use.end() }) { [router] in
                try await router.respond(to: watched, context: context)
            }
        } catch {
            let problem = Problem(answering: error)
            isGivenUp = problem.isGivenUp
            log(problem, request.method, path, isGivenUp: isGivenUp, to: logger)
            response = problem.response(requestID: requestID)
            if request.method == .head { response = response.createHeadResponse() }
        }
        let status = isGivenUp ? RequestCounters.cancelled : "\(response.status.code)"
        requests.count(request.method, path, status: status, ContinuousClock.now - start)
        complete(&response, requestID)
        return ControlResponse(response)
    }

    /// A logger whose lines name the request.
    private static func naming(_ requestID: String, _ logger: Logger) -> Logger {
        var logger = logger
        logger[metadataKey: "request"] = "\(requestID)"
        return logger
    }

    /// What every answer has.
    private func complete(_ response: inout Response, _ requestID: String) {
        response.headers[.date] = dates.text
        response.headers[.requestID] = requestID
        response.headers[.contentTypeOptions] = "nosniff"
        if response.headers[.cacheControl] == nil { response.headers[.cacheControl] = "no-store" }
    }

    /// The answer to a request that a listener refuses by itself, of which no more is known.
    /// - Parameter failure: why an answer that was made already could not be given.
    func refusal(
        _ status: HTTPResponse.Status, after failure: (any Error)? = nil
    ) -> (head: HTTPResponse, body: ByteBuffer) {
        let requestID = RequestName.next()
        let logger = Self.naming(requestID, self.logger)
        var problem = Problem(answering: status)
        problem.cause = failure
        log(problem, .get, nil, isGivenUp: false, to: logger)
        // Anybody can refuse all answers: that must not look like a service that fails.
        let counted = problem.isCausedByCaller ? RequestCounters.cancelled : "\(problem.kind.status.code)"
        requests.count(.get, nil, status: counted, .zero)
        let document = problem.document(requestID: requestID)
        var response = problem.response(document)
        complete(&response, requestID)
        return (response.head, ByteBuffer(bytes: document))
    }

    private func log(
        _ problem: Problem, _ method: HTTPRequest.Method, _ path: String?, isGivenUp: Bool, to logger: Logger
    ) {
        let status = problem.kind.status
        var metadata: Logger.Metadata = [
            "method": "\(path == nil ? "" : method.rawValue)", "route": "\(path ?? "none")", "status": "\(status.code)",
            "problem": "\(problem.kind.rawValue)",
        ]
        // Nobody waits for the answer any more, which is no fault of the service.
        if isGivenUp {
            metadata["status"] = "\(RequestCounters.cancelled)"
            metadata["problem"] = nil
            return logger.info("request given up", metadata: metadata)
        }
        if let cause = problem.cause { metadata["cause"] = "\(cause)" }
        logger.log(level: problem.level, "request failed", metadata: metadata)
    }
}

/// An answer: its head, and a body to be written.
public struct ControlResponse: Sendable {
    /// Status and headers; `Content-Length` where the length is known.
    public let head: HTTPResponse
    let body: ResponseBody

    init(_ response: Response) {
        head = response.head
        body = response.body
    }

    /// Writes the body, part by part, and waits with each until the one before was taken.
    /// - Returns: trailers, where there are any.
    /// - Throws: what `write` throws.
    public func writeBody(
        _ write: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws -> HTTPFields? {
        let trailers = Mutex<HTTPFields?>(nil)
        let sink = BodySink(write: write) { fields in trailers.withLock { $0 = fields } }
        try await body.write(sink)
        return trailers.withLock { $0 }
    }
}

private struct BodySink: ResponseBodyWriter {
    let write: @Sendable (ByteBuffer) async throws -> Void
    let end: (HTTPFields?) -> Void

    mutating func write(_ buffer: ByteBuffer) async throws { try await write(buffer) }
    consuming func finish(_ trailingHeaders: HTTPFields?) async throws { end(trailingHeaders) }
}

/// Names requests: unlike any other's, and not to be guessed from another.
private enum RequestName {
    static func next() -> String {
        let digits = String(UInt64.random(in: .min ... .max), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

extension HTTPField.Name {
    static var requestID: HTTPField.Name { known("X-Request-Id") }
    static var contentTypeOptions: HTTPField.Name { known("X-Content-Type-Options") }
    /// What a request over HTTP/1.1 has besides its authority: another Host.
    static var furtherHost: HTTPField.Name { known("Host") }
    static var altSvc: HTTPField.Name { known("Alt-Svc") }
    static var idempotencyKey: HTTPField.Name { known("Idempotency-Key") }

    private static func known(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else { preconditionFailure("\(name) is a header's name") }
        return name
    }
}
