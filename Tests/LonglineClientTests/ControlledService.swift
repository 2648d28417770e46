import Foundation
import Logging
import LonglineControl
import LonglineKeys
import LonglineServer
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOPosix
import QUICTransport
import ServiceLifecycle
import Synchronization

@testable import LonglineClient

/// A real server with its control layer, over HTTPS and HTTP/3; the control layer can be stopped alone.
final class ControlledService: Sendable {
    private let directory: TemporaryFolder
    private let data: ServerDirectory
    private let server: LonglineServer
    private let database: ControlDatabase
    private let control: LonglineControl
    private let controlGroup: ServiceGroup
    private let running: Task<Void, any Error>
    let pin: [UInt8]
    let url: String

    init() async throws {
        directory = try TemporaryFolder()
        data = try ServerDirectory(directory.path)
        let identity = try data.developmentIdentity(names: ["localhost", "127.0.0.1"])
        pin = identity.pin
        var configuration = LonglineServer.Configuration(
            store: .directory(data.storePath), certificate: { identity.credentials },
            tokenKeys: [try data.signingKey().verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.tokenKeySources = [data.tokenKeySource]
        configuration.secrets = try data.secrets()
        configuration.eventLoops = 1
        configuration.logger.logLevel = .critical
        server = LonglineServer(configuration: configuration)
        database = try ControlDatabase(data)
        var settings = LonglineControl.Configuration(
            certificate: { identity.credentials }, keys: DirectoryControlKeys(data), database: database)
        settings.addresses = [try SocketAddress(ipAddress: "127.0.0.1", port: 0)]
        // A rotation counts at once.
        settings.keyInterval = .zero
        settings.logger.logLevel = .critical
        // It adds HTTP/3 to the server's port, before that listens.
        control = try LonglineControl(server: server, configuration: settings)
        try await server.start()
        controlGroup = ServiceGroup(
            configuration: ServiceGroupConfiguration(services: [control], logger: settings.logger))
        running = Task { [controlGroup] in try await controlGroup.run() }
        let port = try await control.localAddresses(.service).first?.port ?? 0
        url = "https://127.0.0.1:\(port)"
    }

    /// Once it knows where HTTP/3 is, asks over HTTPS when that has had its time, however long it takes: on a busy machine a head
    /// start is soon over.
    private final class UnhurriedAsker: ControlAsker {
        private let asker: ControlConnector
        private let state = Mutex((http3: 0, answers: 0))

        init(_ asker: ControlConnector) { self.asker = asker }

        func ask(_ way: ControlWay, token: String, nonce: String?) async throws -> ControlReply {
            let isHTTP3 = way.transport == .http3
            if isHTTP3 { state.withLock { $0.http3 += 1 } }
            defer { if isHTTP3 { state.withLock { $0.http3 -= 1 } } }
            while !isHTTP3, state.withLock({ $0.answers > 0 && $0.http3 > 0 }) {
                try await Task.sleep(for: .milliseconds(5))
            }
            let reply = try await asker.ask(way, token: token, nonce: nonce)
            state.withLock { $0.answers += 1 }
            return reply
        }
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
            connector: QUICConnector(configuration: configuration, resolver: .shared),
            asker: UnhurriedAsker(ControlConnector(configuration: configuration, group: group)))
    }

    /// The keys as everybody gets them.
    func keySet() async throws -> JSONWebKeySet {
        let authority = try String(contentsOfFile: data.path + "/certificate.pem", encoding: .utf8)
        let address = try KeySetAddress(url: url + "/.well-known/jwks.json", trust: .authorities(pem: authority))
        return JSONWebKeySet(keys: try await address.keys())
    }

    /// Signs with a new key from now on, and trusts the one before for `keep` rotations.
    func rotate(keep: Int, algorithm: TokenAlgorithm = .edDSA) async throws {
        try await data.rotateSigningKey(keep: keep, algorithm: algorithm) {
            try await self.server.reloadTokenKeys()
        }
    }

    func stopControl() async throws {
        await controlGroup.triggerGracefulShutdown()
        try await running.value
    }

    func stop() async throws {
        try? await stopControl()
        await server.shutdown()
        try database.close()
    }
}
