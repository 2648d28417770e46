package import Logging
import LonglineWire
package import NIOCore
import Synchronization

/// The server's log lines about what peers cause, limited in rate so that nobody can fill a disk with them.
///
/// Errors have a limit of their own: whoever causes many lines about what is refused hides none about what went wrong. Lines carry
/// names, codes and counts, never tokens, tickets or payloads.
package final class EventLog: Sendable {
    private struct Share {
        var bucket: TokenBucket
        var dropped: UInt64 = 0
        var droppedInAll: UInt64 = 0

        /// Takes a line's place.
        /// - Returns: how many were left out before it; nil when it is, too.
        mutating func take(now: NIODeadline) -> UInt64? {
            guard bucket.take(now: now) else {
                dropped += 1
                droppedInAll += 1
                return nil
            }
            defer { dropped = 0 }
            return dropped
        }
    }

    private struct State {
        var errors: Share
        var others: Share
    }

    private let logger: Logger
    private let state: Mutex<State>

    package init(logger: Logger, linesPerSecond: Double, now: NIODeadline) {
        self.logger = logger
        let share = Share(bucket: TokenBucket(perSecond: linesPerSecond, burst: linesPerSecond * 2, now: now))
        state = Mutex(State(errors: share, others: share))
    }

    /// Log lines left out so far.
    package var dropped: UInt64 { state.withLock { $0.errors.droppedInAll + $0.others.droppedInAll } }

    /// A logger with the same limit, for parts that log by themselves.
    package var limited: Logger {
        // Without a level of its own: the logger's may change while the server runs.
        Logger(label: logger.label) { _ in LimitedLogHandler(log: self, logger: logger) }
    }

    /// Logs one line, unless there were too many.
    func log(_ level: Logger.Level, _ message: @autoclosure () -> Logger.Message, _ metadata: Logger.Metadata = [:]) {
        guard logger.logLevel <= level, admit(level) else { return }
        logger.log(level: level, message(), metadata: metadata)
    }

    /// Whether one more line of a level may be written now; says first how many were left out before it.
    fileprivate func admit(_ level: Logger.Level) -> Bool {
        let now = NIODeadline.now()
        let isError = level >= .error
        let skipped: UInt64? = state.withLock { state in
            isError ? state.errors.take(now: now) : state.others.take(now: now)
        }
        guard let skipped else { return false }
        if skipped > 0 {
            logger.notice(
                "log lines left out",
                metadata: ["lines": "\(skipped)", "levels": isError ? "error" : "below error"])
        }
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
        guard log.admit(event.level) else { return }
        logger.log(
            level: event.level, event.message,
            metadata: metadata.merging(event.metadata ?? [:]) { _, line in line }, source: event.source,
            file: event.file, function: event.function, line: event.line)
    }
}
