import Foundation
import HTTP3
import HTTPTypes
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import QUICEngine
import QUICTransport
import Synchronization
import Testing

@testable import LonglineClient

#if canImport(Glibc)
    import Glibc
#endif

/// A control layer on loopback that answers over HTTP/3 and HTTPS as a test says, each with a certificate of its own.
final class StubControl: Sendable {
    struct Answer: Sendable {
        var status = 200
        var headers: [(name: String, value: String)] = []
        var body = AccessAnswerTests.json()
    }

    struct Asked: Equatable, Sendable {
        var transport: ControlTransport
        var path: String
        var authority: String
        var authorization: String?
    }

    private let asked: AskedLog
    private let https: (any Channel)?
    private let silent: (any Channel)?
    private let http3: HTTP3Server?
    private let closed: ClosedPort?
    private let httpsPort: Int
    private let group: MultiThreadedEventLoopGroup

    private final class AskedLog: Sendable {
        let all = Mutex<[Asked]>([])
    }

    /// - Parameters:
    ///   - https: nil: nothing listens on the TCP port.
    ///   - http3: nil: what comes to the UDP port is lost.
    init(
        https: DevelopmentCertificate?, http3: DevelopmentCertificate?,
        answer: Answer
    ) async throws {
        let asked = AskedLog()
        self.asked = asked
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let answering: @Sendable (Asked) -> Answer = { request in
            asked.all.withLock { $0.append(request) }
            return answer
        }
        if let https {
            let listening = try await Self.listen(https, group, answering)
            httpsPort = listening.localAddress?.port ?? 0
            self.https = listening
            closed = nil
        } else {
            let closed = try ClosedPort()
            httpsPort = closed.port
            self.closed = closed
            self.https = nil
        }
        if let http3 {
            silent = nil
            self.http3 = try await Self.serve(http3, group) { request, responder in
                let asked = Asked(
                    transport: .http3, path: request.path ?? "", authority: request.authority ?? "",
                    authorization: request.headerFields[.authorization])
                let answer = answering(asked)
                var response = HTTPResponse(status: .init(code: answer.status))
                for (name, value) in answer.headers {
                    if let name = HTTPField.Name(name) { response.headerFields[name] = value }
                }
                try await responder.respond(response, body: ByteBuffer(bytes: answer.body))
            }
        } else {
            self.http3 = nil
            silent = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        }
    }

    var requests: [Asked] { asked.all.withLock { $0 } }

    /// How it is named to a client.
    var service: ControlService {
        ControlService(
            url: "https://127.0.0.1:\(httpsPort)",
            http3Port: http3?.localAddresses.first?.port ?? silent?.localAddress?.port)
    }

    func stop() async throws {
        await http3?.shutdownGracefully(grace: .zero, timeout: .seconds(1))
        try? await https?.close()
        try? await silent?.close()
        try await group.shutdownGracefully()
    }

    /// HTTP/3 on a port of its own.
    static func serve(
        _ certificate: DevelopmentCertificate, _ group: MultiThreadedEventLoopGroup,
        _ handler: @escaping @Sendable (HTTPRequest, HTTP3Responder) async throws -> Void
    ) async throws -> HTTP3Server {
        var random = SystemRandomNumberGenerator()
        let now = DriverClock.system.wall() / 1_000
        let server = ServerConfiguration(
            tls: try TLSServerContext(
                credentials: certificate.credentials, applicationProtocols: [HTTP3Service.applicationProtocol],
                ticketKeys: TicketKeyRing(random: &random, now: now), replayStore: ReplayStore(capacity: 1_000)))
        return try await HTTP3Server.bind(
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)],
            configuration: QUICServerConfiguration(server: server), group: group
        ) { request, _, responder in try await handler(request, responder) }
    }

    private static func listen(
        _ certificate: DevelopmentCertificate, _ group: MultiThreadedEventLoopGroup,
        _ answer: @escaping @Sendable (Asked) -> Answer
    ) async throws -> any Channel {
        let tls = try NIOSSLContext(
            configuration: .makeServerConfiguration(
                certificateChain: NIOSSLCertificate.fromPEMBytes(Array(certificate.certificatePEM.utf8)).map {
                    .certificate($0)
                }, privateKey: .privateKey(NIOSSLPrivateKey(bytes: Array(certificate.privateKeyPEM.utf8), format: .pem))
            ))
        return try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(StubHandler(answer))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }
}

/// A TCP port of loopback that refuses connections, for as long as this lives: one that was given back may be another test's.
private final class ClosedPort: Sendable {
    let port: Int
    private let descriptor: CInt

    init() throws {
        let descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        self.descriptor = descriptor
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        // Bound, so that nobody else gets it, and never listened on.
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, size) == 0 && getsockname(descriptor, $0, &size) == 0
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        try #require(isBound)
    }

    deinit { close(descriptor) }
}

/// Certificates of two services; making a key takes time.
let certificates: (good: DevelopmentCertificate, other: DevelopmentCertificate) = {
    do {
        let now = DriverClock.system.wall() / 1_000
        func make() throws -> DevelopmentCertificate {
            try DevelopmentCertificate.generate(names: ["localhost", "127.0.0.1"], now: now)
        }
        return (try make(), try make())
    } catch {
        fatalError("no development certificate: \(error)")
    }
}()

private final class StubHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let answer: @Sendable (StubControl.Asked) -> StubControl.Answer
    private var head: HTTPRequestHead?

    init(_ answer: @escaping @Sendable (StubControl.Asked) -> StubControl.Answer) { self.answer = answer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head): self.head = head
        case .body: break
        case .end:
            guard let head else { return }
            let answer = answer(
                StubControl.Asked(
                    transport: .https, path: head.uri, authority: head.headers.first(name: "host") ?? "",
                    authorization: head.headers.first(name: "authorization")))
            var headers = HTTPHeaders([("content-length", "\(answer.body.count)")])
            for (name, value) in answer.headers { headers.add(name: name, value: value) }
            let response = HTTPResponseHead(
                version: .http1_1, status: .init(statusCode: answer.status), headers: headers)
            context.write(wrapOutboundOut(.head(response)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(bytes: answer.body)))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }
}
