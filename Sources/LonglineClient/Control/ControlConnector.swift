import HTTP3
import HTTPTypes
import LonglineHTTP
import NIOCore
import NIOHTTP1
import QUICEngine
import QUICTransport
import Synchronization

/// Asks over the network.
final class ControlConnector: ControlAsker {
    private let trust: Trust
    private let keyLog: (@Sendable (String) -> Void)?
    private let agent: String
    private let group: any EventLoopGroup
    /// Its tickets make the next question one round trip: a GET may be repeated by an attacker without harm.
    private let http3: HTTP3Client
    /// Made at the first use: reading the system's authorities takes a moment.
    private let tls = Mutex<TLSClient?>(nil)

    init(configuration: LonglineClient.Configuration, group: any EventLoopGroup, resolver: NameResolver = .shared) {
        trust = configuration.trust
        keyLog = configuration.keyLog
        agent = configuration.agent
        self.group = group
        var options = HTTP3ClientOptions()
        options.logger = configuration.logger
        http3 = HTTP3Client(
            options: options, sessionCache: InMemorySessionCache(capacity: 16), logger: configuration.logger,
            resolver: resolver)
    }

    func ask(_ way: ControlWay, token: String, nonce: String?) async throws -> ControlReply {
        let path = ControlEndpoint.path(nonce: nonce)
        return switch way.transport {
        case .http3: try await askHTTP3(way, path, token: token)
        case .https: try await askHTTPS(way, path, token: token)
        }
    }

    private func askHTTP3(_ way: ControlWay, _ path: String, token: String) async throws -> ControlReply {
        var configuration = ClientConfiguration(
            serverName: way.control.serverName, applicationProtocols: [HTTP3Service.applicationProtocol],
            verification: trust.verification)
        configuration.keyLog = keyLog
        let request = HTTPRequest(
            method: .get, scheme: "https", authority: way.control.endpoint.authority, path: path,
            headerFields: [.authorization: "Bearer \(token)", .accept: "application/json", .userAgent: agent])
        // On the connection's loop: the request is there when the first packets leave.
        return try await http3.withConnection(
            host: way.control.endpoint.host, port: way.port, configuration: configuration, returnsEarly: true,
            on: group.next()
        ) { connection in
            defer { connection.close() }
            return try await Self.reply(to: request, on: connection)
        }
    }

    private static func reply(to request: HTTPRequest, on connection: HTTP3ClientConnection) async throws
        -> ControlReply
    {
        let response = try await connection.request(request)
        let body: ByteBuffer
        do { body = try await response.body.collect(upTo: StoredAccess.maximumAnswer) } catch let error as HTTP3Error {
            throw error.code == .bodyTooLarge ? AccessAnswer.tooLarge : error
        }
        return ControlReply(
            status: response.status.code, retryAfter: response.head.headerFields[.retryAfter],
            alternatives: HTTPField.Name("Alt-Svc").map { response.head.headerFields[values: $0] } ?? [],
            body: Array(body.readableBytesView))
    }

    private func askHTTPS(_ way: ControlWay, _ path: String, token: String) async throws -> ControlReply {
        let connection = try await HTTPConnection.open(way.control.endpoint, tls: try tlsClient(), group: group)
        defer { connection.close() }
        let head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: path,
            headers: [
                "host": way.control.endpoint.authority, "authorization": "Bearer \(token)",
                "accept": "application/json", "user-agent": agent, "connection": "close",
            ])
        let response: HTTPConnection.Response
        do { response = try await connection.exchange(head, ByteBuffer()) } catch let error as HTTPFailure {
            throw error.isOverLimit ? AccessAnswer.tooLarge : error
        }
        return ControlReply(
            status: Int(response.status), retryAfter: response.headers.first(name: "retry-after"),
            alternatives: response.headers["alt-svc"], body: Array(response.body.readableBytesView))
    }

    private func tlsClient() throws -> TLSClient {
        try tls.withLock { tls in
            if let tls { return tls }
            let made = try TLSClient(trust.overTCP)
            tls = made
            return made
        }
    }
}

extension Trust {
    /// The same for QUIC's TLS.
    var verification: TLSClientVerification {
        switch self {
        case .systemRoots: .systemRoots
        case .certificateAuthority(let pem): .certificateAuthority(pem: pem)
        case .pinnedPublicKey(let keys): .pinnedPublicKey(sha256: keys)
        case .insecureNoVerification: .insecureNoVerification
        }
    }

    /// The same for TLS over TCP.
    var overTCP: TLSTrust {
        switch self {
        case .systemRoots: .systemRoots
        case .certificateAuthority(let pem): .authorities(pem: pem)
        case .pinnedPublicKey(let keys): .pinnedPublicKey(sha256: keys)
        case .insecureNoVerification: .insecureNoVerification
        }
    }
}
