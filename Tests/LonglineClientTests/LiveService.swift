import Foundation
import Logging
import LonglineServer
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import QUICTransport
import Synchronization

@testable import LonglineClient

/// A real server on loopback, which can be stopped and started again on the same store and port.
final class LiveService: Sendable {
    private let directory: TemporaryFolder
    private let data: ServerDirectory
    private let server: Mutex<LonglineServer?>
    private let knownPort = Mutex(0)
    let pin: [UInt8]
    private let retention: RetentionPolicy
    private let limits: Mutex<ServerLimits>
    private let devicePolicies: DevicePolicies
    private let clockSkew: TimeAmount

    init(
        clockSkew: TimeAmount = .seconds(30), retention: RetentionPolicy = RetentionPolicy(),
        devicePolicies: DevicePolicies = DevicePolicies(),
        _ limit: (inout ServerLimits) -> Void = { _ in }
    ) async throws {
        self.retention = retention
        self.clockSkew = clockSkew
        var limits = ServerLimits()
        limit(&limits)
        self.limits = Mutex(limits)
        self.devicePolicies = devicePolicies
        directory = try TemporaryFolder()
        data = try ServerDirectory(directory.path)
        pin = try data.developmentIdentity(names: ["localhost"]).pin
        server = Mutex(nil)
        try await start()
    }

    var pinText: String { pin.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
    var storePath: String { data.storePath }

    /// A token for a device.
    func token(_ user: String, _ device: String = "phone") async throws -> String {
        try await data.sign(
            tenant: try TenantID("default"), user: try UserID(user), device: try DeviceID(device), lifetime: 3_600_000)
    }

    var port: Int { knownPort.withLock { $0 } }

    func start() async throws {
        let identity = try data.developmentIdentity(names: ["localhost"])
        var configuration = LonglineServer.Configuration(
            store: .directory(data.storePath), certificate: { identity.credentials },
            tokenKeys: [try data.signingKey().verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: port)])
        configuration.secrets = try data.secrets()
        configuration.eventLoops = 2
        configuration.retention = retention
        configuration.tokenClockSkew = clockSkew
        configuration.limits = limits.withLock { $0 }
        configuration.devicePolicies = devicePolicies
        configuration.logger.logLevel = .error
        let started = LonglineServer(configuration: configuration)
        try await started.start()
        knownPort.withLock { $0 = started.addresses.first?.port ?? 0 }
        server.withLock { $0 = started }
    }

    /// Changes what the next start takes.
    func change(_ change: (inout ServerLimits) -> Void) { limits.withLock { change(&$0) } }

    func stop() async {
        let running = server.withLock { server in
            defer { server = nil }
            return server
        }
        await running?.shutdown()
    }

    /// Removes what the retention does not keep, now.
    func applyRetention() async throws -> RetentionReport? {
        try await server.withLock { $0 }?.applyRetention()
    }

    /// What the server counted; nil while it is stopped.
    func statistics() async -> ServerStatistics? { try? await server.withLock { $0 }?.statistics() }

    /// The store of a service that is stopped.
    func withStore(_ body: (SQLiteStore) async throws -> Void) async throws {
        let store = try SQLiteStore(SQLiteStoreConfiguration(directory: data.storePath))
        do { try await body(store) } catch {
            try? await store.close()
            throw error
        }
        try await store.close()
    }

    /// Puts a copy of the database in the place of the present one, as docs/storage.md says. The service is stopped.
    func restore(_ backup: String) throws {
        let files = FileManager.default
        for name in ["longline.db", "longline.db-wal", "longline.db-shm", "store.identity"] {
            let path = data.storePath + "/" + name
            if files.fileExists(atPath: path) { try files.removeItem(atPath: path) }
        }
        try files.copyItem(atPath: backup, toPath: data.storePath + "/longline.db")
    }

    func erase(_ user: String) async throws {
        try await server.withLock { $0 }?.erase(user: UserID(user), in: TenantID("default"))
    }

    /// How often a user was revoked.
    func userGeneration(_ user: String) async throws -> UInt64 {
        guard let running = server.withLock({ $0 }) else { return 0 }
        let key = DeviceKey(tenant: try TenantID("default"), user: try UserID(user), device: try DeviceID("phone"))
        return try await running.generations(of: key).user
    }

    /// How often a device was revoked.
    func generation(_ user: String, _ device: String = "phone") async throws -> UInt64 {
        guard let running = server.withLock({ $0 }) else { return 0 }
        let key = DeviceKey(
            tenant: try TenantID("default"), user: try UserID(user), device: try DeviceID(device))
        return try await running.generations(of: key).device
    }

    func client(
        _ user: String, _ device: String = "phone", scope: String? = nil, login: UInt64? = nil,
        resolver: NameResolver = .shared, _ change: (inout LonglineClient.Configuration) -> Void = { _ in }
    ) throws -> LonglineClient {
        let (user, device) = (try UserID(user), try DeviceID(device))
        let (tenant, data) = (try TenantID("default"), data)
        var configuration = LonglineClient.Configuration(
            accessPoints: [AccessPoint(host: "127.0.0.1", port: port)], trust: .pinnedPublicKey([pin])
        ) {
            let rights = try scope.map { try ScopeClaim($0) } ?? ScopeClaim(scopes: .all)
            return try await data.sign(
                tenant: tenant, user: user, device: device, lifetime: 3_600_000, scopes: rights.scopes,
                grants: rights.grants, loginEpoch: login)
        }
        configuration.backOff = BackOffPolicy(base: .milliseconds(10), maximum: .milliseconds(100))
        configuration.logger.logLevel = .error
        change(&configuration)
        return try LonglineClient(configuration: configuration, resolver: resolver)
    }
}

extension LonglineClient {
    /// Waits until there is a connection, and tells of it.
    func nextConnection() async throws -> ConnectionInfo {
        for await state in states {
            switch state {
            case .connected(let info): return info
            case .stopped(let code, let reason), .upgradeRequired(let code, let reason):
                throw ClientError(.stopped, message: reason, closeCode: code)
            default: continue
            }
        }
        throw ClientError(.disconnected, message: "the states ended")
    }

    /// Reads so many messages.
    func receive(_ count: Int) async -> [Message] {
        var result: [Message] = []
        for await message in messages {
            message.confirm()
            result.append(message)
            if result.count == count { break }
        }
        return result
    }
}
