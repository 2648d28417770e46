import ArgumentParser
import LonglineClient
import LonglineWire
import UnixSignals

/// Prints where users are, until it is ended; or decides what others see of the token's user.
struct PresenceCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "presence", abstract: "Print where users are, and every change.",
        discussion:
            """
            The token needs the right 'presence' for the users. With --show and no users it only says what others see of the \
            token's own user, and ends. It connects as the token's device: another connection of the same device ends. \
            --timeout is for what ends by itself: --once, and --show alone.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var patience: PatienceOptions

    @Argument(help: "Names of users.")
    var users: [String] = []

    @Option(name: .long, help: "What others see of the token's user from now on: everything, state or nothing.")
    var show: String?

    @Flag(name: .long, help: "End when it is known where each of them is.")
    var once = false

    private var visibility: PresenceVisibility? {
        switch show {
        case "everything": .everything
        case "state": .stateOnly
        case "nothing": .nothing
        default: nil
        }
    }

    func validate() throws {
        guard !users.isEmpty || show != nil else { throw ValidationError("Name users, or give --show.") }
        guard show == nil || visibility != nil else {
            throw ValidationError("--show is one of everything, state and nothing.")
        }
        _ = try names()
    }

    func run() async throws {
        let client = try options.makeClient()
        let names = try names()
        guard once || names.isEmpty else { return try await follow(names, client) }
        let found = try await patience.ask(client) { client in
            if let visibility { try await client.setVisibility(visibility) }
            try await client.watch(names)
            return names.compactMap { client.presence(of: $0) }
        }
        for presence in found { try Terminal.say(Terminal.describe(presence)) }
    }

    /// Prints every change until a signal or the service ends it.
    private func follow(_ names: [UserID], _ client: LonglineClient) async throws {
        let stopper = Task {
            for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm) { return await client.disconnect() }
        }
        let watcher = Terminal.tellTrouble(of: client)
        defer {
            stopper.cancel()
            watcher.cancel()
        }
        do {
            try await client.connect()
            if let visibility { try await client.setVisibility(visibility) }
            try await client.watch(names)
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    for await presence in client.presenceChanges { try Terminal.say(Terminal.describe(presence)) }
                }
                group.addTask {
                    for await state in client.states {
                        if case .disconnected = state { return }
                        if let error = state.stopError { throw error }
                    }
                }
                defer { group.cancelAll() }
                try await group.next()
            }
        } catch let error as ClientError where error.code == .disconnected {
            // A signal ended it.
        } catch {
            await client.disconnect()
            throw error
        }
        // The signal's farewell may be under way, and the process ends with this.
        await client.disconnect()
    }

    private func names() throws -> [UserID] {
        try users.map { name in
            do { return try UserID(name.hasPrefix("user/") ? String(name.dropFirst(5)) : name) } catch {
                throw ValidationError("'\(name)' is no user's name.")
            }
        }
    }
}
