import BenchmarkHarness
import Foundation
import HTTP3
import HTTPTypes
import Logging
import NIOCore
import NIOPosix
import PeerHarness
import QUICEngine
import QUICTransport

/// What a client asks for, and for how long.
struct Load {
    /// Seconds in which nothing is counted.
    static let warmUp = 0.3

    var connections: Int
    /// Requests under way on each.
    var streams: Int
    /// Of each response's body.
    var bytes: Int
    var seconds: Double

    var arguments: [String] { ["\(connections)", "\(streams)", "\(bytes)", "\(seconds)"] }
}

extension Load {
    init?(_ arguments: some Sequence<String>) {
        let numbers = arguments.compactMap { Double($0) }
        guard numbers.count == 4 else { return nil }
        self.init(
            connections: Int(numbers[0]), streams: Int(numbers[1]), bytes: Int(numbers[2]), seconds: numbers[3])
    }
}

func runRole(_ role: Role) async throws {
    switch role.name {
    case "server": try await runServer()
    case "requests":
        guard let port = role.arguments.first.flatMap({ Int($0) }), let load = Load(role.arguments.dropFirst()) else {
            return
        }
        let times = try await request(load, port: port)
        Role.report(
            "\(times.count) \(times.milliseconds(percentile: 50) * 1000) \(times.milliseconds(percentile: 99) * 1000)")
    case "download":
        let numbers = role.arguments.compactMap { Int($0) }
        guard numbers.count == 2 else { return }
        Role.report("\(try await download(port: numbers[0], bytes: numbers[1]))")
    default: break
    }
    exit(0)
}

private func runServer() async throws {
    let now = UInt64(Date().timeIntervalSince1970)
    let certificate = try DevelopmentCertificate.generate(names: ["localhost"], now: now)
    let tls = try TLSServerContext(
        credentials: certificate.credentials, applicationProtocols: [HTTP3Service.applicationProtocol])
    var configuration = QUICServerConfiguration(server: ServerConfiguration(tls: tls))
    configuration.endpoint.server?.maxHandshakesPerAddress = 1 << 20
    configuration.endpoint.server?.retryThreshold = 1 << 20
    // What gtlsserver keeps for a stream.
    configuration.endpoint.server?.transport.streamSendBuffer = 2 << 20
    configuration.logger.logLevel = .error
    let piece = ByteBuffer(repeating: 0x61, count: 256 << 10)
    let server = try await HTTP3Server.bind(
        addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)], configuration: configuration,
        group: MultiThreadedEventLoopGroup(numberOfThreads: 1)
    ) { request, body, responder in
        let count = Int(request.path?.dropFirst() ?? "") ?? 0
        let head = HTTPResponse(
            status: .ok,
            headerFields: [.server: "longline", .contentType: "text/plain", .contentLength: "\(count)"])
        if count <= piece.readableBytes {
            return try await responder.respond(head, body: piece.getSlice(at: 0, length: count))
        }
        let writer = try await responder.start(head)
        var left = count
        while left > 0 {
            let next = min(left, piece.readableBytes)
            try await writer.write(piece.getSlice(at: 0, length: next) ?? piece)
            left -= next
        }
        try await writer.finish()
    }
    Role.report("\(server.localAddresses.first?.port ?? 0)")
    while readLine() != nil {}
}

private func configuration() -> ClientConfiguration {
    ClientConfiguration(
        serverName: "localhost", applicationProtocols: [HTTP3Service.applicationProtocol],
        verification: .insecureNoVerification)
}

private func request(_ path: Int) -> HTTPRequest {
    HTTPRequest(
        method: .get, scheme: "https", authority: "localhost", path: "/\(path)", headerFields: [.userAgent: "longline"])
}

private func request(_ load: Load, port: Int) async throws -> Latencies {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let client = HTTP3Client()
    let times = SharedLatencies()
    let clock = ContinuousClock()
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        var connections: [HTTP3ClientConnection] = []
        for _ in 0..<load.connections {
            connections.append(
                try await client.connect(
                    host: "127.0.0.1", port: port, configuration: configuration(), on: group.next()))
        }
        let start = clock.now + .seconds(Load.warmUp)
        let end = start + .seconds(load.seconds)
        for connection in connections {
            for _ in 0..<load.streams {
                tasks.addTask(executorPreference: connection.executor) {
                    while true {
                        let begun = clock.now
                        guard begun < end else { return }
                        let response = try await connection.request(request(load.bytes))
                        var count = 0
                        while let bytes = try await response.body.read() { count += bytes.readableBytes }
                        guard count == load.bytes else { throw ChildProcess.Failure("\(count) bytes came") }
                        let ended = clock.now
                        if begun >= start, ended < end { times.record(ended - begun) }
                    }
                }
            }
        }
        try await tasks.waitForAll()
        withExtendedLifetime(connections) {}
    }
    return times.all
}

private func download(port: Int, bytes: Int) async throws -> Double {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let client = HTTP3Client()
    var settings = configuration()
    settings.transport.streamWindow = 6 << 20
    settings.transport.connectionWindow = 8 << 20
    let clock = ContinuousClock()
    return try await client.withConnection(
        host: "127.0.0.1", port: port, configuration: settings, on: group.next()
    ) { connection in
        let start = clock.now
        let response = try await connection.request(request(bytes))
        var count = 0
        while let piece = try await response.body.read() { count += piece.readableBytes }
        guard count == bytes else { throw ChildProcess.Failure("\(count) bytes came") }
        return (clock.now - start).inSeconds
    }
}
