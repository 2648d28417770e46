import CSendFaults
import Glibc
import Logging
import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

/// Interfaces that take no packets of the size that QUIC needs (RFC 9000 section 14).
extension SendErrorTests {
    private static let name = "service.test"

    /// Runs with a client that knows the server by these addresses, and tries the next one only where there is no hope.
    private func withClient(
        of addresses: [String], sessionCache: (any SessionCache)? = nil, logger: Logger = RecordedLines().logger,
        refusalTime: TimeAmount = .seconds(10),
        _ body: (_ client: QUICClient, _ listener: QUICListener, _ loop: any EventLoop) async throws -> Void
    ) async throws {
        let resolver = NameResolver { _ in addresses.compactMap { QUICSocketAddress(numericHost: $0, port: 0) } }
        try await withPair(serve: echo) { _, listener, loop in
            let client = QUICClient(
                sessionCache: sessionCache, logger: logger, resolver: resolver, attemptDelay: .hours(1),
                refusalTime: refusalTime)
            let outcome: Result<Void, any Error>
            do { outcome = .success(try await body(client, listener, loop)) } catch { outcome = .failure(error) }
            send_faults_clear()
            await client.shutdownGracefully(timeout: .seconds(1))
            try outcome.get()
        }
    }

    /// A function of its own: the handle must be gone before its loop is.
    private func visit(
        _ client: QUICClient, _ listener: QUICListener, on loop: any EventLoop,
        until isDone: () async throws -> Bool = { true }
    ) async throws {
        let connection = try await client.connect(
            host: Self.name, port: listener.port, configuration: clientConfiguration(), on: loop)
        repeat { try await connection.roundTrip() } while try await !isDone()
        #expect(await connection.remoteAddress() == listener.localAddresses.first)
        connection.close()
        _ = try await connection.closed()
    }

    @Test(
        "Where packets of 1,200 bytes leave to no address of the host the connect fails at once, and says so",
        arguments: [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
    func tooSmallForQUIC(addresses: [String]) async throws {
        let (cache, lines) = (InMemorySessionCache(), RecordedLines())
        try await withClient(of: addresses, sessionCache: cache, logger: lines.logger) { client, listener, loop in
            let key = SessionCacheKey(
                serverName: "localhost", port: listener.port, applicationProtocol: protocolName)
            try await visit(client, listener, on: loop) { cache.session(for: key)?.ticket != nil }

            send_faults_set(0, UInt16(listener.port), EMSGSIZE, .max)
            let configuration = clientConfiguration { $0.handshakeTimeout = .seconds(3600) }
            let error = await #expect(throws: QUICTransportError.self) {
                _ = try await client.connect(
                    host: Self.name, port: listener.port, configuration: configuration, on: loop)
            }
            #expect(error?.code == .connectFailed && error?.description.contains("1,200 bytes") == true)
            guard case .handshakeFailed(let reason) = error?.closeReason else {
                Issue.record("\(error.map { "\($0)" } ?? "no error")")
                return
            }
            #expect(reason.code == .pathTooSmall)
            let counters = await client.counters()
            #expect(counters.sockets.minimumSizeErrors >= addresses.count && counters.sockets.sendErrors == 0)
            #expect(counters.connections == 0)
            #expect(lines.lines.contains { $0.level == .info && $0.message.contains("1,200 bytes") })
            #expect(cache.session(for: key)?.ticket != nil, "which nothing is wrong with")
        }
    }

    @Test("An address to which packets of 1,200 bytes don't leave is not waited for")
    func oneAddressTooSmall() async throws {
        try await withClient(of: ["127.0.0.2", "127.0.0.1"]) { client, listener, loop in
            send_faults_set(0, UInt16(listener.port), EMSGSIZE, 1)
            try await visit(client, listener, on: loop)
            #expect(send_faults_clear() == 1)
            #expect(await client.counters().sockets.minimumSizeErrors == 1)
        }
    }

    @Test("Where packets of 1,200 bytes don't leave a connect goes on while it waits for a socket elsewhere")
    func movedElsewhere() async throws {
        try await withClient(of: ["127.0.0.1"]) { client, listener, loop in
            send_faults_set(0, UInt16(listener.port), EMSGSIZE, .max)
            let (port, local) = (listener.port, try loopback("127.0.0.2"))
            let bound = try await loop.submit {
                let connection = client.connect(
                    host: Self.name, port: port, configuration: clientConfiguration(), on: loop, handler: Bystander())
                connection.client?.change = ClientPaths.Change(to: local, promise: nil)
                return NIOLoopBound(connection, eventLoop: loop)
            }.get()
            while await client.counters().sockets.minimumSizeErrors == 0 {}
            try await loop.submit {
                let connection = bound.value
                #expect(connection.closeReason == nil)
                // There is none.
                connection.client?.change = nil
                connection.client?.race?.endIfImpossible()
                #expect(connection.closeReason == .handshakeFailed(.pathTooSmall))
            }.get()
        }
    }

    @Test("A change of path to where packets of 1,200 bytes don't leave fails, and says so")
    func changeToTooSmallPath() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let reserved = try await DatagramBootstrap(group: loop).bind(host: "127.0.0.2", port: 0).get()
            let port = try #require(reserved.localAddress?.port)
            try await reserved.close()
            // A new path is given up after three probe timeouts of one whose round trip nobody knows.
            let connection = try await client.connect(
                to: listener, clientConfiguration { $0.initialRTT = .milliseconds(50) }, on: loop)
            try await connection.roundTrip()
            send_faults_set(UInt16(port), 0, EMSGSIZE, .max)
            let error = await #expect(throws: QUICTransportError.self) {
                try await connection.migrate(to: loopback("127.0.0.2", port: port))
            }
            #expect(send_faults_clear() > 0)
            #expect(error?.code == .pathChangeFailed && error?.message.contains("1,200 bytes") == true)
            try await connection.roundTrip()
            #expect(await connection.localAddress()?.ipAddress == "127.0.0.1")
        }
    }

    @Test(
        "A connection whose path takes no packets of 1,200 bytes any more ends, and says so; one refused packet ends nothing, and neither does another behind one that passed"
    )
    func pathBecameTooSmall() async throws {
        try await withClient(of: ["127.0.0.1"], refusalTime: .zero) { client, listener, loop in
            // No packet is larger than QUIC needs.
            let connection = try await client.connect(
                host: Self.name, port: listener.port, configuration: clientConfiguration { $0.discoverPathMTU = false },
                on: loop)
            try await connection.roundTrip()
            for refusals: UInt64 in 1...2 {
                send_faults_set(0, UInt16(listener.port), EMSGSIZE, 1)
                try await connection.roundTrip()
                #expect(send_faults_clear() == 1)
                #expect(await client.counters().sockets.minimumSizeErrors == refusals)
                let stream = try await connection.openStream()
                try await stream.send(pattern(10_000))
                #expect(try await stream.collect() == pattern(10_000))
            }

            // What acknowledges the last bytes may be refused already: then it is over before.
            let stream = try await connection.openStream()
            send_faults_set(0, UInt16(listener.port), EMSGSIZE, .max)
            try? await stream.send([1])
            #expect(try await connection.closed() == .pathTooSmall)
            send_faults_clear()
            #expect(await client.counters().connections == 0)
        }
    }

    @Test("A server ends a connection whose path takes no packets of 1,200 bytes any more")
    func serversPathBecameTooSmall() async throws {
        let ended = Mailbox<QUICCloseReason>(limit: 4, policy: .refuse)
        let serve: @Sendable (QUICConnection) async throws -> Void = { connection in
            _ = try await connection.call { $0.connection?.driver.sizeWatch?.refusalTime = .milliseconds(1) }
            try await withThrowingDiscardingTaskGroup { group in
                group.addTask { try? await echo(connection) }
                let reason = try await connection.closed()
                ended.put(reason)
            }
        }
        // No packet is larger than QUIC needs.
        let configuration = try serverConfiguration { $0.discoverPathMTU = false }
        try await withPair(configuration: configuration, serve: serve) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await connection.roundTrip()
            // Its acknowledgements still leave, and its close.
            send_faults_set_large(UInt16(listener.port), 1200, EMSGSIZE, .max)
            defer { send_faults_clear() }
            let stream = try await connection.openStream()
            try await stream.send(pattern(10_000))
            #expect(try await ended.next() == .pathTooSmall)
            #expect(await listener.counters().sockets.minimumSizeErrors > 1)
            let reason = try await connection.closed()
            guard case .peerTransport(0, _) = reason else {
                Issue.record("\(reason)")
                return
            }
        }
    }

    @Test("However a packet of 1,200 bytes leaves behind one that was refused, the path takes them again")
    func takenAgain() async throws {
        #expect(try await refusesLeast(afterMessagesOf: [1200], over: [EMSGSIZE]))
        #expect(try await refusesLeast(afterMessagesOf: [1200, 1199], over: [EMSGSIZE]))
        // At once; by the channel, as the socket's buffer is full; alone, as the kernel joins no datagrams.
        #expect(try await !refusesLeast(afterMessagesOf: [1200, 1200], over: [EMSGSIZE]))
        #expect(try await !refusesLeast(afterMessagesOf: [1200, 1200], over: [EMSGSIZE, EAGAIN]))
        #expect(try await !refusesLeast(afterMessagesOf: [1200, 1300], over: [EMSGSIZE, EIO]))
    }

    @Test("Packets that are too large for the path count only if QUIC needs them", arguments: [1200, 1201])
    func countedSize(size: Int) async throws {
        for errors in [[EMSGSIZE], [EAGAIN, EMSGSIZE]] {
            let (arrived, hits, counters) = try await send(datagramOf: size, over: errors)
            #expect(hits == errors.count && arrived.isEmpty)
            #expect(counters.minimumSizeErrors == (size > 1200 ? 0 : 1))
            #expect(counters.sendErrors == 0 && counters.socketFailures == 0)
        }
    }
}

private final class Bystander: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {}
    func batchEnded(on connection: QUICLoopConnection) {}
}
