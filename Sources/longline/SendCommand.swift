import ArgumentParser
import LonglineClient
import LonglineWire
import Synchronization

/// Sends one message and waits until the service has it on its disk.
struct SendCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "send", abstract: "Send a message and wait until the service has it.",
        discussion: "With --state the message survives this process: a later run sends what this one could not.")

    @OptionGroup var options: ClientOptions

    @Option(name: .long, help: "Whom to send to: user/NAME, all/NAME, or room/NAME, which is joined first.")
    var to: String

    @Option(name: .long, help: "Seconds the message is worth delivering; for ever without.")
    var timeToLive: Double?

    @Option(name: .long, help: "Give up after so many seconds without an answer.")
    var timeout: Double = 30

    @Argument(help: "The message; several words are joined by spaces.")
    var text: [String]

    func validate() throws {
        _ = try Destination(argument: to)
        guard !text.isEmpty else { throw ValidationError("The message is missing.") }
        guard timeout > 0, timeout < 1e9, timeToLive.map({ $0 > 0 && $0 < 1e9 }) ?? true else {
            throw ValidationError("Times are seconds, more than 0.")
        }
    }

    func run() async throws {
        let client = try options.makeClient()
        let message = text.joined(separator: " ")
        let destination = try Destination(argument: to)
        let trouble = LastTrouble(client)
        defer { trouble.stop() }
        let published = try await withThrowingTaskGroup(of: Published?.self) { group in
            group.addTask {
                try await client.connect()
                if case .room(let room) = destination { try await client.join(room) }
                let life = timeToLive.map { Duration.seconds($0) }
                return try await client.send(message, to: destination, timeToLive: life).acknowledged()
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
                    .connectFailed, message: "no answer in \(timeout) s\(trouble.reason.map { "; \($0)" } ?? "")",
                    advice: options.state == nil
                        ? "the message is lost; --state keeps it" : "it waits in the state file"))
            throw ExitCode.failure
        }
        print("entered at \(published.position.offset)")
    }
}

/// Remembers why the last attempt to connect failed, so that a command that gives up can say it.
final class LastTrouble: Sendable {
    private let latest = Mutex<String?>(nil)
    private let watcher = Mutex<Task<Void, Never>?>(nil)

    init(_ client: LonglineClient) {
        let states = client.states
        let task = Task { [weak self] in
            for await state in states {
                if case .waiting(_, let reason) = state { self?.latest.withLock { $0 = reason } }
                if state.isConnected { self?.latest.withLock { $0 = nil } }
            }
        }
        watcher.withLock { $0 = task }
    }

    var reason: String? { latest.withLock { $0 } }

    func stop() { watcher.withLock { $0?.cancel() } }
}
