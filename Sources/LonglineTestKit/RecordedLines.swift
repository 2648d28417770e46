public import Logging
import Synchronization

/// Keeps what is logged.
public final class RecordedLines: Sendable {
    /// One line.
    public struct Line: Sendable {
        /// How much it matters.
        public var level: Logger.Level
        /// What it says.
        public var message: String
        /// The logger's own, and the line's.
        public var metadata: Logger.Metadata
    }

    private let recorded = Mutex<[Line]>([])

    /// The lines so far.
    public var lines: [Line] { recorded.withLock { $0 } }

    /// The same as text: level, message and metadata.
    public var all: [String] { lines.map { "\($0.level) \($0.message) \($0.metadata)" } }

    /// Nothing yet.
    public init() {}

    /// Logs to here, at every level.
    public var logger: Logger {
        var logger = Logger(label: "test") { _ in Handler(lines: self) }
        logger.logLevel = .trace
        return logger
    }

    private struct Handler: LogHandler {
        let lines: RecordedLines
        var logLevel = Logger.Level.trace
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let line = Line(
                level: event.level, message: "\(event.message)",
                metadata: metadata.merging(event.metadata ?? [:]) { $1 })
            lines.recorded.withLock { $0.append(line) }
        }
    }
}
