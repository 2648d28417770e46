import Foundation
import HTTP3
import HTTPTypes
import Logging
import LonglineClient
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

@testable import LonglineControl

@Suite("HTTP/3", .timeLimit(.minutes(2))) struct HTTP3Tests {
    /// A client of the service's QUIC port.
    private struct Front {
        let service: ControlService
        let client: HTTP3Client

        let loop = MultiThreadedEventLoopGroup.singleton.next()

        init(service: ControlService, client: HTTP3Client) {
            self.service = service
            self.client = client
        }

        var configuration: ClientConfiguration {
            ClientConfiguration(
                serverName: "localhost", applicationProtocols: [HTTP3Service.applicationProtocol],
                verification: .pinnedPublicKey(sha256: [service.pin]))
        }

        func connect(early: Bool = false) async throws -> HTTP3ClientConnection {
            return try await client.connect(
                host: "127.0.0.1", port: try #require(service.server.addresses.first?.port),
                configuration: configuration, returnsEarly: early, on: loop)
        }
    }

    private func withFront(
        sessionCache: (any SessionCache)? = nil, _ change: (inout LonglineControl.Configuration) -> Void = { _ in },
        _ body: (ControlService, Front) async throws -> Void
    ) async throws {
        try await withControl(change) { service in
            let client = HTTP3Client(sessionCache: sessionCache)
            do { try await body(service, Front(service: service, client: client)) } catch {
                await client.shutdownGracefully(timeout: .seconds(1))
                throw error
            }
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    private func request(
        _ method: HTTPRequest.Method, _ path: String, bearer: String? = nil, json: String? = nil
    ) -> HTTPRequest {
        var fields = HTTPFields()
        if let bearer { fields[.authorization] = "Bearer \(bearer)" }
        if json != nil { fields[.contentType] = "application/json" }
        return HTTPRequest(method: method, scheme: "https", authority: "localhost", path: path, headerFields: fields)
    }

    private func object(_ response: HTTP3ClientResponse) async throws -> [String: Any] {
        let body = try await response.body.collect(upTo: 1 << 20)
        return try #require(try JSONSerialization.jsonObject(with: Data(body.readableBytesView)) as? [String: Any])
    }

    @Test("a client asks where to go and connects there, on one port")
    func access() async throws {
        try await withFront { service, front in
            let key = try await service.appKey()
            let connection = try await front.connect()
            let order = #"{"user":"ann","device":"phone","login":true}"#
            let issued = try await connection.request(
                request(.post, "/v1/tokens", bearer: key, json: order), body: ByteBuffer(string: order))
            #expect(issued.status == .created)
            let token = try #require(try await object(issued)["token"] as? String)

            let answer = try await connection.request(request(.get, "/v1/access", bearer: token))
            #expect(answer.status == .ok)
            let points = try #require(try await object(answer)["access_points"] as? [[String: Any]])
            let port = try #require(points.first?["port"] as? Int)
            #expect(port == service.server.addresses.first?.port)
            var configuration = LonglineClient.Configuration(
                accessPoints: [AccessPoint(host: "127.0.0.1", port: port)], trust: .pinnedPublicKey([service.pin])
            ) { token }
            configuration.logger.logLevel = .critical
            let device = try LonglineClient(configuration: configuration)
            try await device.connect()
            // Both go on beside each other.
            #expect(try await connection.request(request(.get, "/.well-known/jwks.json")).status == .ok)
            await device.disconnect()
        }
    }

    @Test("An answer without content says no length of it")
    func noContent() async throws {
        try await withFront { service, front in
            let connection = try await front.connect()
            let order = #"{"user":"ann"}"#
            let answer = try await connection.request(
                request(.post, "/v1/tokens/revoke", bearer: try await service.appKey(), json: order),
                body: ByteBuffer(string: order))
            #expect(answer.status == .noContent && answer.head.headerFields[.contentLength] == nil)
        }
    }

    @Test("What the listener answers by itself is a problem document as well, with the name of the request")
    func listenersOwn() async throws {
        try await withFront { _, front in
            let connection = try await front.connect()
            var wide = request(.get, "/.well-known/jwks.json")
            for number in 0..<150 {
                wide.headerFields.append(HTTPField(name: try #require(.init("x-\(number)")), value: "1"))
            }
            let refused = try await connection.request(wide)
            #expect(refused.status == .requestHeaderFieldsTooLarge)
            #expect(refused.head.headerFields[.contentType] == "application/problem+json")
            let name = try #require(refused.head.headerFields[.requestID])
            #expect(try await object(refused)["request_id"] as? String == name)
            #expect(try await connection.request(request(.get, "/.well-known/jwks.json")).status == .ok)
        }
    }

    @Test("A client that takes no header section is no failure of the service")
    func noSections() async throws {
        try await withFront { service, front in
            let client = QUICClient()
            let connection = try await client.connect(
                host: "127.0.0.1", port: try #require(service.server.addresses.first?.port),
                configuration: front.configuration, on: front.loop)
            // The control stream, with SETTINGS_MAX_FIELD_SECTION_SIZE = 0.
            let control = try await connection.openStream(bidirectional: false)
            try await control.write(ByteBuffer(bytes: [0x00, 0x04, 0x02, 0x06, 0x00]))
            while !service.log.lines.contains(where: { $0.contains("problem=internal-error") }) {
                let stream = try await connection.openStream()
                // HEADERS: GET, https, "/", and the authority.
                let head: [UInt8] = [0x01, 0x10, 0x00, 0x00, 0xd1, 0xd7, 0xc1, 0x50, 0x09]
                do {
                    try await stream.write(ByteBuffer(bytes: head + Array("localhost".utf8)))
                    try await stream.finish()
                    while try await stream.read() != nil {}
                } catch let error as QUICTransportError {
                    // No answer can be given: the stream ends with a code.
                    #expect(error.code != .connectionClosed, "\(error)")
                }
            }
            let line = try #require(service.log.lines.first { $0.contains("problem=internal-error") })
            #expect(line.hasPrefix("info request failed") && line.contains("fieldSectionTooLarge"), "\(line)")
            let figures = try await service.ask(.get, "/metrics", from: "127.0.0.1")
            let counts = String(decoding: figures.body, as: UTF8.self).split(separator: "\n")
                .filter { $0.contains("longline_control_requests") }
            #expect(counts.contains { $0.contains(#"status="cancelled""#) }, "\(counts)")
            #expect(!counts.contains { $0.contains(#"status="500""#) }, "\(counts)")
            // The control stream has to last as long as the connection.
            try? await control.finish()
            await client.shutdownGracefully(timeout: .seconds(1))
        }
    }

    @Test("failures have the same answers as over HTTPS, and operators' routes are not there")
    func failures() async throws {
        try await withFront { _, front in
            let connection = try await front.connect()
            let refused = try await connection.request(request(.get, "/v1/access", bearer: "nonsense"))
            #expect(refused.status == .unauthorized)
            let name = try #require(refused.head.headerFields[.requestID])
            #expect(try await object(refused)["request_id"] as? String == name)
            for path in ["/", "/healthz", "/metrics", "/v1/users/ann/sessions"] {
                #expect(try await connection.request(request(.get, path)).status == .notFound, "\(path)")
            }
            let head = try await connection.request(request(.head, "/.well-known/jwks.json"))
            #expect(head.status == .ok && head.head.headerFields[.contentLength] != nil)
            #expect(try await head.body.collect(upTo: 1).readableBytes == 0)
        }
    }

    @Test("a body that is too large is refused before it has come, and the connection goes on")
    func largeBody() async throws {
        try await withFront { service, front in
            let key = try await service.appKey()
            let connection = try await front.connect()
            let body = ByteBuffer(string: String(repeating: " ", count: 1 << 20))
            let refused = try await connection.request(
                request(.post, "/v1/tokens", bearer: key, json: ""), body: body)
            #expect(refused.status == .contentTooLarge)
            #expect(try await connection.request(request(.get, "/.well-known/jwks.json")).status == .ok)
        }
    }

    @Test("a body that waits to be asked for is asked for, unless the request is refused before")
    func expectation() async throws {
        try await withFront { service, front in
            let key = try await service.appKey()
            let order = #"{"user":"ann","device":"phone"}"#
            let connection = try await front.connect()
            for (bearer, status) in [("x", 401), (key, 201)] {
                var post = request(.post, "/v1/tokens", bearer: bearer, json: order)
                post.headerFields[.expect] = "100-continue"
                let (interim, continuation) = AsyncStream<Int>.makeStream()
                let exchange = try await connection.start(
                    post, onInformational: { continuation.yield($0.status.code) })
                if status == 201 {
                    var asked = interim.makeAsyncIterator()
                    #expect(await asked.next() == 100)
                    try await exchange.writer.finish(ByteBuffer(string: order))
                }
                #expect(try await exchange.response().status.code == status)
                // Interim responses come before it: there is no other.
                continuation.finish()
                var others: [Int] = []
                for await status in interim { others.append(status) }
                #expect(others.isEmpty)
                exchange.cancel()
            }
        }
    }

    @Test("a client has many requests open, though sessions allow one stream")
    func concurrency() async throws {
        try await withFront { _, front in
            let connection = try await front.connect()
            // Bodies that don't come keep their requests open: the answer to the last one shows that all are.
            var open: [HTTP3ClientExchange] = []
            for _ in 0..<50 {
                open.append(try await connection.start(request(.post, "/v1/tokens", bearer: "k", json: "")))
            }
            #expect(try await connection.request(request(.get, "/.well-known/jwks.json")).status == .ok)
            for one in open { one.cancel() }
        }
    }

    @Test("where a client was before it asks in its first flight")
    func early() async throws {
        let cache = InMemorySessionCache()
        try await withFront(sessionCache: cache) { service, front in
            let key = try await service.appKey()
            let token = try await service.token("ann", key: key)
            let first = try await front.connect()
            #expect(try await first.request(request(.get, "/v1/access", bearer: token)).status == .ok)
            let port = try #require(service.server.addresses.first?.port)
            let name = SessionCacheKey(
                serverName: "localhost", port: port, applicationProtocol: HTTP3Service.applicationProtocol)
            // It comes with the handshake's end or soon after; each request passes a round trip.
            while cache.session(for: name)?.ticket == nil {
                _ = try await first.request(request(.get, "/v1/access", bearer: token))
            }
            await first.shutdownGracefully()
            // On the client's loop it asks before the answer to its first flight can be read.
            try await withTaskExecutorPreference(first.executor) {
                let second = try await front.connect(early: true)
                let answer = try await second.request(request(.get, "/v1/access", bearer: token))
                #expect(answer.status == .ok && front.client.statistics.earlyRequests == 1)
                #expect(await second.handshake()?.earlyData == .accepted)
            }
        }
    }

    @Test("HTTPS says where HTTP/3 is: at the access point's port, or the server's own")
    func announcement() async throws {
        try await withControl { service in
            let port = try #require(service.server.addresses.first?.port)
            #expect(service.control.alternativeService == "h3=\":\(port)\"; ma=86400")
        }
        try await withControl({ $0.access.accessPoints = [NodeAddress(host: "rt.example.com", port: 443)] }) {
            service in
            #expect(service.control.alternativeService == "h3=\":443\"; ma=86400")
        }
        try await withControl({ $0.servesHTTP3 = false }) { service in
            #expect(service.control.alternativeService == nil)
        }
        // What is no access point over QUIC is none of HTTP/3.
        let stream = NodeAddress(host: "rt.example.com", port: 8443, transports: [.tcp, .webSocket])
        try await withControl({ $0.access.accessPoints = [stream, NodeAddress(host: "rt.example.com", port: 443)] }) {
            service in
            #expect(service.control.alternativeService == "h3=\":443\"; ma=86400")
            var settings = AccessSettings()
            settings.accessPoints = [stream]
            try service.control.reload(settings)
            #expect(service.control.alternativeService == nil)
        }
    }

    @Test("without HTTP/3 the port takes sessions only")
    func off() async throws {
        try await withFront({ $0.servesHTTP3 = false }) { _, front in
            await #expect(throws: HTTP3Error.self) { _ = try await front.connect() }
        }
    }

    @Test("one connection more than there may be ends with H3_EXCESSIVE_LOAD, and the others go on")
    func surplus() async throws {
        try await withFront({
            $0.limits.connections = 1
            $0.sampleInterval = .milliseconds(20)
        }) { service, front in
            let first = try await front.connect()
            #expect(try await first.request(request(.get, "/.well-known/jwks.json")).status == .ok)
            let error = await #expect(throws: HTTP3Error.self) {
                let second = try await front.connect()
                _ = try await second.request(request(.get, "/.well-known/jwks.json"))
            }
            #expect(error?.protocolCode == .excessiveLoad || error?.protocolCode == .requestRejected)
            #expect(try await first.request(request(.get, "/.well-known/jwks.json")).status == .ok)
            let key = try await service.operatorKey()
            var text = ""
            repeat {
                text = String(decoding: try await service.ask(.get, "/metrics", key: key).body, as: UTF8.self)
            } while !text.contains("longline_http3_connections_surplus_total 1")
        }
    }

    @Test("what HTTP/3 counts is in the figures")
    func figures() async throws {
        try await withFront({ $0.sampleInterval = .milliseconds(20) }) { service, front in
            let connection = try await front.connect()
            for _ in 0..<3 { _ = try await connection.request(request(.get, "/.well-known/jwks.json")) }
            let key = try await service.operatorKey()
            var text = ""
            repeat {
                text = String(decoding: try await service.ask(.get, "/metrics", key: key).body, as: UTF8.self)
            } while !text.contains("longline_http3_requests_total 3")
            #expect(text.contains("longline_http3_connections_accepted_total 1"))
            #expect(text.contains("longline_http3_protocol_errors_total 0"))
        }
    }

    @Test("a server that was started takes no other protocol")
    func late() async throws {
        try await withControl { service in
            var configuration = LonglineControl.Configuration(
                certificate: service.server.configuration.certificate, keys: DirectoryControlKeys(service.directory),
                database: service.database)
            configuration.addresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
            let error = #expect(throws: ControlError.self) {
                _ = try LonglineControl(server: service.server, configuration: configuration)
            }
            #expect(error?.code == .invalidConfiguration)
        }
    }
}
