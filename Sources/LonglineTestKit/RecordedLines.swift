public import Logging
import Synchronization

/// Keeps what is logged, as lines of level, message and metadata.
public final class RecordedLines: Sendable {
    private let lines = Mutex<[String]>([])

    /// The lines so far.
    public var all: [String] { lines.withLock { $0 } }

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
            let all = metadata.merging(event.metadata ?? [:]) { $1 }
            lines.lines.withLock { $0.append("\(event.level) \(event.message) \(all)") }
        }
    }
}
