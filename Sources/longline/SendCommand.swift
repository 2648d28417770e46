import ArgumentParser
import LonglineClient
import LonglineWire
import NIOCore
import Synchronization

/// Sends one message and waits until the service has it on its disk.
struct SendCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send", abstract: "Send a message and wait until the service has it.",
        discussion: "With --state the message survives this process: a later run sends what this one could not.")

    @OptionGroup var options: ClientOptions

    @Option(name: .long, help: "Whom to send to: user/NAME, all/NAME, or room/NAME, which is joined first.")
    var to: String

    @Option(
        name: .long, help: "Edit a message of one's own instead: its place, EPOCH:OFFSET as this command printed it.")
    var edit: String?

    @Option(
        name: .long, help: "Take a message of one's own back: its place. The text is a reason, and may be left out.")
    var retract: String?

    @Option(name: .long, help: "React to a message: its place. The text is the reaction; without any it is taken back.")
    var react: String?

    @Option(name: .long, help: "Send what this file holds instead of a text; - is standard input.")
    var file: String?

    @Option(name: .long, help: "Seconds the message is worth delivering; for ever without.")
    var timeToLive: Double?

    @Option(name: .long, help: "Give up after so many seconds without an answer.")
    var timeout: Double = 30

    @Argument(help: "The message; several words are joined by spaces.")
    var text: [String] = []

    func validate() throws {
        _ = try Destination(argument: to)
        let named = [edit, retract, react].compactMap(\.self)
        guard named.count <= 1 else { throw ValidationError("--edit, --retract and --react contradict each other.") }
        guard named.isEmpty || timeToLive == nil else { throw ValidationError("--time-to-live is for messages.") }
        for place in named {
            guard Position(argument: place) != nil else {
                throw ValidationError("'\(place)' is no place EPOCH:OFFSET.")
            }
        }
        guard file == nil || text.isEmpty && retract == nil && react == nil else {
            throw ValidationError("--file contradicts a text, --retract and --react.")
        }
        guard !text.isEmpty || file != nil || retract != nil || react != nil else {
            throw ValidationError("The message is missing.")
        }
        guard timeout > 0, timeout < 1e9, timeToLive.map({ $0 > 0 && $0 < 1e9 }) ?? true else {
            throw ValidationError("Times are seconds, more than 0.")
        }
    }

    func run() async throws {
        let payload = try file.map { try PayloadFiles.read($0) } ?? ByteBuffer(string: text.joined(separator: " "))
        let client = try options.makeClient()
        let destination = try Destination(argument: to)
        let trouble = LastTrouble(client)
        defer { trouble.stop() }
        let published = try await withThrowingTaskGroup(of: Published?.self) { group in
            group.addTask {
                try await client.connect()
                if case .room(let room) = destination { try await client.join(room) }
                return try await send(payload, to: destination, client).acknowledged()
            }
            group.addTask {
                try await Task.sleep(for: .seconds(timeout))
                return nil
            }
            defer { group.cancelAll() }
            return try await group.next() ?? nil
        }
        await client.disconnect()
        guard let published else {
            Terminal.error(
                ClientError(
                    .connectFailed, message: await trouble.explain("no answer in \(timeout) s"),
                    advice: options.state == nil
                        ? "the message is lost; --state keeps it" : "it waits in the state file"))
            throw ExitCode.failure
        }
        let place = "\(String(published.position.epoch, radix: 16)):\(published.position.offset)"
        try Terminal.say("entered at \(published.position.offset) (\(place))")
    }

    private func send(
        _ payload: ByteBuffer, to destination: Destination, _ client: LonglineClient
    ) async throws -> SendReceipt {
        if let edit, let place = Position(argument: edit) {
            return try await client.edit(MessageReference(destination, place), to: payload)
        }
        if let retract, let place = Position(argument: retract) {
            return try await client.retract(MessageReference(destination, place), reason: String(buffer: payload))
        }
        if let react, let place = Position(argument: react) {
            return try await client.react(to: MessageReference(destination, place), with: String(buffer: payload))
        }
        return try await client.send(payload, to: destination, timeToLive: timeToLive.map { Duration.seconds($0) })
    }
}

extension Position {
    /// EPOCH:OFFSET, the epoch in hexadecimal digits.
    init?(argument: String) {
        let parts = argument.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let epoch = UInt64(parts[0], radix: 16), let offset = UInt64(parts[1]) else {
            return nil
        }
        self.init(epoch: epoch, offset: offset)
    }
}
