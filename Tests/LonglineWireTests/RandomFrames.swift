import LonglineTestKit
import LonglineWire
import NIOCore

/// Frames with random fields within their limits, reproducible from a seed.
enum RandomFrames {
    /// One frame of every type.
    static func one(ofEach random: inout SeededRandom) -> [Frame] {
        let frames: [Frame] = [
            .connect(connect(&random)),
            .cursors(Cursors(places(&random), areAll: Bool.random(using: &random))),
            .ahead(CursorsAhead(places(&random))),
            .connected(connected(&random)),
            .close(
                Close(
                    code: CloseCode(rawValue: UInt32(truncatingIfNeeded: number(&random))),
                    reason: text(&random, FrameLimits.maximumReason), retryAfter: number(&random),
                    accessPoint: text(&random, FrameLimits.maximumAccessPoint))),
            .ping(Ping(nonce: random.next(), answerAfter: number(&random))),
            .pong(Pong(nonce: random.next(), observedAddress: text(&random, FrameLimits.maximumAddress))),
            .ticket(Ticket(ticket: bytes(&random, FrameLimits.maximumTicket), expiry: number(&random))),
            .refresh(Refresh(token: text(&random, FrameLimits.maximumToken))),
            .refreshed(Refreshed(credentialExpiry: number(&random))),
            .join(RoomRequest(request: random.next(), room: room(&random))),
            .leave(RoomRequest(request: random.next(), room: room(&random))),
            .roomAnswer(
                RoomAnswer(
                    request: random.next(), refusal: Bool.random(using: &random) ? refusal(&random) : nil,
                    position: position(&random))),
            .roomSettings(roomSettings(&random)),
            .room(RoomCommand(request: random.next(), room: room(&random), action: roomAction(&random))),
            .members(
                MembersRequest(
                    request: random.next(), room: room(&random),
                    after: Bool.random(using: &random) ? user(&random) : nil,
                    limit: number(&random))),
            .membersPage(membersPage(&random)),
            .mode(SessionMode.allCases.randomElement(using: &random) ?? .foreground),
            .history(history(&random)),
            .historyPage(historyPage(&random)),
            .logout, .eraseAccount,
            .erasureRefused(ErasureRefused(code: .overloaded, retryAfter: number(&random))),
            .stopped(ChannelStopped(channel: channel(&random))),
            .behind(
                ChannelLag(
                    channel: channel(&random), head: position(&random), isBehind: Bool.random(using: &random))),
            .signal(signal(&random)),
            .subscribe(PresenceRequest(request: random.next(), users: users(&random, from: 1))),
            .unsubscribe(PresenceEnd(users: users(&random, from: 0))),
            .presence(
                PresenceUpdate(
                    user: user(&random), state: PresenceState.allCases.randomElement(using: &random) ?? .away,
                    lastSeen: number(&random))),
            .presenceAnswer(
                PresenceAnswer(
                    request: random.next(), refusal: Bool.random(using: &random) ? refusal(&random) : nil,
                    retryAfter: number(&random))),
            .visibility(PresenceVisibility.allCases.randomElement(using: &random) ?? .nothing),
            .lane(LaneHeader(channel: channel(&random), epoch: random.next())),
            .publish(
                Publish(
                    id: number(&random), tag: random.next(), after: number(&random),
                    recipient: Bool.random(using: &random) ? user(&random) : nil, kind: publishKind(&random),
                    timeToLive: number(&random),
                    payload: bytes(&random, FrameLimits.maximumPayload), following: following(&random))),
            .published(Published(id: number(&random), position: position(&random), time: number(&random))),
            .refused(
                Refused(
                    id: number(&random), code: refusal(&random), lastID: number(&random), retryAfter: number(&random))),
            .deliver(Deliver(entry: entry(&random), redelivered: Bool.random(using: &random))),
            .skip(
                Skip(
                    previous: number(&random), to: number(&random),
                    reason: [.expired, .retracted, .trimmed, .notEntitled].randomElement(using: &random) ?? .expired)),
            .gap(Gap(from: position(&random), first: number(&random))),
            .acknowledge(Acknowledge(offset: number(&random))),
            .part(Part(offset: number(&random), bytes: bytes(&random, FrameLimits.maximumPayload))),
            .batch(batch(&random)),
            .encodings(
                Encodings(
                    (0..<Int.random(in: 0...FrameLimits.maximumEncodings, using: &random)).map { _ in
                        BatchEncoding(rawValue: UInt32.random(in: 0 ... .max, using: &random))
                    }, plain: (0..<Int.random(in: 0...4, using: &random)).map { _ in channel(&random) })),
            .urgency(
                ChannelUrgency(
                    channel: channel(&random), urgency: Urgency.allCases.randomElement(using: &random) ?? .chat)),
        ]
        return frames + aboutConversations(&random)
    }

    /// The frames that can be large, with every field at its limit.
    static func largest() -> [Frame] {
        let most = FrameLimits.maximumNumber
        let name = String(repeating: "n", count: 64)
        guard let user = try? UserID(name), let device = try? DeviceID(name), let room = try? RoomID(name) else {
            return []
        }
        let producer = ProducerID(high: .max, low: .max)
        let position = Position(epoch: .max, offset: most)
        let token = String(repeating: "t", count: FrameLimits.maximumToken)
        let payload = ByteBuffer(repeating: 7, count: FrameLimits.maximumPayload)
        let cursor = ChannelPosition(channel: .room(room), position: position)
        let answer = ChannelAnswer(channel: .room(room), head: position, recovery: .fresh)
        let limits = SessionLimits(
            maximumPayload: most, channelWindow: most, maximumUnacknowledged: most, minimumHeartbeat: most,
            idleTimeout: most)
        return [
            .connect(
                Connect(
                    versions: [UInt32](repeating: .max, count: FrameLimits.maximumVersions), credential: .token(token),
                    producer: producer, connectNumber: most, cursorVersion: most,
                    cursors: [ChannelPosition](repeating: cursor, count: FrameLimits.maximumCursors),
                    agent: String(repeating: "a", count: FrameLimits.maximumAgent))),
            .cursors(Cursors([ChannelPosition](repeating: cursor, count: FrameLimits.maximumCursors), areAll: true)),
            .ahead(CursorsAhead([ChannelPosition](repeating: cursor, count: FrameLimits.maximumCursors))),
            .connected(
                Connected(
                    version: .max, session: .max, resumed: true, serverTime: most,
                    observedAddress: String(repeating: "a", count: FrameLimits.maximumAddress),
                    credentialExpiry: most, limits: limits, cursorVersion: most,
                    channels: [ChannelAnswer](repeating: answer, count: FrameLimits.maximumCursors))),
            .membersPage(
                MembersPage(
                    request: .max, total: most,
                    members: [RoomMember](
                        repeating: RoomMember(user: user, role: .owner), count: FrameLimits.maximumMembers), more: true)
            ),
            .subscribe(
                PresenceRequest(
                    request: .max, users: [UserID](repeating: user, count: FrameLimits.maximumPresenceUsers))),
            .publish(
                Publish(
                    id: most, tag: .max, after: most, recipient: user, kind: .edit(position), timeToLive: most,
                    payload: payload)),
            .deliver(
                Deliver(
                    entry: Entry(
                        offset: most, previous: most, kind: .edited, sender: user, device: device,
                        producer: producer, publishID: most, recipient: user, origin: position, target: most,
                        time: most, expiry: most, payload: payload),
                    redelivered: true)),
            largestConversationsPage(room),
        ]
    }

    static func places(_ random: inout SeededRandom) -> [ChannelPosition] {
        (0..<Int.random(in: 0...FrameLimits.maximumCursors, using: &random)).map { _ in
            ChannelPosition(channel: channel(&random), position: position(&random))
        }
    }

    static func connect(_ random: inout SeededRandom) -> Connect {
        let cursors = places(&random)
        var versions: [UInt32] = []
        for _ in 0..<Int.random(in: 1...FrameLimits.maximumVersions, using: &random) {
            versions.append(UInt32(truncatingIfNeeded: number(&random)))
        }
        return Connect(
            versions: versions,
            credential: Bool.random(using: &random)
                ? .token(text(&random, FrameLimits.maximumToken)) : .ticket(bytes(&random, FrameLimits.maximumTicket)),
            producer: .random(using: &random), connectNumber: number(&random), cursorVersion: number(&random),
            cursors: cursors, agent: text(&random, FrameLimits.maximumAgent))
    }

    static func connected(_ random: inout SeededRandom) -> Connected {
        var answers: [ChannelAnswer] = []
        for _ in 0..<Int.random(in: 0...FrameLimits.maximumCursors, using: &random) {
            answers.append(
                ChannelAnswer(
                    channel: channel(&random), head: position(&random),
                    recovery: [.recovered, .gap, .fresh].randomElement(using: &random) ?? .fresh))
        }
        return Connected(
            version: UInt32(truncatingIfNeeded: number(&random)), session: random.next(),
            resumed: Bool.random(using: &random), serverTime: number(&random),
            observedAddress: text(&random, FrameLimits.maximumAddress), credentialExpiry: number(&random),
            limits: SessionLimits(
                maximumPayload: number(&random), channelWindow: number(&random),
                maximumUnacknowledged: number(&random), minimumHeartbeat: number(&random),
                idleTimeout: number(&random)),
            cursorVersion: number(&random), channels: answers)
    }

    static func entry(_ random: inout SeededRandom) -> Entry {
        let kinds: [EntryKind] = [
            .message, .joined, .left, .changed, .edited, .retracted, .reacted, .reply, .request,
        ]
        let kind = kinds.randomElement(using: &random) ?? .message
        return Entry(
            offset: number(&random), previous: number(&random), kind: kind, sender: user(&random),
            device: device(&random), producer: .random(using: &random), publishID: number(&random),
            recipient: Bool.random(using: &random) ? user(&random) : nil,
            origin: Bool.random(using: &random) ? position(&random) : nil,
            target: kind.namesEntry ? number(&random) : nil, time: number(&random),
            expiry: number(&random), payload: bytes(&random, FrameLimits.maximumPayload),
            following: following(&random))
    }

    static func publishKind(_ random: inout SeededRandom) -> PublishKind {
        let target = position(&random)
        let kinds: [PublishKind] = [
            .message, .edit(target), .retract(target), .react(target), .reply(target), .request,
        ]
        return kinds.randomElement(using: &random) ?? .message
    }

    static func batch(_ random: inout SeededRandom) -> Batch {
        Batch(
            groups: (0..<Int.random(in: 0...5, using: &random)).map { _ in
                Batch.Group(
                    encoding: BatchEncoding(rawValue: UInt32.random(in: 0 ... .max, using: &random)),
                    count: Int.random(in: 0...800, using: &random),
                    length: Int.random(in: 3_000...13_000, using: &random), bytes: bytes(&random, 3_000))
            })
    }

    static func history(_ random: inout SeededRandom) -> HistoryRequest {
        HistoryRequest(
            request: random.next(), channel: channel(&random), epoch: random.next(), from: number(&random),
            direction: Bool.random(using: &random) ? .older : .newer, limit: number(&random))
    }

    static func historyPage(_ random: inout SeededRandom) -> HistoryAnswer {
        if Bool.random(using: &random) {
            return HistoryAnswer(
                request: random.next(), refusal: refusal(&random), retryAfter: number(&random), epoch: random.next())
        }
        return HistoryAnswer(
            request: random.next(), epoch: random.next(), start: number(&random), end: number(&random),
            more: Bool.random(using: &random),
            items: Int.random(in: 0...FrameLimits.maximumHistoryItems, using: &random))
    }

    static func roomAction(_ random: inout SeededRandom) -> RoomAction {
        let actions: [RoomAction] = [
            .add(user(&random)), .remove(user(&random)), .setRole(.owner, of: user(&random)),
            .setRole(.member, of: user(&random)), .setJoining(.anyone), .setJoining(.byOwners), .setJoining(.nobody),
            .setPublishing(.members), .setPublishing(.owners), .delete,
        ]
        return actions.randomElement(using: &random) ?? .delete
    }

    static func roomSettings(_ random: inout SeededRandom) -> RoomSettings {
        RoomSettings(
            room: room(&random), position: position(&random),
            joining: RoomJoining.allCases.randomElement(using: &random) ?? .anyone,
            publishing: RoomPublishing.allCases.randomElement(using: &random) ?? .members,
            role: RoomRole.allCases.randomElement(using: &random) ?? .member)
    }

    static func membersPage(_ random: inout SeededRandom) -> MembersPage {
        if Bool.random(using: &random) { return MembersPage(request: random.next(), refusal: refusal(&random)) }
        var members: [RoomMember] = []
        for _ in 0..<Int.random(in: 0...FrameLimits.maximumMembers, using: &random) {
            members.append(
                RoomMember(user: user(&random), role: RoomRole.allCases.randomElement(using: &random) ?? .member))
        }
        return MembersPage(
            request: random.next(), total: number(&random), members: members, more: Bool.random(using: &random))
    }

    static func users(_ random: inout SeededRandom, from least: Int) -> [UserID] {
        (0..<Int.random(in: least...FrameLimits.maximumPresenceUsers, using: &random)).map { _ in user(&random) }
    }

    static func signal(_ random: inout SeededRandom) -> Signal {
        Signal(
            channel: channel(&random), kind: SignalKind(rawValue: .random(in: 0...255, using: &random)),
            deadline: number(&random),
            sender: Bool.random(using: &random)
                ? SignalSender(user: user(&random), device: device(&random)) : nil,
            payload: bytes(&random, FrameLimits.maximumSignalPayload))
    }

    /// Of a random width, so that each varint length comes up.
    static func number(_ random: inout SeededRandom) -> UInt64 {
        random.next() & (FrameLimits.maximumNumber >> UInt64.random(in: 0...61, using: &random))
    }

    static func position(_ random: inout SeededRandom) -> Position {
        Position(epoch: random.next(), offset: number(&random))
    }

    static func refusal(_ random: inout SeededRandom) -> RefusalCode {
        RefusalCode(rawValue: UInt32.random(in: 1...UInt32.max, using: &random))
    }

    /// Mostly short, sometimes of the limit's length.
    private static func length(_ random: inout SeededRandom, _ limit: Int) -> Int {
        switch Int.random(in: 0..<8, using: &random) {
        case 0: 0
        case 1: limit
        case 2: Int.random(in: 0...limit, using: &random)
        default: Int.random(in: 0...min(limit, 100), using: &random)
        }
    }

    static func bytes(_ random: inout SeededRandom, _ limit: Int) -> ByteBuffer {
        let length = length(&random, limit)
        var buffer = ByteBuffer()
        for _ in 0..<(length / 8) { buffer.writeInteger(random.next()) }
        for _ in 0..<(length % 8) { buffer.writeInteger(UInt8.random(in: 0...255, using: &random)) }
        return buffer
    }

    /// With characters of one to four bytes.
    static func text(_ random: inout SeededRandom, _ limit: Int) -> String {
        let length = length(&random, limit)
        var text = ""
        while true {
            let next: Character = ["a", "é", "語", "🦊", "z"].randomElement(using: &random) ?? "a"
            guard text.utf8.count + String(next).utf8.count <= length else { return text }
            text.append(next)
        }
    }

    private static let alphabet = Array("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~@+-")

    private static func name(_ random: inout SeededRandom) -> String {
        let length = Int.random(in: 1...64, using: &random)
        return String((0..<length).map { _ in alphabet.randomElement(using: &random) ?? "a" })
    }

    static func following(_ random: inout SeededRandom) -> UInt64 {
        Bool.random(using: &random) ? 0 : max(1, number(&random))
    }

    // The names follow the rule by construction, so that making an identifier of them can't fail.
    static func user(_ random: inout SeededRandom) -> UserID {
        do { return try UserID(name(&random)) } catch { fatalError("\(error)") }
    }

    static func device(_ random: inout SeededRandom) -> DeviceID {
        do { return try DeviceID(name(&random)) } catch { fatalError("\(error)") }
    }

    static func room(_ random: inout SeededRandom) -> RoomID {
        do { return try RoomID(name(&random)) } catch { fatalError("\(error)") }
    }

    static func broadcast(_ random: inout SeededRandom) -> BroadcastID {
        do { return try BroadcastID(name(&random)) } catch { fatalError("\(error)") }
    }

    static func channel(_ random: inout SeededRandom) -> ChannelID {
        switch Int.random(in: 0..<3, using: &random) {
        case 0: .user(user(&random))
        case 1: .room(room(&random))
        default: .all(broadcast(&random))
        }
    }
}

extension FrameDecoder {
    /// Every frame of a buffer that holds whole frames.
    static func all(in buffer: ByteBuffer) throws -> [Frame] {
        var decoder = FrameDecoder()
        decoder.append(buffer)
        var frames: [Frame] = []
        while let frame = try decoder.next() { frames.append(frame) }
        try decoder.finish()
        return frames
    }
}
