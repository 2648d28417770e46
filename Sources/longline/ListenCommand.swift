import ArgumentParser
import LonglineClient
import LonglineWire
import UnixSignals

/// Prints what comes in, until it is ended.
struct ListenCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "listen", abstract: "Print messages as they come.",
        discussion:
            """
            A message counts as processed once it is printed; with --state it isn't printed again by a later run. SIGINT \
            and SIGTERM end it in order.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var compression: CompressionOptions

    @Option(name: .long, help: "A room to join first; may be given several times.")
    var room: [String] = []

    @Option(name: .long, help: "End after so many messages.")
    var count: Int?

    @Option(name: .long, help: "Answer every request with this text.")
    var reply: String?

    @Option(
        name: .long,
        help: """
            Write the payload of each message into a file of this directory, and print its path instead of a text. The \
            directory is made when it does not exist.
            """)
    var save: String?

    @Flag(name: .long, help: "One JSON object a line.")
    var json = false

    @Flag(name: .long, help: "Print signals on standard error as well.")
    var signals = false

    @Flag(name: .long, help: "Say on standard error what becomes of the connection, not only why there is none.")
    var states = false

    func validate() throws {
        guard count ?? 1 >= 1 else { throw ValidationError("--count has to be 1 or more.") }
        _ = try rooms()
    }

    private func rooms() throws -> [RoomID] { try room.map { try Name.parse("--room", $0, RoomID.init) } }

    func run() async throws {
        let client = try options.makeClient {
            $0.ownMessages = .delivered
            $0.compression = try compression.compression()
        }
        let rooms = try rooms()
        if let save { try PayloadFiles.makeDirectory(save) }
        let watcher = Terminal.tellTrouble(of: client, andAll: states)
        let heard = client.signals
        let listener = Task {
            guard signals else { return }
            for await signal in heard { Output.report("* \(Terminal.describe(signal))") }
        }
        // Ends the sequence of messages below.
        let stopper = Task {
            for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm) { return await client.disconnect() }
        }
        let answerer = Task {
            guard let reply else { return }
            for await request in client.requests {
                Output.report("* \(request.sender) asks: \(Terminal.printable(request.text))")
                do { try await request.reply(reply) } catch { Terminal.error(error) }
            }
        }
        defer {
            watcher.cancel()
            listener.cancel()
            stopper.cancel()
            answerer.cancel()
        }
        do { try await listen(client, rooms) } catch let error as ClientError where error.code == .disconnected {
            // A signal ended it before it listened.
        } catch {
            await client.disconnect()
            throw error
        }
        // The process ends with this: without a farewell the service takes it for connected until the idle timeout.
        await client.disconnect()
    }

    /// Prints what comes until that is enough, or a signal or the service ends it.
    private func listen(_ client: LonglineClient, _ rooms: [RoomID]) async throws {
        try await client.connect()
        for room in rooms { try await client.join(room) }
        var left = count ?? .max
        for await message in client.messages {
            let file = try message.isOfSender ? save.map { try PayloadFiles.save(message, in: $0) } : nil
            try Terminal.say(
                json ? try Terminal.json(message, file: file) : Terminal.describe(message, file: file))
            message.confirm()
            left -= 1
            if left <= 0 { break }
        }
        if let error = client.state.stopError { throw error }
    }
}
