package import Logging
import LonglineWire
package import NIOCore
import Synchronization

/// The server's log lines about what peers cause, limited in rate so that nobody can fill a disk with them.
///
/// Lines carry names, codes and counts, never tokens, tickets or payloads.
package final class EventLog: Sendable {
    private struct State {
        var bucket: TokenBucket
        var dropped: UInt64 = 0
        var droppedInAll: UInt64 = 0
    }

    private let logger: Logger
    private let state: Mutex<State>

    package init(logger: Logger, linesPerSecond: Double, now: NIODeadline) {
        self.logger = logger
        state = Mutex(State(bucket: TokenBucket(perSecond: linesPerSecond, burst: linesPerSecond * 2, now: now)))
    }

    /// Log lines left out so far.
    var dropped: UInt64 { state.withLock { $0.droppedInAll } }

    /// A logger with the same limit, for parts that log by themselves.
    package var limited: Logger {
        // Without a level of its own: the logger's may change while the server runs.
        Logger(label: logger.label) { _ in LimitedLogHandler(log: self, logger: logger) }
    }

    /// Logs one line, unless there were too many.
    func log(_ level: Logger.Level, _ message: @autoclosure () -> Logger.Message, _ metadata: Logger.Metadata = [:]) {
        guard logger.logLevel <= level, admit() else { return }
        logger.log(level: level, message(), metadata: metadata)
    }

    /// Whether one more line may be written now; says first how many were left out before it.
    fileprivate func admit() -> Bool {
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
        guard let skipped else { return false }
        if skipped > 0 { logger.notice("log lines left out", metadata: ["lines": "\(skipped)"]) }
        return true
    }
}

/// Passes lines on to a logger while an ``EventLog`` admits them.
private struct LimitedLogHandler: LogHandler {
    let log: EventLog
    var logger: Logger
    var metadata: Logger.Metadata = [:]

    init(log: EventLog, logger: Logger) {
        self.log = log
        self.logger = logger
    }

    var logLevel: Logger.Level {
        get { logger.logLevel }
        set { logger.logLevel = newValue }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        guard log.admit() else { return }
        logger.log(
            level: event.level, event.message,
            metadata: metadata.merging(event.metadata ?? [:]) { _, line in line }, source: event.source,
            file: event.file, function: event.function, line: event.line)
    }
}
