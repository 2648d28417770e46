import LonglineTestKit
import NIOCore
import NIOPosix
import QUICEngine
import Testing

@testable import QUICTransport

/// What waits for the engine when an attempt to connect starts again goes on with the new attempt.
@Suite("Attempts that start again", .timeLimit(.minutes(1)))
struct RestartTests {
    /// An early connection whose packets are lost as long as they come from 127.0.0.1.
    private func withEarlyConnection(
        _ change: @escaping @Sendable (inout TransportSettings) -> Void,
        serve: @escaping @Sendable (QUICConnection) async throws -> Void = echo,
        body: (QUICConnection) async throws -> Void
    ) async throws {
        let cache = InMemorySessionCache()
        try await withPair(sessionCache: cache, yieldsEarly: true, serve: serve) { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port))
            func connect(early: Bool) async throws -> QUICConnection {
                try await client.connect(
                    host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(change),
                    returnsEarly: early, on: loop)
            }
            let key = SessionCacheKey(serverName: "localhost", port: relay.port, applicationProtocol: protocolName)
            let first = try await connect(early: false)
            while cache.session(for: key)?.ticket == nil { try await first.roundTrip() }
            first.close()
            _ = try await first.closed()

            try await relay.shutOut(host: "127.0.0.1")
            let connection = try await connect(early: true)
            try await body(connection)
            #expect(try await connection.handshake().earlyData == .accepted)
            await relay.close()
        }
    }

    @Test("An early write that waits for room goes on after a change of path")
    func writeThatWaits() async throws {
        try await withEarlyConnection {
            $0.streamSendBuffer = 16 << 10
        } body: { connection in
            let stream = try await connection.openStream()
            let sent = pattern(100 << 10)
            let writing = Task { try await stream.send(sent) }
            while await connection.statistics()?.sendBufferBytes ?? 0 < 16 << 10 { await Task.yield() }
            async let moved: Void = connection.migrate(to: loopback("127.0.0.2"))
            #expect(try await stream.collect() == sent)
            try await writing.value
            try await moved
        }
    }

    @Test("A stream goes on that is written and read while the attempt starts again")
    func writeMeanwhile() async throws {
        try await withEarlyConnection { _ in
        } body: { connection in
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(string: "before "))
            let reading = Task { try await stream.collect() }
            // On the loop, where nothing comes between.
            try await withTaskExecutorPreference(connection.executor) {
                let moving = Task(executorPreference: connection.executor) {
                    try await connection.migrate(to: loopback("127.0.0.2"))
                }
                while await connection.statistics()?.path.local.host != "127.0.0.2" {
                    try await stream.write(ByteBuffer(string: "."))
                    await Task.yield()
                }
                try await stream.write(ByteBuffer(string: " meanwhile"))
                try await stream.finish()
                try await moving.value
            }
            let heard = String(decoding: try await reading.value, as: UTF8.self)
            #expect(heard.hasPrefix("before .") && heard.hasSuffix(". meanwhile"))
        }
    }

    @Test("An early write that only an urgent stream had room for goes on, whatever the stream's priority is by then")
    func urgentWrite() async throws {
        try await withEarlyConnection {
            $0.streamSendBuffer = 16 << 10
            $0.connectionSendBuffer = 16 << 10
        } body: { connection in
            let stream = try await connection.openStream()
            let urgent = try await connection.openStream(priority: StreamPriority(urgency: 0))
            try await stream.write(ByteBuffer(bytes: pattern(16 << 10)))
            try await urgent.write(ByteBuffer(bytes: pattern(1 << 10)))
            urgent.setPriority(.standard)
            try await connection.migrate(to: loopback("127.0.0.2"))
            for (each, count) in [(stream, 16 << 10), (urgent, 1 << 10)] {
                try await each.finish()
                #expect(try await each.collect() == pattern(count))
            }
        }
    }

    @Test("A handshake that is waited for no more goes on")
    func cancelledHandshake() async throws {
        try await withEarlyConnection { _ in
        } body: { connection in
            let waiting = Task { try await connection.handshake() }
            while try await connection.call({ $0.waiterCount }) == 0 { await Task.yield() }
            waiting.cancel()
            await #expect(throws: CancellationError.self) { _ = try await waiting.value }
            #expect(try await connection.call { $0.waiterCount } == 0)
            try await connection.migrate(to: loopback("127.0.0.2"))
        }
    }

    @Test("An early datagram that the new attempt has no room for is told as lost")
    func datagramsThatAreLost() async throws {
        try await withEarlyConnection {
            $0.datagramQueueLimit = 8
        } body: { connection in
            var outcomes: [Task<DatagramOutcome, any Error>] = []
            for number in 0..<20 {
                let before = try #require(await connection.statistics()?.packetsSent)
                outcomes.append(
                    Task { try await connection.deliverDatagram(ByteBuffer(bytes: [UInt8(number)])) })
                // It leaves, and makes room.
                while try #require(await connection.statistics()?.packetsSent) == before { await Task.yield() }
            }
            try await connection.migrate(to: loopback("127.0.0.2"))
            var count: [DatagramOutcome: Int] = [:]
            for outcome in outcomes { count[try await outcome.value, default: 0] += 1 }
            #expect(count == [.acknowledged: 8, .lost: 12])
        }
    }

    @Test("A client that refuses datagrams refuses those of the new attempt as well")
    func datagramsThatAreRefused() async throws {
        let delivered = Mailbox<Void>(limit: 4, policy: .refuse)
        let serve: @Sendable (QUICConnection) async throws -> Void = { connection in
            try await withThrowingDiscardingTaskGroup { group in
                group.addTask { try await echo(connection) }
                for try await datagram in connection.datagrams {
                    while try await connection.deliverDatagram(datagram) != .acknowledged {}
                    delivered.put(())
                }
            }
        }
        try await withEarlyConnection({ _ in }, serve: serve) { connection in
            _ = try await connection.call { $0.connection?.refuseDatagrams() }
            try await connection.migrate(to: loopback("127.0.0.2"))
            while try await connection.deliverDatagram(ByteBuffer(string: "back")) != .acknowledged {}
            _ = try await delivered.next()
            let dropped = try await connection.call { $0.connection?.driver.engine.counters.datagramFramesDropped }
            #expect(try #require(dropped) > 0)
        }
    }

    @Test(
        "A stream that wasn't to be had is told of when another version is spoken",
        arguments: [false, true])
    func streamAfterVersionNegotiation(withEngine: Bool) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            var configuration = clientConfiguration()
            configuration.versions = [QUICVersion(rawValue: 0x5a6a_7a8a), .v1]
            let told = Mailbox<Bool>(limit: 4, policy: .refuse)
            let (port, asks) = (listener.port, configuration)
            try await loop.submit {
                let connection = client.connect(
                    host: "127.0.0.1", port: port, configuration: asks, on: loop,
                    handler: AvailabilityRecorder { told.put($0) })
                func ask() {
                    guard !withEngine || connection.path != nil else {
                        return loop.assumeIsolated().execute { ask() }
                    }
                    #expect((try? connection.openStream(bidirectional: true)) == nil)
                }
                ask()
            }.get()
            #expect(try await told.next() == true)
        }
    }
}

/// Tells which streams became available.
private final class AvailabilityRecorder: QUICConnectionHandler {
    private let available: (Bool) -> Void

    init(available: @escaping (Bool) -> Void) { self.available = available }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .streamsAvailable(let bidirectional) = event {
            #expect((try? connection.openStream(bidirectional: bidirectional)) != nil)
            available(bidirectional)
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
