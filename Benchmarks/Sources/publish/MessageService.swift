import BenchmarkHarness

/// A server with one client that publishes and one that receives.
protocol MessageService: Sendable {
    /// What was acknowledged and delivered.
    var tally: Tally { get }
    /// Publishes one message that is due at `due`, and waits until the server has acknowledged it.
    func publish(due: ContinuousClock.Instant) async throws
    /// Ends all, and removes what is on the disk.
    func end() async
}

extension MessageService {
    /// Publishes for at least `time` with so many messages in flight.
    /// - Returns: acknowledged and delivered messages per second, each until the last one was.
    func round(_ time: Duration, window: Int) async throws -> (acknowledged: Double, delivered: Double) {
        let clock = ContinuousClock()
        let (before, start) = (tally.deliveries.count, clock.now)
        let sent = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<window {
                group.addTask {
                    var count = 0
                    repeat {
                        try await publish(due: clock.now)
                        count += 1
                    } while clock.now - start < time
                    return count
                }
            }
            return try await group.reduce(0, +)
        }
        let acknowledged = clock.now - start
        let last = try await tally.waitForDeliveries(before + sent)
        return (Double(sent) / acknowledged.inSeconds, Double(sent) / (last - start).inSeconds)
    }

    /// Offers messages at a fixed rate for a while, whatever becomes of them, and until all were delivered.
    /// - Parameter noting: whether it notes how long after they were due they were acknowledged and delivered.
    func paced(perSecond rate: Int, for time: Duration, noting: Bool) async throws {
        let clock = ContinuousClock()
        let before = tally.deliveries.count
        if noting { tally.startTiming() }
        let (start, count) = (clock.now, Int(time.inSeconds * Double(rate)))
        // Discarding: a group that keeps the tasks that are over grows with each message.
        try await withThrowingDiscardingTaskGroup { group in
            for await due in Pace.instants(from: start, count: count, perSecond: rate) {
                group.addTask {
                    try await publish(due: due)
                    tally.acknowledged(due: due)
                }
            }
        }
        _ = try await tally.waitForDeliveries(before + count)
        tally.stopTiming()
    }
}
