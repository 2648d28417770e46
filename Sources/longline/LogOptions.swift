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
        let output = LogOutput { lines in
            switch format {
            case .text: Array("log lines were dropped, as nobody read them: \(lines)\n".utf8)
            case .json:
                JSONLogHandler.line([
                    "level": "warning", "label": "longline.log",
                    "message": "log lines were dropped, as nobody read them",
                    "lines": "\(lines)",
                ])
            }
        }
        LoggingSystem.bootstrap { label in
            switch format {
            case .text: ProcessLogHandler(StreamLogHandler(label: label, stream: output))
            case .json: ProcessLogHandler(JSONLogHandler(label: label, output: output))
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
    private let output: LogOutput

    init(label: String, output: LogOutput) { (self.label, self.output) = (label, output) }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line: [String: String] = [:]
        for (key, value) in metadata { line[key] = "\(value)" }
        for (key, value) in event.metadata ?? [:] { line[key] = "\(value)" }
        // The line's own fields come last: nothing a peer is called by can pass for them.
        line["level"] = event.level.rawValue
        line["label"] = label
        line["message"] = "\(event.message)"
        output.write(Self.line(line))
    }

    /// An object on a line of its own, with the time.
    static func line(_ fields: [String: String]) -> [UInt8] {
        var fields = fields
        fields["time"] = Date.now.formatted(.iso8601)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        // Texts always encode.
        return ((try? encoder.encode(fields)).map(Array.init) ?? []) + [UInt8(ascii: "\n")]
    }
}
