import Logging
import LonglineWire
import NIOCore
import Synchronization

/// The server's log lines about what peers cause, limited in rate so that nobody can fill a disk with them.
///
/// Lines carry names, codes and counts, never tokens, tickets or payloads.
final class EventLog: Sendable {
    private struct State {
        var bucket: TokenBucket
        var dropped: UInt64 = 0
        var droppedInAll: UInt64 = 0
    }

    let logger: Logger
    private let state: Mutex<State>

    init(logger: Logger, linesPerSecond: Double, now: NIODeadline) {
        self.logger = logger
        state = Mutex(State(bucket: TokenBucket(perSecond: linesPerSecond, burst: linesPerSecond * 2, now: now)))
    }

    /// Log lines left out so far.
    var dropped: UInt64 { state.withLock { $0.droppedInAll } }

    /// Logs one line, unless there were too many.
    func log(_ level: Logger.Level, _ message: @autoclosure () -> Logger.Message, _ metadata: Logger.Metadata = [:]) {
        guard logger.logLevel <= level else { return }
        let now = NIODeadline.now()
        let skipped: UInt64? = state.withLock { state in
            guard state.bucket.take(now: now) else {
                state.dropped += 1
                state.droppedInAll += 1
                return nil
            }
            defer { state.dropped = 0 }
            return state.dropped
        }
        guard let skipped else { return }
        if skipped > 0 { logger.notice("log lines left out", metadata: ["lines": "\(skipped)"]) }
        logger.log(level: level, message(), metadata: metadata)
    }
}
