import Foundation
import HTTP3
import HTTPTypes
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import Testing

/// HTTP/3 with implementations by others.
@Suite("HTTP/3 interoperability", .timeLimit(.minutes(1)))
struct HTTP3InteropTests {
    private static let echo: HTTP3Handler = { request, body, responder in
        guard request.path == "/echo" else {
            let count = Int(request.path?.dropFirst() ?? "") ?? 0
            return try await responder.respond(
                HTTPResponse(
                    status: .ok,
                    headerFields: [.contentLength: "\(count)", .server: "longline", .contentType: "text/plain"]),
                body: ByteBuffer(bytes: pattern(count)))
        }
        try await responder.sendInformational(HTTPResponse(status: .earlyHints, headerFields: [.eTag: "early"]))
        let writer = try await responder.start(HTTPResponse(status: .ok, headerFields: [.server: "longline"]))
        for try await piece in body { try await writer.write(piece) }
        try await writer.finish(trailers: await body.trailers())
    }

    /// A server of ours for as long as the body takes.
    private func withServer(
        _ handler: @escaping HTTP3Handler = echo, _ body: (HTTP3Server, Int) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let server = try await HTTP3Server.bind(
            addresses: [loopback()], configuration: serverConfiguration(protocols: ["h3"]), group: group,
            handler: handler)
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(server, try #require(server.localAddresses.first?.port)))
        } catch {
            outcome = .failure(error)
        }
        await server.shutdownGracefully(grace: .zero, timeout: .seconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }

    /// A client of ours for as long as the body takes.
    private func withClient(
        port: Int, cache: InMemorySessionCache? = nil, early: Bool = false,
        _ body: (HTTP3ClientConnection) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = HTTP3Client(sessionCache: cache)
        let outcome: Result<Void, any Error>
        do {
            // A server that begins may need a moment.
            let connection = try await client.connect(
                host: "127.0.0.1", port: port, configuration: clientConfiguration { $0.initialRTT = .milliseconds(50) },
                returnsEarly: early, on: group.next())
            outcome = .success(try await body(connection))
        } catch {
            outcome = .failure(error)
        }
        await client.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
        try outcome.get()
    }

    private static func to(_ path: String, _ method: HTTPRequest.Method = .get) -> HTTPRequest {
        HTTPRequest(method: method, scheme: "https", authority: "localhost", path: path)
    }

    // MARK: Debian's programs

    @Test(
        "gtlsclient downloads files from our server, ten at once, and again with 0-RTT",
        .enabled(if: DebianTool.client.isInstalled, "gtlsclient is not installed: scripts/test does that"))
    func gtlsclient() async throws {
        let folder = try TemporaryFolder()
        try await withServer { server, port in
            for visit in 1...2 {
                let download = folder.url.appendingPathComponent("download\(visit)")
                try FileManager.default.createDirectory(at: download, withIntermediateDirectories: true)
                let sizes = (1...10).map { $0 * 30_000 }
                try await DebianTool.client.run(
                    [
                        "--session-file=\(folder.url.path)/session", "--tp-file=\(folder.url.path)/parameters",
                        "--download=\(download.path)", "--exit-on-all-streams-close", "-q", "-n", "\(sizes.count)",
                        "127.0.0.1", "\(port)",
                    ] + sizes.map { "https://localhost/\($0)" })
                for size in sizes {
                    let came = try Data(contentsOf: download.appendingPathComponent("\(size)"))
                    #expect(Array(came) == pattern(size))
                }
            }
            let counters = await server.counters().engine
            #expect(counters.handshakesResumed == 1 && counters.earlyDataAccepted == 1)
            let statistics = server.statistics
            #expect(statistics.responses == 20 && statistics.protocolErrors == 0 && statistics.malformed == 0)
            #expect(statistics.earlyRequests > 0)
        }
    }

    @Test(
        "Our client downloads files from gtlsserver, ten at once, and again with 0-RTT",
        .enabled(if: DebianTool.server.isInstalled, "gtlsserver is not installed: scripts/test does that"))
    func gtlsserver() async throws {
        let folder = try TemporaryFolder()
        // It makes up what numbers name.
        let sizes = (1...10).map { $0 * 30_000 }
        for size in sizes { try Data(pattern(size)).write(to: folder.url.appendingPathComponent("file\(size)")) }
        let key = try folder.write("key.pem", certificate.privateKeyPEM)
        let chain = try folder.write("certificate.pem", certificate.certificatePEM)
        let group = MultiThreadedEventLoopGroup.singleton
        let port = try await DebianToolsTests.freePort(on: group)
        let process = try DebianTool.server.start(["-d", folder.url.path, "-q", "127.0.0.1", "\(port)", key, chain])
        defer { kill(process.processIdentifier, SIGKILL) }
        let cache = InMemorySessionCache()
        for visit in 1...2 {
            try await withClient(port: port, cache: cache, early: true) { connection in
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for size in sizes {
                        tasks.addTask {
                            let response = try await connection.request(Self.to("/file\(size)"))
                            #expect(response.status == .ok)
                            #expect(response.head.headerFields[.contentLength] == "\(size)")
                            #expect(
                                Array(try await response.body.collect(upTo: size).readableBytesView) == pattern(size))
                        }
                    }
                    try await tasks.waitForAll()
                }
                #expect(try await connection.request(Self.to("/none")).status == .notFound)
                #expect(await connection.handshake()?.earlyData == (visit == 2 ? .accepted : .notAttempted))
                let key = SessionCacheKey(serverName: "localhost", port: port, applicationProtocol: "h3")
                try await eventually { cache.session(for: key)?.ticket != nil }
            }
        }
    }

    // MARK: aioquic

    private struct Answer: Decodable, Sendable {
        var status: Int
        var length: Int
        var whole: Bool
        var interim: Int
        var fields: [String: String]
        var trailers: [String: String]
    }

    private struct Whole: Decodable, Sendable { var whole: Int }
    private struct Port: Decodable, Sendable { var port: Int }

    @Test(
        "aioquic's client: fields, bodies, trailers, interim responses, dynamic tables, 500 requests, CONNECT",
        .enabled(if: Aioquic.isInstalled, "\(Aioquic.howToInstall)"))
    func aioquicClient() async throws {
        try await withServer { server, port in
            try await Peer.run(script: "http3.py") { peer in
                let authority = try peer.file("authority.pem", certificate.certificatePEM)
                try await peer("connect", ["port": .number(port), "authority": .text(authority)])
                for _ in 0..<5 {
                    let got = try await peer("request", ["path": "/1000"], as: Answer.self)
                    #expect(got.status == 200 && got.length == 1000 && got.fields["server"] == "longline")
                }
                let echoed = try await peer(
                    "request",
                    [
                        "method": "POST", "path": "/echo", "size": 300_000, "trailers": true,
                        "fields": ["priority": "u=1, i"],
                    ],
                    as: Answer.self)
                #expect(echoed.status == 200 && echoed.whole && echoed.interim == 1)
                #expect(echoed.trailers == ["x-trailer": "sent"])
                #expect(try await peer("requests", ["count": 500, "size": 10], as: Whole.self).whole == 500)
                #expect(server.statistics.protocolErrors == 0 && server.statistics.malformed == 0)
            }
        }
    }

    @Test(
        "aioquic's server: fields, bodies, trailers, interim responses, dynamic tables, 300 requests",
        .enabled(if: Aioquic.isInstalled, "\(Aioquic.howToInstall)"))
    func aioquicServer() async throws {
        try await Peer.run(script: "http3.py") { peer in
            let port = try await peer(
                "listen",
                [
                    "certificate": .text(try peer.file("certificate.pem", certificate.certificatePEM)),
                    "key": .text(try peer.file("key.pem", certificate.privateKeyPEM)),
                ], as: Port.self
            ).port
            try await withClient(port: port) { connection in
                let (body, trailers) = try await connection.withRequest(Self.to("/echo", .post)) { writer in
                    for _ in 0..<3 { try await writer.write(ByteBuffer(bytes: pattern(100_000))) }
                    return [.eTag: "sent"]
                } receive: { response in
                    (try await response.body.collect(upTo: 1 << 20), await response.body.trailers())
                }
                #expect(Array(body.readableBytesView) == pattern(100_000) + pattern(100_000) + pattern(100_000))
                #expect(trailers == [.eTag: "sent"])
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for number in 0..<300 {
                        tasks.addTask {
                            let response = try await connection.request(Self.to("/\(number)"))
                            #expect(response.head.headerFields[.server] == "aioquic")
                            #expect(try await response.body.collect(upTo: 1000).readableBytes == number)
                        }
                    }
                    try await tasks.waitForAll()
                }
            }
        }
    }
}
