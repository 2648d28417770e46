import ArgumentParser
import Foundation
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
            token's own user, and ends. It connects as the token's device: another connection of the same device ends.
            """)

    @OptionGroup var options: ClientOptions

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
        let stopper = Task {
            for await _ in await UnixSignalsSequence(trapping: .sigint, .sigterm) { return await client.disconnect() }
        }
        defer { stopper.cancel() }
        try await client.connect()
        if let visibility { try await client.setVisibility(visibility) }
        guard !names.isEmpty else { return await client.disconnect() }
        do { try await client.watch(names) } catch {
            await client.disconnect()
            throw error
        }
        if once {
            for name in names {
                if let presence = client.presence(of: name) { try Terminal.say(Terminal.describe(presence)) }
            }
            return await client.disconnect()
        }
        let printer = Task {
            for await presence in client.presenceChanges {
                do { try Terminal.say(Terminal.describe(presence)) } catch { return await client.disconnect() }
            }
        }
        defer { printer.cancel() }
        for await state in client.states {
            switch state {
            case .disconnected: return
            case .stopped, .upgradeRequired: if let error = state.stopError { throw error }
            default: continue
            }
        }
    }

    private func names() throws -> [UserID] {
        try users.map { name in
            do { return try UserID(name.hasPrefix("user/") ? String(name.dropFirst(5)) : name) } catch {
                throw ValidationError("'\(name)' is no user's name.")
            }
        }
    }
}
