import Logging
import LonglineStore
import LonglineWire
import NIOCore
import QUICEngine
import Testing

@testable import LonglineServer

@Suite("Limits that change while a server runs", .timeLimit(.minutes(1)))
struct LimitReloadTests {
    private static let tenant = identifier { try TenantID("acme") }
    private static let ann = identifier { UserKey(tenant: tenant, user: try UserID("ann")) }

    private func changed(_ change: (inout ServerLimits) -> Void) -> ServerLimits {
        var limits = ServerLimits()
        change(&limits)
        return limits
    }

    @Test("Rates begin, change and end, each with a full burst")
    func rates() {
        let meter = PublishMeter(limits: ServerLimits())
        let now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        func taken() -> Int { (0..<10).count { _ in meter.wait(for: Self.ann, bytes: 1, now: now) == nil } }
        #expect(taken() == 10)
        meter.update(changed { $0.publishRatePerUser = PublishRate(messagesPerSecond: 0.1, messageBurst: 3) })
        #expect(taken() == 3)
        meter.update(changed { $0.publishRatePerTenant = PublishRate(messagesPerSecond: 0.1, messageBurst: 5) })
        #expect(taken() == 5)
        meter.update(ServerLimits())
        #expect(taken() == 10)
    }

    @Test("Who comes finds the new limits; what belongs to the start stays")
    func admission() async throws {
        let server = try await TestServer()
        let core = server.runtime.core
        core.update(
            changed {
                $0.maximumPayload = 1000
                $0.maximumSessionsPerUser = 0
                $0.idleTimeout = .seconds(1)
                $0.publishRatePerUser = PublishRate(messagesPerSecond: 0.1, messageBurst: 1)
            })
        #expect(core.admissionLimits.session(in: Self.tenant).maximumPayload == 1000)
        #expect(core.admissionLimits.idleTimeout == ServerLimits().idleTimeout)
        let device = try DeviceKey(tenant: Self.tenant, user: Self.ann.user, device: DeviceID("phone"))
        #expect(core.registry.refusal(for: device)?.code == .limitExceeded)
        let now = NIODeadline.now()
        #expect(core.publishMeter.wait(for: Self.ann, bytes: 1, now: now) == nil)
        #expect(core.publishMeter.wait(for: Self.ann, bytes: 1, now: now) != nil)
        core.update(ServerLimits())
        #expect(core.registry.refusal(for: device) == nil)
        await server.stop()
    }

    @Test("Where a user may have more devices, they come back as fast as after a start with the new limit")
    func connects() async throws {
        let server = try await TestServer()
        let core = server.runtime.core
        let now = NIODeadline.uptimeNanoseconds(1_000_000_000)
        func taken(_ most: Int) -> Int {
            (0..<most).count { _ in core.requestMeter.wait(for: .connect, of: Self.ann, now: now) == nil }
        }
        #expect(taken(1_000) == 500)
        // What does not concern it gives nobody another burst.
        core.update(changed { $0.maximumPayload = 1000 })
        #expect(taken(1) == 0)
        core.update(changed { ($0.connectBurst, $0.connectsPerSecond) = (800, 40) })
        #expect(core.admissionLimits.connectBurst == 800)
        #expect(taken(1_000) == 800)
        #expect(core.requestMeter.wait(for: .connect, of: Self.ann, now: now + .milliseconds(30)) == nil)
        await server.stop()
    }

    @Test("A session keeps the largest payload that it was told, and the next one is told another")
    func payload() async throws {
        try await withServer { server in
            let phone = try await server.device("ann")
            #expect(try await phone.connect().limits.maximumPayload == UInt64(ServerLimits().maximumPayload))
            server.runtime.core.update(changed { $0.maximumPayload = 1000 })
            let tablet = try await server.device("ann", "tablet")
            #expect(try await tablet.connect().limits.maximumPayload == 1000)
        }
    }

    @Test("Connections are counted against the limit of now")
    func connections() async throws {
        let server = try await TestServer()
        let core = server.runtime.core
        core.update(changed { $0.maximumConnections = 1 })
        var first = core.admitLink(from: "192.0.2.1:1")
        var second = core.admitLink(from: "192.0.2.2:1")
        #expect(first.refusal == nil && second.refusal?.code == .overloaded)
        core.releaseLink(&second)
        core.update(changed { $0.maximumConnections = 2 })
        var third = core.admitLink(from: "192.0.2.3:1")
        #expect(third.refusal == nil)
        core.releaseLink(&third)
        core.releaseLink(&first)
        await server.stop()
    }

    @Test("Limits that make no sense are refused, and so is a server that does not run")
    func refused() async throws {
        let issuer = try await TokenIssuer()
        let identity = try DevelopmentCertificate.generate(
            names: ["localhost"], now: WallClock.milliseconds() / 1000
        ).credentials
        var configuration = LonglineServer.Configuration(
            store: .shared(InMemoryStore()), certificate: { identity }, tokenKeys: [issuer.key.verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        configuration.eventLoops = 1
        let server = LonglineServer(configuration: configuration)
        #expect(throws: ServerError.self) { try server.reload(limits: ServerLimits()) }
        try await server.start()
        try server.reload(limits: changed { $0.maximumSessions = 5 })
        do throws(ServerError) {
            try server.reload(limits: changed { $0.maximumPayload = 0 })
            Issue.record("a largest payload of nothing was taken")
        } catch {
            #expect(error.code == .invalidConfiguration)
        }
        await server.shutdown()
        configuration.limits.logLinesPerSecond = .nan
        let unstarted = LonglineServer(configuration: configuration)
        let refusal = await #expect(throws: ServerError.self) { try await unstarted.start() }
        #expect(refusal?.code == .invalidConfiguration)
    }
}
