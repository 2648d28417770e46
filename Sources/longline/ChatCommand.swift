import ArgumentParser
import Foundation
import LonglineClient
import LonglineWire
import NIOCore

/// Talks: what is typed goes to a user or a room, what comes in is printed.
struct ChatCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat", abstract: "Talk to a user or a room.",
        discussion: """
            Type a line to send it. Lines that begin with a slash are commands:
              /to USER          talk to a user
              /room ROOM        talk to a room you are in
              /all NAME         talk to everybody, in the broadcast of a name, where the token allows it
              /join ROOM        join a room (it is made when it doesn't exist), and talk to it
              /leave ROOM       leave a room
              /members          who is in the room you talk to
              /add USER, /remove USER, /owner USER, /member USER, /joining WHO, /publishing WHO, /delete
                                change the room you talk to, as its owner (see 'longline room --help')
              /migrate [ADDR]   move the connection to a new port, or to another local address
              /state            show the connection
              /quit             end, as the end of the input does, once the service has what was typed
            What is typed while there is no connection is sent when there is one.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var compression: CompressionOptions

    @Option(name: .long, help: "Whom to talk to at first: user/NAME, all/NAME, or room/NAME, which is joined.")
    var to: String?

    func validate() throws {
        if let to { _ = try Destination(argument: to) }
    }

    func run() async throws {
        let client = try options.makeClient {
            $0.confirmation = .explicit
            $0.compression = try compression.compression()
        }
        let background = Task { await show(client) }
        defer { background.cancel() }
        // A service that can't be reached now is no reason to stop: what is typed waits in the outbox.
        try await client.start()
        var chat = Conversation(client: client)
        switch try to.map({ try Destination(argument: $0) }) {
        case .user(let user): await chat.perform("/to \(user)")
        case .room(let room): await chat.perform("/join \(room)")
        case .all(let broadcast): await chat.perform("/all \(broadcast)")
        case nil: break
        }
        if chat.destination == nil { Terminal.note("say /to USER or /join ROOM first, /quit to end") }
        try await converse(chat, over: client)
        await client.disconnect()
    }

    /// Takes lines until the user is done, or the service says that this client shall not come back.
    private func converse(_ chat: Conversation, over client: LonglineClient) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var chat = chat
                for await line in Terminal.lines() {
                    guard await chat.perform(line) else { break }
                }
                try await emptyOutbox(of: client)
            }
            group.addTask {
                for await state in client.states {
                    if let error = state.stopError { throw error }
                }
            }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    /// Waits until nothing waits any more. What a state file keeps is not worth a long wait: the next start sends it.
    private func emptyOutbox(of client: LonglineClient) async throws {
        let changes = client.sends
        let waiting = try await client.outbox().count
        guard waiting > 0 else { return }
        let isKept = options.state != nil
        Terminal.note(
            isKept
                ? "\(waiting) messages wait; what is not sent in 5 seconds is sent by the next start"
                : "\(waiting) messages wait for the service; Ctrl-C gives them up")
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for await _ in changes { if try await client.outbox().isEmpty { break } }
            }
            if isKept { group.addTask { try await Task.sleep(for: .seconds(5)) } }
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private func show(_ client: LonglineClient) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                for await state in client.states { Terminal.note(Terminal.describe(state)) }
            }
            group.addTask {
                for await message in client.messages {
                    do { try Terminal.say(Terminal.describe(message)) } catch { return }
                    message.confirm()
                }
            }
            group.addTask {
                for await notice in client.notices {
                    switch notice {
                    case .gap(let channel, let gap):
                        Terminal.note("messages of \(channel) are gone from the service")
                        client.confirm(gap, in: channel)
                    case .refused(let channel, let error): Terminal.note("a message to \(channel): \(error)")
                    case .stopped(let channel): Terminal.note("the token does not allow \(channel) any more")
                    case .behind(let lag):
                        Terminal.note(
                            lag.isBehind ? "\(lag.channel) is ahead of this device" : "\(lag.channel) caught up")
                    case .evicted(let reason, let waiting):
                        Terminal.note("logged in elsewhere (\(reason)); \(waiting) messages wait here")
                    case .storageFailed(let error): Terminal.error(error)
                    case .skipped, .published, .observedAddress, .conversationChanged: break
                    }
                }
            }
        }
    }
}

/// Whom the lines go to, and what the commands do.
private struct Conversation {
    let client: LonglineClient
    private(set) var destination: Destination?

    init(client: LonglineClient) { self.client = client }

    /// Takes one line.
    /// - Returns: false when the user is done.
    @discardableResult
    mutating func perform(_ line: String) async -> Bool {
        do {
            guard line.hasPrefix("/") else {
                try await send(line)
                return true
            }
            let words = line.dropFirst().split(separator: " ", maxSplits: 1).map(String.init)
            let argument = words.count > 1 ? words[1].trimmingCharacters(in: .whitespaces) : ""
            switch words.first {
            case "quit", "exit": return false
            case "to": talk(to: try .user(argument))
            case "room": talk(to: try .room(argument))
            case "all": talk(to: try .all(argument))
            case "join":
                let room = try RoomID(argument)
                // Not awaited: without a connection the answer may take long, and typing goes on.
                request("joined #\(room)") { client in _ = try await client.join(room) }
                talk(to: .room(room))
            case "leave":
                let room = try RoomID(argument)
                request("left #\(room)") { client in _ = try await client.leave(room) }
                if destination == .room(room) { destination = nil }
            case "members":
                let room = try present()
                request("that's all") { client in
                    try await Terminal.members(of: room, client) { try Terminal.say("  \($0)") }
                }
            case let verb? where RoomOrder.Verb(rawValue: verb) != nil:
                guard let known = RoomOrder.Verb(rawValue: verb) else { break }
                let order = try RoomOrder(known, argument.isEmpty ? nil : argument)
                let room = try present()
                request("done") { client in try await order.perform(client, in: room) }
            case "migrate":
                let local = argument.isEmpty ? nil : try SocketAddress(ipAddress: argument, port: 0)
                request("moved") { client in try await client.migrate(to: local) }
            case "state": Terminal.note(Terminal.describe(client.state))
            default:
                Terminal.note("unknown command; /to, /room, /all, /join, /leave, /members, /migrate, /state, /quit")
            }
        } catch {
            Terminal.error(error)
        }
        return true
    }

    /// The room that is talked to.
    private func present() throws -> RoomID {
        guard case .room(let room) = destination else { throw ValidationError("Talk to a room first: /room ROOM.") }
        return room
    }

    private mutating func talk(to destination: Destination) {
        self.destination = destination
        Terminal.note("talking to \(destination)")
    }

    private func request(
        _ success: String, _ body: @escaping @Sendable (LonglineClient) async throws -> Void
    ) {
        let client = client
        Task {
            do {
                try await body(client)
                Terminal.note(success)
            } catch {
                Terminal.error(error)
            }
        }
    }

    private func send(_ line: String) async throws {
        guard !line.isEmpty else { return }
        guard let destination else { return Terminal.note("say /to USER or /join ROOM first") }
        var isTold = false
        let receipt = try await client.keep {
            if !isTold { Terminal.error($0) }
            isTold = true
        } _: {
            try await client.send(line, to: destination)
        }
        Task {
            do { _ = try await receipt.acknowledged() } catch let error as ClientError where error.code == .disconnected
            {
                // It waits in the state file; whoever left it there was told.
            } catch { Terminal.error(error) }
        }
    }
}
