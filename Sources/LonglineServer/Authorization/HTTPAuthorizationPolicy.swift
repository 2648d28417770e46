import FoundationEssentials
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// Asks the app's backend over HTTP/1.1: a POST for each question, with connections kept for the next.
///
/// ```
///   POST /path HTTP/1.1
///   {"action":"publish","channel":"room/hall","device":"phone","tenant":"acme","user":"alice"}
///
///   200 {"allow":true,"ttl":30}
///   200 {"allow":false,"code":5,"ttl":30}      ; code is a refusal code, 5 (forbidden) when it is left out
/// ```
/// `ttl` is in seconds, 0 when it is left out. Any other status or body is a failure. A question may be asked twice, when the
/// backend closes a kept connection meanwhile. Plain HTTP only: for one that is not on this machine or a private network, put
/// a TLS proxy beside the server.
public final class HTTPAuthorizationPolicy: AuthorizationPolicy {
    /// An answer's largest body, in bytes.
    static let maximumBody = 64 * 1024
    /// Connections kept while nothing is asked; more are closed after their answer.
    static let maximumIdle = 32

    private struct Question: Encodable {
        var action: String
        var tenant: String
        var user: String
        var device: String
        var channel: String
    }
    private struct Answer: Decodable {
        var allow: Bool
        var code: UInt32?
        var ttl: Double?
    }

    private let endpoint: HTTPEndpoint
    private let headers: HTTPHeaders
    private let group: any EventLoopGroup
    private let idle = Mutex<[HTTPConnection]>([])

    /// A policy that asks at this address.
    /// - Parameters:
    ///   - url: `http://host[:port][/path]`.
    ///   - headers: sent with each question, a secret of the two sides for example.
    /// - Throws: ``ServerError/Code/invalidConfiguration`` for another form of address.
    public convenience init(url: String, headers: [(name: String, value: String)] = []) throws(ServerError) {
        try self.init(url: url, headers: headers, group: MultiThreadedEventLoopGroup.singleton)
    }

    init(
        url: String, headers: [(name: String, value: String)] = [], group: any EventLoopGroup
    ) throws(ServerError) {
        endpoint = try HTTPEndpoint(url)
        self.headers = HTTPHeaders(headers.map { ($0.name, $0.value) })
        self.group = group
    }

    deinit { for connection in idle.withLock({ $0 }) { connection.close() } }

    public func decide(_ question: AuthorizationQuestion) async throws -> AuthorizationDecision {
        let device = question.device
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let body = try encoder.encode(
            Question(
                action: "\(question.action)", tenant: device.tenant.description, user: device.user.description,
                device: device.device.description, channel: question.channel.description))
        let response = try await ask(ByteBuffer(bytes: body))
        guard response.status == 200 else { throw HTTPFailure(reason: "status \(response.status)") }
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(response.body.readableBytesView)) else {
            throw HTTPFailure(reason: "an answer that is not {\"allow\":...}")
        }
        let timeToLive = Duration.milliseconds(Int64(min(max(answer.ttl ?? 0, 0), 86_400) * 1_000))
        if answer.allow { return .allow(for: timeToLive) }
        let code = answer.code ?? 0
        return .deny(code == 0 ? .forbidden : RefusalCode(rawValue: code), for: timeToLive)
    }

    private func ask(_ body: ByteBuffer) async throws -> HTTPConnection.Response {
        var headers = headers
        headers.replaceOrAdd(name: "host", value: endpoint.authority)
        headers.replaceOrAdd(name: "content-type", value: "application/json")
        headers.replaceOrAdd(name: "content-length", value: "\(body.readableBytes)")
        let head = HTTPRequestHead(version: .http1_1, method: .POST, uri: endpoint.path, headers: headers)
        // A kept connection may be gone at the other end: then a fresh one counts.
        while let kept = takeIdle() {
            if let response = try? await exchange(head, body, on: kept) { return response }
            try Task.checkCancellation()
        }
        let fresh = try await HTTPConnection.open(endpoint, group: group)
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

    /// The connection that was used last: those before it may be forgotten by the backend.
    private func takeIdle() -> HTTPConnection? {
        idle.withLock { idle in
            while let connection = idle.popLast() {
                if connection.isActive { return connection }
            }
            return nil
        }
    }
}

/// What went wrong with an HTTP question, for logs.
struct HTTPFailure: Error, CustomStringConvertible {
    var reason: String
    var description: String { reason }
}

/// Where questions go.
struct HTTPEndpoint: Sendable {
    let host: String
    let port: Int
    let path: String
    /// Host and port as the `host` header has them.
    let authority: String

    init(_ url: String) throws(ServerError) {
        func refuse(_ reason: String) -> ServerError {
            ServerError(
                .invalidConfiguration, message: "the address of the authorization policy \(reason)",
                advice: "write it as http://host:port/path")
        }
        guard url.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw refuse("has a space or something outside ASCII")
        }
        guard url.hasPrefix("http://") else { throw refuse("does not begin with http://") }
        let rest = url.dropFirst("http://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        authority = String(rest[..<slash])
        path = slash == rest.endIndex ? "/" : String(rest[slash...])
        guard !authority.isEmpty, !authority.contains(where: { "@?#".contains($0) }), !path.contains("#") else {
            throw refuse("has no host, or parts that have no place in it")
        }
        var name = authority[...]
        var number = 80
        if let colon = authority.lastIndex(of: ":"), !authority[colon...].contains("]") {
            name = authority[..<colon]
            guard let given = Int(authority[authority.index(after: colon)...]), (1...65_535).contains(given) else {
                throw refuse("has a port that is none")
            }
            number = given
        }
        if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
        guard !name.isEmpty else { throw refuse("has no host") }
        host = String(name)
        port = number
    }
}
