import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOPosix

@testable import LonglineServer

/// A server without sockets: its loops and a store, for tests with ``TestDevice``.
final class TestServer: Sendable {
    let store: any MessageStore
    let runtime: ServerRuntime
    let group: MultiThreadedEventLoopGroup
    let issuer: TokenIssuer
    private let cursorTask: Task<Void, Never>
    private let presenceTask: Task<Void, Never>
    private let webhookTask: Task<Void, Never>?

    init(
        store: any MessageStore = InMemoryStore(), limits: ServerLimits = ServerLimits(), loops: Int = 2,
        logger: Logger? = nil, authorization: AuthorizationSettings? = nil,
        devicePolicies: DevicePolicies = DevicePolicies(), webhooks: WebhookConfiguration? = nil
    ) async throws {
        self.store = store
        group = MultiThreadedEventLoopGroup(numberOfThreads: loops)
        issuer = try await TokenIssuer()
        let now = WallClock.milliseconds()
        let silent = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let core = try await ServerCore(
            limits: limits, store: store,
            verifier: await TokenVerifier(keys: [issuer.key.verificationKey], tenants: nil),
            tickets: ResumeTicketSealer(keys: ResumeTicketKeys(now: now)), logger: logger ?? silent,
            authorization: authorization, devicePolicies: devicePolicies,
            webhooks: webhooks,
            time: WallClock.milliseconds)
        runtime = try await ServerRuntime(core: core, group: group)
        cursorTask = Task { await core.cursors.run() }
        presenceTask = Task { await core.presence.run() }
        webhookTask = core.webhooks.map { webhooks in Task { await webhooks.run() } }
    }

    func stop() async {
        // What sessions asked of the store would come back to loops that are gone. A store that doesn't answer at all holds
        // up no test.
        runtime.drain()
        _ = await runtime.waitUntilIdle(timeout: .seconds(2))
        runtime.core.cursors.stop()
        await cursorTask.value
        // What a loop says to another at the end of a session has to find it.
        for _ in 0..<2 { for loop in runtime.loops { try? await loop.submit { _ in } } }
        runtime.core.presence.stop()
        presenceTask.cancel()
        await presenceTask.value
        webhookTask?.cancel()
        await webhookTask?.value
        try? await group.shutdownGracefully()
    }

    /// Runs the body, then stops, however it ended.
    func use(_ body: (TestServer) async throws -> Void) async throws {
        do { try await body(self) } catch {
            await stop()
            throw error
        }
        await stop()
    }

    /// A device whose link is up on one of the loops, and has said nothing.
    func device(
        _ user: String, _ name: String = "phone", loop: Int = 0, early: Bool = false,
        remoteAddress: String = "192.0.2.1:4242", drains: Bool = true
    ) async throws -> TestDevice {
        let (said, continuation) = AsyncStream.makeStream(of: ServerSaid.self)
        let wire = try await FakeWire(
            runtime: runtime, loop: runtime.loops[loop % runtime.loops.count], early: early,
            remoteAddress: remoteAddress, drains: drains, said: continuation)
        return TestDevice(
            user: try UserID(user), device: try DeviceID(name), issuer: issuer, wire: wire, said: said)
    }

    /// A device whose session is granted.
    func connected(_ user: String, _ name: String = "phone", loop: Int = 0) async throws -> TestDevice {
        let device = try await device(user, name, loop: loop)
        _ = try await device.connect()
        return device
    }
}

/// An identifier that is known to be well-formed.
func identifier<ID>(_ make: () throws -> ID) -> ID {
    do { return try make() } catch { preconditionFailure("a test's identifier: \(error)") }
}

/// Signs tokens that the tests' servers believe.
struct TokenIssuer: Sendable {
    static let tenant = identifier { try TenantID("acme") }

    let key: SigningKey
    private let signer: TokenSigner

    init() async throws {
        key = SigningKey.generate(.edDSA)
        signer = await TokenSigner(key: key)
    }

    /// A token that lives for an hour, or lived until `-lifetime` milliseconds ago.
    func token(
        _ user: String, _ device: String, login: UInt64 = 1, scopes: TokenScopes = .all,
        grants: [ChannelGrant] = [], id: String? = nil,
        tenant: TenantID = Self.tenant, lifetime: Int64 = 3_600_000, age: Int64 = 60_000,
        generations: RevocationGenerations = RevocationGenerations(user: 0, device: 0),
        platform: DevicePlatform = .unknown
    ) async throws -> String {
        let now = Int64(WallClock.milliseconds())
        return try await signer.sign(
            TokenClaims(
                tenant: tenant, user: try UserID(user), device: try DeviceID(device), loginEpoch: login, scopes: scopes,
                grants: grants,
                tokenID: id ?? TokenClaims.makeTokenID(), issuedAt: UInt64(now + min(lifetime, 0) - age),
                expiry: UInt64(now + lifetime), generations: generations, platform: platform))
    }
}

/// A server that runs while the body does.
func withServer(
    store: any MessageStore = InMemoryStore(), limits: ServerLimits = ServerLimits(), loops: Int = 2,
    _ body: (TestServer) async throws -> Void
) async throws {
    try await TestServer(store: store, limits: limits, loops: loops).use(body)
}
