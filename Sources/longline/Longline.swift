import ArgumentParser

/// The command-line tool.
@main
struct Longline: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "longline", abstract: "Keep clients connected over QUIC.",
        subcommands: [ChatCommand.self, SendCommand.self, ListenCommand.self])
}
