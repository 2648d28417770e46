import MetricsTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

@Suite("What is let go of or shut down", .timeLimit(.minutes(1)))
struct LettingGoTests {
    /// Binds a listener that nobody holds when this returns.
    private func bindAndLetGo(
        _ configuration: QUICServerConfiguration, _ group: MultiThreadedEventLoopGroup
    ) async throws -> (connections: QUICListener.Connections, port: Int) {
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: configuration, group: group)
        return (listener.connections, listener.port)
    }

    /// Waits until a loop that has nothing else to do has made its report, after which it waits for nothing but datagrams.
    private func waitForReport(to metrics: TestMetrics, of port: Int, on loop: any EventLoop) async throws {
        let socket = try await DatagramBootstrap(group: loop).bind(host: "127.0.0.1", port: 0).get()
        try await socket.writeAndFlush(
            AddressedEnvelope(remoteAddress: try loopback(port: port), data: ByteBuffer(bytes: [1])))
        let counter = try metrics.expectCounter("quic_datagrams_received", [("role", "server")])
        while counter.totalValue == 0 { try await Task.sleep(for: .milliseconds(5)) }
        try await socket.close()
    }

    @Test("A listener that is let go of while nothing goes on takes connections all the same")
    func listener() async throws {
        let metrics = TestMetrics()
        var configuration = try serverConfiguration()
        configuration.metrics = metrics
        let serverGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let clientGroup = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let client = QUICClient()
        let (connections, port) = try await bindAndLetGo(configuration, serverGroup)
        try await waitForReport(to: metrics, of: port, on: clientGroup.next())
        do {
            let connection = try await client.connect(
                host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: clientGroup.next())
            var taker = connections.makeAsyncIterator()
            let next = try await taker.next()
            let taken = try #require(next)
            connection.close(code: 7)
            #expect(try await taken.closed() == .peerApplication(code: 7, reason: ""))
            let executor = taken.executor
            try await executor.eventLoop.submit { executor.driver.value.object?.closePorts() }.get()
        } catch {
            Issue.record(error)
        }
        await client.shutdownGracefully(timeout: .seconds(1))
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
    }

    @Test("What is shut down again is so at once, also when its event loops are no more")
    func shutDownTwice() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group)
        let client = QUICClient()
        _ = try await client.connect(to: listener, on: group.next())
        await client.shutdownGracefully(timeout: .seconds(1))
        await listener.shutdownGracefully(timeout: .seconds(1))
        try await group.shutdownGracefully()
        await client.shutdownGracefully()
        await listener.stopAccepting()
        await listener.shutdownGracefully()
        for counters in [await client.counters(), await listener.counters()] {
            #expect(counters.engine.handshakesCompleted == 1 && counters.connections == 0)
        }
    }

    @Test("What two shut down at once needs its event loops no more as soon as it is so for one of them")
    func shutDownByTwo() async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let listener = try await QUICListener.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: group)
        let client = QUICClient()
        _ = try await client.connect(to: listener, on: group.next())
        // These take a moment longer.
        async let otherOfClient: Void = client.shutdownGracefully(timeout: .milliseconds(100))
        async let otherOfListener: Void = listener.shutdownGracefully(timeout: .milliseconds(100))
        await client.shutdownGracefully(timeout: .zero)
        await listener.shutdownGracefully(timeout: .zero)
        try await group.shutdownGracefully()
        await otherOfClient
        await otherOfListener
    }
}
