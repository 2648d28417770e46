import LonglineTestKit
import NIOCore
import NIOPosix
import Testing

@testable import QUICEngine
@testable import QUICTransport

/// Names whose first address may be dead (RFC 8305).
@Suite("Hosts with several addresses", .timeLimit(.minutes(1)))
struct HostAddressTests {
    static let live = "127.0.0.1"
    static let name = "service.test"
    /// So long that an attempt that waits for it would end the test by its time limit.
    private static let never = TimeAmount.hours(1)

    private struct World {
        let resolver: NameResolver
        let listener: QUICListener
        let loop: any EventLoop
        let deaf: [String: DeafSocket]
        let sessionCache: (any SessionCache)?

        /// Runs with a client that finds the name, and begins another attempt after the delay.
        func withClient(
            delay: TimeAmount = .milliseconds(250), _ body: (QUICClient) async throws -> Void
        ) async throws {
            let client = QUICClient(sessionCache: sessionCache, resolver: resolver, attemptDelay: delay)
            let outcome: Result<Void, any Error>
            do { outcome = .success(try await body(client)) } catch { outcome = .failure(error) }
            await client.shutdownGracefully(timeout: .seconds(1))
            try outcome.get()
        }

        func connect(
            _ client: QUICClient, _ configuration: ClientConfiguration = clientConfiguration(),
            from local: SocketAddress? = nil, returnsEarly: Bool = false
        ) async throws -> QUICConnection {
            try await client.connect(
                host: HostAddressTests.name, port: listener.port, configuration: configuration, localAddress: local,
                returnsEarly: returnsEarly, on: loop)
        }
    }

    /// A server on one address, sockets of the same port that answer nothing on the others that are named, and a resolver that
    /// knows a name by some of them.
    private func withWorld(
        _ addresses: [String], deaf names: [String], sessionCache: (any SessionCache)? = nil,
        serve: @escaping @Sendable (QUICConnection) async throws -> Void = echo, _ body: (World) async throws -> Void
    ) async throws {
        let resolver = NameResolver { _ in
            addresses.compactMap { QUICSocketAddress(numericHost: $0, port: 0) }
        }
        try await withPair(yieldsEarly: sessionCache != nil, serve: serve) { _, listener, loop in
            var deaf: [String: DeafSocket] = [:]
            for name in names { deaf[name] = try await .open(name, port: listener.port, on: loop) }
            try await body(
                World(resolver: resolver, listener: listener, loop: loop, deaf: deaf, sessionCache: sessionCache))
            for socket in deaf.values { try await socket.close() }
        }
    }

    @Test(
        "Where the first address doesn't answer the next is tried, and the connection can move from there",
        arguments: ["::1", "127.0.0.2"])
    func firstIsDead(dead: String) async throws {
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { client in
                let connection = try await world.connect(client)
                try await connection.roundTrip()
                #expect(await connection.remoteAddress() == world.listener.localAddresses.first)
                #expect(try #require(world.deaf[dead]).heard > 0)
                try await connection.migrate(to: loopback("127.0.0.3"))
                try await connection.roundTrip()
                #expect(await connection.localAddress()?.ipAddress == "127.0.0.3")
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("Where the first address answers the next hears nothing")
    func firstAnswers() async throws {
        let other = "127.0.0.2"
        try await withWorld([Self.live, other], deaf: [other]) { world in
            try await world.withClient(delay: .seconds(5)) { client in
                let connection = try await world.connect(client)
                try await connection.roundTrip()
                // Nothing waits for the delay any more.
                #expect(
                    try await connection.call { $0.connection?.client != nil && $0.connection?.client?.race == nil })
                #expect(world.deaf[other]?.heard == 0)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("The next connect begins with the address that answered")
    func remembers() async throws {
        let dead = "127.0.0.2"
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { try await world.connect($0).roundTrip() }
            let heard = try #require(world.deaf[dead]).heard
            try await world.withClient(delay: Self.never) { try await world.connect($0).roundTrip() }
            #expect(world.deaf[dead]?.heard == heard)
        }
    }

    @Test("0-RTT data comes once, by the address that answers")
    func earlyData() async throws {
        let dead = "127.0.0.2"
        let cache = InMemorySessionCache()
        let received = Mailbox<[UInt8]>(limit: 16, policy: .refuse)
        let serve: @Sendable (QUICConnection) async throws -> Void = { connection in
            for try await stream in connection.inboundStreams {
                let bytes = try await stream.collect()
                received.put(bytes)
                try await stream.send(bytes)
            }
        }
        try await withWorld([dead, Self.live], deaf: [dead], sessionCache: cache, serve: serve) { world in
            try await world.withClient { client in
                let key = SessionCacheKey(
                    serverName: "localhost", port: world.listener.port, applicationProtocol: protocolName)
                let first = try await client.connect(to: world.listener, on: world.loop)
                while cache.session(for: key)?.ticket == nil {
                    try await first.roundTrip()
                    #expect(try await received.next() == [1])
                }
                first.close()
                _ = try await first.closed()

                let connection = try await world.connect(client, returnsEarly: true)
                let sent = pattern(5000)
                let stream = try await connection.openStream()
                try await stream.send(sent)
                #expect(try await stream.collect() == sent)
                #expect(try await connection.handshake().earlyData == .accepted)
                #expect(await connection.remoteAddress() == world.listener.localAddresses.first)
                #expect(try #require(world.deaf[dead]).heard > 0)
                // What comes behind it is next: nothing came twice.
                #expect(try await received.next() == sent)
                try await connection.roundTrip()
                #expect(try await received.next() == [1])
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("Where no address answers the connect fails when its time is over")
    func allAreDead() async throws {
        let dead = ["127.0.0.2", "::1", "127.0.0.3"]
        try await withWorld(dead, deaf: dead) { world in
            try await world.withClient(delay: .milliseconds(50)) { client in
                let configuration = clientConfiguration { $0.handshakeTimeout = .milliseconds(1500) }
                let error = await #expect(throws: QUICTransportError.self) {
                    _ = try await world.connect(client, configuration)
                }
                #expect(error?.code == .connectFailed)
                #expect(error?.closeReason == .handshakeTimeout)
                for socket in world.deaf.values { #expect(socket.heard > 0) }
            }
        }
    }

    @Test("An address that the kernel doesn't send to is not waited for")
    func cannotSend() async throws {
        // From 127.0.0.1 nothing leaves the machine.
        try await withWorld(["192.0.2.1", Self.live], deaf: []) { world in
            try await world.withClient(delay: Self.never) { client in
                let connection = try await world.connect(client, from: loopback())
                try await connection.roundTrip()
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("An address that nobody has is left out", arguments: ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
    func nobodysAddress(nobodys: String) async throws {
        try await withWorld([nobodys, Self.live], deaf: []) { world in
            try await world.withClient(delay: Self.never) { client in
                let connection = try await world.connect(client)
                try await connection.roundTrip()
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test(
        "Where nobody can answer the connect fails at once",
        arguments: [("0.0.0.0", 443), ("::", 443), ("127.0.0.1", 0)])
    func nobody(host: String, port: Int) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = QUICClient()
        let error = await #expect(throws: QUICTransportError.self) {
            _ = try await client.connect(
                host: host, port: port, configuration: clientConfiguration(), on: group.next())
        }
        #expect(error?.code == .connectFailed)
        if case .handshakeFailed(let cause) = error?.closeReason {
            #expect(cause.code == .unreachable)
        } else {
            Issue.record("\(error.map { "\($0)" } ?? "no error")")
        }
        await client.shutdownGracefully()
        try await group.shutdownGracefully()
    }

    @Test("A local address is for addresses of its family alone, and its port serves all attempts")
    func fromLocalAddress() async throws {
        let dead = "127.0.0.2"
        try await withWorld(["::1", dead, Self.live], deaf: ["::1", dead]) { world in
            let reserved = try await DatagramBootstrap(group: world.loop).bind(host: Self.live, port: 0).get()
            let port = try #require(reserved.localAddress?.port)
            try await reserved.close()
            try await world.withClient { client in
                let connection = try await world.connect(client, from: loopback(port: port))
                try await connection.roundTrip()
                #expect(try await connection.localAddress() == loopback(port: port))
                #expect(try #require(world.deaf[dead]).heard > 0)
                #expect(world.deaf["::1"]?.heard == 0)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("A wildcard to send from stands for a family and a port")
    func fromWildcard() async throws {
        try await withWorld(["::1", Self.live], deaf: ["::1"]) { world in
            let reserved = try await DatagramBootstrap(group: world.loop).bind(host: Self.live, port: 0).get()
            let port = try #require(reserved.localAddress?.port)
            try await reserved.close()
            try await world.withClient(delay: Self.never) { client in
                let connection = try await world.connect(client, from: loopback("0.0.0.0", port: port))
                try await connection.roundTrip()
                #expect(try await connection.localAddress() == loopback(port: port))
                #expect(world.deaf["::1"]?.heard == 0)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    /// An address of this machine that other machines may know: what goes there comes from there.
    private static let outer = try? LocalAddresses.expand(loopback("0.0.0.0")).compactMap(\.ipAddress)
        .first { !$0.hasPrefix("127.") }

    @Test(
        "A wildcard's port serves all attempts, each from the address that leads where it goes",
        .enabled(if: HostAddressTests.outer != nil))
    func fromWildcardToSeveral() async throws {
        let dead = [try #require(Self.outer), "127.0.0.2"]
        try await withWorld(dead + [Self.live], deaf: dead) { world in
            let reserved = try await DatagramBootstrap(group: world.loop).bind(host: "0.0.0.0", port: 0).get()
            let port = try #require(reserved.localAddress?.port)
            try await reserved.close()
            try await world.withClient(delay: .milliseconds(50)) { client in
                let connection = try await world.connect(client, from: loopback("0.0.0.0", port: port))
                try await connection.roundTrip()
                #expect(try await connection.localAddress() == loopback(port: port))
                for socket in world.deaf.values { #expect(socket.heard > 0) }
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("The address that answers may speak another version")
    func versionNegotiation() async throws {
        let dead = "127.0.0.2"
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { client in
                var configuration = clientConfiguration()
                configuration.versions = [QUICVersion(rawValue: 0x5a6a_7a8a), .v1]
                let connection = try await world.connect(client, configuration)
                try await connection.roundTrip()
                #expect(try await connection.handshake().version == .v1)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("The address that answers may refuse, and the connect says so")
    func refusal() async throws {
        let dead = "127.0.0.2"
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { client in
                var configuration = clientConfiguration()
                configuration.applicationProtocols = ["other/1"]
                let error = await #expect(throws: QUICTransportError.self) {
                    _ = try await world.connect(client, configuration)
                }
                guard case .handshakeFailed = error?.closeReason else {
                    Issue.record("\(error.map { "\($0)" } ?? "no error")")
                    return
                }
            }
        }
    }

    @Test("A change of path before any answer goes round the addresses again")
    func changeOfPath() async throws {
        let dead = "127.0.0.2"
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { client in
                let connecting = Task { try await world.connect(client) }
                while world.deaf[dead]?.heard == 0 { await Task.yield() }
                let (moved, local) = (world.loop.makePromise(of: Void.self), try loopback("127.0.0.3"))
                try await client.onlyConnection(on: world.loop) { $0.migrate(toLocal: local, promise: moved) }
                try await moved.futureResult.get()
                let connection = try await connecting.value
                try await connection.roundTrip()
                #expect(await connection.localAddress()?.ipAddress == "127.0.0.3")
                #expect(await connection.remoteAddress()?.ipAddress == Self.live)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }

    @Test("What lost is closed, and its socket too")
    func losersGo() async throws {
        let dead = "127.0.0.2"
        try await withWorld([dead, Self.live], deaf: [dead]) { world in
            try await world.withClient { client in
                // A connection is closing for three probe timeouts.
                let connection = try await world.connect(
                    client, clientConfiguration { $0.initialRTT = .milliseconds(50) })
                try await connection.roundTrip()
                while try await client.portCount(on: world.loop) > 1 { await Task.yield() }
                #expect(await client.counters().engine.handshakesCompleted == 1)
                #expect(await client.counters().connections == 1)
                connection.close()
                _ = try await connection.closed()
            }
        }
    }
}

extension QUICClient {
    /// Acts on the one connection that there is, complete or not.
    fileprivate func onlyConnection(
        on loop: any EventLoop, _ body: @escaping @Sendable (QUICLoopConnection) -> Void
    ) async throws {
        let executor = try await executor(on: loop)
        try await loop.submit {
            let connections = executor.driver.value.object?.connections.values.map { $0 } ?? []
            #expect(connections.count == 1)
            if let connection = connections.first { body(connection) }
        }.get()
    }

    /// Sockets that are open.
    fileprivate func portCount(on loop: any EventLoop) async throws -> Int {
        let executor = try await executor(on: loop)
        return try await loop.submit { executor.driver.value.object?.portCount ?? 0 }.get()
    }
}
