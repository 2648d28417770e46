import Logging
import Synchronization

/// Keeps what is logged.
final class LineCollector: Sendable {
    struct Line: Sendable {
        var level: Logger.Level
        var message: String
        var metadata: Logger.Metadata
    }

    private let lines = Mutex<[Line]>([])

    var all: [Line] { lines.withLock { $0 } }

    var logger: Logger {
        var logger = Logger(label: "test") { _ in Handler(collector: self) }
        logger.logLevel = .debug
        return logger
    }

    private struct Handler: LogHandler {
        let collector: LineCollector
        var logLevel = Logger.Level.debug
        var metadata: Logger.Metadata = [:]

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            collector.lines.withLock {
                $0.append(
                    Line(
                        level: event.level, message: "\(event.message)",
                        metadata: metadata.merging(event.metadata ?? [:]) { $1 }))
            }
        }
    }
}
