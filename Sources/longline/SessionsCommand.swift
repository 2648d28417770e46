import ArgumentParser
import Foundation
import LonglineServer
import LonglineWire

/// Shows who of a user is connected to a running server, and ends sessions.
struct SessionsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sessions",
        abstract: "Show from where a user is connected, or end the sessions.",
        discussion: "Talks to the server by the socket in its data folder, as the server's own user.",
        subcommands: [List.self, End.self], defaultSubcommand: List.self)

    /// Lists them.
    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List a user's sessions, the oldest first.")

        @OptionGroup var whose: ServerUserOptions

        @Flag(help: "Print one JSON object for each session.")
        var json = false

        func run() async throws {
            let (tenant, user) = (try whose.tenantID(), try whose.userID())
            let (sessions, count) = try await ServerControl(folder: whose.data).sessions(of: user, in: tenant)
            for session in sessions {
                try Terminal.say(json ? try Terminal.json(SessionRecord(session)) : SessionsCommand.describe(session))
            }
            if count > sessions.count { Output.report("* \(count - sessions.count) more") }
            if count == 0 { Output.report("* \(user) is not connected") }
        }
    }

    /// Ends them.
    struct End: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "End a user's sessions.",
            discussion: """
                Nothing is revoked. What a device does next depends on the code: after 1000 to 1999 it connects again by itself, \
                after 3000 to 3999 it gets a new token first, after 4000 to 5999 it stops; docs/protocol.md lists them. To shut \
                somebody out, see 'longline revoke'.
                """)

        @OptionGroup var whose: ServerUserOptions

        @Option(help: "One device of the user.")
        var device: String?

        @Option(help: "The close code, 1000 to 5999.")
        var code: UInt32 = CloseCode.normal.rawValue

        @Option(help: "Why, for the device's log: at most 64 characters.")
        var reason: String?

        func run() async throws {
            let (tenant, user) = (try whose.tenantID(), try whose.userID())
            let device = try device.map { try Name.parse("--device", $0, DeviceID.init) }
            let ended = try await ServerControl(folder: whose.data).disconnect(
                user: user, device: device, in: tenant, code: CloseCode(rawValue: code), reason: reason)
            try Terminal.say("ended \(ended) session\(ended == 1 ? "" : "s") of \(user)")
        }
    }

    private static func describe(_ session: SessionInfo) -> String {
        let since = Date(timeIntervalSince1970: Double(session.connectedAt) / 1_000).formatted(.iso8601)
        return "\(session.device)  \(session.platform)  \(session.transport)  \(session.remoteAddress)  "
            + "since \(since)  \(Terminal.printable(session.agent))"
    }
}
