import NIOCore

// The bodies of the frames on every other lane, in the manner of `ControlFrameCoding.swift`.

extension RefusalCode {
    /// 0 stands for "no refusal", and only where there may be none.
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard rawValue != 0 else { throw FrameError(.unrepresentable, message: "refusal code is 0") }
        sink.uncheckedVarint(UInt64(rawValue))
    }
}

extension LaneHeader {
    func write(to sink: inout some FrameSink) {
        sink.channel(channel)
        sink.fixed(epoch)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(channel: try reader.channel("channel"), epoch: try reader.fixed("epoch"))
    }
}

extension Publish {
    private static let hasRecipient: UInt8 = 1
    private static let hasKind: UInt8 = 2
    private static let hasParts: UInt8 = 4

    func write(to sink: inout some FrameSink) throws(FrameError) {
        var flags: UInt8 = recipient == nil ? 0 : Self.hasRecipient
        if kind != .message { flags |= Self.hasKind }
        if following > 0 { flags |= Self.hasParts }
        sink.byte(flags)
        try sink.varint(id, "id")
        sink.fixed(tag)
        try sink.varint(after, "after")
        if let recipient { sink.identifier(recipient.description) }
        if kind != .message { try kind.write(to: &sink) }
        try sink.varint(timeToLive, "time to live")
        if following > 0 { try sink.varint(following, "following") }
        try sink.bytes(payload, limit: FrameLimits.maximumPayload, "payload")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let flags = try reader.flags("flags", known: Self.hasRecipient | Self.hasKind | Self.hasParts)
        let id = try reader.varint("id")
        let tag: PublishTag = try reader.fixed("tag")
        let after = try reader.varint("after")
        let recipient = flags & Self.hasRecipient == 0 ? nil : try reader.user("recipient")
        let kind = flags & Self.hasKind == 0 ? .message : try PublishKind(from: &reader)
        let timeToLive = try reader.varint("time to live")
        let following = flags & Self.hasParts == 0 ? 0 : try reader.following()
        self.init(
            id: id, tag: tag, after: after, recipient: recipient, kind: kind, timeToLive: timeToLive,
            // A payload over its limit that fits the frame is the session's to refuse: the others on the lane go on.
            payload: try reader.payload(), following: following)
    }
}

extension Published {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(id, "id")
        try sink.position(position, "offset")
        try sink.varint(time, "time")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            id: try reader.varint("id"), position: try reader.position("position"), time: try reader.varint("time"))
    }
}

extension Refused {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(id, "id")
        try code.write(to: &sink)
        try sink.varint(lastID, "last id")
        try sink.varint(retryAfter, "retry after")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let id = try reader.varint("id")
        let code = try reader.varint32("code")
        guard code != 0 else { throw reader.malformed("code", "is 0") }
        self.init(
            id: id, code: RefusalCode(rawValue: code), lastID: try reader.varint("last id"),
            retryAfter: try reader.varint("retry after"))
    }
}

extension Deliver {
    private static let redelivered: UInt8 = 1
    private static let hasRecipient: UInt8 = 2
    private static let hasOrigin: UInt8 = 4
    private static let hasTarget: UInt8 = 8
    private static let hasParts: UInt8 = 16

    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard entry.kind.namesEntry == (entry.target != nil) else {
            throw FrameError(.unrepresentable, message: "kind and target don't go together")
        }
        var flags: UInt8 = redelivered ? Self.redelivered : 0
        if entry.recipient != nil { flags |= Self.hasRecipient }
        if entry.origin != nil { flags |= Self.hasOrigin }
        if entry.target != nil { flags |= Self.hasTarget }
        if entry.following > 0 { flags |= Self.hasParts }
        sink.byte(flags)
        sink.byte(entry.kind.rawValue)
        try sink.varint(entry.offset, "offset")
        try sink.varint(entry.previous, "previous")
        sink.identifier(entry.sender.description)
        sink.identifier(entry.device.description)
        sink.producer(entry.producer)
        try sink.varint(entry.publishID, "publish id")
        if let recipient = entry.recipient { sink.identifier(recipient.description) }
        if let origin = entry.origin { try sink.position(origin, "origin offset") }
        if let target = entry.target { try sink.varint(target, "target") }
        try sink.varint(entry.time, "time")
        try sink.varint(entry.expiry, "expiry")
        if entry.following > 0 { try sink.varint(entry.following, "following") }
        try sink.bytes(entry.payload, limit: FrameLimits.maximumPayload, "payload")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let known = Self.redelivered | Self.hasRecipient | Self.hasOrigin | Self.hasTarget | Self.hasParts
        let flags = try reader.flags("flags", known: known)
        let kind: EntryKind = try reader.choice("kind")
        guard kind.namesEntry == (flags & Self.hasTarget != 0) else {
            throw reader.malformed("kind", "does not go with the flags")
        }
        let offset = try reader.varint("offset")
        let previous = try reader.varint("previous")
        let sender = try reader.user("sender")
        let device = try reader.device("device")
        let producer = try reader.producer("producer")
        let publishID = try reader.varint("publish id")
        let recipient = flags & Self.hasRecipient == 0 ? nil : try reader.user("recipient")
        let origin = flags & Self.hasOrigin == 0 ? nil : try reader.position("origin")
        let target = flags & Self.hasTarget == 0 ? nil : try reader.varint("target")
        let time = try reader.varint("time")
        let expiry = try reader.varint("expiry")
        let following = flags & Self.hasParts == 0 ? 0 : try reader.following()
        let payload = try reader.payload()
        self.init(
            entry: Entry(
                offset: offset, previous: previous, kind: kind, sender: sender, device: device, producer: producer,
                publishID: publishID, recipient: recipient, origin: origin, target: target, time: time,
                expiry: expiry, payload: payload, following: following),
            redelivered: flags & Self.redelivered != 0)
    }
}

extension Skip {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.varint(previous, "previous")
        try sink.varint(to, "to")
        sink.byte(reason.rawValue)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            previous: try reader.varint("previous"), to: try reader.varint("to"), reason: try reader.choice("reason"))
    }
}

extension Gap {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        try sink.position(from, "from")
        try sink.varint(first, "first")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(from: try reader.position("from"), first: try reader.varint("first"))
    }
}

extension Acknowledge {
    func write(to sink: inout some FrameSink) throws(FrameError) { try sink.varint(offset, "offset") }

    init(from reader: inout FrameReader) throws(FrameError) { self.init(offset: try reader.varint("offset")) }
}
