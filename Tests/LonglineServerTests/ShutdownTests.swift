import Logging
import LonglineStore
import LonglineWire
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

/// A shutdown waits for what ends soon, and for nothing else.
@Suite(.timeLimit(.minutes(1))) struct ShutdownTests {
    private let tenant = TokenIssuer.tenant
    private let users = identifier { try (0..<3).map { try UserID("user\($0)") } }

    /// Of several accounts the first takes steps without end.
    @Test func aShutdownStopsErasuresBetweenTwoSteps() async throws {
        let store = FaultyStore()
        store.set { $0.erasesForever = true }
        for user in users { try await store.requestErasure(of: user, in: tenant) }
        let issuer = try await TokenIssuer()
        let identity = try DevelopmentCertificate.generate(
            names: ["localhost"], now: WallClock.milliseconds() / 1000
        ).credentials
        var configuration = LonglineServer.Configuration(
            store: .shared(store), certificate: { identity }, tokenKeys: [issuer.key.verificationKey],
            addresses: [try SocketAddress(ipAddress: "127.0.0.1", port: 0)])
        configuration.logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        configuration.eventLoops = 1
        let server = LonglineServer(configuration: configuration)
        try await server.start()
        while store.erasureSteps.withLock({ $0 < 3 }) { await Task.yield() }
        await server.shutdown()
        let pending = try await store.pendingErasures(limit: 10).map(\.user)
        #expect(Set(pending) == Set(users), "they go on at the next start")
    }

    @Test func whatBeginsBehindTheStopEndsAsWell() async throws {
        let store = FaultyStore()
        store.set { $0.erasesForever = true }
        try await withServer(store: store) { server in
            let core = server.runtime.core
            core.erasures.stop()
            try await store.requestErasure(of: users[0], in: tenant)
            await core.resumeErasures(on: server.runtime.loops)
            #expect(store.erasureSteps.withLock { $0 } == 1)
            #expect(await server.runtime.statistics().storeFailures == 0, "nothing failed")
        }
    }

    @Test func allLoopsAreWaitedForAtOnce() async throws {
        try await withServer { server in
            let (loops, runtime) = (server.runtime.loops, server.runtime)
            let devices = [try await server.connected("ann"), try await server.connected("bob", loop: 1)]
            let wait = Task { await runtime.waitUntilIdle(timeout: .hours(1)) }
            for loop in loops { while try await loop.submit({ $0.idleWaiterCount }) == 0 {} }
            for device in devices { try await device.drop() }
            #expect(await wait.value == 0)
        }
    }

    @Test func theWaitsOfAShutdownHaveOneEnd() {
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        let patience = ShutdownPatience(.seconds(10), now: start)
        #expect(patience.forLinks == start + .seconds(9) && patience.forAll == start + .seconds(10))
        #expect(patience.left(now: start + .seconds(9)) == .seconds(1))
        #expect(patience.left(now: start + .seconds(60)) == .zero)
    }
}
