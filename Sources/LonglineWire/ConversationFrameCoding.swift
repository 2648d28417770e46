import NIOCore

extension ConversationsRequest {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        try sink.bytes(after, limit: FrameLimits.maximumListPlace, "after")
        try sink.varint(limit, "limit")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            request: try reader.fixed("request"),
            after: try reader.bytes("after", limit: FrameLimits.maximumListPlace), limit: try reader.varint("limit"))
    }
}

extension ConversationsPage {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard refusal == nil || items.isEmpty else {
            throw FrameError(.unrepresentable, message: "a refusal with items")
        }
        sink.fixed(request)
        try sink.refusal(refusal)
        try sink.varint(retryAfter, "retry after")
        try sink.bytes(next, limit: FrameLimits.maximumListPlace, "next")
        try sink.count(items.count, limit: FrameLimits.maximumConversations, "items")
        for item in items { try item.write(to: &sink) }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        request = try reader.fixed("request")
        refusal = try reader.refusal()
        retryAfter = try reader.varint("retry after")
        next = try reader.bytes("next", limit: FrameLimits.maximumListPlace)
        let count = try reader.count("items", limit: FrameLimits.maximumConversations)
        guard refusal == nil || count == 0 else { throw reader.malformed("items", "is above 0 in a refusal") }
        items = []
        for _ in 0..<count { items.append(try ConversationItem(from: &reader)) }
    }
}

extension ConversationItem {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.channel(conversation)
        try sink.position(last, "last offset")
        try sink.varint(time, "time")
        try sink.varint(unread, "unread")
        try settings.write(to: &sink)
        try sink.varint(read, "read")
        try sink.varint(peerDelivered, "peer delivered")
        try sink.varint(peerRead, "peer read")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            conversation: try reader.channel("conversation"), last: try reader.position("last"),
            time: try reader.varint("time"), unread: try reader.varint("unread"),
            settings: try ConversationSettings(from: &reader), read: try reader.varint("read"),
            peerDelivered: try reader.varint("peer delivered"), peerRead: try reader.varint("peer read"))
    }
}

extension ConversationSettings {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(mutedUntil, "muted until")
        sink.byte(isBlocked ? 1 : 0)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            mutedUntil: try reader.varint("muted until"), isBlocked: try reader.flags("blocked", known: 1) == 1)
    }
}

extension ConversationChange {
    private static let mute: UInt8 = 0
    private static let block: UInt8 = 1

    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        sink.channel(conversation)
        switch setting {
        case .mute(let until):
            sink.byte(Self.mute)
            try sink.varint(until, "value")
        case .block(let isBlocked):
            sink.byte(Self.block)
            sink.uncheckedVarint(isBlocked ? 1 : 0)
        }
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let request = try reader.fixed("request")
        let conversation = try reader.channel("conversation")
        let kind = try reader.flags("setting", known: 1)
        let value = try reader.varint("value")
        if kind == Self.mute {
            self.init(request: request, conversation: conversation, setting: .mute(until: value))
        } else {
            guard value <= 1 else { throw reader.malformed("value", "is over 1") }
            self.init(request: request, conversation: conversation, setting: .block(value == 1))
        }
    }
}

extension ConversationState {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        try sink.refusal(refusal)
        sink.channel(conversation)
        try settings.write(to: &sink)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            request: try reader.fixed("request"), refusal: try reader.refusal(),
            conversation: try reader.channel("conversation"), settings: try ConversationSettings(from: &reader))
    }
}

extension ReadMark {
    private static let isPrivate: UInt8 = 1

    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.byte(isPrivate ? Self.isPrivate : 0)
        sink.channel(conversation)
        try sink.position(position, "offset")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let flags = try reader.flags("flags", known: Self.isPrivate)
        self.init(
            conversation: try reader.channel("conversation"), position: try reader.position("position"),
            isPrivate: flags & Self.isPrivate != 0)
    }
}

extension Receipt {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.channel(conversation)
        sink.identifier(user.description)
        sink.byte(kind.rawValue)
        try sink.position(position, "offset")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            conversation: try reader.channel("conversation"), user: try reader.user("user"),
            kind: try reader.choice("kind"), position: try reader.position("position"))
    }
}

extension FrameSink {
    /// A refusal code, 0 for none.
    fileprivate mutating func refusal(_ code: RefusalCode?) throws(FrameError) {
        guard let code else { return uncheckedVarint(0) }
        try code.write(to: &self)
    }
}

extension FrameReader {
    /// A refusal code, nil for 0.
    fileprivate mutating func refusal() throws(FrameError) -> RefusalCode? {
        let code = try varint32("refusal")
        return code == 0 ? nil : RefusalCode(rawValue: code)
    }
}
