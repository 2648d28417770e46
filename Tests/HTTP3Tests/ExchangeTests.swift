import HTTPTypes
import LonglineTestKit
import NIOCore
import QUICEngine
import QUICTransport
import Testing

@testable import HTTP3

@Suite("Requests and responses", .timeLimit(.minutes(1)))
struct ExchangeTests {
    @Test("A request and its response carry method, path, fields, status and body")
    func simple() async throws {
        try await withServer { request, body, responder in
            #expect(request.method == .get && request.scheme == "https")
            #expect(request.authority == "localhost" && request.path == "/a?b=c")
            #expect(request.headerFields[.accept] == "text/plain")
            #expect(request.headerFields[.cookie] == "a=1; b=2")
            #expect(try await body.read() == nil)
            #expect(!responder.isEarly && responder.remoteAddress?.ipAddress == "127.0.0.1")
            try await responder.respond(
                HTTPResponse(status: .created, headerFields: [.contentType: "text/plain"]),
                body: ByteBuffer(string: "hello"))
        } _: { world in
            let connection = try await world.connect()
            var fields: HTTPFields = [.accept: "text/plain"]
            fields.append(HTTPField(name: .cookie, value: "a=1"))
            fields.append(HTTPField(name: .cookie, value: "b=2"))
            let response = try await connection.request(.to("/a?b=c", .get, fields))
            #expect(response.status == .created)
            #expect(response.head.headerFields[.contentType] == "text/plain")
            #expect(String(buffer: try await response.body.collect(upTo: 100)) == "hello")
            #expect(await response.body.trailers() == nil)
            #expect(world.client.statistics.responses == 1 && world.server.statistics.responses == 1)
        }
    }

    @Test("A host is asked at its next address where the first doesn't answer")
    func nextAddress() async throws {
        try await withServer { _, _, responder in
            try await responder.respond(HTTPResponse(status: .noContent))
        } _: { world in
            let dead = try await DeafSocket.open("127.0.0.2", port: world.port, on: world.loop)
            let client = HTTP3Client(
                resolver: NameResolver { _ in
                    ["127.0.0.2", "127.0.0.1"].compactMap { QUICSocketAddress(numericHost: $0, port: 0) }
                })
            let connection = try await client.connect(
                host: "service.test", port: world.port, configuration: clientConfiguration(), on: world.loop)
            #expect(try await connection.request(.to("/")).status == .noContent)
            #expect(dead.heard > 0)
            await client.shutdownGracefully(timeout: .seconds(1))
            try await dead.close()
        }
    }

    @Test("Bodies are streamed both ways at once, with trailers behind them", arguments: [1, 2])
    func streamed(loops: Int) async throws {
        let bytes = pattern(3 << 20)
        try await withServer(loops: loops) { request, body, responder in
            let writer = try await responder.start(HTTPResponse(status: .ok))
            for try await piece in body { try await writer.write(piece) }
            #expect(await body.trailers() == [.eTag: "sent"])
            try await writer.finish(trailers: [.eTag: "answered"])
        } _: { world in
            let connection = try await world.connect()
            let (answer, trailers) = try await connection.withRequest(.to("/", .post)) { writer in
                var rest = bytes
                while let piece = rest.readSlice(length: min(rest.readableBytes, 100_000)), piece.readableBytes > 0 {
                    try await writer.write(piece)
                }
                return [.eTag: "sent"]
            } receive: { response in
                (try await response.body.collect(upTo: 8 << 20), await response.body.trailers())
            }
            #expect(answer == bytes)
            #expect(trailers == [.eTag: "answered"])
        }
    }

    @Test("Many requests at once are each answered, on one connection, more than it has streams")
    func concurrent() async throws {
        try await withServer(loops: 2) { request, body, responder in
            try await responder.respond(HTTPResponse(status: .ok), body: ByteBuffer(string: request.path ?? ""))
        } _: { world in
            let connection = try await world.connect()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<500 {
                    group.addTask {
                        let response = try await connection.request(.to("/\(number)"))
                        let body = try await response.body.collect(upTo: 100)
                        #expect(String(buffer: body) == "/\(number)")
                    }
                }
                try await group.waitForAll()
            }
            #expect(world.server.statistics.requests == 500 && world.server.statistics.connections == 1)
        }
    }

    @Test("A connection counts once its handshake is complete, and not before")
    func halfOpen() async throws {
        try await withServer { _, _, responder in
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            // It gives up when it sees the server's certificate.
            var stranger = clientConfiguration()
            stranger.serverName = "elsewhere.test"
            _ = await expectError(.connectFailed) { _ = try await world.connect(stranger) }
            let connection = try await world.connect()
            #expect(try await connection.request(.to("/")).status == .ok)
            #expect(world.server.statistics.connections == 1 && world.client.statistics.connections == 1)
        }
    }

    @Test("Repeated fields enter the dynamic tables of both sides and come out whole")
    func dynamicTable() async throws {
        let agent = String(repeating: "agent/", count: 20)
        try await withServer { request, _, responder in
            #expect(request.headerFields[.userAgent] == agent)
            try await responder.respond(HTTPResponse(status: .ok, headerFields: [.server: agent, .accept: "é"]))
        } _: { world in
            let connection = try await world.connect()
            for _ in 0..<20 {
                let response = try await connection.request(.to("/", .get, [.userAgent: agent]))
                #expect(response.head.headerFields[.server] == agent)
                #expect(response.head.headerFields[.accept] == "é")
                _ = try await response.body.collect(upTo: 0)
            }
            // Written without a table, each request and answer has more than 90 bytes of the agent alone.
            let sent = try #require(await connection.transportStatistics())
            #expect(sent.bytesSent < 20 * 90 + 6000 && sent.bytesReceived < 20 * 90 + 8000)
        }
    }

    @Test("HEAD and 304 have a content length and no body; an empty body ends at once")
    func withoutBody() async throws {
        try await withServer { request, _, responder in
            let status: HTTPResponse.Status = request.path == "/same" ? .notModified : .ok
            try await responder.respond(
                HTTPResponse(status: status, headerFields: [.contentLength: "5"]), body: ByteBuffer(string: "hello"))
        } _: { world in
            let connection = try await world.connect()
            for request in [HTTPRequest.to("/", .head), .to("/same")] {
                let response = try await connection.request(request)
                #expect(response.head.headerFields[.contentLength] == "5")
                #expect(try await response.body.collect(upTo: 10).readableBytes == 0)
            }
            let whole = try await connection.request(.to("/"))
            #expect(try await whole.body.collect(upTo: 10) == ByteBuffer(string: "hello"))
        }
    }

    @Test("Responses that can have no content length are sent without one")
    func withoutLength() async throws {
        try await withServer { _, _, responder in
            try await responder.sendInformational(
                HTTPResponse(status: .earlyHints, headerFields: [.contentLength: "5", .eTag: "x"]))
            try await responder.respond(
                HTTPResponse(status: .noContent, headerFields: [.contentLength: "5", .eTag: "y"]),
                body: ByteBuffer(string: "hello"))
        } _: { world in
            let connection = try await world.connect()
            let interim = Happening<HTTPResponse>()
            let response = try await connection.request(.to("/")) { interim.tell($0) }
            #expect(response.status == .noContent && response.head.headerFields == [.eTag: "y"])
            #expect(try await response.body.collect(upTo: 10).readableBytes == 0)
            #expect(try await interim.value().headerFields == [.eTag: "x"])
        }
    }

    @Test("Interim responses come before the response, and 101 can't be sent")
    func informational() async throws {
        try await withServer { _, _, responder in
            _ = await expectError(.invalidMessage) {
                try await responder.sendInformational(HTTPResponse(status: .switchingProtocols))
            }
            _ = await expectError(.invalidMessage) { try await responder.respond(HTTPResponse(status: .earlyHints)) }
            try await responder.sendInformational(HTTPResponse(status: .continue))
            try await responder.sendInformational(HTTPResponse(status: .earlyHints, headerFields: [.eTag: "x"]))
            try await responder.respond(HTTPResponse(status: .ok))
        } _: { world in
            let connection = try await world.connect()
            let interim = Happening<HTTPResponse>()
            let response = try await connection.request(.to("/")) { interim.tell($0) }
            #expect(response.status == .ok)
            #expect(try await interim.value().status == .continue)
            #expect(try await interim.value().headerFields[.eTag] == "x")
        }
    }

    @Test("Messages that can't be sent are refused before anything leaves")
    func invalidMessages() async throws {
        try await withServer { _, _, responder in
            _ = await expectError(.invalidMessage) {
                try await responder.respond(
                    HTTPResponse(status: .ok, headerFields: [.contentLength: "3"]), body: ByteBuffer(string: "four"))
            }
            let short = HTTPResponse(status: HTTPResponse.Status(code: 99))
            _ = await expectError(.invalidMessage) { try await responder.respond(short) }
            try await responder.respond(HTTPResponse(status: .ok))
            _ = await expectError(.invalidState) { try await responder.respond(HTTPResponse(status: .ok)) }
        } _: { world in
            let connection = try await world.connect()
            let host = try #require(HTTPField.Name("Host"))
            let bad: [HTTPRequest] = [
                .to("/", .get, [host: "elsewhere"]), .to("/", .get, [host: ""]),
                .to("/", .connect), .to(""), .to("/a b"), .to("a"), .to("*"), .to("/", .get, [.connection: "close"]),
                .to("/", .get, [.transferEncoding: "chunked"]), .to("/", .get, [.te: "gzip"]),
                .to("/", .get, [.contentLength: "+0"]), .to("/", .get, [.contentLength: "-0"]),
                HTTPRequest(method: .get, scheme: "https", authority: nil, path: "/"),
                HTTPRequest(method: .get, scheme: "https", authority: "user@localhost", path: "/"),
                HTTPRequest(method: .get, scheme: "https", authority: "localhost/", path: "/"),
                HTTPRequest(method: .get, scheme: "ht/tps", authority: "localhost", path: "/"),
            ]
            for request in bad {
                _ = await expectError(.invalidMessage) { _ = try await connection.request(request) }
            }
            #expect(try await connection.request(.to("/", .get, [host: "localhost"])).status == .ok)
            #expect(world.server.statistics.requests == 1)
            #expect(world.server.statistics.cancelled == 0)
        }
    }

    @Test("A port serves HTTP/3 beside another protocol, by ALPN")
    func sharedPort() async throws {
        try await withSharedPort { port, loop in
            let client = HTTP3Client()
            let connection = try await client.connect(
                host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop)
            #expect(try await connection.request(.to("/")).status == .ok)
            await client.shutdownGracefully(timeout: .seconds(1))
            #expect(try await endOfOther(port, "echo/1", on: loop) == .peerApplication(code: 7, reason: "echo"))
            // Offered by the server's TLS, served by nobody.
            #expect(
                try await endOfOther(port, "none/1", on: loop)
                    == .peerApplication(code: 9, reason: "this application protocol isn't served"))
        }
    }
}
