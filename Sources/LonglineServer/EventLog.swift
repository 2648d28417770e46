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
        /// When it was told last how many were left out.
        var told: NIODeadline?

        /// Takes a line's place.
        /// - Returns: how many left out before it are to be told; nil when it is left out, too.
        mutating func take(now: NIODeadline) -> UInt64? {
            guard bucket.take(now: now) else {
                dropped += 1
                droppedInAll += 1
                return nil
            }
            // In a lasting flood each line that gets a place has others before it that got none.
            guard dropped > 0, told.map({ now - $0 >= EventLog.noticeInterval }) ?? true else { return 0 }
            defer { (dropped, told) = (0, now) }
            return dropped
        }
    }

    private struct State {
        var errors: Share
        var others: Share
    }

    /// The least time between two lines that say how many others were left out, of errors and of all others each.
    static let noticeInterval = TimeAmount.seconds(1)

    private let logger: Logger
    private let clock: @Sendable () -> NIODeadline
    private let state: Mutex<State>

    /// - Parameter clock: what time it is when a line comes.
    package init(
        logger: Logger, linesPerSecond: Double, now: NIODeadline,
        clock: @escaping @Sendable () -> NIODeadline = { NIODeadline.now() }
    ) {
        self.logger = logger
        self.clock = clock
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

    /// Whether one more line of a level may be written now; says first how many were left out before it, now and then.
    fileprivate func admit(_ level: Logger.Level) -> Bool {
        let now = clock()
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
