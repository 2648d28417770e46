import BenchmarkHarness
import LonglineWire
import NIOCore
import PeerHarness
import SessionHarness

/// A room whose members are all connected.
final class Room: @unchecked Sendable {
    // Proof: what changes is touched on the crowd's loop only, where each method brings its work.
    private static let name = "benchmark"
    /// Seconds after which what is still under way is taken for lost.
    private static let patience: Int64 = 120
    private let crowd: Crowd
    private let tally: Tally
    private let channel: ChannelID
    private var loop: any EventLoop { crowd.loop }

    /// The process with the server.
    static func serve(_ folder: String, size: Int) async throws {
        try await SessionServer.fill(folder, users: size) { _ in [name] }
        try await SessionServer.run(folder)
    }

    /// Connects everybody.
    init(folder: String, port: Int, size: Int) async throws {
        let tally = Tally(size: size)
        self.tally = tally
        channel = .room(try RoomID(Self.name))
        crowd = Crowd { tally.delivered($0) }
        try await crowd.connect(size, folder: folder, port: port)
    }

    private func publish(due: ContinuousClock.Instant) {
        crowd.members[0].publish(tally.payload(due: due), to: channel)
    }

    /// Publishes for a while, so that so many messages are under way to somebody.
    /// - Returns: the deliveries until everybody had everything, and how long that took.
    func flood(for time: Duration, window: Int) async throws -> (deliveries: Int, time: Duration) {
        try await loop.flatSubmit { [self] in
            let promise = loop.makePromise(of: (deliveries: Int, time: Duration).self)
            let (start, before) = (ContinuousClock.now, tally.deliveries)
            tally.whenEverybodyHasOne = { [self] in
                let now = ContinuousClock.now
                if now - start < time { return publish(due: now) }
                guard tally.underWay == 0 else { return }
                tally.whenEverybodyHasOne = {}
                promise.succeed((tally.deliveries - before, now - start))
            }
            for _ in 0..<window { publish(due: start) }
            let overdue = loop.scheduleTask(in: .seconds(Int64(time.inSeconds) + Self.patience)) {
                promise.fail(ChildProcess.Failure("messages were lost: somebody still waits for one"))
            }
            promise.futureResult.whenComplete { _ in overdue.cancel() }
            return promise.futureResult
        }.get()
    }

    /// Publishes at a fixed rate, whatever becomes of it.
    /// - Returns: the time from each message's due time to each of its deliveries.
    func paced(perSecond rate: Double, for time: Duration) async throws -> Latencies {
        let clock = ContinuousClock()
        try await loop.submit { [self] in tally.startTiming() }.get()
        let (start, count) = (clock.now, max(1, Int(time.inSeconds * rate)))
        for number in 0..<count {
            let due = start + .seconds(Double(number) / rate)
            if due > clock.now { try await Task.sleep(until: due, tolerance: .zero, clock: clock) }
            loop.execute { [self] in publish(due: due) }
        }
        let end = clock.now + .seconds(Self.patience)
        while case let left = try await loop.submit({ [self] in tally.underWay }).get(), left > 0 {
            guard clock.now < end else { throw ChildProcess.Failure("somebody still waits for \(left) messages") }
            try await Task.sleep(for: .milliseconds(10))
        }
        return try await loop.submit { [self] in tally.stopTiming() }.get()
    }

    /// Everybody leaves.
    func end() async { await crowd.end() }
}
