import AsyncHTTPClient
import BenchmarkHarness
import Foundation
import HTTP3
import HTTPTypes
import Logging
import LonglineControl
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import PeerHarness
import QUICEngine
import QUICTransport

/// How a client asks, how often at a time, and for how long.
struct Load {
    /// Seconds in which nothing is counted.
    static let warmUp = 0.5
    /// Users whose devices ask, in turns.
    static let users = 64

    enum Version: String, CaseIterable { case http3, http2, http1 }

    var version: Version
    /// Connections; over HTTP/1.1 each has one request under way.
    var connections: Int
    /// Requests under way on each.
    var streams: Int
    var seconds: Double

    /// How many requests are under way.
    var depth: Int { connections * streams }
    var arguments: [String] { [version.rawValue, "\(connections)", "\(streams)", "\(seconds)"] }
}

extension Load {
    init?(_ arguments: ArraySlice<String>) {
        let words = Array(arguments)
        guard words.count == 4, let version = Version(rawValue: words[0]), let connections = Int(words[1]),
            let streams = Int(words[2]), let seconds = Double(words[3])
        else { return nil }
        self.init(version: version, connections: connections, streams: streams, seconds: seconds)
    }
}

func runRole(_ role: Role) async throws {
    guard let folder = role.arguments.first else { throw ChildProcess.Failure("a role takes a folder") }
    if role.name == "server" { return try await runServer(folder) }
    let numbers = role.arguments.dropFirst()
    guard numbers.count == 6, let quic = Int(numbers[1]), let tcp = Int(numbers[2]), let load = Load(numbers[3...])
    else { throw ChildProcess.Failure("a client takes ports and a load") }
    let directory = try ServerDirectory(folder)
    var tokens: [String] = []
    for number in 0..<Load.users {
        tokens.append(
            try await directory.sign(
                tenant: try TenantID("benchmark"), user: try UserID("user\(number)"), device: try DeviceID("phone"),
                lifetime: 3_600_000))
    }
    let pem = try directory.developmentIdentity(names: ["localhost"]).credentials.certificateChainPEM
    let asker: any Asker =
        load.version == .http3
        ? try await HTTP3Asker(port: quic, certificate: pem, connections: load.connections)
        : try HTTPSAsker(port: tcp, certificate: pem, load: load)
    let times = try await ask(load, tokens, asker)
    Role.report(
        "\(times.count) \(times.milliseconds(percentile: 50) * 1000) \(times.milliseconds(percentile: 99) * 1000)")
    exit(0)
}

private func runServer(_ folder: String) async throws {
    let directory = try ServerDirectory(folder)
    let identity = try directory.developmentIdentity(names: ["localhost"])
    var logger = Logger(label: "benchmark")
    logger.logLevel = .error
    let key = try directory.signingKey().verificationKey
    var configuration = LonglineServer.Configuration(
        store: .sqlite(SQLiteStoreConfiguration(directory: directory.storePath, logger: logger)),
        certificate: { identity.credentials }, tokenKeys: [key],
        addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
    configuration.tenants = [try TenantID("benchmark")]
    configuration.eventLoops = 1
    configuration.logger = logger
    let server = LonglineServer(configuration: configuration)
    var settings = LonglineControl.Configuration(
        certificate: { identity.credentials }, keys: DirectoryControlKeys(directory),
        database: try ControlDatabase(directory))
    settings.addresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
    settings.logger = logger
    let control = try LonglineControl(server: server, configuration: settings)
    try await server.start()
    let running = Task { try await control.run() }
    let port = try await control.localAddresses(.service).first?.port ?? 0
    Role.report("\(server.addresses.first?.port ?? 0) \(port)")
    while readLine() != nil {}
    running.cancel()
    await server.shutdown()
}

/// Asks once, and checks the answer.
protocol Asker: Sendable {
    func ask(_ token: String, connection: Int) async throws
}

private struct HTTP3Asker: Asker {
    let connections: [HTTP3ClientConnection]

    init(port: Int, certificate: String, connections count: Int) async throws {
        let configuration = ClientConfiguration(
            serverName: "localhost", applicationProtocols: [HTTP3Service.applicationProtocol],
            verification: .certificateAuthority(pem: certificate))
        let client = HTTP3Client()
        let loop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        var connections: [HTTP3ClientConnection] = []
        for _ in 0..<count {
            connections.append(
                try await client.connect(host: "127.0.0.1", port: port, configuration: configuration, on: loop))
        }
        self.connections = connections
    }

    func ask(_ token: String, connection: Int) async throws {
        let request = HTTPRequest(
            method: .get, scheme: "https", authority: "localhost", path: "/v1/access",
            headerFields: [.authorization: "Bearer \(token)"])
        let response = try await connections[connection].request(request)
        let body = try await response.body.collect(upTo: 1 << 16)
        guard response.status == .ok, body.readableBytes > 100 else {
            throw ChildProcess.Failure("an answer of \(response.status)")
        }
    }
}

private struct HTTPSAsker: Asker {
    /// One for each connection: a client alone puts all of its HTTP/2 requests on one connection, however many it may open.
    let clients: [HTTPClient]
    let url: String

    init(port: Int, certificate: String, load: Load) throws {
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMBytes(Array(certificate.utf8)))
        var configuration = HTTPClient.Configuration(tlsConfiguration: tls)
        configuration.httpVersion = load.version == .http1 ? .http1Only : .automatic
        configuration.connectionPool.concurrentHTTP1ConnectionsPerHostSoftLimit = 1
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let chosen = configuration
        clients = (0..<load.connections).map { _ in
            HTTPClient(eventLoopGroupProvider: .shared(group), configuration: chosen)
        }
        url = "https://localhost:\(port)/v1/access"
    }

    func ask(_ token: String, connection: Int) async throws {
        var request = HTTPClientRequest(url: url)
        request.headers = ["authorization": "Bearer \(token)"]
        let response = try await clients[connection].execute(request, timeout: .seconds(30))
        let body = try await response.body.collect(upTo: 1 << 16)
        guard response.status == .ok, body.readableBytes > 100 else {
            throw ChildProcess.Failure("an answer of \(response.status)")
        }
    }
}

private func ask(_ load: Load, _ tokens: [String], _ asker: any Asker) async throws -> Latencies {
    let times = SharedLatencies()
    let clock = ContinuousClock()
    let start = clock.now + .seconds(Load.warmUp)
    let end = start + .seconds(load.seconds)
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        for number in 0..<load.depth {
            let token = tokens[number % tokens.count]
            tasks.addTask {
                while true {
                    let begun = clock.now
                    guard begun < end else { return }
                    try await asker.ask(token, connection: number % load.connections)
                    let ended = clock.now
                    if begun >= start, ended < end { times.record(ended - begun) }
                }
            }
        }
        try await tasks.waitForAll()
    }
    return times.all
}
