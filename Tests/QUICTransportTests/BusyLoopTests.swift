import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// A server's loop that has no time to look at its sockets.
@Suite struct BusyLoopTests {
    private final class Guests: Sendable {
        let count = Atomic(0)
        let wasBusy = Atomic(false)
        let hasGivenUp = Atomic(false)
    }

    /// With the first byte of the first connection it begins to fill its loop with tasks that make tasks, until a second
    /// connection has come.
    private final class BusyHandler: QUICConnectionHandler {
        private let guests: Guests
        private var isBusy = false

        init(_ guests: Guests) {
            self.guests = guests
            guests.count.add(1, ordering: .relaxed)
        }

        func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
            guard case .streamReadable = event, !isBusy else { return }
            isBusy = true
            guests.wasBusy.store(true, ordering: .relaxed)
            keepBusy(connection, until: .now() + .seconds(20))
        }

        private func keepBusy(_ connection: QUICLoopConnection, until end: NIODeadline) {
            guard guests.count.load(ordering: .relaxed) < 2 else { return }
            guard .now() < end else { return guests.hasGivenUp.store(true, ordering: .relaxed) }
            connection.ping()
            connection.eventLoop.assumeIsolated().execute { self.keepBusy(connection, until: end) }
        }

        func batchEnded(on connection: QUICLoopConnection) {}
    }

    @Test("a loop that never runs out of tasks takes in what comes all the same")
    func aLoopThatNeverRunsOutOfTasksTakesInWhatComesAllTheSame() async throws {
        let (serverGroup, clientGroup) = (
            MultiThreadedEventLoopGroup(numberOfThreads: 1), MultiThreadedEventLoopGroup(numberOfThreads: 1)
        )
        let guests = Guests()
        let server = try await QUICServer.bind(
            addresses: [loopback()], configuration: serverConfiguration(), group: serverGroup
        ) { _ in BusyHandler(guests) }
        let client = QUICClient()
        let port = try #require(server.localAddresses.first?.port)
        let first = try await client.connect(
            host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: clientGroup.next())
        let stream = try await first.openStream()
        try await stream.send([1])
        _ = try await client.connect(
            host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: clientGroup.next())
        let (wasBusy, hasGivenUp) = (
            guests.wasBusy.load(ordering: .relaxed), guests.hasGivenUp.load(ordering: .relaxed)
        )
        #expect(wasBusy)
        #expect(!hasGivenUp)
        await client.shutdownGracefully(timeout: .seconds(1))
        await server.shutdownGracefully(timeout: .seconds(1))
        try await clientGroup.shutdownGracefully()
        try await serverGroup.shutdownGracefully()
    }
}
