import Dispatch
import NIOCore
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import QUICTransport

/// An engine that has forgotten its streams already, while the events that say why are on their way.
private final class ForgetfulEngine: EngineStandIn {
    /// It still takes the end of a stream.
    let takesEnd: Bool

    init(takesEnd: Bool) { self.takesEnd = takesEnd }

    private var unknown: QUICError { QUICError(.unknownStream, "there is no stream", advice: "Wait for its event.") }

    func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? { nil }
    func write(_ bytes: UnsafeRawBufferPointer, to stream: QUICStreamID, finish: Bool) throws(QUICError) -> Int {
        guard takesEnd, bytes.isEmpty else { throw unknown }
        return 0
    }
    func unsentBytes(_ stream: QUICStreamID) -> Int { 0 }
    func read(
        _ stream: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int
    ) throws(QUICError) -> StreamRead { throw unknown }
    func readableBytes(_ stream: QUICStreamID) -> Int { 0 }
    func isEarly(_ stream: QUICStreamID) -> Bool { false }
    func reset(_ stream: QUICStreamID, code: UInt64) {}
    func stopSending(_ stream: QUICStreamID, code: UInt64) {}
    func close(code: UInt64, reason: String) {}
    func notifyDelivery(of stream: QUICStreamID) throws(QUICError) -> Bool { throw unknown }
}

/// The engine forgets a stream whose two directions are done at once; tasks run before its last events come to them.
@Suite("Calls on a stream that the engine has forgotten", .timeLimit(.minutes(1)))
struct AheadOfEventsTests {
    private static let id = QUICStreamID(rawValue: 0)

    /// A stream of a server that the client opened, and how events come to its connection.
    private func withStream(
        takesEnd: Bool = true,
        body: (QUICStream, _ deliver: @escaping @Sendable ([QUICConnectionEvent]) async throws -> Void) async throws ->
            Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let (below, connection) = try await loop.submit {
            let below = try QUICLoopConnection.standing(
                on: ForgetfulEngine(takesEnd: takesEnd), isServer: true, eventLoop: loop)
            let state = AsyncConnectionState(readiness: .handshake, settings: TransportSettings())
            state.attach(below)
            below.serve(by: state)
            return (NIOLoopBound(below, eventLoop: loop), QUICConnection(state: state, of: below))
        }.get()
        @Sendable func deliver(_ events: [QUICConnectionEvent]) async throws {
            try await loop.submit { below.value.deliver(events) }.get()
        }
        try await deliver([.streamOpened(Self.id), .streamReadable(Self.id)])
        var streams = connection.inboundStreams.makeAsyncIterator()
        let stream = try #require(try await streams.next())
        try await body(stream, deliver)
        try await deliver([.closed(.idleTimeout)])
        try await group.shutdownGracefully()
    }

    @Test("A read gets the peer's reset, with its code") func aReadGetsTheReset() async throws {
        try await withStream { stream, deliver in
            let reading = Task.immediate { try await stream.read() }
            try await deliver([.streamReset(stream.id, code: 7), .streamClosed(stream.id)])
            let error = await #expect(throws: QUICTransportError.self) { _ = try await reading.value }
            #expect(error?.code == .streamReset && error?.applicationCode == 7)
        }
    }

    @Test("A read that was on its way to the loop when the stream ended gets the reset")
    func aReadOnItsWayGetsTheReset() async throws {
        try await withStream { stream, deliver in
            let (held, release) = (AsyncStream<Void>.makeStream(), DispatchSemaphore(value: 0))
            // The loop is held up, so that the read's way there is behind the events.
            stream.connection.onLoop { _ in
                held.continuation.yield()
                release.wait()
            }
            for await _ in held.stream { break }
            let delivering = Task.immediate {
                try await deliver([.streamReset(stream.id, code: 7), .streamClosed(stream.id)])
            }
            let reading = Task.immediate { try await stream.read() }
            release.signal()
            try await delivering.value
            let error = await #expect(throws: QUICTransportError.self) { _ = try await reading.value }
            #expect(error?.code == .streamReset && error?.applicationCode == 7)
        }
    }

    @Test("A write gets the peer's code") func aWriteGetsTheCode() async throws {
        try await withStream { stream, deliver in
            let writing = Task.immediate { try await stream.write(ByteBuffer(string: "x")) }
            try await deliver([.stopSending(stream.id, code: 5), .streamClosed(stream.id)])
            let error = await #expect(throws: QUICTransportError.self) { try await writing.value }
            #expect(error?.code == .stopSending && error?.applicationCode == 5)
        }
    }

    @Test("Who waits for delivery learns how the stream ended", arguments: [true, false])
    func whoWaitsForDeliveryLearnsTheEnd(isStopped: Bool) async throws {
        try await withStream { stream, deliver in
            try await stream.finish()
            let waiting = Task.immediate { try await stream.delivered() }
            try await deliver(isStopped ? [.stopSending(stream.id, code: 5)] : [])
            try await deliver([.streamClosed(stream.id)])
            if isStopped {
                let error = await #expect(throws: QUICTransportError.self) { try await waiting.value }
                #expect(error?.code == .stopSending && error?.applicationCode == 5)
            } else {
                try await waiting.value
                try await stream.delivered()
            }
        }
    }

    @Test("An end that the engine didn't take is delivered to nobody") func anEndNotTakenIsNotDelivered() async throws {
        try await withStream(takesEnd: false) { stream, deliver in
            try await stream.finish()
            let waiting = Task.immediate { try await stream.delivered() }
            try await deliver([.streamReset(stream.id, code: 7), .streamClosed(stream.id)])
            let error = await #expect(throws: QUICTransportError.self) { try await waiting.value }
            #expect(error?.code == .streamState)
            await #expect(throws: QUICTransportError.self) { try await stream.delivered() }
        }
    }
}
