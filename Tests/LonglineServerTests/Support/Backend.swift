import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import QUICEngine
import Synchronization

/// An HTTP server that answers as a test says.
final class Backend: Sendable {
    struct Request: Sendable {
        var method: HTTPMethod
        var uri: String
        var headers: HTTPHeaders
        var body = ""
    }
    struct Response: Sendable {
        var status: HTTPResponseStatus
        var body: String
        var closes = false
        /// Closes without an answer.
        var drops = false
        /// Answers nothing and takes nothing any more, as if it were gone.
        var hangs = false
        var headers: HTTPHeaders = [:]
        static func json(_ body: String) -> Response { Response(status: .ok, body: body) }
    }
    typealias Answer = @Sendable (Request) -> Response

    /// What came, which the connections share with the backend.
    private final class Log: Sendable {
        struct State {
            var requests: [Request] = []
            var connections = 0
            var open: [any Channel] = []
        }
        let value = Mutex(State())
    }
    private let channel: any Channel
    private let state: Log

    /// - Parameters:
    ///   - identity: what it proves itself by over TLS; nil: it speaks plainly.
    ///   - port: 0 for a free one.
    init(
        identity: TLSServerCredentials? = nil, port: Int = 0, _ answer: @escaping Answer
    ) async throws {
        let state = Log()
        self.state = state
        let tls = try identity.map { identity in
            try NIOSSLContext(
                configuration: .makeServerConfiguration(
                    certificateChain: NIOSSLCertificate.fromPEMBytes(Array(identity.certificateChainPEM.utf8)).map {
                        .certificate($0)
                    },
                    privateKey: .privateKey(
                        NIOSSLPrivateKey(bytes: Array(identity.privateKeyPEM.utf8), format: .pem))))
        }
        channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                state.value.withLock {
                    $0.connections += 1
                    $0.open.append(channel)
                }
                return channel.eventLoop.makeCompletedFuture {
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls))
                    }
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(
                        BackendHandler { request in
                            state.value.withLock { $0.requests.append(request) }
                            return answer(request)
                        })
                }
            }
            .bind(host: "127.0.0.1", port: port).get()
    }

    var port: Int { channel.localAddress?.port ?? 0 }
    var requests: [Request] { state.value.withLock { $0.requests } }
    var connections: Int { state.value.withLock { $0.connections } }

    func closeAll() async throws {
        let open = state.value.withLock { state in
            defer { state.open = [] }
            return state.open
        }
        for channel in open { try? await channel.close() }
    }

    func stop() async throws {
        try await channel.close()
        try await closeAll()
    }
}

private final class BackendHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let answer: Backend.Answer
    private var request: Backend.Request?

    init(_ answer: @escaping Backend.Answer) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            request = Backend.Request(method: head.method, uri: head.uri, headers: head.headers)
        case .body(let part): request?.body += String(buffer: part)
        case .end:
            guard let request else { return }
            let response = answer(request)
            guard !response.drops else { return context.close(promise: nil) }
            guard !response.hangs else {
                _ = context.channel.setOption(.autoRead, value: false)
                return
            }
            var headers = HTTPHeaders([("content-length", "\(response.body.utf8.count)")])
            if response.status == .noContent { headers = [:] }
            headers.add(contentsOf: response.headers)
            if response.closes { headers.add(name: "connection", value: "close") }
            let head = HTTPResponseHead(version: .http1_1, status: response.status, headers: headers)
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            if !response.body.isEmpty {
                context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: response.body)))), promise: nil)
            }
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            if response.closes { context.close(promise: nil) }
        }
    }
}
