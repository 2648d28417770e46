import LonglineSession
import LonglineWire
import NIOCore

/// What each row of the second table of docs/protocol.md section 24 gets, in the table's words.
enum SpecifiedAnswers {
    static let now = Fixture.start
    static let lane = LaneID(rawValue: 1)
    private static let bob = Fixture.user("bob")
    static let hall = Fixture.name("hall")
    private static let origin = Position(epoch: 0, offset: 0)

    /// The tests of rows that a session does not decide alone: the file below `Tests`, and the function. Together they name every
    /// code of their row.
    static let byOthers: [String: [(file: String, function: String)]] = single.mapValues { [$0] }
        .merging(severalTests) { one, _ in one }

    private static let severalTests: [String: [(file: String, function: String)]] = [
        "CONNECT | token, ticket | see section 6": [
            ("LonglineServerTests/SessionRefusalTests", "badCredentialsAreNamed"),
            ("LonglineServerTests/SpecifiedRefusalTests", "revokedAndForeignCredentials"),
        ],
        "ROOM | user, value | see section 10": [
            ("LonglineServerTests/SpecifiedRefusalTests", "roomAnswers"),
            ("LonglineStoreTests/RoomRightsConformanceTests", "onlyOwnersChangeARoom"),
        ],
        "CONVERSATION_SET | conversation | oneself, a room that the user is not in, a room to block": [
            ("LonglineServerTests/ConversationTests", "settings"),
            ("LonglineStoreTests/ConversationConformanceTests", "settingsAreAUsersBoundedAndGoneWithTheAccount"),
        ],
        "DELIVER, SKIP, GAP |  | with the window full already": [
            ("LonglineSessionTests/ClientSessionTests", "overfullWindow"),
            ("LonglineSessionTests/ClientPayloadTests", "full"),
        ],
        "DELIVER, SKIP, GAP |  | inside the parts of another on its lane": [
            ("LonglineSessionTests/ClientPayloadTests", "inside"),
            ("LonglineSessionTests/ClientPayloadTests", "damaged"),
        ],
        "PUBLISH, DELIVER | following | a fifth payload in parts at once": [
            ("LonglineSessionTests/LargePayloadTests", "tooMany"),
            ("LonglineSessionTests/ClientPayloadTests", "limits"),
        ],
        "PUBLISH | id, tag | see section 8": [
            ("LonglineStoreTests/PublishConformanceTests", "outOfOrderReusedAndInvalidIDsStoreNothing"),
            ("LonglineStoreTests/PublishConformanceTests", "theLast1024AnswersAreRememberedAndOlderOnesAreUnknown"),
        ],
        "PUBLISH | target | see [25](#25-entries-that-name-another)": [
            ("LonglineStoreTests/TargetConformanceTests", "whatIsNotThereIsRefused"),
            ("LonglineStoreTests/TargetConformanceTests", "anEditLastsAsLongAsItsMessage"),
        ],
    ]

    private static let single: [String: (file: String, function: String)] = [
        "CONNECT | token, ticket | of a login that lost its place": (
            "LonglineServerTests/DevicePolicyTests", "anAutomaticReconnectNeverEvictsANewerLogin"
        ),
        "CONNECT | producer | more outboxes of one device than the store keeps": (
            "LonglineServerTests/SessionRefusalTests", "outboxesOfADeviceAreLimited"
        ),
        "CONNECT | connect number | lower than one that was seen": (
            "LonglineServerTests/SessionHostTests", "aLowerConnectNumberIsStale"
        ),
        "LEAVE, ROOM | room | not a member": ("LonglineStoreTests/RoomRightsConformanceTests", "onlyOwnersChangeARoom"),
        "MEMBERS | room | not a member": ("LonglineServerTests/RoomTests", "addingAndRemoving"),
        "CONVERSATIONS | after | bytes that no page gave": ("LonglineServerTests/ConversationTests", "refusals"),
        "READ | position | another epoch, beyond the log, or not above an earlier one": (
            "LonglineStoreTests/ConversationConformanceTests", "aPlaceThatMeansNothingIsIgnored"
        ),
        "PRESENCE | user | nobody asked for": ("LonglineClientTests/PresenceTests", "watching"),
        "PUBLISH | kind, recipient | a request without another user as its recipient": (
            "LonglineStoreTests/TargetConformanceTests", "aRequestIsAnsweredByWhomItWasPutTo"
        ),
        "PUBLISH | recipient | blocked by the publishing user": (
            "LonglineStoreTests/ConversationConformanceTests+Blocks", "whoIsBlockedSeesNothingOfTheOtherSide"
        ),
        "PUBLISH | following | over *maximum payload* with the payload": (
            "LonglineSessionTests/LargePayloadTests", "refused"
        ),
        "DELIVER | following | beside another entry in a page of history": (
            "LonglineSessionTests/HistoryTests", "largePayloads"
        ),
        "DELIVER | following | over 16 MiB with the payload": ("LonglineSessionTests/ClientPayloadTests", "limits"),
        "PUBLISH, LANE |  | inside the parts of another on its lane": (
            "LonglineSessionTests/LargePayloadTests", "places"
        ),
        "DELIVER, SKIP, GAP, BATCH, PART |  | on a lane with epoch 0": (
            "LonglineSessionTests/BadInputTests", "answerLane"
        ),
        "BATCH |  | not asked for, of an excepted channel, or inside the parts of an entry": (
            "LonglineSessionTests/BatchTests", "outOfPlace"
        ),
        "BATCH | bytes | no such run of frames; more than *length*": ("LonglineSessionTests/BatchTests", "damaged"),
        "PART |  | of nothing": ("LonglineSessionTests/LargePayloadTests", "places"),
        "PART | offset | not where the bytes before it ended": ("LonglineSessionTests/LargePayloadTests", "places"),
        "PART | bytes | beyond the announced end": ("LonglineSessionTests/LargePayloadTests", "places"),
    ]

    static let here = requests.merging(more) { one, _ in one }.merging(pasts) { one, _ in one }.merging(lanes) {
        one, _ in one
    }
    .merging(clients) { one, _ in one }.merging(signals) { one, _ in one }

    typealias Answers = [String: @Sendable () -> String]

    private static let requests: Answers = [
        "CONNECT | versions | none in common": {
            var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
            session.handshakeCompleted(now: now)
            var connect = Fixture.connect()
            connect.versions = [7]
            session.received(.connect(connect), lane: .control, early: false, now: now)
            return words(session.drain())
        },
        "CONNECT | cursors | another epoch, beyond the log, or no channel of the user's": {
            let places = [(Fixture.inbox, Fixture.epoch + 1, Offset(3)), (.room(hall), 9, 9)]
            let cursors = places.map {
                ChannelPosition(channel: $0.0, position: Position(epoch: $0.1, offset: $0.2))
            }
            var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
            session.handshakeCompleted(now: now)
            session.received(.connect(Fixture.connect(cursors: cursors)), lane: .control, early: false, now: now)
            session.authenticated(grant(), time: 0, now: now)
            let frames = session.drain().frames
            let gaps = frames.count { if case .gap = $0 { true } else { false } }
            let isListed = frames.contains {
                if case .connected(let connected) = $0 {
                    connected.channels.map(\.channel) == [Fixture.inbox]
                } else {
                    false
                }
            }
            return gaps == 1 && isListed ? "ignored; a `GAP` where there is one" : "\(frames)"
        },
        "CURSORS |  | a thirteenth": { beforeConnect((0...12).map { _ in Cursors([], areAll: false) }) },
        "CURSORS |  | behind one with *all*": {
            beforeConnect([Cursors([], areAll: true), Cursors([], areAll: false)])
        },
        "CURSORS | cursors | as in CONNECT": {
            var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
            session.handshakeCompleted(now: now)
            let stranger = ChannelPosition(channel: .room(hall), position: Position(epoch: 9, offset: 9))
            session.received(.cursors(Cursors([stranger], areAll: true)), lane: .control, early: false, now: now)
            session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
            session.authenticated(grant(head: 3, cursor: 3), time: 0, now: now)
            let frames = session.drain().frames
            let isIgnored = frames.contains {
                if case .connected(let connected) = $0 { connected.channels.map(\.recovery) == [.fresh] } else { false }
            }
            return isIgnored && !session.isClosed ? "likewise" : "\(frames)"
        },
        "REFRESH | token | a second one before the answer": {
            control(.refresh(Refresh(token: "a")), .refresh(Refresh(token: "b")))
        },
        "JOIN, LEAVE, ROOM | request | a number that waits for its answer": {
            control(
                .join(RoomRequest(request: 1, room: hall)),
                .room(RoomCommand(request: 1, room: hall, action: .delete)))
        },
        "JOIN, LEAVE, ROOM | request | over 16 without an answer": {
            control((1...17).map { .leave(RoomRequest(request: $0, room: hall)) })
        },
        "MEMBERS | request | a number that waits for its answer": { control(members(1), members(1)) },
        "MEMBERS | request | over 4 without an answer": { control((1...5).map { members($0) }) },
        "MEMBERS | limit | not 1 to 100": {
            same(control(members(1, limit: 0)), control(members(1, limit: 101)))
        },
    ]

    private static let more: Answers = [
        "CONVERSATIONS | request | a number that waits for its answer": { control(conversations(1), conversations(1)) },
        "CONVERSATIONS | request | over 4 without an answer": { control((1...5).map { conversations($0) }) },
        "CONVERSATIONS | limit | not 1 to 50": {
            same(control(conversations(1, limit: 0)), control(conversations(1, limit: 51)))
        },
        "READ | conversation | none of the user's, or not allowed to receive": {
            let mark = ReadMark(conversation: .user(bob), position: origin, isPrivate: false)
            var session = server(Fixture.identity(mayReceive: false))
            session.received(.read(mark), lane: .control, early: false, now: now)
            return words(session.drain())
        },
        "CONVERSATION_SET | request | 0, or a number that waits for its answer": {
            same(control(mute(0)), control(mute(1), mute(1)))
        },
        "CONVERSATION_SET | request | over 16 without an answer": { control((1...17).map { mute($0) }) },
        "URGENCY | channel | not the user's": {
            let answer = control(.urgency(ChannelUrgency(channel: .user(bob), urgency: .bulk)))
            return answer == "ignored" ? "remembered, and of no effect" : answer
        },
        "URGENCY |  | over 256 channels": {
            control(
                (0...256).map { .urgency(ChannelUrgency(channel: .room(Fixture.name("r\($0)")), urgency: .bulk)) })
        },
    ]

    private static let lanes: Answers = [
        "LANE | channel | not the user's": {
            let answer = onLane(.user(bob), .publish(Fixture.publish(1)))
            return "each `PUBLISH` on it: \(answer)"
        },
        "LANE | epoch | not the channel's": {
            var session = server(head: 5)
            let header = LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch + 1)
            session.received(.lane(header), lane: lane, early: false, now: now)
            session.received(.acknowledge(Acknowledge(offset: 1)), lane: lane, early: false, now: now)
            return "each `ACK` on it is \(words(session.drain()))"
        },
        "lanes | number | used again": {
            var session = server()
            let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: 0))
            session.received(header, lane: lane, early: false, now: now)
            session.laneFinished(lane, now: now)
            session.received(header, lane: lane, early: false, now: now)
            return words(session.drain())
        },
        "lanes | number | over 512 open or passed over": {
            var session = server()
            let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: 0))
            session.received(header, lane: LaneID(rawValue: 513), early: false, now: now)
            return words(session.drain())
        },
        "PUBLISH | id, after | 0, or `after` not below it": {
            same(
                onLane(Fixture.inbox, .publish(Fixture.publish(0))),
                onLane(Fixture.inbox, .publish(Fixture.publish(3, after: 3))))
        },
        "PUBLISH | payload | over 64 bytes in a retraction or reaction": {
            let place = Position(epoch: Fixture.epoch, offset: 1)
            func remark(_ kind: PublishKind) -> String {
                var remark = Fixture.publish(1, bytes: 65)
                remark.kind = kind
                return onLane(Fixture.inbox, .publish(remark))
            }
            return same(remark(.react(place)), remark(.retract(place)))
        },
        "PUBLISH | payload | over 15,360 bytes": {
            onLane(Fixture.inbox, .publish(Fixture.publish(1, bytes: FrameLimits.maximumPayload + 1)))
        },
        "PUBLISH |  | over the window, or over *maximum unacknowledged*": {
            func flood(_ count: UInt64, bytes: Int) -> String {
                onLane(Fixture.inbox, (1...count).map { .publish(Fixture.publish($0, after: $0 - 1, bytes: bytes)) })
            }
            return same(flood(1_025, bytes: 0), flood(30, bytes: 10_000))
        },
        "ACK | offset | beyond the last readable entry, or not above an earlier one": {
            func acknowledge(_ offset: Offset) -> String {
                var session = server(head: 5, cursor: 3)
                session.received(
                    .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, early: false, now: now)
                session.received(.acknowledge(Acknowledge(offset: offset)), lane: lane, early: false, now: now)
                return words(session.drain())
            }
            return same(acknowledge(6), acknowledge(3))
        },
    ]

    private static let clients: Answers = [
        "CONNECTED | version | not one that was offered": {
            var connected = Fixture.connected()
            connected.version = 9
            return client(isConnected: false, .control, .connected(connected))
        },
        "AHEAD |  | a 65th before `CONNECTED`": {
            var session = connectedClient(isConnected: false)
            for _ in 0..<65 { session.received(.ahead(CursorsAhead([])), lane: .control, now: now) }
            return session.drain().endCode.map { "\($0.rawValue)" } ?? "ignored"
        },
        "AHEAD | records | a channel that it does not know": {
            var session = connectedClient(isConnected: false)
            let place = ChannelPosition(channel: .room(hall), position: Position(epoch: 9, offset: 9))
            session.received(.ahead(CursorsAhead([place])), lane: .control, now: now)
            session.received(.connected(Fixture.connected()), lane: .control, now: now)
            session.linkClosed(now: now)
            session.linkOpened(
                credential: .token("token"), connectNumber: 2, supportsPathChange: false, outbox: [], now: now)
            let names = session.drain().frames.contains {
                if case .connect(let connect) = $0 { connect.cursors.map(\.position.offset) == [0] } else { false }
            }
            return names ? "named in the next `CONNECT`" : "ignored"
        },
        "DELIVER, SKIP | offset, previous | no link of the chain": {
            let deliver = Frame.deliver(Deliver(entry: Fixture.entry(7, after: 5), redelivered: false))
            let skip = Frame.skip(Skip(previous: 5, to: 7, reason: .expired))
            let code = same(client(lane, deliver), client(lane, skip))
            return code == "1004" ? "section 11" : code
        },
        "PUBLISHED, REFUSED | id | of nothing under way": {
            same(
                client(lane, .published(Published(id: 9, position: origin, time: 0))),
                client(lane, .refused(Refused(id: 9, code: .forbidden))))
        },
        "SUBSCRIBE | request | a number that waits for its answer": { control(subscribe(1), subscribe(1)) },
        "SUBSCRIBE | request | over 16 without an answer": { control((1...17).map { subscribe($0) }) },
        "SUBSCRIBE | users | without the right, for one of them": {
            var session = server(identity(mayWatch: false))
            session.received(subscribe(1), lane: .control, early: false, now: now)
            return words(session.drain())
        },
        "SUBSCRIBE | users | more than a session is told of": {
            var configuration = ServerSessionConfiguration()
            configuration.maximumPresenceUsers = 1
            var session = server(configuration: configuration)
            let request = PresenceRequest(request: 1, users: [bob, Fixture.user("carol")])
            session.received(.subscribe(request), lane: .control, early: false, now: now)
            return words(session.drain())
        },
        "UNSUBSCRIBE | users | of which the session is not told": { control(.unsubscribe(PresenceEnd(users: [bob]))) },
        "PRESENCE_ANSWER | request | of nothing asked": {
            client(.control, .presenceAnswer(PresenceAnswer(request: 9)))
        },
    ]

    private static let signals: Answers = [
        "SIGNAL | flags | a sender from a client, or none from a server": {
            let sender = SignalSender(user: bob, device: Fixture.identity().device)
            return same(control(signal(sender: sender)), client(.control, signal(sender: nil)))
        },
        "SIGNAL | channel | without the right, or not a member": {
            var session = server(Fixture.identity(mayPublish: false))
            session.received(signal(sender: nil), lane: .control, early: false, now: now)
            let stranger = control(.signal(Signal(channel: .room(hall), kind: .typing, deadline: 1_000)))
            return same(words(session.drain()), stranger)
        },
        "SIGNAL | kind | an unknown one": {
            var session = server()
            session.received(signal(sender: nil, kind: 250), lane: .control, early: false, now: now)
            let isPassedOn = session.drain().contains {
                if case .signal(let signal, _) = $0 { signal.kind.rawValue == 250 } else { false }
            }
            var client = connectedClient()
            let sender = SignalSender(user: bob, device: Fixture.identity().device)
            client.received(signal(sender: sender, kind: 250), lane: .control, now: now)
            let isTold = client.drain().contains { if case .signal = $0 { true } else { false } }
            return isPassedOn && isTold ? "passed on; told to the app, which passes over it" : "neither"
        },
        "SIGNAL | deadline | 0": {
            control(.signal(Signal(channel: Fixture.inbox, kind: .typing, deadline: 0)))
        },
        "a datagram |  | a known frame but SIGNAL": {
            var session = server()
            session.receivedDatagram(.ping(Ping(nonce: 1)), now: now)
            return words(session.drain())
        },
        "ROOM_ANSWER, MEMBERS_PAGE | request | of nothing asked": {
            same(
                client(.control, .roomAnswer(RoomAnswer(request: 9, refusal: nil, position: origin))),
                client(.control, .membersPage(MembersPage(request: 9, total: 0, members: [], more: false))))
        },
        "CONVERSATIONS_PAGE, CONVERSATION | request | of nothing asked": {
            let state = ConversationState(
                request: 9, refusal: nil, conversation: .user(bob), settings: ConversationSettings())
            return same(
                client(.control, .conversationsPage(ConversationsPage(request: 9, next: ByteBuffer(), items: []))),
                client(.control, .conversation(state)))
        },
        "RECEIPT | position | another epoch, or not above an earlier one": {
            var client = connectedClient()
            let receipt = Receipt(conversation: .user(bob), user: bob, kind: .read, position: origin)
            for _ in 0..<2 { client.received(.receipt(receipt), lane: .control, now: now) }
            let told = client.drain().count { if case .receipt = $0 { true } else { false } }
            return told == 2 ? "the client's affair" : "\(told) of 2"
        },
    ]

    // MARK: Sessions

    static func identity(mayWatch: Bool = true) -> SessionIdentity {
        var identity = Fixture.identity()
        identity.mayManage = true
        identity.mayWatch = mayWatch
        return identity
    }

    private static func grant(
        _ identity: SessionIdentity = identity(), head: Offset = 0, cursor: Offset? = nil
    ) -> SessionGrant {
        let place = cursor.map { Position(epoch: Fixture.epoch, offset: $0) }
        return SessionGrant(
            identity: identity, session: 1, resumed: false, cursorVersion: 1,
            channels: [Fixture.channel(head: head, cursor: place)], ticket: nil)
    }

    static func server(
        _ identity: SessionIdentity = identity(), head: Offset = 0, cursor: Offset? = nil,
        configuration: ServerSessionConfiguration = ServerSessionConfiguration()
    ) -> ServerSession {
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(grant(identity, head: head, cursor: cursor), time: 0, now: now)
        _ = session.drain()
        return session
    }

    /// What the last of some frames before CONNECT gets.
    private static func beforeConnect(_ frames: [Cursors]) -> String {
        var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        for frame in frames {
            if session.isClosed { return "closed too early" }
            session.received(.cursors(frame), lane: .control, early: false, now: now)
        }
        return words(session.drain())
    }

    /// What the last of some frames on lane 0 gets.
    static func control(_ frames: Frame...) -> String { control(frames) }

    static func control(_ frames: [Frame]) -> String {
        var session = server()
        for frame in frames.dropLast() {
            session.received(frame, lane: .control, early: false, now: now)
            if session.isClosed { return "closed too early" }
        }
        _ = session.drain()
        if let last = frames.last { session.received(last, lane: .control, early: false, now: now) }
        return words(session.drain())
    }

    private static func onLane(_ channel: ChannelID, _ frames: Frame...) -> String { onLane(channel, frames) }

    private static func onLane(_ channel: ChannelID, _ frames: [Frame]) -> String {
        var session = server()
        session.received(.lane(LaneHeader(channel: channel, epoch: 0)), lane: lane, early: false, now: now)
        for frame in frames { session.received(frame, lane: lane, early: false, now: now) }
        return words(session.drain())
    }

    static func connectedClient(isConnected: Bool = true) -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        if isConnected {
            session.received(.connected(Fixture.connected()), lane: .control, now: now)
            session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, now: now)
        }
        _ = session.drain()
        return session
    }

    private static func client(isConnected: Bool = true, _ lane: LaneID, _ frame: Frame) -> String {
        var session = connectedClient(isConnected: isConnected)
        session.received(frame, lane: lane, now: now)
        let actions = session.drain()
        if let code = actions.endCode { return "\(code.rawValue)" }
        return actions.isEmpty ? "ignored" : "\(actions)"
    }

    /// What came of it, in the table's words.
    static func words(_ actions: [ServerAction]) -> String {
        if let code = actions.closeCode { return "\(code.rawValue)" }
        if let code = actions.lookUps.values.first { return "`REFUSED` \(code.rawValue)" }
        for action in actions { if case .signalDropped = action { return "dropped" } }
        for frame in actions.frames.reversed() {
            switch frame {
            case .roomAnswer(let answer): return "`ROOM_ANSWER` \(answer.refusal?.rawValue ?? 0)"
            case .membersPage(let page): return "`MEMBERS_PAGE` \(page.refusal?.rawValue ?? 0)"
            case .conversationsPage(let page): return "`CONVERSATIONS_PAGE` \(page.refusal?.rawValue ?? 0)"
            case .conversation(let state): return "`CONVERSATION` \(state.refusal?.rawValue ?? 0)"
            case .presenceAnswer(let answer): return "`PRESENCE_ANSWER` \(answer.refusal?.rawValue ?? 0)"
            case .historyPage(let page): return "`HISTORY_PAGE` \(page.refusal?.rawValue ?? 0)"
            case .refused(let refused): return "`REFUSED` \(refused.code.rawValue)"
            default: break
            }
        }
        return actions.isEmpty ? "ignored" : "\(actions)"
    }

    static func same(_ one: String, _ other: String) -> String { one == other ? one : "\(one) and \(other)" }

    // MARK: Frames

    private static func members(_ request: UInt64, limit: UInt64 = 10) -> Frame {
        .members(MembersRequest(request: request, room: hall, after: nil, limit: limit))
    }

    private static func conversations(_ request: UInt64, limit: UInt64 = 10) -> Frame {
        .conversations(ConversationsRequest(request: request, after: ByteBuffer(), limit: limit))
    }

    private static func mute(_ request: UInt64) -> Frame {
        .conversationSet(ConversationChange(request: request, conversation: .user(bob), setting: .mute(until: 5)))
    }

    private static func subscribe(_ request: UInt64) -> Frame {
        .subscribe(PresenceRequest(request: request, users: [bob]))
    }

    private static func signal(sender: SignalSender?, kind: UInt8 = 0) -> Frame {
        .signal(
            Signal(channel: Fixture.inbox, kind: SignalKind(rawValue: kind), deadline: 1_000, sender: sender))
    }
}
