import ArgumentParser
import Foundation
import LonglineClient
import LonglineWire
import NIOCore
import Synchronization

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
              /members          who is in the room you talk to, and who may join and publish
              /add USER, /remove USER, /owner USER, /member USER, /joining WHO, /publishing WHO, /delete
                                change the room you talk to, as its owner (see 'longline room --help')
              /migrate [ADDR]   move the connection to a new port, or to another local address
              /state            show the connection
              /quit             end, as the end of the input does, once the service has what was typed

            What is typed while there is no connection is sent when there is one.
            Where the input is no terminal, a line waits until there is room for it, the lines behind /join wait for the room, and \
            the status is not 0 when a line or a command failed or was refused.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var compression: CompressionOptions

    @Option(name: .long, help: "Whom to talk to at first: user/NAME, all/NAME, or room/NAME, which is joined.")
    var to: String?

    func validate() throws {
        if let to { _ = try Destination(argument: to) }
    }

    func run() async throws {
        ShellProcess.isTerminalTaken.store(isatty(STDIN_FILENO) != 0, ordering: .relaxed)
        let client = try options.makeClient {
            $0.confirmation = .explicit
            $0.compression = try compression.compression()
        }
        let background = Task { await show(client) }
        defer { background.cancel() }
        // A service that can't be reached now is no reason to stop: what is typed waits in the outbox.
        try await client.start()
        let errands = Errands()
        let isScript = isatty(STDIN_FILENO) == 0
        let first =
            switch try to.map({ try Destination(argument: $0) }) {
            case .user(let user): "/to \(user)"
            case .room(let room): "/join \(room)"
            case .all(let broadcast): "/all \(broadcast)"
            case nil: String?.none
            }
        let chat = Conversation(client: client, errands: errands, isScript: isScript)
        do { try await converse(chat, first: first, over: client) } catch {
            await client.disconnect()
            throw error
        }
        await client.disconnect()
        if isScript && errands.hasFailed { throw ExitCode.failure }
    }

    /// Takes lines until the user is done, or the service says that this client shall not come back.
    private func converse(_ chat: Conversation, first: String?, over client: LonglineClient) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var chat = chat
                if let first { await chat.perform(first) }
                if chat.destination == nil { Terminal.note("say /to USER or /join ROOM first, /quit to end") }
                for await bytes in InputLines() {
                    // Whatever stood for what is no text, it would not be what was written.
                    guard let line = String(validating: bytes, as: UTF8.self) else {
                        chat.errands.hasFailed = true
                        Terminal.note("a line that is not UTF-8 was not sent; 'longline send --file' sends any bytes")
                        continue
                    }
                    guard await chat.perform(line) else { break }
                }
                try await finish(chat, over: client)
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
    private func finish(_ chat: Conversation, over client: LonglineClient) async throws {
        let isKept = options.state != nil
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await emptyOutbox(of: client)
                // A script is told what became of all that it asked for.
                if chat.isScript { await chat.errands.wait() }
            }
            if isKept { group.addTask { try await Task.sleep(for: .seconds(5)) } }
            defer { group.cancelAll() }
            try await group.next()
        }
        if chat.isScript { chat.errands.giveUp() }
    }

    static func waiting(_ count: Int) -> String { count == 1 ? "1 message waits" : "\(count) messages wait" }

    private func emptyOutbox(of client: LonglineClient) async throws {
        let changes = client.sends
        let waiting = try await client.outbox().count
        guard waiting > 0 else { return }
        Terminal.note(
            options.state != nil
                ? "\(Self.waiting(waiting)); what is not sent in 5 seconds is sent by the next start"
                : "\(Self.waiting(waiting)) for the service; Ctrl-C gives them up")
        for await _ in changes { if try await client.outbox().isEmpty { break } }
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
                        Terminal.note("logged in elsewhere (\(reason)); \(Self.waiting(waiting)) here")
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
    let errands: Errands
    /// Nobody sees what is printed and decides by it what comes next.
    let isScript: Bool
    private(set) var destination: Destination?

    init(client: LonglineClient, errands: Errands, isScript: Bool) {
        self.client = client
        self.errands = errands
        self.isScript = isScript
    }

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
            case "to":
                let user = try named("/to", argument, UserID.init)
                talk(to: .user(user))
            case "room":
                let room = try named("/room", argument, RoomID.init)
                talk(to: .room(room))
            case "all":
                let broadcast = try named("/all", argument, BroadcastID.init)
                talk(to: .all(broadcast))
            case "join":
                let room = try named("/join", argument, RoomID.init)
                // Without a connection the answer may take long, and typing goes on. A script's next line would be refused.
                let joined = request("joined #\(room)") { client in _ = try await client.join(room) }
                if isScript { await joined.value }
                talk(to: .room(room))
            case "leave":
                let room = try Name.parse("/leave", argument, RoomID.init)
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
                let local = argument.isEmpty ? nil : try Self.local(argument)
                request("moved") { client in try await client.migrate(to: local) }
            case "state": Terminal.note(Terminal.describe(client.state))
            default:
                errands.hasFailed = true
                Terminal.note("unknown command; /to, /room, /all, /join, /leave, /members, /migrate, /state, /quit")
            }
        } catch is CancellationError {
            return false
        } catch {
            errands.hasFailed = true
            Terminal.error(error)
        }
        return true
    }

    /// Whom to talk to from now on. Where that is no name nobody is talked to: what comes next is not meant for who was before.
    private mutating func named<ID>(
        _ command: String, _ name: String, _ make: (String) throws -> ID
    ) throws -> ID {
        do { return try Name.parse(command, name, make) } catch {
            destination = nil
            throw error
        }
    }

    /// A local address, of which the system chooses the port.
    private static func local(_ text: String) throws -> SocketAddress {
        do { return try SocketAddress(ipAddress: text, port: 0) } catch {
            throw ValidationError("/migrate takes a numeric address such as 192.0.2.7, not '\(text)'.")
        }
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

    @discardableResult
    private func request(
        _ success: String, _ body: @escaping @Sendable (LonglineClient) async throws -> Void
    ) -> Task<Void, Never> {
        let client = client
        return errands.run {
            try await body(client)
            Terminal.note(success)
        }
    }

    private func send(_ line: String) async throws {
        guard !line.isEmpty else { return }
        guard let destination else {
            errands.hasFailed = true
            return Terminal.note("say /to USER or /join ROOM first")
        }
        var isTold = false
        let receipt = try await client.keep {
            if !isTold { Terminal.error($0) }
            isTold = true
        } _: {
            // The next line is read when this one has a place: however long the input is, none is lost.
            try await client.sendWhenRoom(ByteBuffer(string: line), to: destination)
        }
        errands.run(isKept: true) {
            do { _ = try await receipt.acknowledged() } catch let error as ClientError where error.code == .disconnected
            {
                // It waits in the state file; whoever left it there was told.
            }
        }
    }
}

/// What was asked for and is not answered yet, and whether something failed.
private final class Errands: Sendable {
    private struct State {
        var running = 0
        /// Those of them that nobody does when this process ends.
        var unkept = 0
        var hasFailed = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    var hasFailed: Bool {
        get { state.withLock { $0.hasFailed } }
        set { state.withLock { $0.hasFailed = newValue } }
    }

    /// - Parameter isKept: it is a message, which a state file keeps.
    @discardableResult
    func run(isKept: Bool = false, _ body: @escaping @Sendable () async throws -> Void) -> Task<Void, Never> {
        state.withLock { state in
            state.running += 1
            if !isKept { state.unkept += 1 }
        }
        return Task {
            do { try await body() } catch {
                hasFailed = true
                Terminal.error(error)
            }
            let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
                state.running -= 1
                if !isKept { state.unkept -= 1 }
                guard state.running == 0 else { return [] }
                defer { state.waiters = [] }
                return state.waiters
            }
            for waiter in waiters { waiter.resume() }
        }
    }

    /// Waits until all are answered, or the task is cancelled.
    func wait() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state -> Bool in
                    guard state.running > 0, !Task.isCancelled else { return true }
                    state.waiters.append(continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
                defer { state.waiters = [] }
                return state.waiters
            }
            for waiter in waiters { waiter.resume() }
        }
    }

    /// What is not answered by now has failed, unless it is kept.
    func giveUp() {
        let count = state.withLock { state -> Int in
            if state.unkept > 0 { state.hasFailed = true }
            return state.unkept
        }
        if count > 0 { Terminal.note("\(count) commands had no answer") }
    }
}
