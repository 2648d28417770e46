import Foundation
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

/// Debian's example programs of ngtcp2, which speak HTTP/3 only.
@Suite("Debian's gtlsclient and gtlsserver", .timeLimit(.minutes(1)))
struct DebianToolsTests {
    @Test(
        "gtlsclient downloads from our server: plain, over a changed address, after a NAT rebinding, with 0-RTT",
        .enabled(if: DebianTool.client.isInstalled, "gtlsclient is not installed: scripts/test does that"),
        arguments: [
            [], ["--delay-stream=400ms", "--change-local-addr=100ms"],
            ["--delay-stream=400ms", "--change-local-addr=100ms", "--nat-rebinding"],
        ])
    func client(options: [String]) async throws {
        let body = pattern(2 << 20)
        try await withWebServer(body) { server, folder in
            for visit in 1...2 {
                let download = folder.appendingPathComponent("download\(visit)")
                try FileManager.default.createDirectory(at: download, withIntermediateDirectories: true)
                try await DebianTool.client.run(
                    options + [
                        "--session-file=\(folder.path)/session", "--tp-file=\(folder.path)/parameters",
                        "--download=\(download.path)", "--exit-on-all-streams-close", "-q", "127.0.0.1",
                        "\(server.port)", "https://localhost/file",
                    ])
                let came = try Data(contentsOf: download.appendingPathComponent("file"))
                #expect(Array(came) == body)
            }
            let counters = await server.counters()
            #expect(counters.handshakesCompleted == 2 && counters.handshakesResumed == 1)
            // A request that is delayed is no early data.
            #expect(counters.earlyDataAccepted == 1)
            #expect(counters.protocolErrors == 0)
        }
    }

    @Test(
        "gtlsclient is told that our server doesn't speak HTTP/3",
        .enabled(if: DebianTool.client.isInstalled, "gtlsclient is not installed: scripts/test does that"))
    func noCommonProtocol() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let server = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group)
        let port = try #require(server.localAddresses.first?.port)
        let said = try await DebianTool.client.run(
            ["--exit-on-all-streams-close", "127.0.0.1", "\(port)", "https://localhost/file"], mayFail: true)
        // no_application_protocol, 120, in a CONNECTION_CLOSE (RFC 9001 section 8.1).
        #expect(said.contains("(0x178)") || said.contains("0x178"), "\(said.suffix(2000))")
        #expect(await server.counters().engine.handshakesFailed == 1)
        await server.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }

    @Test(
        "Our client downloads from gtlsserver: handshake, Retry, 0-RTT, migration, key update",
        .enabled(if: DebianTool.server.isInstalled, "gtlsserver is not installed: scripts/test does that"),
        arguments: [[], ["-V"]])
    func server(options: [String]) async throws {
        let folder = try TemporaryFolder()
        let body = pattern(2 << 20)
        try Data(body).write(to: folder.url.appendingPathComponent("file"))
        let key = try folder.write("key.pem", certificate.privateKeyPEM)
        let chain = try folder.write("certificate.pem", certificate.certificatePEM)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let port = try await Self.freePort(on: group)
        let process = try DebianTool.server.start(
            options + ["-d", folder.url.path, "-q", "127.0.0.1", "\(port)", key, chain])
        defer { kill(process.processIdentifier, SIGKILL) }
        let cache = InMemorySessionCache()
        let client = QUICClient(sessionCache: cache)
        try await visit(port, client, cache, body, on: group.next())
        await client.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
    }

    private func visit(
        _ port: Int, _ client: QUICClient, _ cache: InMemorySessionCache, _ body: [UInt8], on loop: any EventLoop
    ) async throws {
        // The server may need a moment to begin.
        var configuration = clientConfiguration { $0.initialRTT = .milliseconds(50) }
        configuration.applicationProtocols = ["h3"]
        for number in 1...2 {
            let connection = try await client.connect(port, configuration, early: true, on: loop)
            try await WebExchange.get(body, on: connection)
            let handshake = try await connection.handshake()
            #expect(handshake.resumed == (number == 2))
            #expect(handshake.earlyData == (number == 2 ? .accepted : .notAttempted))
            async let again: Void = WebExchange.get(body, on: connection)
            try await connection.migrate(to: loopback("127.0.0.2"))
            try await again
            try await connection.updateKey()
            try await WebExchange.get(body, on: connection)
            let key = SessionCacheKey(serverName: "localhost", port: port, applicationProtocol: "h3")
            try await eventually { cache.session(for: key)?.ticket != nil }
            connection.close()
            _ = try await connection.closed()
        }
    }

    /// A port that nobody uses now; gtlsserver can't choose one. It lies below those that systems give away, so that nobody gets it
    /// meanwhile who asked for any.
    static func freePort(on group: any EventLoopGroup) async throws -> Int {
        while true {
            let port = Int.random(in: 20_000..<32_000)
            let bound = try? await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: port).get()
            guard let bound else { continue }
            try await bound.close()
            return port
        }
    }

    private func withWebServer(
        _ body: [UInt8],
        _ use: (_ server: (port: Int, counters: () async -> EndpointCounters), _ folder: URL) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(protocols: ["h3"]), group: group,
            yieldsEarly: true)
        let serving = Task {
            try await withThrowingDiscardingTaskGroup { tasks in
                for try await connection in listener.connections {
                    tasks.addTask { try? await WebExchange.serve(body, on: connection) }
                }
            }
        }
        let outcome: Result<Void, any Error>
        do {
            let port = try #require(listener.localAddresses.first?.port)
            outcome = .success(try await use((port, { await listener.counters().engine }), folder.url))
        } catch {
            outcome = .failure(error)
        }
        await listener.shutdownGracefully(timeout: .seconds(1))
        serving.cancel()
        _ = try? await serving.value
        try await group.shutdownGracefully()
        try outcome.get()
    }
}

/// As much of HTTP/3 (RFC 9114) as a download of one file needs.
private enum WebExchange {
    private static let dataFrame: UInt64 = 0
    private static let headersFrame: UInt64 = 1
    /// Prefix of a field section without dynamic table, then static entries of QPACK: GET, https, "/", and the authority.
    private static let request: [UInt8] =
        [0, 0, 0xd1, 0xd7, 0x51, 5] + Array("/file".utf8) + [0x50, 9] + Array("localhost".utf8)
    /// The same, and status 200.
    private static let response: [UInt8] = [0, 0, 0xd9]
    /// A control stream with empty SETTINGS.
    private static let control: [UInt8] = [0, 4, 0]

    /// Downloads the file and compares it.
    static func get(_ body: [UInt8], on connection: QUICConnection) async throws {
        let stream = try await connection.openStream()
        try await stream.write(ByteBuffer(bytes: frame(headersFrame, request)))
        try await stream.finish()
        var came = ByteBuffer(bytes: try await stream.collect())
        var content: [UInt8] = []
        while let type = came.readQUICVarint(), let length = came.readQUICVarint(),
            let bytes = came.readBytes(length: Int(length))
        {
            if type == dataFrame { content += bytes }
        }
        #expect(content == body, "\(content.count) bytes came")
    }

    /// Answers each request with the file, until the connection ends.
    static func serve(_ body: [UInt8], on connection: QUICConnection) async throws {
        try await withThrowingDiscardingTaskGroup { group in
            group.addTask {
                // Kept open as long as the connection is.
                let stream = try await connection.openStream(bidirectional: false)
                try await stream.write(ByteBuffer(bytes: control))
                _ = try await connection.closed()
            }
            for try await stream in connection.inboundStreams {
                group.addTask {
                    _ = try await stream.collect()
                    guard stream.id.isBidirectional else { return }
                    try await stream.write(ByteBuffer(bytes: frame(headersFrame, response) + frame(dataFrame, body)))
                    try await stream.finish()
                }
            }
        }
    }

    private static func frame(_ type: UInt64, _ content: [UInt8]) -> [UInt8] {
        var buffer = ByteBuffer()
        buffer.writeInteger(UInt8(type))
        buffer.writeInteger(UInt32(content.count) | 0x8000_0000)
        return Array(buffer.readableBytesView) + content
    }
}

extension ByteBuffer {
    /// Reads a variable-length integer (RFC 9000 section 16).
    mutating func readQUICVarint() -> UInt64? {
        guard let first = getInteger(at: readerIndex, as: UInt8.self),
            let bytes = readBytes(length: 1 << Int(first >> 6))
        else { return nil }
        return bytes.dropFirst().reduce(UInt64(first & 0x3f)) { $0 << 8 | UInt64($1) }
    }
}

/// A program that a Debian package brings.
struct DebianTool: Sendable {
    static let client = DebianTool("gtlsclient")
    static let server = DebianTool("gtlsserver")

    private let path: String?
    var isInstalled: Bool { path != nil }

    private init(_ name: String) {
        path = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map { "\($0)/\(name)" }.first {
            FileManager.default.isExecutableFile(atPath: $0)
        }
    }

    /// Starts it; the caller ends it.
    func start(_ arguments: [String], output: Any? = FileHandle.nullDevice) throws -> Process {
        let process = Process()
        process.executableURL = path.map { URL(fileURLWithPath: $0) }
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        return process
    }

    /// Runs it to its end, for 20 seconds at most, and returns what it said.
    @discardableResult
    func run(_ arguments: [String], mayFail: Bool = false) async throws -> String {
        let pipe = Pipe()
        let process = try start(arguments, output: pipe)
        let id = process.processIdentifier
        let watch = Task {
            try await Task.sleep(for: .seconds(20))
            kill(id, SIGKILL)
        }
        defer { watch.cancel() }
        let said = await withCheckedContinuation { continuation in
            Thread {
                continuation.resume(
                    returning: String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self))
            }.start()
        }
        process.waitUntilExit()
        if process.terminationStatus != 0, !mayFail {
            throw PeerError(description: "\(arguments): status \(process.terminationStatus): \(said.suffix(2000))")
        }
        return said
    }
}
