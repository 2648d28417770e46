package import NIOCore
package import NIOHTTP1
import Synchronization

/// Asks one endpoint over HTTP/1.1, with connections kept for the next request.
package final class HTTPClient: Sendable {
    /// Connections kept while nothing is asked; more are closed after their answer.
    package static let maximumIdle = 32

    package let endpoint: HTTPEndpoint
    private let headers: HTTPHeaders
    private let tls: TLSClient?
    private let group: any EventLoopGroup
    private let idle = Mutex<[HTTPConnection]>([])

    /// - Throws: what can't be used of the trust.
    package init(
        _ endpoint: HTTPEndpoint, headers: HTTPHeaders = [:], trust: TLSTrust, group: any EventLoopGroup
    ) throws(HTTPFailure) {
        self.endpoint = endpoint
        self.headers = headers
        self.group = group
        tls = endpoint.isSecure ? try TLSClient(trust) : nil
    }

    deinit { for connection in idle.withLock({ $0 }) { connection.close() } }

    /// Posts a JSON body, and waits for the whole answer. When the task is cancelled, the connection closes.
    ///
    /// A request may arrive twice, when the other side closes a kept connection meanwhile.
    package func post(_ body: ByteBuffer, headers more: HTTPHeaders = [:]) async throws -> HTTPConnection.Response {
        var headers = more
        headers.replaceOrAdd(name: "content-type", value: "application/json")
        headers.replaceOrAdd(name: "content-length", value: "\(body.readableBytes)")
        return try await request(.POST, body, headers)
    }

    /// Gets what there is, and waits for the whole answer. When the task is cancelled, the connection closes.
    package func get() async throws -> HTTPConnection.Response { try await request(.GET, ByteBuffer(), [:]) }

    private func request(
        _ method: HTTPMethod, _ body: ByteBuffer, _ more: HTTPHeaders
    ) async throws -> HTTPConnection.Response {
        var headers = headers
        headers.add(contentsOf: more)
        headers.replaceOrAdd(name: "host", value: endpoint.authority)
        let head = HTTPRequestHead(version: .http1_1, method: method, uri: endpoint.path, headers: headers)
        // A kept connection may be gone at the other end: then a fresh one counts, and no other kept one. They would be gone, too,
        // or each would take the request from here to one that drops it.
        if let kept = takeIdle() {
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
