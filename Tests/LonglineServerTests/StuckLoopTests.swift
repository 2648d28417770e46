import Dispatch
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

@Suite("An event loop that is stuck", .timeLimit(.minutes(1))) struct StuckLoopTests {
    @Test(
        "is waited for in vain by who asks for figures: it counts as it said last, and as behind",
        arguments: [true, false])
    func figures(hasAnswered: Bool) async throws {
        try await TestServer().use { server in
            for index in 0..<3 { _ = try await server.connected("user-\(index)", loop: index) }
            // For as long as it takes to come to a loop that is not stuck.
            let patience: @Sendable () async throws -> Void = { try await Task.sleep(for: .seconds(600)) }
            if hasAnswered { #expect(await server.runtime.statistics(before: patience).connections == 3) }
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let isOtherThere = Mutex(false)
            let figures = await server.runtime.statistics {
                while !isOtherThere.withLock({ $0 }) {
                    do { try await Task.sleep(for: .milliseconds(1)) } catch {
                        // Who waits for the other loop has no need to any more.
                        isOtherThere.withLock { $0 = true }
                        throw error
                    }
                }
            }
            #expect(figures.loopsBehind == 1)
            #expect(figures.connections == (hasAnswered ? 3 : 1))
            release.signal()
            let later = await server.runtime.statistics(before: patience)
            #expect(later.loopsBehind == 0 && later.connections == 3)
        }
    }

    @Test("lets a device whose link is there back in on another one")
    func reconnect() async throws {
        var limits = ServerLimits()
        limits.loopPatience = .milliseconds(20)
        try await TestServer(limits: limits).use { server in
            let behind = try await server.connected("ann", loop: 0)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let back = try await server.device("ann", loop: 1)
            #expect(try await back.connect().resumed, "nothing is known of what was sent, and the session goes on")
            release.signal()
            #expect(try await behind.closed() == .replaced)
        }
    }

    @Test("keeps no session on another one alive that a revocation names, nor its place for the device's next one")
    func revocation() async throws {
        try await TestServer().use { server in
            let behind = try await server.connected("ann", "phone", loop: 0)
            let other = try await server.connected("ann", "tablet", loop: 1)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let ann = UserKey(tenant: TokenIssuer.tenant, user: other.user)
            let revocation = Task { try await server.runtime.revoke(.user(ann)) }
            #expect(try await other.closed() == .credentialRevoked)
            while server.runtime.core.registry.detachedUsers > 0 { await Task.yield() }
            release.signal()
            try await revocation.value
            #expect(try await behind.closed() == .credentialRevoked)
        }
    }

    @Test("takes no other one the end of a wait for idle loops")
    func idle() async throws {
        var limits = ServerLimits()
        limits.loopPatience = .milliseconds(20)
        try await TestServer(limits: limits).use { server in
            _ = try await server.connected("ann", loop: 0)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            #expect(await server.runtime.waitUntilIdle(timeout: .zero) == 1)
        }
    }

    @Test("keeps nobody from taking the place of an older login")
    func login() async throws {
        var limits = ServerLimits()
        limits.loopPatience = .milliseconds(20)
        let policies = DevicePolicies(tenants: [TokenIssuer.tenant: .one])
        try await TestServer(limits: limits, loops: 3, devicePolicies: policies).use { server in
            // On the first loop nobody has a place to lose.
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let old = try await server.device("ann", "old", loop: 1)
            _ = try await old.connect(login: 5)
            let ann = UserKey(tenant: TokenIssuer.tenant, user: old.user)
            let registry = server.runtime.core.registry
            while registry.devices(of: ann) != [old.device] { await Task.yield() }
            let new = try await server.device("ann", "new", loop: 2)
            _ = try await new.connect(login: 6)
            #expect(try await old.closed() == .evicted)
            while registry.devices(of: ann) != [new.device] { await Task.yield() }
        }
    }

    @Test("keeps no change of a room from those on another one, nor from who asked for it")
    func room() async throws {
        var limits = ServerLimits()
        limits.loopPatience = .milliseconds(20)
        try await TestServer(limits: limits).use { server in
            let ann = try await server.connected("ann", loop: 1)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            let hall = try RoomID("hall")
            let key = DeviceKey(tenant: TokenIssuer.tenant, user: ann.user, device: LonglineServer.serviceDevice)
            #expect(try await server.runtime.change(hall, .appoint(nil), by: key).receipt != nil)
            #expect(try await ann.delivered(.room(hall), kind: .joined).entry.member == ann.user)
        }
    }

    @Test("keeps the app's own server from nothing that concerns a user")
    func serviceWork() async throws {
        var limits = ServerLimits()
        limits.loopPatience = .milliseconds(20)
        try await TestServer(limits: limits).use { server in
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            server.runtime.loops[0].eventLoop.execute { release.wait() }
            for index in 0..<8 {
                let user = UserKey(tenant: TokenIssuer.tenant, user: try UserID("user-\(index)"))
                let work = try #require(try await server.runtime.beginUnlessErasing(user))
                work.end()
            }
        }
    }
}
