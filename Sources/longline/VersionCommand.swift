import ArgumentParser
import LonglineServer

/// Prints the version.
struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version", abstract: "Print the version of longline and of the protocol.")

    func run() throws {
        try Terminal.say("longline \(LonglineVersion.current), protocol version \(LonglineVersion.protocolVersion)")
    }
}
