import HTTPTypes
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import HTTP3
@testable import QUICTransport

func wallClock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec)
}

/// One certificate for all tests: making a key takes time.
let certificate: DevelopmentCertificate = {
    do {
        return try DevelopmentCertificate.generate(names: ["localhost"], now: wallClock())
    } catch {
        fatalError("no development certificate: \(error)")
    }
}()

func serverConfiguration(
    protocols: [String] = ["h3"], _ change: (inout TransportSettings) -> Void = { _ in }
) throws -> QUICServerConfiguration {
    var random = SystemRandomNumberGenerator()
    var server = ServerConfiguration(
        tls: try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: protocols,
            ticketKeys: TicketKeyRing(random: &random, now: wallClock()), replayStore: ReplayStore(capacity: 1000)))
    change(&server.transport)
    return QUICServerConfiguration(server: server)
}

func clientConfiguration(
    protocols: [String] = ["h3"], _ change: (inout TransportSettings) -> Void = { _ in }
) -> ClientConfiguration {
    var configuration = ClientConfiguration(
        serverName: "localhost", applicationProtocols: protocols,
        verification: .certificateAuthority(pem: certificate.certificatePEM))
    change(&configuration.transport)
    return configuration
}

func loopback() throws -> SocketAddress { try SocketAddress(ipAddress: "127.0.0.1", port: 0) }

extension HTTPRequest {
    /// A request to the tests' server.
    static func to(
        _ path: String, _ method: HTTPRequest.Method = .get, _ fields: HTTPFields = [:]
    ) -> HTTPRequest {
        HTTPRequest(method: method, scheme: "https", authority: "localhost", path: path, headerFields: fields)
    }
}

/// What a test with a server of HTTP/3 works with.
struct World {
    let server: HTTP3Server
    let client: HTTP3Client
    /// The client's loop.
    let loop: any EventLoop

    var port: Int { server.localAddresses.first?.port ?? 0 }

    func connect(
        _ configuration: ClientConfiguration = clientConfiguration(), returnsEarly: Bool = false
    ) async throws -> HTTP3ClientConnection {
        try await client.connect(
            host: "127.0.0.1", port: port, configuration: configuration, returnsEarly: returnsEarly, on: loop)
    }

    /// A client that says what it likes, byte by byte.
    func connectRaw(
        _ client: QUICClient, _ configuration: ClientConfiguration = clientConfiguration()
    ) async throws -> RawPeer {
        RawPeer(try await client.connect(host: "127.0.0.1", port: port, configuration: configuration, on: loop))
    }
}

extension World {
    /// Has the server look at the deadlines of an exchange's connection as if an hour passed each time, until it gives something up.
    func passHours(_ exchange: OnLoop<Exchange>) async throws {
        let server = server
        try await passHours(exchange) { exchange, time in
            exchange.session.checkDeadlines(time)
            return server.statistics.timeouts > 0
        }
    }

    /// Has an exchange looked at as if an hour passed each time.
    /// - Parameter look: runs on its loop, and says whether what it waits for is so.
    /// - Throws: ``NeverSo``. Not soon: what is on its way to the client and back takes real time, in which many such hours pass.
    func passHours(
        _ exchange: OnLoop<Exchange>, until look: @escaping @Sendable (Exchange, NIODeadline) -> Bool
    ) async throws {
        let start = NIODeadline.now()
        for hours in Int64(1)...NeverSo.hours {
            if try await exchange.call({ look($0, start + .hours(hours)) }) { return }
        }
        throw NeverSo()
    }
}

/// What a test waits for does not come.
struct NeverSo: Error, CustomStringConvertible {
    /// Some seconds of looks.
    static let hours: Int64 = 200_000

    var description: String { "what is waited for isn't so after \(Self.hours) looks, an hour apart" }
}

/// A server and a client, both gone when the body is done.
func withServer(
    limits: HTTP3Limits = HTTP3Limits(), clientLimits: HTTP3Limits = HTTP3Limits(),
    configuration: QUICServerConfiguration? = nil, sessionCache: (any SessionCache)? = nil, loops: Int = 1,
    connections: Int? = nil, handler: @escaping HTTP3Handler, _ body: (World) async throws -> Void
) async throws {
    let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: loops)
    let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    var options = HTTP3ServerOptions()
    options.limits = limits
    options.connections = connections
    var clientOptions = HTTP3ClientOptions()
    clientOptions.limits = clientLimits
    let server = try await HTTP3Server.bind(
        addresses: [loopback()], configuration: configuration ?? serverConfiguration(), options: options,
        group: serverGroup, handler: handler)
    let client = HTTP3Client(options: clientOptions, sessionCache: sessionCache)
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await body(World(server: server, client: client, loop: clientGroup.next())))
    } catch {
        outcome = .failure(error)
    }
    await client.shutdownGracefully(timeout: .seconds(1))
    await server.shutdownGracefully(grace: .zero, timeout: .seconds(1))
    try await clientGroup.shutdownGracefully()
    try await serverGroup.shutdownGracefully()
    try outcome.get()
}

/// As `withServer`, for a client that speaks bytes.
func withRawClient(
    limits: HTTP3Limits = HTTP3Limits(), configuration: QUICServerConfiguration? = nil,
    handler: @escaping HTTP3Handler = { _, _, responder in try await responder.respond(HTTPResponse(status: .ok)) },
    _ body: (World, RawPeer) async throws -> Void
) async throws {
    try await withServer(limits: limits, configuration: configuration, handler: handler) { world in
        let client = QUICClient()
        let peer = try await world.connectRaw(client)
        let outcome: Result<Void, any Error>
        do {
            outcome = .success(try await body(world, peer))
        } catch {
            outcome = .failure(error)
        }
        await client.shutdownGracefully(timeout: .seconds(1))
        try outcome.get()
    }
}

/// Something that happens once, for tests that wait for it.
final class Happening<Value: Sendable>: Sendable {
    private let stream: AsyncStream<Value>
    private let continuation: AsyncStream<Value>.Continuation

    init() { (stream, continuation) = AsyncStream.makeStream() }

    func tell(_ value: Value) { continuation.yield(value) }

    /// The next value told.
    func value() async throws -> Value {
        for await value in stream { return value }
        throw CancellationError()
    }
}

extension Happening where Value == Void {
    func tell() { tell(()) }
}

/// Waits until a task is cancelled.
func untilCancelled() async {
    let happening = Happening<Void>()
    _ = try? await happening.value()
}

/// A sequence that shows any byte lost, doubled or moved.
func pattern(_ count: Int, seed: UInt64 = 1) -> ByteBuffer {
    var state = seed
    var buffer = ByteBufferAllocator().buffer(capacity: count + 8)
    while buffer.readableBytes < count {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        buffer.writeInteger(state ^ state >> 33)
    }
    return buffer.readSlice(length: count) ?? buffer
}

/// Checks that a call throws an error of ours with a code.
func expectError(
    _ code: HTTP3Error.Code, sourceLocation: SourceLocation = #_sourceLocation,
    _ body: () async throws -> Void
) async -> HTTP3Error? {
    do {
        try await body()
        Issue.record("nothing was thrown, not \(code)", sourceLocation: sourceLocation)
    } catch let error as HTTP3Error {
        #expect(error.code == code, "\(error)", sourceLocation: sourceLocation)
        return error
    } catch {
        Issue.record("\(error) was thrown, not \(code)", sourceLocation: sourceLocation)
    }
    return nil
}
