import HTTP3
import Logging
import LonglineControl
import LonglineServer
import LonglineWire
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport
import ServiceLifecycle
import Synchronization

@testable import LonglineClient

/// A real server with its control layer, over HTTPS and HTTP/3; the control layer can be stopped alone.
final class ControlledService: Sendable {
    private let directory: TemporaryDirectory
    private let data: ServerDirectory
    private let server: LonglineServer
    private let database: ControlDatabase
    private let control: LonglineControl
    private let controlGroup: ServiceGroup
    private let running: Task<Void, any Error>
    private let http3: HTTP3Server
    private let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let pin: [UInt8]
    let url: String

    init() async throws {
        directory = try TemporaryDirectory()
        data = try ServerDirectory(directory.path)
        let identity = try data.developmentIdentity(names: ["localhost", "127.0.0.1"])
        pin = identity.pin
        var configuration = LonglineServer.Configuration(
            store: .directory(data.storePath), certificate: { identity.credentials },
            tokenKeys: [try data.signingKey().verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.secrets = try data.secrets()
        configuration.eventLoops = 1
        configuration.logger.logLevel = .critical
        server = LonglineServer(configuration: configuration)
        try await server.start()
        database = try ControlDatabase(data)
        var settings = LonglineControl.Configuration(
            certificate: { identity.credentials }, keys: DirectoryControlKeys(data), database: database)
        settings.addresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
        settings.logger.logLevel = .critical
        control = try LonglineControl(server: server, configuration: settings)
        controlGroup = ServiceGroup(
            configuration: ServiceGroupConfiguration(services: [control], logger: settings.logger))
        running = Task { [controlGroup] in try await controlGroup.run() }
        let port = try await control.localAddresses(.service).first?.port ?? 0
        url = "https://127.0.0.1:\(port)"
        var random = SystemRandomNumberGenerator()
        let now = DriverClock.system.wall() / 1_000
        let responder = control.responder
        http3 = try await HTTP3Server.bind(
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)],
            configuration: .init(
                server: ServerConfiguration(
                    tls: try TLSServerContext(
                        credentials: identity.credentials,
                        applicationProtocols: [HTTP3Service.applicationProtocol],
                        ticketKeys: TicketKeyRing(random: &random, now: now),
                        replayStore: ReplayStore(capacity: 1_000)))), group: loops
        ) { request, body, answering in
            let response = await responder.respond(
                to: request, body: body, from: answering.remoteAddress, on: .service)
            let whole = Mutex(ByteBuffer())
            _ = try await response.writeBody { part in
                whole.withLock { _ = $0.writeImmutableBuffer(part) }
            }
            try await answering.respond(response.head, body: whole.withLock { $0 })
        }
        control.announceHTTP3(onPort: http3.localAddresses.first?.port)
    }

    /// A client that knows the control layer's address, and nothing else.
    func client(
        _ user: String, storage: any ClientStorage, clock: DriverClock = .system,
        _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) throws -> LonglineClient {
        let (tenant, user, device) = (try TenantID("default"), try UserID(user), try DeviceID("phone"))
        var configuration = LonglineClient.Configuration(
            control: [ControlService(url: url)], trust: .pinnedPublicKey([pin]), storage: storage
        ) { [data] in try await data.sign(tenant: tenant, user: user, device: device, lifetime: 3_600_000) }
        configuration.backOff = BackOffPolicy(base: .milliseconds(10), maximum: .milliseconds(100))
        configuration.logger.logLevel = .critical
        change(&configuration)
        let group = MultiThreadedEventLoopGroup.singleton
        return try LonglineClient(
            configuration: configuration, loop: group.next(), clock: clock,
            connector: QUICConnector(configuration: configuration),
            asker: ControlConnector(configuration: configuration, group: group))
    }

    func stopControl() async throws {
        await http3.shutdownGracefully(grace: .zero, timeout: .seconds(1))
        await controlGroup.triggerGracefulShutdown()
        try await running.value
    }

    func stop() async throws {
        try? await stopControl()
        await server.shutdown()
        try database.close()
        try await loops.shutdownGracefully()
    }
}
