import Foundation
import LonglineClient
import LonglineWire

// A phone app without the phone: one conversation in a terminal, with all that an app shows of its connection and its messages.
//
//     swift run phone-app HOST:PORT PIN TOKEN-FILE PEER [FOLDER]
//
// Type a message to send it; /wait TEXT sends and waits for the acknowledgement, /outbox shows what waits, /cancel NAME takes a
// message back, /background and /foreground say what the app is to its user, /logout ends it. Close it whenever you like: what was
// typed is sent by the next start.

/// What the screen shows. A real app has a view model here.
actor Screen {
    func show(_ line: String) { print(line) }

    func show(_ state: ConnectionState) {
        switch state {
        case .disconnected: print("· offline")
        case .locating(let attempt), .connecting(let attempt, _): if attempt > 1 { print("· connecting…") }
        case .connected(let info): print("· online\(info.earlyData ? ", at once" : "")")
        case .migrating: break  // Still online.
        case .standby: print("· another process of this app is online")
        case .waiting(let delay, _): print("· offline, trying again in \(delay.components.seconds) s")
        case .upgradeRequired: print("· please upgrade this app")
        case .stopped: print("· signed out: \(state.stopError?.advice ?? "")")
        }
    }

    /// The tick marks behind a message.
    func show(_ status: SendStatus) {
        let mark =
            switch status.state {
            case .queued: "○"
            case .sent: "✓"
            case .acknowledged: "✓✓"
            case .refused(let code): "✗ refused (\(code.rawValue))"
            case .expired: "✗ too late"
            case .outcomeUnknown: "? nobody knows whether it arrived"
            case .cancelled: "✗ taken back"
            }
        print("  \(mark) \(status.send)")
    }
}

/// The app: one client, for as long as the process lives.
struct PhoneApp: Sendable {
    let client: LonglineClient
    let peer: Destination
    let screen = Screen()

    init(arguments: [String]) throws {
        guard arguments.count >= 5, let accessPoint = AccessPoint(arguments[1]) else {
            throw ClientError(
                .invalidConfiguration, message: "usage: phone-app HOST:PORT PIN TOKEN-FILE PEER [FOLDER]")
        }
        let tokenFile = arguments[3]
        let folder = arguments.count > 5 ? arguments[5] : NSHomeDirectory() + "/.longline-phone-app"
        // The pin is what `longline server` prints; an app in a store trusts the system's authorities instead.
        let digits = arguments[2].compactMap(\.hexDigitValue)
        let pin = stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        var configuration = LonglineClient.Configuration(
            accessPoints: [accessPoint], trust: .pinnedPublicKey([pin]),
            storage: try SQLiteClientStorage(path: folder + "/client.sqlite"),
            // A real app asks its own backend, which knows who is logged in.
            tokenProvider: { try String(contentsOfFile: tokenFile, encoding: .utf8).trimmingCharacters(in: .newlines) })
        configuration.agent = "phone-app"
        client = try LonglineClient(configuration: configuration)
        peer = try .user(arguments[4])
    }

    func run() async throws {
        // What an earlier start left: shown before anything is online. Both streams begin here, so that nothing is missed.
        let (changes, notices) = (client.sends, client.notices)
        for status in try await client.outbox() { await screen.show(status) }
        try await client.start()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { for await state in client.states { await screen.show(state) } }
            group.addTask { for await status in changes { await screen.show(status) } }
            group.addTask { for await notice in notices { await show(notice) } }
            group.addTask {
                for await message in client.messages where message.kind == .message {
                    await screen.show("\(message.sender): \(message.text)")
                }
            }
            try await readLines()
            group.cancelAll()
        }
        await client.disconnect()
    }

    private func show(_ notice: ClientNotice) async {
        switch notice {
        case .gap(let channel, let gap):
            await screen.show("· older messages of \(channel) are gone")
            client.confirm(gap, in: channel)
        case .evicted(_, let waiting): await screen.show("· signed in on another device; \(waiting) messages wait here")
        case .storageFailed(let error): await screen.show("· \(error)")
        default: break
        }
    }

    /// What the user types, read by a thread of its own: it blocks.
    private static var lines: AsyncStream<String> {
        AsyncStream { continuation in
            Thread.detachNewThread {
                while let line = readLine() { continuation.yield(line) }
                continuation.finish()
            }
        }
    }

    /// Until the input ends, or the user logs out.
    private func readLines() async throws {
        for await line in Self.lines {
            do {
                guard try await perform(line) else { return }
            } catch let error as ClientError {
                await screen.show("! \(error)")
            }
        }
    }

    private func perform(_ line: String) async throws -> Bool {
        let (command, rest) = split(line)
        switch command {
        case "/wait":
            let published = try await client.send(rest, to: peer, acknowledgedWithin: .seconds(10))
            await screen.show("· the service has it, at \(published.position.offset)")
        case "/outbox":
            for status in try await client.outbox() { await screen.show(status) }
        case "/cancel":
            guard let name = SendID(rest) else { return true }
            if case .tooLate(let state) = try await client.cancel(name) { await screen.show("· too late: \(state)") }
        case "/background": try await client.setMode(.background)
        case "/foreground": try await client.setMode(.foreground)
        case "/logout":
            try await client.logout()
            return false
        default: if !line.isEmpty { try await client.send(line, to: peer) }
        }
        return true
    }

    private func split(_ line: String) -> (command: String, rest: String) {
        let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
        return (parts.first ?? "", parts.count > 1 ? parts[1] : "")
    }
}

@main
enum Main {
    static func main() async {
        do { try await PhoneApp(arguments: CommandLine.arguments).run() } catch {
            FileHandle.standardError.write(Data("\(error)\n".utf8))
            exit(1)
        }
    }
}
