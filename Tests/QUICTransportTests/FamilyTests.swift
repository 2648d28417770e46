import CSendFaults
import Glibc
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

/// What depends on the address family, for both.
@Suite("IPv4 and IPv6 over loopback", .timeLimit(.minutes(1)))
struct FamilyTests {
    static let hosts = ["127.0.0.1", "::1"]

    /// Echoes a megabyte while something happens to the path.
    private func transfer(on connection: QUICConnection, during disturb: () async throws -> Void) async throws {
        let stream = try await connection.openStream()
        let sent = pattern(1 << 20)
        let sending = Task { try await stream.send(sent) }
        let receiving = Task { try await stream.collect() }
        try await disturb()
        try await sending.value
        #expect(try await receiving.value == sent)
    }

    @Test("Runs leave and come as one message, over every change of path", arguments: hosts)
    func paths(host: String) async throws {
        try await withPair(host: host, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            try await transfer(on: connection) {}
            #expect(await connection.remoteAddress() == listener.localAddresses.first)
            try await transfer(on: connection) { try await connection.rebind() }
            let before = await connection.localAddress()
            try await transfer(on: connection) { try await connection.migrate(to: loopback(host)) }
            #expect(await connection.localAddress() != before)
            #expect(await connection.localAddress()?.ipAddress == host)
            for counters in [await client.counters().sockets, await listener.counters().sockets] {
                #expect(counters.segmentedMessagesSent > 0)
                #expect(counters.joinedMessagesReceived > 0)
                #expect(counters.sendErrors == 0)
            }
        }
    }

    @Test("A move to an address of the family that the server has none of fails at once", arguments: hosts)
    func otherFamily(host: String) async throws {
        try await withPair(host: host, serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            // Confirmed by the time that something came back.
            try await connection.roundTrip()
            let other = try loopback(Self.hosts.first { $0 != host } ?? host)
            try await transfer(on: connection) {
                let error = await #expect(throws: QUICTransportError.self) { try await connection.migrate(to: other) }
                #expect(error?.code == .pathChangeFailed)
                #expect(error?.message.contains("family") == true)
            }
            #expect(await connection.localAddress()?.ipAddress == host)
        }
    }

    @Test("The kernel steers by connection ID", arguments: hosts)
    func steering(host: String) async throws {
        try await withPair(loops: 3, host: host, serve: echo) { client, listener, loop in
            for _ in 0..<4 {
                let connection = try await client.connect(to: listener, on: loop)
                for _ in 0..<3 {
                    try await connection.rebind()
                    try await connection.roundTrip()
                }
            }
            let sockets = await listener.counters().sockets
            #expect(sockets.socketsSteered == 2)
            #expect(sockets.handedOver == 0)
        }
    }

    @Test("Packets leave ECN-capable", arguments: hosts)
    func ecn(host: String) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let marks = Mailbox<NIOExplicitCongestionNotificationState>(limit: 64, policy: .refuse)
        let server = try await DatagramBootstrap(group: group)
            .channelOption(.explicitCongestionNotification, value: true)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(MarkRecorder { marks.put($0) })
                }
            }
            .bind(host: host, port: 0).get()
        let client = QUICClient()
        let (loop, port) = (group.next(), server.localAddress?.port ?? 0)
        try await loop.submit {
            let connection = client.connect(
                host: host, port: port, configuration: clientConfiguration(), on: loop, handler: IdleHandler())
            #expect(connection.closeReason == nil)
        }.get()
        #expect(try await marks.next() == .transportCapableFlag0)
        await client.shutdownGracefully(timeout: .milliseconds(1))
        try await server.close()
        try await group.shutdownGracefully()
    }

    @Test("A wildcard whose port another program has on one of its addresses is refused, and says why")
    func wildcardInUse() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let other = try await DatagramBootstrap(group: group).bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(other.localAddress?.port)
        let error = await #expect(throws: QUICTransportError.self) {
            _ = try await QUICListener.bind(
                addresses: [loopback("0.0.0.0", port: port)], configuration: serverConfiguration(), group: group)
        }
        #expect(error?.code == .bindFailed)
        #expect(error?.cause == String(cString: strerror(EADDRINUSE)))
        try await other.close()
        try await group.shutdownGracefully()
    }

    @Test("Where the port that the system chose is in use on the next address it chooses another")
    func chosenPortInUse() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let host = "127.0.0.89"
        bind_faults_set(host, EADDRINUSE, 2)
        let listener = try await QUICListener.bind(
            addresses: [loopback(), loopback(host)], configuration: serverConfiguration(), group: group)
        #expect(listener.localAddresses.compactMap(\.ipAddress) == ["127.0.0.1", host])
        #expect(Set(listener.localAddresses.compactMap(\.port)).count == 1)
        await listener.shutdownGracefully(timeout: .seconds(1))
        bind_faults_set(host, EADDRINUSE, 100)
        let error = await #expect(throws: QUICTransportError.self) {
            _ = try await QUICListener.bind(
                addresses: [loopback(), loopback(host)], configuration: serverConfiguration(), group: group)
        }
        bind_faults_set(host, EADDRINUSE, 0)
        #expect(error?.code == .bindFailed)
        try await group.shutdownGracefully()
    }

    @Test("A server on several addresses, a wildcard's among them, answers from the one that was asked")
    func wildcard() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback("0.0.0.0"), loopback("127.0.0.2"), loopback("::")],
            configuration: serverConfiguration(), group: group)
        let serving = Task { try await listener.serve { try await echo($0) } }
        let client = QUICClient()
        let hosts = listener.localAddresses.compactMap(\.ipAddress)
        #expect(hosts.contains("127.0.0.1") && hosts.contains("127.0.0.2") && hosts.contains("::1"))
        #expect(!hosts.contains("0.0.0.0") && !hosts.contains("::"))
        #expect(Set(listener.localAddresses.compactMap(\.port)).count == 1)
        for host in hosts { try await visit(host, port: listener.port, client, on: group.next()) }
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await serving.value
        try await group.shutdownGracefully()
    }

    /// A function of its own: the handle must be gone before its loop is.
    private func visit(_ host: String, port: Int, _ client: QUICClient, on loop: any EventLoop) async throws {
        let connection = try await client.connect(
            host: host, port: port, configuration: clientConfiguration(), on: loop)
        try await connection.roundTrip()
        #expect(await connection.remoteAddress()?.ipAddress == host)
        connection.close()
        _ = try await connection.closed()
    }
}

private final class IdleHandler: QUICConnectionHandler {
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {}
    func batchEnded(on connection: QUICLoopConnection) {}
}

private final class MarkRecorder: ChannelInboundHandler, Sendable {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    private let record: @Sendable (NIOExplicitCongestionNotificationState) -> Void

    init(_ record: @escaping @Sendable (NIOExplicitCongestionNotificationState) -> Void) { self.record = record }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if let mark = unwrapInboundIn(data).metadata?.ecnState { record(mark) }
    }
}
