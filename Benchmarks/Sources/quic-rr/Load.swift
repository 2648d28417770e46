import BenchmarkHarness
import NIOConcurrencyHelpers
import NIOCore
import PeerHarness
import QUICEngine
import QUICTransport

/// What a client does: so many connections, each with so many streams that have one request under way at a time.
struct Load {
    var connections: Int
    var streams: Int
    /// A stream for every request, instead of the same ones all the time.
    var opensStreams: Bool
    var seconds: Double

    static let messageSize = 100

    var arguments: [String] { ["\(connections)", "\(streams)", opensStreams ? "1" : "0", "\(seconds)"] }

    init(connections: Int, streams: Int, opensStreams: Bool = false, seconds: Double) {
        self.connections = connections
        self.streams = streams
        self.opensStreams = opensStreams
        self.seconds = seconds
    }

    init?(_ arguments: ArraySlice<String>) {
        let numbers = arguments.compactMap { Double($0) }
        guard numbers.count == 4 else { return nil }
        self.init(
            connections: Int(numbers[0]), streams: Int(numbers[1]), opensStreams: numbers[2] != 0, seconds: numbers[3])
    }
}

/// Counts and times answers of one loop, once it is warm.
final class Score {
    private(set) var times = Latencies()
    private let clock = ContinuousClock()
    private let begin: ContinuousClock.Instant
    private let end: ContinuousClock.Instant

    init(_ load: Load) {
        begin = clock.now + .milliseconds(300)
        end = begin + .seconds(load.seconds)
    }

    var now: ContinuousClock.Instant { clock.now }

    /// - Returns: whether to go on.
    func answered(since start: ContinuousClock.Instant) -> Bool {
        let now = clock.now
        if now >= begin, now < end { times.record(now - start) }
        return now < end
    }
}

/// The score of tasks on any thread.
final class SharedScore: @unchecked Sendable {
    // Proof: everything in it is touched under the lock.
    private let lock = NIOLock()
    private let score: Score

    init(_ load: Load) { score = Score(load) }

    var times: Latencies { lock.withLock { score.times } }

    func answered(since start: ContinuousClock.Instant) -> Bool { lock.withLock { score.answered(since: start) } }
}

/// Makes requests on one connection, on the loop.
final class LoopLoad: QUICConnectionHandler {
    private let load: Load
    private let score: Score
    private let done: EventLoopPromise<Void>
    private let message = ByteBuffer(repeating: 0x61, count: Load.messageSize)
    private var started: [QUICStreamID: (at: ContinuousClock.Instant, missing: Int)] = [:]
    private var running = 0

    init(load: Load, score: Score, done: EventLoopPromise<Void>) {
        self.load = load
        self.score = score
        self.done = done
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        switch event {
        case .handshakeCompleted:
            for _ in 0..<load.streams { open(connection) }
        case .streamReadable(let stream):
            guard let read = try? connection.read(stream, consuming: \.count), let request = started[stream] else {
                return
            }
            let missing = request.missing - read.count
            if missing > 0 {
                started[stream] = (request.at, missing)
            } else if score.answered(since: request.at) {
                if load.opensStreams {
                    started[stream] = nil
                    open(connection)
                    running -= 1
                } else {
                    ask(on: stream, connection)
                }
            } else {
                running -= 1
                if running == 0 { connection.close(code: 0, reason: "") }
            }
        case .closed: done.succeed()
        default: break
        }
    }

    func batchEnded(on connection: QUICLoopConnection) {}

    private func open(_ connection: QUICLoopConnection) {
        // Without it the depth is another than the one that is said, or nothing ever ends.
        guard let stream = try? connection.openStream(bidirectional: true) else {
            preconditionFailure("the server has no room for a stream")
        }
        running += 1
        ask(on: stream, connection)
    }

    private func ask(on stream: QUICStreamID, _ connection: QUICLoopConnection) {
        started[stream] = (score.now, Load.messageSize)
        var bytes = message
        _ = try? connection.write(&bytes, to: stream, finish: load.opensStreams)
    }
}

/// Makes requests on one stream after the other, or always the same, in a task.
func requestInTask(_ connection: QUICConnection, load: Load, score: SharedScore) async throws {
    let message = ByteBuffer(repeating: 0x61, count: Load.messageSize)
    let clock = ContinuousClock()
    var stream = try await connection.openStream()
    while true {
        let start = clock.now
        try await stream.write(message)
        if load.opensStreams { try await stream.finish() }
        var missing = Load.messageSize
        while missing > 0, let bytes = try await stream.read() { missing -= bytes.readableBytes }
        guard score.answered(since: start) else { return }
        if load.opensStreams {
            // The end, so that the stream is done with.
            _ = try await stream.read()
            stream = try await connection.openStream()
        }
    }
}
