import LonglineTestKit
import NIOCore
import NIOPosix
import Testing

@testable import QUICEngine
@testable import QUICTransport

/// The end of a connection whose congestion window holds data back, over a path of 100 ms each way.
@Suite("Closing over a long path", .timeLimit(.minutes(1)))
struct ClosingTests {
    private static let amount = 200_000

    private func settings(_ transport: inout TransportSettings) {
        transport.streamSendBuffer = 1 << 20
        // Who isn't told sees this.
        transport.maxIdleTimeout = .seconds(4)
    }

    /// A pair with a relay between them. The server tells how each connection ended.
    private func withLongPath(
        serve: @escaping @Sendable (QUICConnection) async throws -> Void = { _ in },
        body: (
            _ client: QUICClient, _ listener: QUICListener, _ connection: QUICConnection,
            _ ends: Mailbox<QUICCloseReason>
        ) async throws -> Void
    ) async throws {
        let ends = Mailbox<QUICCloseReason>(limit: 4, policy: .refuse)
        try await withPair(configuration: serverConfiguration(ServerSecrets(), settings)) { connection in
            try await serve(connection)
            ends.put(try await connection.closed())
        } body: { client, listener, loop in
            let relay = try await Relay.open(to: loopback(port: listener.port), delay: .milliseconds(100))
            let connection = try await client.connect(
                host: "127.0.0.1", port: relay.port, configuration: clientConfiguration(settings), on: loop)
            try await body(client, listener, connection, ends)
            await relay.close()
        }
    }

    @Test("A client's close reaches the server behind what was written, whoever closes", arguments: [false, true])
    func client(byShutdown: Bool) async throws {
        try await withLongPath { client, listener, connection, ends in
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(bytes: pattern(Self.amount)))
            if byShutdown {
                await client.shutdownGracefully(code: 77, reason: "full")
            } else {
                connection.close(code: 77, reason: "full")
            }
            #expect(try await ends.next() == .peerApplication(code: 77, reason: "full"))
        }
    }

    @Test("A server's shutdown reaches a client that it had much to send")
    func server() async throws {
        try await withLongPath { connection in
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(bytes: pattern(Self.amount)))
            _ = try await connection.closed()
        } body: { client, listener, connection, _ in
            var streams = connection.inboundStreams.makeAsyncIterator()
            let stream = try await streams.next()
            await listener.shutdownGracefully(code: 79, reason: "full")
            #expect(try await connection.closed() == .peerApplication(code: 79, reason: "full"))
            _ = stream
        }
    }

    @Test("What came before the connection closed can be read after it, and its end", arguments: [true, false])
    func readAfterClose(finishes: Bool) async throws {
        try await withPair { connection in
            guard let first = try await connection.nextInboundStream() else { return }
            let second = try await connection.openStream(bidirectional: false)
            for stream in [first, second] {
                try await stream.write(ByteBuffer(bytes: pattern(100_000)))
                if finishes {
                    try await stream.finish()
                    try await stream.delivered()
                }
            }
            // What isn't acknowledged by then is lost with the next lost packet.
            while await connection.statistics()?.sendBufferBytes ?? 0 > 0 {
                try await Task.sleep(for: .milliseconds(1))
            }
            connection.close(code: 5)
        } body: { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            try await stream.write(ByteBuffer(bytes: [1]))
            #expect(try await connection.closed() == .peerApplication(code: 5, reason: ""))
            // One that the application had, and one that it takes only now.
            for stream in [stream, try #require(try await connection.nextInboundStream())] {
                var received: [UInt8] = []
                var ended: QUICTransportError.Code?
                do {
                    while let bytes = try await stream.read() { received += bytes.readableBytesView }
                } catch let error as QUICTransportError {
                    ended = error.code
                }
                #expect(received == pattern(100_000))
                #expect(ended == (finishes ? nil : .connectionClosed))
            }
        }
    }

    @Test("What was delivered before the connection closed is so after it, also if nobody had asked")
    func deliveredBeforeTheEnd() async throws {
        let hold: @Sendable (QUICConnection) async throws -> Void = { connection in
            var held: [QUICStream] = []
            for try await stream in connection.inboundStreams { held.append(stream) }
            withExtendedLifetime(held) {}
        }
        try await withPair(serve: hold) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let twoWays = try await connection.openStream()
            let oneWay = try await connection.openStream(bidirectional: false)
            let unfinished = try await connection.openStream()
            for stream in [twoWays, oneWay] { try await stream.send(pattern(1000)) }
            try await unfinished.write(ByteBuffer(bytes: [1]))
            let (first, second) = (twoWays.id, oneWay.id)
            // The engine forgets the one that goes one way.
            while try await !connection.call({ state in
                guard let engine = state.connection?.engine else { return false }
                return engine.streams[first]?.isDelivered == true && engine.streams[second] == nil
            }) { await Task.yield() }
            connection.close()
            _ = try await connection.closed()
            try await twoWays.delivered()
            try await oneWay.delivered()
            let error = await #expect(throws: QUICTransportError.self) { try await unfinished.delivered() }
            #expect(error?.code == .connectionClosed)
        }
    }

    @Test("A call between a close and its event hears that the connection is closed, and why")
    func callsBetween() async throws {
        let bytes = ByteBuffer(bytes: [2])
        try await expectClosed { (state, _, waiter: Waiter<OpenedStream>) in
            state.open(bidirectional: true, priority: .standard, waiter)
        }
        try await expectClosed { (state, stream, waiter: Waiter<Void>) in state.write(bytes, to: stream, waiter) }
        try await expectClosed { (state, _, waiter: Waiter<DatagramOutcome>) in
            state.deliverDatagram(bytes, lifetime: nil, waiter)
        }
        try await expectClosed { (state, _, waiter: Waiter<[UInt8]>) in
            do {
                waiter.finish(.success(try state.exportKeyingMaterial(label: "test", context: [], count: 16)))
            } catch {
                waiter.finish(.failure(error))
            }
        }
    }

    /// Closes and makes a call in one turn of the loop; the event comes with its next one.
    private func expectClosed<Value: Sendable>(
        _ call: @escaping @Sendable (AsyncConnectionState, QUICStreamID, Waiter<Value>) -> Void
    ) async throws {
        try await withPair(serve: echo) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            let stream = try await connection.openStream()
            let id = stream.id
            let error = await #expect(throws: QUICTransportError.self) {
                _ = try await connection.wait { (state, waiter: Waiter<Value>) in
                    state.connection?.close(code: 3, reason: "enough")
                    call(state, id, waiter)
                }
            }
            #expect(error?.code == .connectionClosed)
            #expect(error?.closeReason == .localApplication(code: 3, reason: "enough"))
        }
    }

    @Test("What the handshake agreed on is known after the end, too, and nothing of one that failed")
    func handshakeAfterTheEnd() async throws {
        let known = Mailbox<Result<String, any Error>>(limit: 2, policy: .refuse)
        let serve: @Sendable (QUICConnection) async throws -> Void = { connection in
            _ = try await connection.closed()
            do {
                known.put(.success(try await connection.handshake().applicationProtocol ?? ""))
            } catch {
                known.put(.failure(error))
            }
        }
        try await withPair(yieldsEarly: true, serve: serve) { client, listener, loop in
            let connection = try await client.connect(to: listener, on: loop)
            connection.close()
            _ = try await connection.closed()
            #expect(try await connection.handshake().applicationProtocol == protocolName)
            #expect(try await known.next()?.get() == protocolName)
            var stranger = clientConfiguration()
            stranger.verification = .pinnedPublicKey(sha256: [[UInt8](repeating: 0, count: 32)])
            await #expect(throws: QUICTransportError.self) {
                _ = try await client.connect(to: listener, stranger, on: loop)
            }
            let failed = try await known.next()
            let error = #expect(throws: QUICTransportError.self) { _ = try failed?.get() }
            #expect(error?.code == .connectionClosed)
        }
    }

    @Test("A client that was shut down connects no more, and says so")
    func afterShutdown() async throws {
        try await withPair(serve: echo) { client, listener, loop in
            try await client.connect(to: listener, on: loop).roundTrip()
            await client.shutdownGracefully()
            let error = await #expect(throws: QUICTransportError.self) {
                _ = try await client.connect(to: listener, on: loop)
            }
            #expect(error?.code == .shutDown)
            let ended = Mailbox<QUICCloseReason>(limit: 1, policy: .refuse)
            let port = listener.port
            try await loop.submit {
                let connection = client.connect(
                    host: "127.0.0.1", port: port, configuration: clientConfiguration(), on: loop,
                    handler: EndRecorder { ended.put($0) })
                #expect(connection.closeReason == nil, "never inside the call")
            }.get()
            guard case .handshakeFailed(let reason) = try await ended.next() else {
                Issue.record("another end")
                return
            }
            #expect(reason.code == .closed)
            #expect(await client.counters().connections == 0)
        }
    }
}

/// Tells how a connection ended.
private final class EndRecorder: QUICConnectionHandler {
    private let ended: (QUICCloseReason) -> Void

    init(ended: @escaping (QUICCloseReason) -> Void) { self.ended = ended }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .closed(let reason) = event { ended(reason) }
    }

    func batchEnded(on connection: QUICLoopConnection) {}
}
