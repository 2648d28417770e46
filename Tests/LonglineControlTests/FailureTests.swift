import Foundation
import GRDB
import HTTP3
import HTTPTypes
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineControl
@testable import LonglineServer

@Suite("What bad requests get", .timeLimit(.minutes(2))) struct FailureTests {
    /// A body whose next part never comes.
    private struct Stalled: AsyncSequence, Sendable {
        struct AsyncIterator: AsyncIteratorProtocol {
            mutating func next() async throws -> ByteBuffer? {
                try await Task.sleep(for: .seconds(3_600))
                return nil
            }
        }

        func makeAsyncIterator() -> AsyncIterator { AsyncIterator() }
    }

    /// A body without an end.
    private struct Endless: AsyncSequence, Sendable {
        struct AsyncIterator: AsyncIteratorProtocol {
            mutating func next() async throws -> ByteBuffer? { ByteBuffer(repeating: 32, count: 16_384) }
        }

        func makeAsyncIterator() -> AsyncIterator { AsyncIterator() }
    }

    /// A body that HTTP/3 gives up.
    private struct Failing: AsyncSequence, Sendable {
        let code: HTTP3Error.Code

        struct AsyncIterator: AsyncIteratorProtocol {
            let code: HTTP3Error.Code
            mutating func next() async throws -> ByteBuffer? { throw HTTP3Error(code, "a test's", advice: "") }
        }

        func makeAsyncIterator() -> AsyncIterator { AsyncIterator(code: code) }
    }

    private func post<Body: AsyncSequence & Sendable>(
        _ service: ControlService, _ body: Body, key: String
    ) async throws -> HTTPResponse where Body.Element == ByteBuffer, Body.AsyncIterator: SendableMetatype {
        let request = HTTPRequest(
            method: .post, scheme: "https", authority: "localhost", path: "/v1/tokens",
            headerFields: [.authorization: "Bearer \(key)", .contentType: "application/json"])
        return await service.control.responder.respond(to: request, body: body, from: nil, on: .service).head
    }

    @Test("a body that does not come, and one that does not end")
    func bodies() async throws {
        try await withControl({ $0.limits.bodyTimeout = .milliseconds(50) }) { service in
            let key = try await service.appKey()
            #expect(try await post(service, Stalled(), key: key).status == .requestTimeout)
        }
        try await withControl { service in
            let endless = try await post(service, Endless(), key: try await service.appKey())
            #expect(endless.status == .contentTooLarge)
            // Without a key nothing of it is read.
            let refused = try await post(service, Stalled(), key: "x")
            #expect(refused.status == .unauthorized)
        }
    }

    @Test(
        "a body that HTTP/3 gives up has the status of what was wrong with it",
        arguments: [
            (HTTP3Error.Code.fieldSectionTooLarge, HTTPResponse.Status.requestHeaderFieldsTooLarge),
            (HTTP3Error.Code.timeout, HTTPResponse.Status.requestTimeout),
            (HTTP3Error.Code.streamReset, HTTPResponse.Status.badRequest),
        ])
    func failingBody(code: HTTP3Error.Code, status: HTTPResponse.Status) async throws {
        try await withControl { service in
            let key = try await service.appKey()
            #expect(try await post(service, Failing(code: code), key: key).status == status)
        }
    }

    /// Nodes that nobody hears of.
    private struct SilentNodes: NodeDirectory {
        func nodes() async throws -> [NodeStatus] {
            try await Task.sleep(for: .seconds(3_600))
            return []
        }

        func drain(_ node: NodeID, rate: Int) async throws -> NodeDrainStatus? { nil }
    }

    @Test("a request that takes too long is given up, and says when to try again")
    func slowRoute() async throws {
        try await withControl({
            $0.nodes = SilentNodes()
            $0.limits.requestTimeout = .milliseconds(300)
        }) { service in
            // Without a request, which would have no more time.
            let token = try await service.directory.sign(
                tenant: ControlService.tenant, user: UserID("ann"), device: DeviceID("phone"), lifetime: 3_600_000)
            let answer = try await service.ask(.get, "/v1/access", key: token, on: .service)
            #expect(
                answer.status == 503 && answer.problem == "unavailable" && answer.headers[.retryAfter] == "1",
                "\(answer.status) \(String(buffer: ByteBuffer(bytes: answer.body)))")
        }
    }

    /// Nodes that answer when they are let, whoever gave them up meanwhile: as the store does.
    private final class HeldNodes: NodeDirectory {
        let gate = Gate()

        func nodes() async -> [NodeStatus] {
            await gate.wait()
            return []
        }

        func drain(_ node: NodeID, rate: Int) async -> NodeDrainStatus? { nil }
    }

    @Test("work that does not heed that its time is over is left behind, so much and no more")
    func overdue() async throws {
        let nodes = HeldNodes()
        try await withControl({
            $0.nodes = nodes
            $0.limits.requestTimeout = .milliseconds(300)
            $0.limits.overdueRequests = 1
        }) { service in
            let token = try await service.directory.sign(
                tenant: ControlService.tenant, user: UserID("ann"), device: DeviceID("phone"), lifetime: 3_600_000)
            func ask() async throws -> ControlService.Answer {
                try await service.ask(.get, "/v1/access", key: token, on: .service)
            }
            let answer = try await ask()
            #expect(answer.problem == "unavailable" && answer.headers[.retryAfter] == "1")
            let more = try await ask()
            #expect(more.problem == "overloaded" && more.headers[.retryAfter] == "1")
            // Operators see what is wrong.
            #expect(try await service.ask(.get, "/healthz").status == 200)
            nodes.gate.open()
            var last = more
            while ["overloaded", "unavailable"].contains(last.problem) {
                try await Task.sleep(for: .milliseconds(5))
                last = try await ask()
            }
            // As it is where there are no nodes.
            #expect(last.problem == "no-access-point")
        }
    }

    @Test("a publish that the server takes too long for is answered, and entered all the same")
    func heldPublish() async throws {
        try await withControl({ $0.limits.requestTimeout = .seconds(2) }) { service in
            let key = try await service.appKey()
            func publish() async throws -> ControlService.Answer {
                try await service.ask(
                    .post, "/v1/channels/all%2Fnews/messages", key: key, json: #"{"sender":"app","text":"slow"}"#,
                    headers: [.idempotencyKey: "k"])
            }
            // The loop that hands publishes to the store stands still.
            let held = DispatchSemaphore(value: 0)
            let loop = try #require(try service.server.requireRuntime().loops.first)
            loop.execute { _ in held.wait() }
            let answer = try await publish()
            #expect(answer.status == 503 && answer.problem == "unavailable")
            held.signal()
            var repeated = try await publish()
            while repeated.status == 409 { repeated = try await publish() }
            #expect(repeated.status == 201)
            let history = try await service.ask(.get, "/v1/channels/all%2Fnews/messages", key: key)
            #expect(try history.array("messages").count == 1)
        }
    }

    /// Nodes that nobody hears of, which say when they were asked.
    private struct AskedNodes: NodeDirectory {
        let asked: AsyncStream<Void>.Continuation

        func nodes() async throws -> [NodeStatus] {
            asked.finish()
            try await Task.sleep(for: .seconds(3_600))
            return []
        }

        func drain(_ node: NodeID, rate: Int) async throws -> NodeDrainStatus? { nil }
    }

    @Test("a request that its caller gives up is no failure of the service")
    func givenUp() async throws {
        let (asked, continuation) = AsyncStream.makeStream(of: Void.self)
        try await withControl({ $0.nodes = AskedNodes(asked: continuation) }) { service in
            let token = try await service.token("ann", key: try await service.appKey())
            let request = Task { try await service.ask(.get, "/v1/access", key: token, on: .service) }
            for await _ in asked {}
            request.cancel()
            _ = try await request.value
            let line = try #require(service.log.lines.first { $0.contains("/v1/access") })
            #expect(line.hasPrefix("info request given up") && line.contains("status=cancelled"), "\(line)")
            let figures = try await service.ask(.get, "/metrics", from: "127.0.0.1")
            let lines = String(decoding: figures.body, as: UTF8.self).split(separator: "\n")
            let counts = lines.filter { $0.contains("longline_control_requests") && $0.contains("/v1/access") }
            #expect(counts.count == 1 && counts[0].contains(#"status="cancelled""#), "\(counts)")
        }
    }

    @Test("nor is one that is given up while its key is looked up")
    func givenUpAtTheKey() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let problem = await Task { () -> Problem? in
                withUnsafeCurrentTask { $0?.cancel() }
                do { _ = try await service.keys.find(key) } catch { return Problem(.unavailable, cause: error) }
                return nil
            }.value
            #expect(problem?.isGivenUp == true)
            // A request may be further when it learns of it.
            while !service.log.lines.contains(where: { $0.hasPrefix("info request given up") }) {
                let request = Task {
                    withUnsafeCurrentTask { $0?.cancel() }
                    return try await service.ask(.post, "/v1/tokens", key: key, json: "{}")
                }
                _ = try await request.value
            }
            let line = try #require(service.log.lines.first { $0.hasPrefix("info request given up") })
            #expect(line.contains("route=/v1/tokens") && line.contains("status=cancelled"), "\(line)")
            #expect(!service.log.lines.contains { $0.hasPrefix("error request failed") })
        }
    }

    @Test("a body that does not say what it is, where there need not be one, is refused and not passed over")
    func untyped() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let node = service.control.nodeID
            for (method, path, credential, body) in [
                (HTTPRequest.Method.put, "/v1/rooms/hall/members/ann", key, #"{"role":"owner"}"#),
                (.post, "/v1/nodes/\(node)/drain", try await service.operatorKey(), #"{"rate":1}"#),
            ] {
                func status(_ parts: [ByteBuffer]) async -> HTTPResponse.Status {
                    let request = HTTPRequest(
                        method: method, scheme: "https", authority: "localhost", path: path,
                        headerFields: [.authorization: "Bearer \(credential)"])
                    return await service.control.responder.respond(
                        to: request, body: ControlService.Parts(parts: parts), from: nil, on: .admin
                    ).head.status
                }
                #expect(await status([ByteBuffer(string: body)]) == .unsupportedMediaType, "\(path)")
                #expect(await status([ByteBuffer(repeating: 32, count: 65_537)]) == .contentTooLarge, "\(path)")
                #expect(await status([]).kind == .successful, "\(path)")
            }
        }
    }

    @Test(
        "JSON with a number or a text that can't be is called JSON",
        arguments: [
            ("/v1/tokens", #"{"user":"ann","device":"phone","lifetime":1.5}"#),
            ("/v1/tokens", #"{"user":"ann","device":"\ud800"}"#),
            ("/v1/tokens", "{\"user\":\"ann\tlee\",\"device\":\"phone\"}"),
            ("/v1/tokens/revoke", #"{"token_id":"x","expires_at":-1}"#),
        ])
    func values(path: String, body: String) async throws {
        try await withControl { service in
            let key = try await service.appKey()
            let answer = try await service.ask(.post, path, key: key, json: body)
            #expect(answer.status == 400)
            let detail = try answer.string("detail")
            #expect(detail == "the body has a number or a text that is not allowed where it stands")
            let broken = try await service.ask(.post, path, key: key, json: body + "}")
            #expect(try broken.string("detail") == "the body is not JSON")
        }
    }

    @Test("a body that others may read otherwise is refused")
    func readings() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            func detail(_ bytes: some Collection<UInt8>) async throws -> String? {
                let request = HTTPRequest(
                    method: .post, scheme: "https", authority: "localhost", path: "/v1/tokens",
                    headerFields: [.authorization: "Bearer \(key)", .contentType: "application/json"])
                let response = await service.control.responder.respond(
                    to: request, body: ControlService.Parts(parts: [ByteBuffer(bytes: bytes)]), from: nil,
                    on: .service)
                let body = Mutex(Data())
                _ = try await response.writeBody { part in
                    body.withLock { $0.append(contentsOf: part.readableBytesView) }
                }
                let answer = try JSONSerialization.jsonObject(with: body.withLock { $0 }) as? [String: Any]
                return answer?["detail"] as? String
            }
            for body in [
                #"{"user":"ann","user":"bob","device":"phone"}"#, #"{"user":"ann","\u0075ser":"bob","device":"phone"}"#,
                #"{"user":"ann","device":"phone","login":true,"login":true}"#,
            ] {
                #expect(try await detail(body.utf8) == "the body has a member more than once", "\(body)")
            }
            for body in [#"{"user":"ann","device":"phone",}"#, "{\"user\":\"ann\",\"device\":\"phone,\"\n,\n}"] {
                #expect(try await detail(body.utf8) == "the body is not JSON", "\(body)")
            }
            let body = #"{"user": "ann", "device": "phone", "scope": "receive:user/ann"}"#
            #expect(try await detail(body.utf8) == nil)
            let marks = #"{"user":"a\":{[,b","device":"phone"}"#
            #expect(try await detail(marks.utf8)?.hasPrefix("'user' has a character") == true)
            let wide = body.utf16.flatMap { [UInt8($0 & 255), UInt8($0 >> 8)] }
            for bytes in [wide, [0xFF, 0xFE] + wide, Array(#"{"user":""#.utf8) + [0xC0, 0xAF] + Array(#""}"#.utf8)] {
                #expect(try await detail(bytes) == "the body is not JSON in UTF-8")
            }
        }
    }

    @Test("every answer says when it was made")
    func dates() async throws {
        #expect(DateHeader.text(of: 784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
        try await withControl { service in
            let answer = try await service.ask(.get, "/healthz")
            #expect(answer.headers[.date]?.hasSuffix(" GMT") == true)
        }
    }

    @Test("a method that the resource does not have, and paths that are none")
    func methods() async throws {
        try await withControl { service in
            let answer = try await service.ask(.patch, "/v1/tokens")
            #expect(answer.status == 405 && answer.headers[.allow] == "POST")
            let both = try await service.ask(.post, "/v1/users/ann/sessions")
            #expect(both.status == 405 && both.headers[.allow] == "DELETE, GET, HEAD")
            for path in [
                "/v1", "/v1/", "//", "/v1/tokens/", "/v1/users//sessions", "/v2/tokens", "*", "/%2e%2e",
                "/metrics/../", "x/", "x/openapi.yaml",
            ] {
                #expect(try await service.ask(.get, path).status == 404, "\(path)")
            }
            #expect(try await service.ask(.head, "/.well-known/jwks.json").body.isEmpty)
        }
    }

    @Test("while the server does not run, every app's route says when to try again, and nothing is written down")
    func stopped() async throws {
        try await withControl { service in
            let (key, operatorKey) = (try await service.appKey(), try await service.operatorKey())
            await service.server.shutdown()
            let requests: [(HTTPRequest.Method, String, String?)] = [
                (.post, "/v1/tokens", #"{"user":"ann","device":"phone","login":true}"#),
                (.post, "/v1/tokens/revoke", #"{"user":"ann"}"#),
                (.post, "/v1/channels/all%2Fnews/messages", #"{"sender":"app","text":"x"}"#),
                (.get, "/v1/channels/all%2Fnews/messages", nil), (.put, "/v1/rooms/hall/members/ann", nil),
                (.delete, "/v1/rooms/hall/members/ann", nil), (.get, "/v1/users/ann/sessions?tenant=acme", nil),
                (.delete, "/v1/users/ann/sessions?tenant=acme", nil),
            ]
            for (method, path, json) in requests {
                let answer = try await service.ask(
                    method, path, key: path.contains("sessions") ? operatorKey : key, json: json,
                    headers: [.idempotencyKey: "k"])
                #expect(answer.status == 503 && answer.problem == "unavailable", "\(method) \(path)")
                #expect(answer.headers[.retryAfter] == "1", "\(method) \(path)")
            }
            for table in ["logins", "idempotency"] {
                let rows = try await service.database.pool.read {
                    try Int.fetchOne($0, sql: "SELECT count(*) FROM \(table)")
                }
                #expect(rows == 0, "\(table)")
            }
        }
    }

    @Test("a database that is gone is 'not now' for whoever shows a key")
    func gone() async throws {
        try await withControl { service in
            let key = try await service.appKey()
            try await service.database.pool.write { try $0.execute(sql: "ALTER TABLE api_keys RENAME TO gone") }
            let answer = try await service.ask(.post, "/v1/tokens", key: key, json: "{}")
            #expect(answer.status == 503 && answer.headers[.retryAfter] == "1")
            try await service.database.pool.write { try $0.execute(sql: "ALTER TABLE node RENAME TO gone2") }
            #expect(try await service.ask(.get, "/readyz").status == 503)
        }
    }

    @Test("a store that can't be read makes the node not ready, though it lives")
    func unreadableStore() async throws {
        try await withControl { service in
            var configuration = GRDB.Configuration()
            configuration.busyMode = .timeout(5)
            let store = try DatabaseQueue(
                path: SQLiteStore.databasePath(in: service.directory.storePath), configuration: configuration)
            #expect(try await service.ask(.get, "/readyz").status == 200)
            try await store.write { try $0.execute(sql: "ALTER TABLE erasures RENAME TO hidden") }
            let answer = try await service.ask(.get, "/readyz")
            #expect(answer.status == 503 && answer.problem == "unavailable" && answer.headers[.retryAfter] == "1")
            #expect(!String(decoding: answer.body, as: UTF8.self).contains("SQLite"))
            #expect(service.log.lines.contains { $0.hasPrefix("error request failed") && $0.contains("/readyz") })
            #expect(try await service.ask(.get, "/healthz").status == 200)
            try await store.write { try $0.execute(sql: "ALTER TABLE hidden RENAME TO erasures") }
            #expect(try await service.ask(.get, "/readyz").status == 200)
            try store.close()
        }
    }

    @Test("a loop that stands still makes the node full, and operators see it")
    func stuckLoop() async throws {
        try await withControl({
            $0.sampleInterval = .milliseconds(20)
            $0.limits.requestTimeout = .seconds(6)
        }) { service in
            func isFull() async throws -> Bool {
                let figures = try await service.ask(.get, "/v1/statistics", from: "127.0.0.1").object()
                let nodes = try #require(figures["nodes"] as? [[String: Any]])
                return try #require(nodes.first?["full"] as? Bool)
            }
            func metrics() async throws -> [String: Double] {
                let answer = try await service.ask(.get, "/metrics", from: "127.0.0.1")
                #expect(answer.status == 200)
                return PrometheusText(String(decoding: answer.body, as: UTF8.self)).samples
            }
            let held = DispatchSemaphore(value: 0)
            defer { held.signal() }
            let loop = try #require(try service.server.requireRuntime().loops.last)
            loop.execute { _ in held.wait() }
            #expect(try await metrics()["longline_node_draining"] == 0)
            while try await !isFull() { try await Task.sleep(for: .milliseconds(5)) }
            let samples = try await metrics()
            #expect(samples["longline_node_full"] == 1 && samples["longline_loop_delay_seconds"] ?? 0 >= 1)
            held.signal()
            while try await isFull() { try await Task.sleep(for: .milliseconds(5)) }
        }
    }
}
