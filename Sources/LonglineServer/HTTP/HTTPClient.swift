import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Whom an HTTP request believes to be the other side, where its address says `https`.
public enum HTTPTrust: Hashable, Sendable {
    /// The certificate authorities of the operating system.
    case systemRoots
    /// One authority, or several, in PEM; also a self-signed certificate itself.
    case authorities(pem: String)
}

/// Asks one endpoint over HTTP/1.1, with connections kept for the next request.
final class HTTPClient: Sendable {
    /// Connections kept while nothing is asked; more are closed after their answer.
    static let maximumIdle = 32

    let endpoint: HTTPEndpoint
    private let headers: HTTPHeaders
    private let tls: NIOSSLContext?
    private let group: any EventLoopGroup
    private let idle = Mutex<[HTTPConnection]>([])

    /// - Throws: ``ServerError/Code/invalidConfiguration`` for certificates that can't be read.
    init(
        endpoint: HTTPEndpoint, headers: HTTPHeaders = [:], trust: HTTPTrust = .systemRoots, group: any EventLoopGroup
    ) throws(ServerError) {
        self.endpoint = endpoint
        self.headers = headers
        self.group = group
        tls = endpoint.isSecure ? try Self.context(trust) : nil
    }

    deinit { for connection in idle.withLock({ $0 }) { connection.close() } }

    private static func context(_ trust: HTTPTrust) throws(ServerError) -> NIOSSLContext {
        do {
            var configuration = TLSConfiguration.makeClientConfiguration()
            configuration.minimumTLSVersion = .tlsv12
            configuration.applicationProtocols = ["http/1.1"]
            if case .authorities(let pem) = trust {
                let certificates = try NIOSSLCertificate.fromPEMBytes(Array(pem.utf8))
                guard !certificates.isEmpty else { throw HTTPFailure(reason: "no certificate in it") }
                configuration.trustRoots = .certificates(certificates)
            }
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw ServerError(
                .invalidConfiguration, message: "the authorities for https can't be used", cause: error,
                advice: "name a file with certificates in PEM")
        }
    }

    /// Posts a JSON body, and waits for the whole answer. When the task is cancelled, the connection closes.
    ///
    /// A request may arrive twice, when the other side closes a kept connection meanwhile.
    func post(_ body: ByteBuffer, headers more: HTTPHeaders = [:]) async throws -> HTTPConnection.Response {
        var headers = more
        headers.replaceOrAdd(name: "content-type", value: "application/json")
        headers.replaceOrAdd(name: "content-length", value: "\(body.readableBytes)")
        return try await request(.POST, body, headers)
    }

    /// Gets what there is, and waits for the whole answer. When the task is cancelled, the connection closes.
    func get() async throws -> HTTPConnection.Response { try await request(.GET, ByteBuffer(), [:]) }

    private func request(
        _ method: HTTPMethod, _ body: ByteBuffer, _ more: HTTPHeaders
    ) async throws -> HTTPConnection.Response {
        var headers = headers
        headers.add(contentsOf: more)
        headers.replaceOrAdd(name: "host", value: endpoint.authority)
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: endpoint.path, headers: headers)
        // A kept connection may be gone at the other end: then a fresh one counts.
        while let kept = takeIdle() {
            if let response = try? await exchange(head, body, on: kept) { return response }
            try Task.checkCancellation()
        }
        let fresh = try await HTTPConnection.open(endpoint, tls: tls, group: group)
        return try await exchange(head, body, on: fresh)
    }

    private func exchange(
        _ head: HTTPRequestHead, _ body: ByteBuffer, on connection: HTTPConnection
    ) async throws -> HTTPConnection.Response {
        do {
            let response = try await connection.exchange(head, body)
            let isKept = idle.withLock { idle in
                guard response.isKeptAlive, idle.count < Self.maximumIdle else { return false }
                idle.append(connection)
                return true
            }
            if !isKept { connection.close() }
            return response
        } catch {
            connection.close()
            throw error
        }
    }

    /// The connection that was used last: those before it may be forgotten by the other side.
    private func takeIdle() -> HTTPConnection? {
        idle.withLock { idle in
            while let connection = idle.popLast() {
                if connection.isActive { return connection }
            }
            return nil
        }
    }
}
