import Logging
import NIOCore
import NIOPosix
import QUICEngine
import QUICTransport

@testable import HTTP3

/// A connection's streams, whose peer takes as much as a test says. Confined to the loop.
final class ScriptedStreams: EngineStandIn {
    /// Bytes of a stream that may wait for their acknowledgement.
    var sendBuffer = 256 << 10
    /// Whether the end of a stream comes behind its bytes.
    var ends = true
    /// Streams that the peer's flow control holds back.
    var heldBack = Set<QUICStreamID>()
    private var written: [QUICStreamID: Int] = [:]
    private var acknowledged: [QUICStreamID: Int] = [:]
    private var arrived: [QUICStreamID: [UInt8]] = [:]
    private(set) var resets: [QUICStreamID: UInt64] = [:]
    private(set) var closeCode: UInt64?

    /// The peer sends bytes.
    func arrive(_ bytes: [UInt8], on stream: QUICStreamID) { arrived[stream, default: []] += bytes }

    /// The peer acknowledges so many bytes more.
    func acknowledge(_ count: Int, on stream: QUICStreamID) {
        acknowledged[stream, default: 0] += min(count, unsentBytes(stream))
    }

    /// Whether the peer lets us open streams.
    var opens = false
    private(set) var opened: [QUICStreamID] = []

    func openStream(bidirectional: Bool) throws(QUICError) -> QUICStreamID? {
        guard opens, !bidirectional else { return nil }
        opened.append(QUICStreamID(rawValue: UInt64(opened.count) * 4 + 3))
        return opened.last
    }

    func write(_ bytes: UnsafeRawBufferPointer, to stream: QUICStreamID, finish: Bool) throws(QUICError) -> Int {
        let count = min(bytes.count, max(0, sendBuffer - unsentBytes(stream)))
        written[stream, default: 0] += count
        return count
    }

    func unsentBytes(_ stream: QUICStreamID) -> Int {
        guard resets[stream] == nil else { return 0 }
        return written[stream, default: 0] - acknowledged[stream, default: 0]
    }

    func read(_ stream: QUICStreamID, consuming body: (UnsafeRawBufferPointer) -> Int) throws(QUICError) -> StreamRead {
        let bytes = arrived[stream] ?? []
        let count = bytes.withUnsafeBytes(body)
        arrived[stream] = Array(bytes.dropFirst(count))
        return StreamRead(count: count, finished: ends && count == bytes.count)
    }

    func isHeldBackByPeer(_ stream: QUICStreamID) -> Bool { heldBack.contains(stream) }
    func readableBytes(_ stream: QUICStreamID) -> Int { arrived[stream]?.count ?? 0 }
    func isEarly(_ stream: QUICStreamID) -> Bool { false }
    func reset(_ stream: QUICStreamID, code: UInt64) { resets[stream] = code }
    func stopSending(_ stream: QUICStreamID, code: UInt64) {}
    func close(code: UInt64, reason: String) { closeCode = code }
}

/// A server's session on such streams, without handlers: what it does as time passes, without any that does. Confined to the loop.
final class ScriptedServer {
    /// Hands the session its events.
    private final class Forwarder: QUICConnectionHandler {
        private let session: Session

        init(_ session: Session) { self.session = session }

        func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) { session.handle(event) }
        func batchEnded(on connection: QUICLoopConnection) { session.batchEnded() }
    }

    /// What should be there isn't.
    private struct Missing: Error {}

    let streams = ScriptedStreams()
    let session: Session
    private let connection: QUICLoopConnection
    private var requests: UInt64 = 0

    private init(_ limits: HTTP3Limits, _ loop: any EventLoop) throws {
        let connection = try QUICLoopConnection.standing(on: streams, isServer: true, eventLoop: loop)
        let logger = Logger(label: "longline.http3.tests")
        guard let session = Session(connection, limits: limits, meter: Meter(), logger: logger) else { throw Missing() }
        self.connection = connection
        self.session = session
        connection.serve(by: Forwarder(session))
        connection.deliver([.accepted])
    }

    /// Runs a test on a loop with a server, and gives back what it found.
    static func run<Found: Sendable>(
        _ limits: HTTP3Limits = HTTP3Limits(), _ body: @escaping @Sendable (ScriptedServer) throws -> Found
    ) async throws -> Found {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let outcome: Result<Found, any Error>
        do {
            outcome = .success(
                try await loop.submit {
                    let server = try ScriptedServer(limits, loop)
                    defer { server.deliver([.closed(.idleTimeout)]) }
                    return try body(server)
                }.get())
        } catch {
            outcome = .failure(error)
        }
        try await group.shutdownGracefully()
        return try outcome.get()
    }

    func deliver(_ events: [QUICConnectionEvent]) { connection.deliver(events) }

    /// The next request comes. Nobody answers it but the test.
    func request() throws -> Exchange {
        let id = QUICStreamID(rawValue: requests * 4)
        requests += 1
        streams.arrive(RawPeer.headers(RawPeer.get), on: id)
        deliver([.streamOpened(id), .streamReadable(id)])
        guard let exchange = session.exchange(id) else { throw Missing() }
        return exchange
    }
}
