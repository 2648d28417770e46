package import NIOCore
package import NIOHTTP1
import Synchronization

/// Asks one endpoint over HTTP/1.1, with connections kept for the next request.
package final class HTTPClient: Sendable {
    /// Connections kept while nothing is asked; more are closed after their answer.
    package static let maximumIdle = 32
    /// How long one is kept without use. A machine that is gone, and a NAT that forgot the flow, close nothing: what is asked over
    /// such a connection costs the caller all of its deadline.
    package static let maximumIdleTime = TimeAmount.seconds(30)

    private struct Idle {
        var connection: HTTPConnection
        var since: NIODeadline
    }

    package let endpoint: HTTPEndpoint
    private let headers: HTTPHeaders
    private let tls: TLSClient?
    private let group: any EventLoopGroup
    private let resolver: HostResolver
    private let now: @Sendable () -> NIODeadline
    /// The one used last is the last.
    private let idle = Mutex<[Idle]>([])

    /// - Parameter now: a clock for how long connections are kept.
    /// - Throws: what can't be used of the trust.
    package init(
        _ endpoint: HTTPEndpoint, headers: HTTPHeaders = [:], trust: TLSTrust, group: any EventLoopGroup,
        resolver: HostResolver = .shared, now: @escaping @Sendable () -> NIODeadline = { .now() }
    ) throws(HTTPFailure) {
        self.now = now
        self.endpoint = endpoint
        self.headers = headers
        self.group = group
        self.resolver = resolver
        tls = endpoint.isSecure ? try TLSClient(trust) : nil
    }

    deinit { closeIdle() }

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
            do {
                return try await exchange(head, body, on: kept)
            } catch let failure as HTTPFailure where failure.isAfterAnswer {
                throw failure
            } catch {}
            // The others are as old or older, and went the same way. The next caller shall not find that out by its own deadline.
            closeIdle()
            try Task.checkCancellation()
        }
        let fresh = try await HTTPConnection.open(endpoint, tls: tls, group: group, resolver: resolver)
        return try await exchange(head, body, on: fresh)
    }

    private func exchange(
        _ head: HTTPRequestHead, _ body: ByteBuffer, on connection: HTTPConnection
    ) async throws -> HTTPConnection.Response {
        do {
            let response = try await connection.exchange(head, body)
            let isKept = idle.withLock { idle in
                // A cancelled one closes.
                guard response.isKeptAlive, !Task.isCancelled, idle.count < Self.maximumIdle else { return false }
                idle.append(Idle(connection: connection, since: now()))
                return true
            }
            if !isKept { connection.close() }
            return response
        } catch {
            connection.close()
            throw error
        }
    }

    /// The connection that was used last, if that is not long ago: those before it may be forgotten by the other side.
    private func takeIdle() -> HTTPConnection? {
        let oldest = now() - Self.maximumIdleTime
        let (kept, stale) = idle.withLock { idle -> (HTTPConnection?, ArraySlice<Idle>) in
            let stale = idle.prefix { $0.since < oldest }
            idle.removeFirst(stale.count)
            while let last = idle.popLast() {
                if last.connection.isActive { return (last.connection, stale) }
            }
            return (nil, stale)
        }
        for each in stale { each.connection.close() }
        return kept
    }

    private func closeIdle() {
        let all = idle.withLock { idle in
            defer { idle = [] }
            return idle
        }
        for each in all { each.connection.close() }
    }
}
