package import NIOCore
package import NIOHTTP1
import NIOPosix

/// One connection to an HTTP/1.1 server, for one request at a time.
package final class HTTPConnection: Sendable {
    /// An answer's largest body, in bytes.
    package static let maximumBody = 64 * 1024

    package struct Response: Sendable {
        package var status: UInt
        package var headers: HTTPHeaders
        package var isKeptAlive: Bool
        package var body: ByteBuffer
    }

    private let channel: any Channel
    private let handler: NIOLoopBound<ExchangeHandler>

    private init(channel: any Channel, handler: NIOLoopBound<ExchangeHandler>) {
        self.channel = channel
        self.handler = handler
    }

    /// Connects. When the task is cancelled, nobody waits any more and the connection closes.
    /// - Parameter tls: what a secure endpoint's certificate is verified with; nil for one without TLS.
    package static func open(
        _ endpoint: HTTPEndpoint, tls: TLSClient?, group: any EventLoopGroup, resolver: HostResolver = .shared
    ) async throws -> HTTPConnection {
        let promise = group.any().makePromise(of: HTTPConnection.self)
        // NIO's own wait for a connection can't be cancelled.
        Task {
            do {
                let connection = try await connect(endpoint, tls: tls, on: group.next(), resolver: resolver)
                promise.succeed(connection)
                // One that comes too late has nobody.
                promise.futureResult.whenFailure { _ in connection.close() }
            } catch {
                promise.fail(error)
            }
        }
        return try await withTaskCancellationHandler {
            try await promise.futureResult.get()
        } onCancel: {
            promise.fail(CancellationError())
        }
    }

    private static func connect(
        _ endpoint: HTTPEndpoint, tls: TLSClient?, on eventLoop: any EventLoop, resolver: HostResolver
    ) async throws -> HTTPConnection {
        // The time for the lookup is in it.
        try await ClientBootstrap(group: eventLoop)
            .connectTimeout(.seconds(5))
            .resolver(resolver.query(host: endpoint.host, port: endpoint.port, on: eventLoop))
            .connect(host: endpoint.host, port: endpoint.port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(tls.handler(serverName: endpoint.serverName))
                    }
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    let handler = ExchangeHandler()
                    try channel.pipeline.syncOperations.addHandler(handler)
                    return HTTPConnection(
                        channel: channel, handler: NIOLoopBound(handler, eventLoop: channel.eventLoop))
                }
            }
    }

    package var isActive: Bool { channel.isActive }

    package func close() { channel.close(promise: nil) }

    /// Sends a request and waits for the whole answer. When the task is cancelled, nobody waits any more and the connection closes.
    package func exchange(_ head: HTTPRequestHead, _ body: ByteBuffer) async throws -> Response {
        let (channel, handler) = (channel, handler)
        return try await withTaskCancellationHandler {
            try await channel.eventLoop.flatSubmit { handler.value.start(head, body, on: channel) }.get()
        } onCancel: {
            channel.eventLoop.execute {
                // Closing waits for the other side to say goodbye, which may be gone.
                handler.value.cancel()
                channel.close(promise: nil)
            }
        }
    }
}

/// Puts one answer together.
private final class ExchangeHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private var context: ChannelHandlerContext?
    private var isCancelled = false
    private var promise: EventLoopPromise<HTTPConnection.Response>?
    private var response = HTTPConnection.Response(
        status: 0, headers: [:], isKeptAlive: false, body: ByteBuffer())

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func start(
        _ head: HTTPRequestHead, _ body: ByteBuffer, on channel: any Channel
    ) -> EventLoopFuture<HTTPConnection.Response> {
        let next = channel.eventLoop.makePromise(of: HTTPConnection.Response.self)
        guard !isCancelled else {
            next.fail(CancellationError())
            return next.futureResult
        }
        guard let context, channel.isActive, promise == nil else {
            next.fail(HTTPFailure(reason: "the connection is gone"))
            return next.futureResult
        }
        promise = next
        response.status = 0
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if body.readableBytes > 0 { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        return next.futureResult
    }

    func cancel() {
        isCancelled = true
        promise?.fail(CancellationError())
        promise = nil
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            response = HTTPConnection.Response(
                status: head.status.code, headers: head.headers, isKeptAlive: head.isKeepAlive, body: ByteBuffer())
        case .body(var part):
            guard response.body.readableBytes + part.readableBytes <= HTTPConnection.maximumBody else {
                fail("an answer over \(HTTPConnection.maximumBody) bytes", isOverLimit: true)
                return context.close(promise: nil)
            }
            response.body.writeBuffer(&part)
        case .end:
            // An interim answer (1xx) is followed by the one that counts.
            guard response.status >= 200 else { return }
            promise?.succeed(response)
            promise = nil
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        fail("the connection closed before the answer")
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail("\(error)")
        context.close(promise: nil)
    }

    private func fail(_ reason: String, isOverLimit: Bool = false) {
        var failure = HTTPFailure(reason: reason)
        failure.isOverLimit = isOverLimit
        failure.isAfterAnswer = response.status > 0
        promise?.fail(failure)
        promise = nil
    }
}
