import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

/// Vectors of the frames about conversations.
extension Frame {
    init?(aboutConversations name: String, _ fields: Fields) throws {
        switch name {
        case "CONVERSATIONS":
            self = .conversations(
                ConversationsRequest(
                    request: try fields.opaque("request"), after: try fields.bytes("after"),
                    limit: try fields.number("limit")))
        case "CONVERSATIONS_PAGE":
            var page = ConversationsPage(
                request: try fields.opaque("request"), next: try fields.bytes("next"),
                items: try fields.objects("items").map { try ConversationItem($0) })
            page.refusal = try fields.refusal()
            page.retryAfter = try fields.number("retryAfter")
            self = .conversationsPage(page)
        case "READ":
            self = .read(
                ReadMark(
                    conversation: try fields.channel(), position: try fields.position(),
                    isPrivate: try fields.bool("private")))
        case "CONVERSATION_SET":
            let value = try fields.number("value")
            let setting = try fields.choice(
                "setting", ["mute": ConversationSetting.mute(until: value), "block": .block(value == 1)])
            self = .conversationSet(
                ConversationChange(
                    request: try fields.opaque("request"), conversation: try fields.channel(), setting: setting))
        case "RECEIPT":
            self = .receipt(
                Receipt(
                    conversation: try fields.channel(), user: try UserID(try fields.string("user")),
                    kind: try fields.choice("kind", ["delivered": .delivered, "read": .read]),
                    position: try fields.position()))
        case "CONVERSATION":
            self = .conversation(
                ConversationState(
                    request: try fields.opaque("request"), refusal: try fields.refusal(),
                    conversation: try fields.channel(), settings: try ConversationSettings(fields)))
        default: return nil
        }
    }
}

extension Fields {
    fileprivate func refusal() throws -> RefusalCode? {
        let code = try small("refusal")
        return code == 0 ? nil : RefusalCode(rawValue: code)
    }
}

extension ConversationSettings {
    fileprivate init(_ fields: Fields) throws {
        self.init(mutedUntil: try fields.number("mutedUntil"), isBlocked: try fields.bool("blocked"))
    }
}

extension ConversationItem {
    fileprivate init(_ fields: Fields) throws {
        self.init(
            conversation: try fields.channel(), last: try fields.object("last").position(),
            time: try fields.number("time"), unread: try fields.number("unread"),
            settings: try ConversationSettings(fields), read: try fields.number("read"),
            peerDelivered: try fields.number("peerDelivered"), peerRead: try fields.number("peerRead"))
    }
}

extension RandomFrames {
    /// One of each frame about conversations.
    static func aboutConversations(_ random: inout SeededRandom) -> [Frame] {
        var page = ConversationsPage(
            request: random.next(), next: bytes(&random, FrameLimits.maximumListPlace),
            items: (0..<Int.random(in: 0...FrameLimits.maximumConversations, using: &random)).map { _ in item(&random) }
        )
        if Bool.random(using: &random) {
            page = ConversationsPage(
                request: random.next(), refusal: refusal(&random), retryAfter: number(&random))
        }
        return [
            .conversations(
                ConversationsRequest(
                    request: random.next(), after: bytes(&random, FrameLimits.maximumListPlace),
                    limit: number(&random))),
            .conversationsPage(page),
            .read(
                ReadMark(
                    conversation: channel(&random), position: position(&random),
                    isPrivate: Bool.random(using: &random))),
            .conversationSet(
                ConversationChange(
                    request: random.next(), conversation: channel(&random),
                    setting: Bool.random(using: &random)
                        ? .mute(until: number(&random)) : .block(Bool.random(using: &random)))),
            .receipt(
                Receipt(
                    conversation: channel(&random), user: user(&random),
                    kind: ReceiptKind.allCases.randomElement(using: &random) ?? .read, position: position(&random))),
            .conversation(
                ConversationState(
                    request: random.next(), refusal: Bool.random(using: &random) ? refusal(&random) : nil,
                    conversation: channel(&random), settings: settings(&random))),
        ]
    }

    /// The largest page: as many conversations as there may be, with the longest names and numbers.
    static func largestConversationsPage(_ room: RoomID) -> Frame {
        let most = FrameLimits.maximumNumber
        let item = ConversationItem(
            conversation: .room(room), last: Position(epoch: .max, offset: most), time: most, unread: most,
            settings: ConversationSettings(mutedUntil: most, isBlocked: true), read: most, peerDelivered: most,
            peerRead: most)
        return .conversationsPage(
            ConversationsPage(
                request: .max, next: ByteBuffer(repeating: 7, count: FrameLimits.maximumListPlace),
                items: [ConversationItem](repeating: item, count: FrameLimits.maximumConversations)))
    }

    private static func settings(_ random: inout SeededRandom) -> ConversationSettings {
        ConversationSettings(mutedUntil: number(&random), isBlocked: Bool.random(using: &random))
    }

    private static func item(_ random: inout SeededRandom) -> ConversationItem {
        ConversationItem(
            conversation: channel(&random), last: position(&random), time: number(&random), unread: number(&random),
            settings: settings(&random), read: number(&random), peerDelivered: number(&random),
            peerRead: number(&random))
    }
}
