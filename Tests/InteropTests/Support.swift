import Foundation
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

let protocolName = "test/1"

/// One certificate for all tests: making a key takes time.
let certificate = developmentCertificate(names: ["localhost", "127.0.0.1"])

func developmentCertificate(names: [String]) -> DevelopmentCertificate {
    do {
        return try DevelopmentCertificate.generate(names: names, now: wallClock())
    } catch {
        fatalError("no development certificate: \(error)")
    }
}

/// Seconds since 1970.
func wallClock() -> UInt64 { UInt64(Date().timeIntervalSince1970) }

func loopback(_ host: String = "127.0.0.1", port: Int = 0) throws -> SocketAddress {
    try SocketAddress(ipAddress: host, port: port)
}

/// Bytes that show any one lost, doubled or moved.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 33)
    }
}

/// Waits until a condition holds, for as long as the test may take.
func eventually(_ condition: () async throws -> Bool) async throws {
    while try await !condition() { try await Task.sleep(for: .milliseconds(5)) }
}

// MARK: What peers answer

/// How a handshake ended at the peer.
struct PeerHandshake: Decodable, Sendable {
    struct Completed: Decodable, Sendable {
        /// By which later commands name the connection.
        var name: String
        var alpn: String?
        var resumed: Bool
        var earlyAccepted: Bool
        var version: UInt32
        var retried: Bool
    }

    var handshake: Completed?
    var end: PeerEnd?
    /// What came back of the early data.
    var earlyEchoed: String?
}

/// Why a connection ended at the peer.
struct PeerEnd: Decodable, Sendable {
    /// -1: it has not ended.
    var code: Int
    /// nil: closed by an application.
    var frame: Int?
    var reason: String
}

/// What the peer sees of a connection.
struct PeerState: Decodable, Sendable {
    var peerHost: String
    var peerPort: Int
    var peerValidated: Bool
    var keyPhase: Int
    var ended: Bool
    var statelessResets: Int
    var acksWithECN: Int
    var pathChallenges: Int
    var markedECT0: Int
    var unmarked: Int
    var hasTicket: Bool
    /// From NEW_TOKEN, in hexadecimal.
    var token: String
    /// What its Initial packets carry, in hexadecimal.
    var tokenInUse: String
}

/// The datagrams with which a client of the peer's would begin.
struct FirstFlight: Decodable, Sendable {
    /// In hexadecimal.
    var datagrams: [String]

    var bytes: [[UInt8]] { datagrams.map { [UInt8](hexadecimal: $0) } }
}

extension [UInt8] {
    init(hexadecimal text: String) {
        let digits = text.compactMap(\.hexDigitValue)
        self = stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
    }
}

struct Listening: Decodable, Sendable { var port: Int }
struct Echoed: Decodable, Sendable { var whole: Int }

extension Peer {
    /// aioquic serves; returns its port.
    func listen(_ options: [String: Argument] = [:]) async throws -> Int {
        let files: [String: Argument] = [
            "certificate": .text(try file("certificate.pem", certificate.certificatePEM)),
            "key": .text(try file("key.pem", certificate.privateKeyPEM)),
        ]
        return try await self("listen", files.merging(options) { $1 }, as: Listening.self).port
    }

    /// The next connection that aioquic accepted.
    func accepted() async throws -> PeerHandshake.Completed {
        try #require(try await self("accepted", as: PeerHandshake.self).handshake)
    }

    /// aioquic connects; returns how that ended.
    func attempt(_ port: Int, _ options: [String: Argument] = [:]) async throws -> PeerHandshake {
        try await self("connect", clientOptions(port, options), as: PeerHandshake.self)
    }

    /// What aioquic would send to connect. Nothing is sent.
    func firstFlight(_ options: [String: Argument] = [:]) async throws -> [[UInt8]] {
        try await self("firstFlight", clientOptions(0, options), as: FirstFlight.self).bytes
    }

    func clientOptions(_ port: Int, _ options: [String: Argument]) throws -> [String: Argument] {
        let authority = try file("authority.pem", certificate.certificatePEM)
        return ["port": .number(port), "authority": .text(authority)].merging(options) { $1 }
    }

    /// aioquic connects, and succeeds.
    func connect(_ port: Int, _ options: [String: Argument] = [:]) async throws -> PeerHandshake.Completed {
        let outcome = try await attempt(port, options)
        return try #require(outcome.handshake, "\(String(describing: outcome.end))")
    }

    /// aioquic sends random bytes on streams of its own; every one must come back whole.
    func echo(_ name: String = "client", streams: Int = 1, size: Int = 1000) async throws {
        let echoed = try await self(
            "echo", ["name": .text(name), "streams": .number(streams), "size": .number(size)], as: Echoed.self)
        #expect(echoed.whole == streams)
    }

    func state(_ name: String = "client") async throws -> PeerState {
        try await self("state", ["name": .text(name)], as: PeerState.self)
    }

    /// Why a connection ended; waits for that, but only so many seconds.
    func end(_ name: String = "client", patience: Int = 10) async throws -> PeerEnd {
        try await self("end", ["name": .text(name), "patience": .number(patience)], as: PeerEnd.self)
    }

    func updateKey(_ name: String = "client") async throws { try await self("updateKey", ["name": .text(name)]) }
}

// MARK: Our side

/// Our client with a loop and a peer beside it, all gone when the body is done.
func withClient(
    cache: (any SessionCache)? = nil, sockets: QUICSocketOptions = .client,
    _ body: (_ client: QUICClient, _ loop: any EventLoop, _ peer: Peer) async throws -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let client = QUICClient(sockets: sockets, sessionCache: cache)
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await Peer.run { try await body(client, group.next(), $0) })
    } catch {
        outcome = .failure(error)
    }
    await client.shutdownGracefully(timeout: .seconds(1))
    try await group.shutdownGracefully()
    try outcome.get()
}

func clientConfiguration(_ change: (inout TransportSettings) -> Void = { _ in }) -> ClientConfiguration {
    var configuration = ClientConfiguration(
        serverName: "localhost", applicationProtocols: [protocolName],
        verification: .certificateAuthority(pem: certificate.certificatePEM))
    change(&configuration.transport)
    return configuration
}

extension QUICClient {
    /// Connects to a port of this machine.
    func connect(
        _ port: Int, _ configuration: ClientConfiguration = clientConfiguration(), early: Bool = false,
        on loop: any EventLoop
    ) async throws -> QUICConnection {
        try await connect(
            host: "127.0.0.1", port: port, configuration: configuration, localAddress: loopback(), returnsEarly: early,
            on: loop)
    }
}

/// Our echoing server with a peer beside it.
struct Service: Sendable {
    let listener: QUICListener
    let loop: any EventLoop
    /// Streams of which the first bytes have come, over all connections.
    let streamsSeen = Counter()
    fileprivate let accepted = Mailbox<QUICConnection>(limit: 1000, policy: .dropOldest)

    var port: Int { listener.localAddresses.first?.port ?? 0 }

    /// The next connection that came.
    func connection() async throws -> QUICConnection { try #require(try await accepted.next()) }

    func counters() async -> EndpointCounters { await listener.counters().engine }

    /// Ends the task and lets go of every connection: that must be before their loops end.
    fileprivate func end(_ serving: Task<Void, any Error>) async {
        serving.cancel()
        _ = try? await serving.value
        accepted.finish()
        while let connection = try? await accepted.next() { _ = connection }
    }

    fileprivate func serve() async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for try await connection in listener.connections {
                accepted.put(connection)
                group.addTask { try? await echo(connection, counting: streamsSeen) }
            }
        }
    }
}

/// Counts across threads.
final class Counter: Sendable {
    private let count = Mutex(0)
    var value: Int { count.withLock { $0 } }
    func add() { count.withLock { $0 += 1 } }
}

/// Runs our server with a loop and a peer beside it, all gone when the body is done.
func withServer(
    at addresses: [SocketAddress]? = nil, loops: Int = 1, _ configuration: QUICServerConfiguration? = nil,
    _ body: (_ service: Service, _ peer: Peer) async throws -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: loops)
    let beside = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let listener = try await QUICListener.bind(
        addresses: addresses ?? [loopback()], configuration: configuration ?? serverConfiguration(), group: group,
        yieldsEarly: true)
    let service = Service(listener: listener, loop: beside.next())
    let serving = Task { try await service.serve() }
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await Peer.run { try await body(service, $0) })
    } catch {
        outcome = .failure(error)
    }
    await listener.shutdownGracefully(timeout: .seconds(1))
    await service.end(serving)
    try await beside.shutdownGracefully()
    try await group.shutdownGracefully()
    try outcome.get()
}

/// Our client and our echoing server, without a peer.
func withOwnPair(
    cache: any SessionCache, keyLog: KeyLogFile,
    _ body: (_ client: QUICClient, _ port: Int, _ loop: any EventLoop) async throws -> Void
) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let listener = try await QUICListener.bind(
        addresses: [loopback()], configuration: serverConfiguration(keyLog: keyLog), group: group, yieldsEarly: true)
    let client = QUICClient(sessionCache: cache)
    let service = Service(listener: listener, loop: group.next())
    let serving = Task { try await service.serve() }
    let outcome: Result<Void, any Error>
    do {
        outcome = .success(try await body(client, service.port, group.next()))
    } catch {
        outcome = .failure(error)
    }
    await client.shutdownGracefully(timeout: .seconds(1))
    await listener.shutdownGracefully(timeout: .seconds(1))
    await service.end(serving)
    try await group.shutdownGracefully()
    try outcome.get()
}

func serverConfiguration(
    certificate: DevelopmentCertificate = certificate, protocols: [String] = [protocolName],
    tickets: TicketKeyRing? = nil,
    replayStore: ReplayStore? = ReplayStore(capacity: 1000),
    keyLog: KeyLogFile? = nil, _ change: (inout ServerConfiguration) -> Void = { _ in }
) throws -> QUICServerConfiguration {
    var random = SystemRandomNumberGenerator()
    var log: ClientConfiguration.KeyLog?
    if let keyLog { log = { keyLog.append($0) } }
    var server = ServerConfiguration(
        tls: try TLSServerContext(
            credentials: certificate.credentials, applicationProtocols: protocols,
            ticketKeys: tickets ?? TicketKeyRing(random: &random, now: wallClock()), replayStore: replayStore,
            keyLog: log))
    change(&server)
    return QUICServerConfiguration(server: server)
}

// MARK: Streams

/// Sends back what comes on every stream and in every datagram, until the connection ends.
private func echo(_ connection: QUICConnection, counting streams: Counter) async throws {
    try await withThrowingDiscardingTaskGroup { group in
        group.addTask {
            for try await datagram in connection.datagrams { _ = try? await connection.sendDatagram(datagram) }
        }
        for try await stream in connection.inboundStreams {
            group.addTask {
                streams.add()
                guard stream.id.isBidirectional else { return }
                do {
                    while let piece = try await stream.read() { try await stream.write(piece) }
                    try await stream.finish()
                } catch let error as QUICTransportError where error.applicationCode != nil {
                    // The peer reset or stopped it.
                }
            }
        }
    }
}

extension QUICConnection {
    /// Sends a pattern on a new stream and expects it back.
    func exchange(_ size: Int = 1000, seed: UInt64 = 1) async throws {
        let sent = pattern(size, seed: seed)
        let stream = try await openStream()
        async let received = stream.collect()
        try await stream.write(ByteBuffer(bytes: sent))
        try await stream.finish()
        let same = try await received == sent
        #expect(same, "what came back differs from what was sent (seed \(seed))")
    }

    /// Lets the time pass for which old keys are kept, three probe timeouts: only then may a peer update again (RFC 9001
    /// section 6.5). aioquic doesn't wait by itself, and reads nothing in old keys any more.
    func keysSettle() async throws {
        let statistics = try #require(await statistics())
        let probe = statistics.smoothedRTT.nanoseconds + 4 * statistics.rttVariation.nanoseconds + 25_000_000
        try await Task.sleep(for: .nanoseconds(Int64(clamping: 4 * probe)))
    }

    /// Our side starts a key update as soon as that is possible.
    func updateKey() async throws {
        try await eventually { await self.requestKeyUpdate() }
    }
}

extension QUICStream {
    /// Everything up to the end.
    func collect() async throws -> [UInt8] {
        var bytes: [UInt8] = []
        for try await piece in self { bytes.append(contentsOf: piece.readableBytesView) }
        return bytes
    }
}
