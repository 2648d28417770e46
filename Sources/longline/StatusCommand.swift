import ArgumentParser
import Foundation
import LonglineServer

/// Shows what a running server is about.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show whether a server runs, and what it is about.",
        discussion: """
            Talks to the server by the socket in its data folder, as the server's own user. Ends with status 1 when none runs \
            there. Figures over time are at /metrics of the control layer.
            """)

    @Option(name: [.long, .customLong("data-directory")], help: "The server's data folder.")
    var data: String = "longline-data"

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let status = try await ServerControl(folder: data).status()
        try Terminal.say(json ? try Terminal.json(status) : Self.describe(status))
    }

    static func describe(_ status: ServerStatus) -> String {
        var lines = [
            "version      \(status.version)", "running for  \(Self.time(status.uptime))",
            "listens on   \(status.addresses.joined(separator: ", "))", "connections  \(status.connections)",
            "sessions     \(status.sessions)", "published    \(status.published)", "delivered    \(status.delivered)",
        ]
        if let count = status.loopsBehind {
            lines.append("behind       \(count) event loops do not answer: their figures are from before")
        }
        if let rate = status.drainRate { lines.append("draining     \(rate) a second; nobody is let in") }
        return lines.joined(separator: "\n")
    }

    static func time(_ milliseconds: UInt64) -> String {
        let seconds = milliseconds / 1_000
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60)
        if days > 0 { return "\(days) d \(hours) h" }
        if hours > 0 { return "\(hours) h \(minutes) min" }
        return minutes > 0 ? "\(minutes) min \(seconds % 60) s" : "\(seconds) s"
    }
}
