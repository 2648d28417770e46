import ArgumentParser
import LonglineClient
import LonglineWire
import NIOCore

/// Sends one signal, for trying out what an app would show.
struct SignalCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "signal", abstract: "Send a signal: something that is worth telling now or never.",
        discussion:
            """
            It reaches devices that are connected and in the foreground, may be lost, and is not kept. See what comes with \
            'longline listen --signals'. It connects as the token's device: another connection of the same device ends.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var patience: PatienceOptions

    @Option(name: .long, help: "Whom to tell: user/NAME, or room/NAME, of which the user has to be a member.")
    var to: String

    @Option(name: .long, help: "typing, read, presence, or a number from 0 to 255; from 128 it is the app's own.")
    var kind: String = "typing"

    @Option(name: .long, help: "Seconds it is worth delivering, 60 at most.")
    var lifetime: Double = 5

    @Argument(help: "What comes with it; several words are joined by spaces.")
    var text: [String] = []

    private var signalKind: SignalKind? {
        switch kind {
        case "typing": .typing
        case "read": .readPosition
        case "presence": .presenceHint
        default: UInt8(kind).map { SignalKind(rawValue: $0) }
        }
    }

    func validate() throws {
        _ = try Destination(argument: to)
        guard signalKind != nil else {
            throw ValidationError("'\(kind)' is no kind; use typing, read, presence or a number from 0 to 255.")
        }
        guard lifetime > 0, lifetime <= 60 else {
            throw ValidationError("--lifetime is more than 0, up to 60 seconds.")
        }
    }

    func run() async throws {
        guard let kind = signalKind else { return }
        let client = try options.makeClient()
        let payload = ByteBuffer(string: text.joined(separator: " "))
        let left = try await patience.ask(client) { client in
            try await client.signal(kind, payload, to: try Destination(argument: to), lifetime: .seconds(lifetime))
        }
        guard left else {
            Terminal.error(ClientError(.notConnected, message: "the connection had no room for it"))
            throw ExitCode.failure
        }
        try Terminal.say("sent; nobody acknowledges a signal")
    }
}
