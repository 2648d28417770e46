import LonglineWire
import Testing

extension Frame {
    /// The frame that a vector describes.
    init(_ name: String, _ fields: Fields) throws {
        switch name {
        case "CONNECT": self = .connect(try Connect(fields))
        case "CONNECTED": self = .connected(try Connected(fields))
        case "CLOSE":
            self = .close(
                Close(
                    code: CloseCode(rawValue: try fields.small("code")), reason: try fields.string("reason"),
                    retryAfter: try fields.number("retryAfter"), accessPoint: try fields.string("accessPoint")))
        case "PING":
            self = .ping(Ping(nonce: try fields.opaque("nonce"), answerAfter: try fields.number("answerAfter")))
        case "PONG":
            self = .pong(
                Pong(nonce: try fields.opaque("nonce"), observedAddress: try fields.string("observedAddress")))
        case "TICKET": self = .ticket(Ticket(ticket: try fields.bytes("ticket"), expiry: try fields.number("expiry")))
        case "REFRESH": self = .refresh(Refresh(token: try fields.string("token")))
        case "REFRESHED": self = .refreshed(Refreshed(credentialExpiry: try fields.number("credentialExpiry")))
        case "JOIN": self = .join(try RoomRequest(fields))
        case "LEAVE": self = .leave(try RoomRequest(fields))
        case "ROOM_ANSWER":
            let refusal = try fields.small("refusal")
            self = .roomAnswer(
                RoomAnswer(
                    request: try fields.opaque("request"),
                    refusal: refusal == 0 ? nil : RefusalCode(rawValue: refusal), position: try fields.position()))
        case "ROOM_SETTINGS": self = .roomSettings(try RoomSettings(fields))
        case "MODE":
            let modes: [String: SessionMode] = [
                "foreground": .foreground, "background": .background, "lowPower": .lowPower,
            ]
            self = .mode(try fields.choice("mode", modes))
        case "HISTORY": self = .history(try HistoryRequest(fields))
        case "HISTORY_PAGE": self = .historyPage(try HistoryAnswer(fields))
        case "ROOM": self = .room(try RoomCommand(fields))
        case "MEMBERS": self = .members(try MembersRequest(fields))
        case "MEMBERS_PAGE": self = .membersPage(try MembersPage(fields))
        case "LOGOUT": self = .logout
        case "ERASE_ACCOUNT": self = .eraseAccount
        case "ERASURE_REFUSED":
            self = .erasureRefused(
                ErasureRefused(
                    code: RefusalCode(rawValue: try fields.small("code")),
                    retryAfter: try fields.number("retryAfter")))
        case "CURSORS":
            self = .cursors(Cursors(try fields.places("cursors"), areAll: try fields.bool("all")))
        case "AHEAD": self = .ahead(CursorsAhead(try fields.places("records")))
        case "BEHIND":
            self = .behind(
                ChannelLag(
                    channel: try fields.channel(), head: try fields.position(), isBehind: try fields.bool("behind")))
        case "STOPPED": self = .stopped(ChannelStopped(channel: try fields.channel()))
        case "SIGNAL": self = .signal(try Signal(fields))
        case "SUBSCRIBE", "UNSUBSCRIBE", "PRESENCE", "PRESENCE_ANSWER", "VISIBILITY":
            self = try Frame(ofPresence: name, fields)
        case "ENCODINGS":
            let encodings = try fields.list("encodings").map { item in
                guard case .number(let number) = item else { throw VectorError(field: "encodings") }
                return BatchEncoding(rawValue: try #require(UInt32(exactly: number)))
            }
            self = .encodings(
                Encodings(encodings, plain: try fields.objects("plain").map { try $0.channel() }))
        case "URGENCY":
            let urgencies: [String: Urgency] = ["control": .control, "chat": .chat, "bulk": .bulk]
            self = .urgency(
                ChannelUrgency(
                    channel: try fields.channel(), urgency: try fields.choice("urgency", urgencies)))
        default: self = try Frame(aboutConversations: name, fields) ?? Frame(onChannelLane: name, fields)
        }
    }

    private init(ofPresence name: String, _ fields: Fields) throws {
        switch name {
        case "SUBSCRIBE":
            self = .subscribe(
                PresenceRequest(request: try fields.opaque("request"), users: try fields.users("users")))
        case "UNSUBSCRIBE": self = .unsubscribe(PresenceEnd(users: try fields.users("users")))
        case "PRESENCE":
            let states: [String: PresenceState] = ["offline": .offline, "away": .away, "online": .online]
            self = .presence(
                PresenceUpdate(
                    user: try UserID(try fields.string("user")), state: try fields.choice("state", states),
                    lastSeen: try fields.number("lastSeen")))
        case "PRESENCE_ANSWER":
            let refusal = try fields.small("refusal")
            self = .presenceAnswer(
                PresenceAnswer(
                    request: try fields.opaque("request"),
                    refusal: refusal == 0 ? nil : RefusalCode(rawValue: refusal),
                    retryAfter: try fields.number("retryAfter")))
        default:
            let values: [String: PresenceVisibility] = [
                "everything": .everything, "stateOnly": .stateOnly, "nothing": .nothing,
            ]
            self = .visibility(try fields.choice("visibility", values))
        }
    }

    private init(onChannelLane name: String, _ fields: Fields) throws {
        switch name {
        case "LANE": self = .lane(LaneHeader(channel: try fields.channel(), epoch: try fields.opaque("epoch")))
        case "PUBLISH":
            self = .publish(
                Publish(
                    id: try fields.number("id"), tag: try fields.opaque("tag"), after: try fields.number("after"),
                    recipient: fields.has("recipient") ? try UserID(try fields.string("recipient")) : nil,
                    kind: try PublishKind(fields), timeToLive: try fields.number("timeToLive"),
                    payload: try fields.bytes("payload"),
                    following: fields.has("following") ? try fields.number("following") : 0))
        case "BATCH":
            self = .batch(
                Batch(
                    groups: try fields.objects("groups").map { group in
                        Batch.Group(
                            encoding: BatchEncoding(rawValue: try group.small("encoding")),
                            count: Int(try group.small("frames")), length: Int(try group.small("length")),
                            bytes: try group.bytes("bytes"))
                    }))
        case "PART": self = .part(Part(offset: try fields.number("offset"), bytes: try fields.bytes("bytes")))
        case "PUBLISHED":
            self = .published(
                Published(
                    id: try fields.number("id"), position: try fields.position(), time: try fields.number("time")))
        case "REFUSED":
            self = .refused(
                Refused(
                    id: try fields.number("id"), code: RefusalCode(rawValue: try fields.small("code")),
                    lastID: try fields.number("lastID"), retryAfter: try fields.number("retryAfter")))
        case "DELIVER":
            self = .deliver(Deliver(entry: try Entry(fields), redelivered: try fields.bool("redelivered")))
        case "SKIP":
            let reasons: [String: SkipReason] = [
                "expired": .expired, "retracted": .retracted, "trimmed": .trimmed, "notEntitled": .notEntitled,
            ]
            self = .skip(
                Skip(
                    previous: try fields.number("previous"), to: try fields.number("to"),
                    reason: try fields.choice("reason", reasons)))
        case "GAP": self = .gap(Gap(from: try fields.object("from").position(), first: try fields.number("first")))
        case "ACK": self = .acknowledge(Acknowledge(offset: try fields.number("offset")))
        default: throw VectorError(field: name)
        }
    }
}

extension Connect {
    init(_ fields: Fields) throws {
        let versions = try fields.list("versions").map { item in
            guard case .number(let version) = item else { throw VectorError(field: "versions") }
            return try #require(UInt32(exactly: version))
        }
        self.init(
            versions: versions,
            credential: fields.has("token") ? .token(try fields.string("token")) : .ticket(try fields.bytes("ticket")),
            producer: try fields.producer(), connectNumber: try fields.number("connectNumber"),
            cursorVersion: try fields.number("cursorVersion"),
            cursors: try fields.places("cursors"),
            agent: try fields.string("agent"))
    }
}

extension Connected {
    init(_ fields: Fields) throws {
        let limits = try fields.object("limits")
        self.init(
            version: try fields.small("version"), session: try fields.opaque("session"),
            resumed: try fields.bool("resumed"), serverTime: try fields.number("serverTime"),
            observedAddress: try fields.string("observedAddress"),
            credentialExpiry: try fields.number("credentialExpiry"),
            limits: SessionLimits(
                maximumPayload: try limits.number("maximumPayload"),
                channelWindow: try limits.number("channelWindow"),
                maximumUnacknowledged: try limits.number("maximumUnacknowledged"),
                minimumHeartbeat: try limits.number("minimumHeartbeat"),
                idleTimeout: try limits.number("idleTimeout")),
            cursorVersion: try fields.number("cursorVersion"),
            channels: try fields.objects("channels").map {
                ChannelAnswer(
                    channel: try $0.channel(), head: try $0.position(),
                    recovery: try $0.choice("recovery", ["recovered": .recovered, "gap": .gap, "fresh": .fresh]))
            })
    }
}

extension RoomRequest {
    init(_ fields: Fields) throws {
        self.init(request: try fields.opaque("request"), room: try RoomID(try fields.string("room")))
    }
}

extension RoomCommand {
    init(_ fields: Fields) throws {
        let user = fields.has("user") ? try UserID(try fields.string("user")) : nil
        let value = UInt8(try fields.small("value"))
        let action: RoomAction? =
            switch (try fields.string("action"), user) {
            case ("add", let user?): .add(user)
            case ("remove", let user?): .remove(user)
            case ("setRole", let user?): RoomRole(rawValue: value).map { .setRole($0, of: user) }
            case ("setJoining", nil): RoomJoining(rawValue: value).map { .setJoining($0) }
            case ("setPublishing", nil): RoomPublishing(rawValue: value).map { .setPublishing($0) }
            case ("delete", nil): .delete
            default: nil
            }
        self.init(
            request: try fields.opaque("request"), room: try RoomID(try fields.string("room")),
            action: try #require(action))
    }
}

extension RoomSettings {
    init(_ fields: Fields) throws {
        self.init(
            room: try RoomID(try fields.string("room")), position: try fields.position(),
            joining: try fields.choice("joining", ["anyone": .anyone, "byOwners": .byOwners, "nobody": .nobody]),
            publishing: try fields.choice("publishing", ["members": .members, "owners": .owners]),
            role: try fields.choice("role", ["member": .member, "owner": .owner]))
    }
}

extension MembersRequest {
    init(_ fields: Fields) throws {
        let after = try fields.string("after")
        self.init(
            request: try fields.opaque("request"), room: try RoomID(try fields.string("room")),
            after: after.isEmpty ? nil : try UserID(after), limit: try fields.number("limit"))
    }
}

extension MembersPage {
    init(_ fields: Fields) throws {
        self.init(
            request: try fields.opaque("request"), total: try fields.number("total"),
            members: try fields.objects("members").map {
                RoomMember(
                    user: try UserID(try $0.string("user")),
                    role: try $0.choice("role", ["member": .member, "owner": .owner]))
            }, more: try fields.bool("more"))
        let code = try fields.small("refusal")
        refusal = code == 0 ? nil : RefusalCode(rawValue: code)
    }
}

extension HistoryRequest {
    init(_ fields: Fields) throws {
        self.init(
            request: try fields.opaque("request"), channel: try fields.channel(), epoch: try fields.opaque("epoch"),
            from: try fields.number("from"),
            direction: try fields.choice("direction", ["older": .older, "newer": .newer]),
            limit: try fields.number("limit"))
    }
}

extension HistoryAnswer {
    init(_ fields: Fields) throws {
        self.init(
            request: try fields.opaque("request"), epoch: try fields.opaque("epoch"), start: try fields.number("start"),
            end: try fields.number("end"), more: try fields.bool("more"), items: Int(try fields.small("items")))
        let code = try fields.small("refusal")
        refusal = code == 0 ? nil : RefusalCode(rawValue: code)
        retryAfter = try fields.number("retryAfter")
    }
}

extension Fields {
    fileprivate func users(_ name: String) throws -> [UserID] {
        try list(name).map { item in
            guard case .string(let text) = item else { throw VectorError(field: name) }
            return try UserID(text)
        }
    }
}

extension Signal {
    init(_ fields: Fields) throws {
        self.init(
            channel: try fields.channel(), kind: SignalKind(rawValue: UInt8(try fields.small("kind"))),
            deadline: try fields.number("deadline"),
            sender: fields.has("sender")
                ? SignalSender(
                    user: try UserID(try fields.string("sender")), device: try DeviceID(try fields.string("device")))
                : nil,
            payload: try fields.bytes("payload"))
    }
}

extension Entry {
    init(_ fields: Fields) throws {
        self.init(
            offset: try fields.number("offset"), previous: try fields.number("previous"),
            kind: try fields.choice(
                "kind", Self.kinds),
            sender: try UserID(try fields.string("sender")), device: try DeviceID(try fields.string("device")),
            producer: try fields.producer(), publishID: try fields.number("publishID"),
            recipient: fields.has("recipient") ? try UserID(try fields.string("recipient")) : nil,
            origin: fields.has("origin") ? try fields.object("origin").position() : nil,
            target: fields.has("target") ? try fields.number("target") : nil,
            time: try fields.number("time"), expiry: try fields.number("expiry"), payload: try fields.bytes("payload"),
            following: fields.has("following") ? try fields.number("following") : 0)
    }
}

extension Entry {
    fileprivate static let kinds: [String: EntryKind] = [
        "message": .message, "joined": .joined, "left": .left, "changed": .changed, "edited": .edited,
        "retracted": .retracted, "reacted": .reacted, "reply": .reply, "request": .request,
    ]
}

extension PublishKind {
    fileprivate init(_ fields: Fields) throws {
        guard fields.has("kind") else {
            self = .message
            return
        }
        let kind = try fields.choice("kind", Entry.kinds)
        self = try #require(PublishKind(kind, target: try fields.object("target").position()))
    }
}
