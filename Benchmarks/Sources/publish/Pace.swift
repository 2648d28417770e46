import BenchmarkHarness
import Foundation

/// Keeps the time of a load at a fixed rate, on a thread of its own: the timers of the tasks' runtime cost more CPU than what
/// they are to time.
enum Pace {
    /// Instants in equal steps, each when it has come, or later where the reader lags.
    static func instants(
        from start: ContinuousClock.Instant, count: Int, perSecond rate: Int
    ) -> AsyncStream<ContinuousClock.Instant> {
        AsyncStream { continuation in
            Thread.detachNewThread {
                for number in 0..<count {
                    let due = start + .seconds(Double(number) / Double(rate))
                    let wait = due - ContinuousClock.now
                    if wait > .zero { usleep(UInt32(wait.inSeconds * 1e6)) }
                    continuation.yield(due)
                }
                continuation.finish()
            }
        }
    }
}
