import ArgumentParser
import Foundation
import Logging

/// How a service logs.
struct LogOptions: ParsableArguments {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case text, json
    }

    @Option(help: "How much to log to standard error: trace, debug, info, notice, warning, error or critical.")
    var logLevel: String = "info"

    @Option(help: "How to log: text for people, json for one object a line.")
    var logFormat: Format = .text

    func validate() throws {
        guard Logger.Level(rawValue: logLevel) != nil else {
            throw ValidationError(
                "'\(logLevel)' is no log level; use \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")).")
        }
    }

    /// Sets the process's logging up, once, and makes the command's logger.
    func bootstrap(_ label: String) -> Logger {
        applyLevel()
        let format = logFormat
        LoggingSystem.bootstrap { label in
            switch format {
            case .text: ProcessLogHandler(StreamLogHandler.standardError(label: label))
            case .json: ProcessLogHandler(JSONLogHandler(label: label))
            }
        }
        return Logger(label: label)
    }

    /// Has all loggers of the process log so much from now on.
    func applyLevel() { ProcessLogLevel.current = Logger.Level(rawValue: logLevel) ?? .info }
}

/// Writes log lines to standard error, one JSON object a line.
struct JSONLogHandler: LogHandler {
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]
    let label: String

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line: [String: String] = [:]
        for (key, value) in metadata { line[key] = "\(value)" }
        for (key, value) in event.metadata ?? [:] { line[key] = "\(value)" }
        // The line's own fields come last: nothing a peer is called by can pass for them.
        line["time"] = Date.now.formatted(.iso8601)
        line["level"] = event.level.rawValue
        line["label"] = label
        line["message"] = "\(event.message)"
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard var bytes = try? encoder.encode(line) else { return }
        bytes.append(UInt8(ascii: "\n"))
        Output.report(bytes)
    }
}
