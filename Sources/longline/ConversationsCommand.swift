import ArgumentParser
import Foundation
import LonglineClient
import LonglineWire

/// Prints a user's conversations, after changing one if asked to.
struct ConversationsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "conversations", abstract: "Print the user's conversations; mute, block, mark as read.",
        discussion:
            """
            Prints the latest first: the rooms that the user is in, and users with whom there were direct messages. \
            Conversations are written user/NAME (the other side) or room/NAME. It connects as the token's device: \
            another connection of the same device ends.
            """)

    @OptionGroup var options: ClientOptions
    @OptionGroup var patience: PatienceOptions

    @Option(name: .long, help: "Mute this conversation first.")
    var mute: String?

    @Option(name: .customLong("for"), help: "With --mute: for so many seconds; for ever without.")
    var seconds: Double?

    @Option(name: .long, help: "End muting this conversation first.")
    var unmute: String?

    @Option(name: .long, help: "Block this user first: NAME.")
    var block: String?

    @Option(name: .long, help: "End blocking this user first: NAME.")
    var unblock: String?

    @Option(name: .long, help: "Mark this conversation as read first, up to its last entry.")
    var read: String?

    @Option(name: .long, help: "The most conversations.")
    var limit: Int = 50

    @Flag(name: .long, help: "One JSON object a line.")
    var json = false

    func validate() throws {
        guard limit >= 1 else { throw ValidationError("--limit has to be 1 or more.") }
        guard seconds == nil || mute != nil else { throw ValidationError("--for goes with --mute.") }
        guard seconds.map({ $0 > 0 && $0 < 1e9 }) ?? true else {
            throw ValidationError("Times are seconds, more than 0.")
        }
        for conversation in [mute, unmute, read].compactMap(\.self) { _ = try Destination(argument: conversation) }
        for name in [block, unblock].compactMap(\.self) {
            guard (try? UserID(name)) != nil else { throw ValidationError("'\(name)' is no user's name.") }
        }
    }

    func run() async throws {
        let client = try options.makeClient()
        let shown = try await patience.ask(client) { client in
            try await change(client)
            let conversations = try await list(client, limit)
            guard let read else { return conversations }
            return try await markRead(try Destination(argument: read), of: conversations, client)
        }
        for conversation in shown {
            try Terminal.say(json ? try Terminal.json(conversation) : Terminal.describe(conversation))
        }
    }

    private func change(_ client: LonglineClient) async throws {
        if let mute { try await client.mute(try Destination(argument: mute), for: seconds.map { .seconds($0) }) }
        if let unmute { try await client.unmute(try Destination(argument: unmute)) }
        if let block { try await client.block(try UserID(block)) }
        if let unblock { try await client.unblock(try UserID(unblock)) }
    }

    private func list(_ client: LonglineClient, _ limit: Int) async throws -> [Conversation] {
        var all: [Conversation] = []
        var place: ConversationCursor?
        repeat {
            let page = try await client.conversations(after: place, limit: min(limit - all.count, 50))
            all += page.conversations
            place = page.next
        } while place != nil && all.count < limit
        return all
    }

    /// Waits until the service has stored it: the client says it only in a moment, and not any more once it is disconnected.
    /// - Returns: the conversations then.
    private func markRead(
        _ destination: Destination, of conversations: [Conversation], _ client: LonglineClient
    ) async throws -> [Conversation] {
        guard let last = conversations.first(where: { $0.destination == destination })?.last else {
            throw ValidationError("\(destination) is not among the conversations listed.")
        }
        guard !Self.isRead(destination, upTo: last, in: conversations) else { return conversations }
        let receipts = client.receipts
        try await client.markRead(destination, upTo: last)
        let marked = try await Self.confirmed(destination, upTo: last, by: receipts) { () -> [Conversation]? in
            // Something new elsewhere may have moved it down meanwhile.
            let conversations = try await list(client, max(limit, 50))
            return Self.isRead(destination, upTo: last, in: conversations) ? conversations : nil
        }
        guard let marked else {
            throw ClientError(
                .disconnected, message: "\(destination) may not be marked as read: the client was disconnected")
        }
        return Array(marked.prefix(limit))
    }

    /// Waits until this user's own mark is stored.
    /// - Parameter list: what is stored, once the mark is among it: asked with each receipt that may be the mark's.
    /// - Returns: that; nil when no more receipts come.
    static func confirmed<Stored>(
        _ destination: Destination, upTo place: Position, by receipts: AsyncStream<Receipt>,
        _ list: () async throws -> Stored?
    ) async throws -> Stored? {
        for await receipt in receipts where mayConfirm(receipt, destination, upTo: place) {
            if let stored = try await list() { return stored }
        }
        return nil
    }

    /// Whether a receipt may be this user's own of that place. It may be another's all the same: the list knows.
    static func mayConfirm(_ receipt: Receipt, _ destination: Destination, upTo place: Position) -> Bool {
        receipt.kind == .read && receipt.conversation == destination.channel
            && receipt.position.epoch == place.epoch && receipt.position.offset >= place.offset
    }

    private static func isRead(
        _ destination: Destination, upTo place: Position, in conversations: [Conversation]
    ) -> Bool {
        guard let read = conversations.first(where: { $0.destination == destination })?.read else { return false }
        return read.epoch == place.epoch && read.offset >= place.offset
    }
}

extension Terminal {
    /// One line for a conversation.
    static func describe(_ conversation: Conversation) -> String {
        var text = "\(conversation.destination)"
        if conversation.unread > 0 {
            text += conversation.unread >= 1_000 ? " 1000+ unread" : " \(conversation.unread) unread"
        }
        if conversation.settings.mutedUntil > 0 { text += " muted" }
        if conversation.settings.isBlocked { text += " blocked" }
        if let last = conversation.last { text += ", last at \(last.offset)" }
        if let delivered = conversation.peerDelivered { text += ", delivered up to \(delivered.offset)" }
        if let read = conversation.peerRead { text += ", read up to \(read.offset)" }
        return text
    }

    private struct ConversationLine: Encodable {
        var conversation: String
        var epoch: String?
        var last: UInt64?
        var time: UInt64
        var unread: Int
        var mutedUntil: UInt64
        var blocked: Bool
        var read: UInt64?
        var peerDelivered: UInt64?
        var peerRead: UInt64?
    }

    static func json(_ conversation: Conversation) throws -> String {
        let line = ConversationLine(
            conversation: conversation.destination.description,
            epoch: conversation.last.map { String($0.epoch, radix: 16) }, last: conversation.last?.offset,
            time: conversation.time, unread: conversation.unread, mutedUntil: conversation.settings.mutedUntil,
            blocked: conversation.settings.isBlocked, read: conversation.read?.offset,
            peerDelivered: conversation.peerDelivered?.offset, peerRead: conversation.peerRead?.offset)
        return try json(line)
    }
}
