import ArgumentParser
import LonglineClient
import LonglineWire

/// Asks another user and prints the reply.
struct RequestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "request", abstract: "Ask another user and print the reply.",
        discussion: """
            Fails when no reply comes within the deadline. 'longline listen --reply TEXT' answers. It connects as the token's \
            device: another connection of the same device ends.
            """)

    @OptionGroup var options: ClientOptions

    @Option(name: .long, help: "Whom to ask: a user's name.")
    var to: String

    @Option(name: .long, help: "Seconds to wait for the reply, from the start on.")
    var deadline: Double = 10

    @Argument(help: "The question; several words are joined by spaces.")
    var text: [String]

    func validate() throws {
        guard (try? UserID(to)) != nil else { throw ValidationError("'\(to)' is no user's name.") }
        guard !text.isEmpty else { throw ValidationError("The question is missing.") }
        guard deadline > 0, deadline < 1e9 else { throw ValidationError("Times are seconds, more than 0.") }
    }

    func run() async throws {
        let client = try options.makeClient()
        let end = ContinuousClock.now + .seconds(deadline)
        do {
            let reply = try await OneShot.run(client, within: deadline) { client in
                try await client.connect()
                return try await client.request(
                    to: try UserID(to), text: text.joined(separator: " "),
                    deadline: max(.milliseconds(1), ContinuousClock.now.duration(to: end)))
            }
            try Terminal.say(Terminal.printable(reply.text))
        } catch let error as ClientError {
            Terminal.error(error)
            throw ExitCode.failure
        }
    }
}
