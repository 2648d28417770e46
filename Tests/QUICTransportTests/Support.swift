import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// The wall clock in seconds, for certificates and tickets.
func wallClock() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec)
}

/// One certificate for all tests: making a key takes time.
let certificate: DevelopmentCertificate = {
    do {
        return try DevelopmentCertificate.generate(names: ["localhost", "127.0.0.1"], now: wallClock())
    } catch {
        fatalError("no development certificate: \(error)")
    }
}()

let protocolName = "test/1"

/// What a server keeps over a restart.
struct ServerSecrets {
    var tickets: TicketKeyRing
    var replay = ReplayStore(capacity: 1000)
    var staticKey: [UInt8]

    init() {
        var random = SystemRandomNumberGenerator()
        tickets = TicketKeyRing(random: &random, now: wallClock())
        staticKey = (0..<32).map { _ in UInt8.random(in: 0...255) }
    }
}

func serverConfiguration(
    _ secrets: ServerSecrets = ServerSecrets(), _ change: (inout TransportSettings) -> Void = { _ in }
) throws -> QUICServerConfiguration {
    var server = ServerConfiguration(
        tls: try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: [protocolName], ticketKeys: secrets.tickets,
            replayStore: secrets.replay))
    change(&server.transport)
    var configuration = QUICServerConfiguration(server: server)
    configuration.endpoint.staticKey = secrets.staticKey
    return configuration
}

func clientConfiguration(_ change: (inout TransportSettings) -> Void = { _ in }) -> ClientConfiguration {
    var configuration = ClientConfiguration(
        serverName: "localhost", applicationProtocols: [protocolName],
        verification: .certificateAuthority(pem: certificate.certificatePEM))
    change(&configuration.transport)
    return configuration
}

func loopback(_ host: String = "127.0.0.1", port: Int = 0) throws -> SocketAddress {
    try SocketAddress(ipAddress: host, port: port)
}

/// A server with loops of its own and a client beside it, both gone when the body is done.
func withPair(
    loops: Int = 1, host: String = "127.0.0.1", configuration: QUICServerConfiguration? = nil,
    sessionCache: (any SessionCache)? = nil,
    yieldsEarly: Bool = false, sockets: QUICSocketOptions = .client,
    serve: @escaping @Sendable (QUICConnection) async throws -> Void,
    body: (_ client: QUICClient, _ listener: QUICListener, _ loop: any EventLoop) async throws -> Void
) async throws {
    let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: loops)
    let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let listener = try await QUICListener.bind(
        addresses: [loopback(host)], configuration: configuration ?? serverConfiguration(), group: serverGroup,
        yieldsEarly: yieldsEarly)
    let client = QUICClient(sockets: sockets, sessionCache: sessionCache)
    let serving = Task {
        try await withThrowingDiscardingTaskGroup { group in
            for try await connection in listener.connections {
                group.addTask { try? await serve(connection) }
            }
        }
    }
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await body(client, listener, clientGroup.next()))
    } catch {
        outcome = .failure(error)
    }
    await client.shutdownGracefully(timeout: .seconds(1))
    await listener.shutdownGracefully(timeout: .seconds(1))
    serving.cancel()
    _ = try? await serving.value
    try await clientGroup.shutdownGracefully()
    try await serverGroup.shutdownGracefully()
    try outcome.get()
}

extension QUICListener {
    var port: Int { localAddresses.first?.port ?? 0 }
}

extension QUICClient {
    /// Connects to a test's server.
    func connect(
        to listener: QUICListener, _ configuration: ClientConfiguration = clientConfiguration(),
        localAddress: SocketAddress? = nil, returnsEarly: Bool = false, on loop: any EventLoop
    ) async throws -> QUICConnection {
        try await connect(
            host: listener.localAddresses.first?.ipAddress ?? "", port: listener.port, configuration: configuration,
            localAddress: localAddress, returnsEarly: returnsEarly, on: loop)
    }
}

extension QUICClient {
    /// How a server ends a connection that it refuses. Here the handshake may be complete before the server has looked at what it
    /// refuses, and the connect may have returned by then or not.
    func refusal(
        by listener: QUICListener, _ configuration: ClientConfiguration, on loop: any EventLoop
    ) async throws -> QUICCloseReason {
        do {
            return try await connect(to: listener, configuration, on: loop).closed()
        } catch let error as QUICTransportError {
            return try #require(error.closeReason)
        }
    }
}

extension QUICConnection {
    /// Echoes one byte: both sides have completed the handshake then.
    func roundTrip() async throws {
        let stream = try await openStream()
        try await stream.send([1])
        #expect(try await stream.collect() == [1])
    }
}

extension QUICStream {
    /// Everything up to the end.
    func collect() async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in self { bytes.append(contentsOf: piece.readableBytesView) }
        return bytes
    }

    /// Writes it all, and the end.
    func send(_ bytes: [UInt8]) async throws {
        try await write(ByteBuffer(bytes: bytes))
        try await finish()
    }
}

/// Sends back what comes on every stream, until the connection ends.
@Sendable func echo(_ connection: QUICConnection) async throws {
    try await withThrowingDiscardingTaskGroup { group in
        for try await stream in connection.inboundStreams {
            group.addTask {
                guard stream.id.isBidirectional else { return }
                do {
                    while let piece = try await stream.read() { try await stream.write(piece) }
                    try await stream.finish()
                } catch let error as QUICTransportError where error.applicationCode != nil {
                    // The test reset or stopped it.
                }
            }
        }
    }
}

/// A sequence that shows any byte lost, doubled or moved. Eight bytes a step: a byte a step takes seconds for a megabyte
/// under a sanitizer.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    return [UInt8](unsafeUninitializedCapacity: count) { bytes, initialized in
        while initialized < count {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            // The low bits of this generator hardly change; its high half does for both.
            let word = state ^ state >> 33
            withUnsafeBytes(of: word.littleEndian) {
                let length = min($0.count, count - initialized)
                UnsafeMutableRawBufferPointer(
                    rebasing: UnsafeMutableRawBufferPointer(bytes)[initialized..<initialized + length]
                )
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<length]))
                initialized += length
            }
        }
    }
}
