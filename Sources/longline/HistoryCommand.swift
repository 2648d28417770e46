import ArgumentParser
import LonglineClient
import LonglineWire

/// Prints a channel's past, page by page.
struct HistoryCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "Print a channel's past.",
        discussion:
            """
            Prints the newest messages of the user's own inbox, a room or a broadcast, oldest first, and what to ask for the messages \
            before or after them. Nothing counts as processed by it, and no cursor moves. It connects as the token's \
            device: another connection of the same device ends.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var patience: PatienceOptions

    @Argument(help: "The channel: user/NAME for the user's own inbox, room/NAME, or all/NAME for what is broadcast.")
    var channel: String

    @Option(name: .long, help: "Only messages before this place, EPOCH:OFFSET as an earlier call printed it.")
    var before: String?

    @Option(name: .long, help: "Only messages after this place; 0:0 is the beginning.")
    var after: String?

    @Option(name: .long, help: "The most messages.")
    var limit: Int = 50

    @Flag(name: .long, help: "One JSON object a line.")
    var json = false

    func validate() throws {
        guard limit >= 1 else { throw ValidationError("--limit has to be 1 or more.") }
        guard before == nil || after == nil else {
            throw ValidationError("--before and --after contradict each other.")
        }
        _ = try (place(before, "--before"), place(after, "--after"), channelID())
    }

    func run() async throws {
        let client = try options.makeClient { $0.ownMessages = .delivered }
        let (messages, next) = try await patience.ask(client) { try await read($0) }
        for message in messages {
            try Terminal.say(json ? try Terminal.json(message) : Terminal.describe(message))
        }
        if let next {
            let option = after == nil ? "--before" : "--after"
            Output.report("* there is more: \(option) \(String(next.epoch, radix: 16)):\(next.offset)")
        }
    }

    /// Pages until there are as many messages as asked for.
    /// - Returns: the messages in the channel's order, and where to go on if there is more.
    private func read(_ client: LonglineClient) async throws -> ([Message], Position?) {
        let channel = try channelID()
        let goesOn = after != nil
        var place = try self.place(goesOn ? after : before, goesOn ? "--after" : "--before")
        var messages: [Message] = []
        while messages.count < limit {
            let count = min(limit - messages.count, FrameLimits.maximumHistoryEntries)
            let page: HistoryPage
            if goesOn, let from = place {
                page = try await client.history(of: channel, after: from, limit: count)
                messages += page.messages
            } else {
                page = try await client.history(of: channel, before: place, limit: count)
                messages = page.messages + messages
            }
            place = page.next
            guard page.hasMore else { return (messages, nil) }
        }
        return (messages, place)
    }

    private func channelID() throws -> ChannelID {
        do { return try ChannelID(channel) } catch {
            throw ValidationError("'\(channel)' is none of user/NAME, room/NAME and all/NAME.")
        }
    }

    private func place(_ text: String?, _ option: String) throws -> Position? {
        guard let text else { return nil }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let epoch = UInt64(parts[0], radix: 16), let offset = UInt64(parts[1]),
            offset <= FrameLimits.maximumNumber
        else { throw ValidationError("\(option): '\(text)' is no place such as 5f3c0a9d7e21b846:1303.") }
        return Position(epoch: epoch, offset: offset)
    }
}
