import ArgumentParser
import LonglineClient
import LonglineWire
import NIOCore
import Synchronization

/// Sends one message and waits until the service has it on its disk.
struct SendCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send", abstract: "Send a message and wait until the service has it.",
        discussion: """
            With --state the message survives this process: a later run sends what this one could not. One to a room waits \
            for the join, and is kept from then on. It connects as the token's device: another connection of the same device \
            ends.
            """)

    @OptionGroup var options: ClientOptions

    @Option(name: .long, help: "Whom to send to: user/NAME, all/NAME, or room/NAME, which is joined first.")
    var to: String

    @Option(
        name: .long, help: "Edit a message of one's own instead: its place, EPOCH:OFFSET as this command printed it.")
    var edit: String?

    @Option(
        name: .long,
        help: """
            Take a message back, one's own or as an owner of its room: its place. The text is a reason, and may be left out.
            """)
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
        let kept = KeptSend()
        let outcome: Outcome
        do {
            outcome = try await withThrowingTaskGroup(of: Published?.self, returning: Outcome.self) { group in
                group.addTask {
                    try await client.start()
                    // A message to a room that the user isn't in would be refused: it waits for the join.
                    if case .room(let room) = destination { try await client.join(room) }
                    let receipt = try await keep(payload, to: destination, client)
                    kept.name.withLock { $0 = receipt.send }
                    return try await receipt.acknowledged()
                }
                group.addTask {
                    for await state in client.states { if let error = state.stopError { throw error } }
                    return nil
                }
                group.addTask {
                    try await Task.sleep(for: .seconds(timeout))
                    return nil
                }
                defer { group.cancelAll() }
                if let published = try await group.next() ?? nil { return .published(published) }
                let message = await trouble.explain("no answer in \(timeout) s")
                let code: ClientError.Code = client.state.isConnected ? .timedOut : .connectFailed
                // Here: a message that waits for a token, to know whose it is, does so until then.
                await client.disconnect()
                return .late(code, message)
            }
        } catch {
            await client.disconnect()
            throw error
        }
        switch outcome {
        case .late(let code, let message):
            let waits = try await waits(kept.name.withLock { $0 }, in: client)
            Terminal.error(ClientError(code, message: message, advice: advice(waits)))
            throw ExitCode.failure
        case .published(let published):
            await client.disconnect()
            let place = "\(String(published.position.epoch, radix: 16)):\(published.position.offset)"
            try Terminal.say("entered at \(published.position.offset) (\(place))")
        }
    }

    private enum Outcome: Sendable {
        case published(Published)
        /// The time is over.
        case late(ClientError.Code, String)
    }

    /// Whether a later run sends it.
    private func waits(_ send: SendID?, in client: LonglineClient) async throws -> Bool {
        guard options.state != nil, let send else { return false }
        return try await client.outbox().contains { $0.send == send }
    }

    private func advice(_ waits: Bool) -> String {
        if waits { return "it waits in the state file" }
        return options.state == nil ? "the message is lost; --state keeps it" : "the message is not kept"
    }

    /// Puts the message into the outbox. Where the token can't be read, only the service tells whose that is.
    private func keep(
        _ payload: ByteBuffer, to destination: Destination, _ client: LonglineClient
    ) async throws -> SendReceipt {
        do {
            return try await client.keep { try await send(payload, to: destination, client) }
        } catch let error as ClientError where error.code == .unknownUser {
            try await client.connect()
            return try await send(payload, to: destination, client)
        }
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

/// The message, once it is in the outbox.
private final class KeptSend: Sendable {
    let name = Mutex<SendID?>(nil)
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

extension LonglineClient {
    /// Puts a message into the outbox; as long as there is no token that tells whose it is, tries again.
    /// - Parameter isTold: is called each time that there is none.
    func keep(
        _ isTold: (ClientError) -> Void = { _ in }, _ send: () async throws -> SendReceipt
    ) async throws -> SendReceipt {
        while true {
            do {
                return try await send()
            } catch let error as ClientError where error.code == .tokenProvider && state.stopError == nil {
                isTold(error)
                try await Task.sleep(for: .seconds(1))
            }
        }
    }
}
