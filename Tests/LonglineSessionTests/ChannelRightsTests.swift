import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Rights by channel pattern: what a session with them may do, and what changes when a fresh token brings others.
@Suite("Channel rights")
struct ChannelRightsTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)
    private let hall = ChannelID.room(Fixture.name("hall"))
    private let team = ChannelID.room(Fixture.name("team-7"))

    private func identity(_ grants: (ChannelAction, String)...) throws -> SessionIdentity {
        var identity = Fixture.identity(mayPublish: false, mayReceive: false, mayJoin: false)
        identity.grants = try grants.map { ChannelGrant($0, try #require(ChannelPattern($1))) }
        return identity
    }

    private func up(_ identity: SessionIdentity, _ channels: [SessionChannel]) -> ServerSession {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: channels, ticket: nil),
            time: 0, now: now)
        return session
    }

    private func refresh(_ session: inout ServerSession, _ identity: SessionIdentity) -> [ServerAction] {
        session.received(.refresh(Refresh(token: "t")), lane: .control, early: false, now: now)
        session.refreshed(identity, time: 0, now: now)
        return session.drain()
    }

    private func publish(
        _ session: inout ServerSession, into channel: ChannelID, to recipient: String? = nil, lane: UInt64
    ) -> (entered: Bool, refusal: RefusalCode?) {
        var publish = Fixture.publish(lane)
        publish.recipient = recipient.map(Fixture.user)
        let lane = LaneID(rawValue: lane)
        session.received(.lane(LaneHeader(channel: channel, epoch: 0)), lane: lane, early: false, now: now)
        session.received(.publish(publish), lane: lane, early: false, now: now)
        let actions = session.drain()
        let refusals = actions.frames.compactMap { if case .refused(let refused) = $0 { refused.code } else { nil } }
        return (!actions.appends.isEmpty, refusals.first ?? actions.lookUps[publish.id])
    }

    // MARK: Patterns

    @Test(
        "A pattern names one channel, or all whose name begins alike",
        arguments: [
            ("room/hall", "room/hall", true), ("room/hall", "room/hall2", false), ("room/hall", "user/hall", false),
            ("room/h*", "room/hall", true), ("room/h*", "room/h", true), ("room/h*", "room/H", false),
            ("room/*", "room/hall", true), ("room/*", "user/hall", false), ("all/*", "all/news", true),
            ("all/ne*", "all/news", true), ("all/news", "all/new", false), ("all/*", "room/all", false),
            ("room/*", "all/hall", false), ("user/*", "all/hall", false), ("user/*", "user/bob", true),
            ("room/team-*", "room/team-7", true), ("room/team-*", "room/team", false),
        ])
    func matches(pattern: String, channel: String, expected: Bool) throws {
        let parsed = try #require(ChannelPattern(pattern))
        #expect(parsed.matches(try ChannelID(channel)) == expected)
        #expect(parsed.description == pattern)
    }

    @Test(
        "What is no pattern is none",
        arguments: [
            "", "*", "room", "room/", "team/x", "room/a*b", "room/**", "room/*a", "room/a b", "room/a/b", "Room/a",
            "user/ö", "room/" + String(repeating: "x", count: 65),
        ])
    func refused(text: String) { #expect(ChannelPattern(text) == nil) }

    @Test("The longest name fits, and the star takes the place of its last byte")
    func longest() {
        #expect(ChannelPattern("room/" + String(repeating: "x", count: 64)) != nil)
        #expect(ChannelPattern("room/" + String(repeating: "x", count: 63) + "*") != nil)
        #expect(ChannelPattern("room/" + String(repeating: "x", count: 64) + "*") == nil)
    }

    // MARK: One session

    @Test("CONNECTED lists the channels that may be received, and only they are read")
    func receives() throws {
        var session = up(
            try identity((.receive, "room/team-*")),
            [Fixture.channel(head: 5), Fixture.channel(hall, head: 5), Fixture.channel(team, head: 5)])
        let actions = session.drain()
        guard case .connected(let connected) = actions.frames.first else { return #expect(Bool(false), "no CONNECTED") }
        #expect(connected.channels.map(\.channel) == [team])
        let reads = actions.compactMap { if case .read(let channel, _, _, _) = $0 { channel } else { nil } }
        #expect(reads == [team])
        session.logAdvanced(hall, head: Position(epoch: Fixture.epoch, offset: 6), now: now)
        session.channelChanged(Fixture.channel(hall, head: 7), now: now)
        #expect(session.drain().isEmpty)
    }

    @Test("A publish needs its room's right, a direct message its recipient's, a note one's own")
    func publishes() throws {
        var session = up(
            try identity((.publish, "room/team-*"), (.publish, "user/bob")),
            [Fixture.channel(), Fixture.channel(hall), Fixture.channel(team)])
        _ = session.drain()
        #expect(publish(&session, into: hall, lane: 1) == (false, .forbidden))
        #expect(publish(&session, into: team, lane: 2) == (true, nil))
        #expect(publish(&session, into: Fixture.inbox, to: "carol", lane: 3) == (false, .forbidden))
        #expect(publish(&session, into: Fixture.inbox, lane: 4) == (false, .forbidden))
        #expect(publish(&session, into: Fixture.inbox, to: "alice", lane: 5) == (false, .forbidden))
        #expect(publish(&session, into: Fixture.inbox, to: "bob", lane: 6) == (true, nil))
        // The right to write to bob is none to enter something into his inbox by oneself.
        #expect(publish(&session, into: .user(Fixture.user("bob")), lane: 7) == (false, .unknownChannel))

        var notes = up(try identity((.publish, "user/alice")), [Fixture.channel()])
        _ = notes.drain()
        #expect(publish(&notes, into: Fixture.inbox, to: "bob", lane: 1) == (false, .forbidden))
        #expect(publish(&notes, into: Fixture.inbox, to: "alice", lane: 2) == (true, nil))
        #expect(publish(&notes, into: Fixture.inbox, lane: 3) == (true, nil))
    }

    @Test("Rooms are joined by their pattern, and left without a right")
    func joins() throws {
        var session = up(try identity((.join, "room/team-*")), [Fixture.channel()])
        _ = session.drain()
        for (number, room) in ["team-7", "hall"].enumerated() {
            for leave in [false, true] {
                let request = RoomRequest(request: UInt64(number * 2 + (leave ? 1 : 0)), room: Fixture.name(room))
                session.received(leave ? .leave(request) : .join(request), lane: .control, early: false, now: now)
                let actions = session.drain()
                let isAsked = actions.contains {
                    switch $0 {
                    case .join, .leave: true
                    default: false
                    }
                }
                let refusal = actions.frames.compactMap {
                    if case .roomAnswer(let answer) = $0 { answer.refusal } else { nil }
                }.first
                let isAllowed = leave || room == "team-7"
                #expect(isAsked == isAllowed)
                #expect(refusal == (isAllowed ? nil : .forbidden))
            }
        }
    }

    // MARK: A fresh token

    @Test("A channel that a fresh token leaves out stops with an answer, and another takes no notice")
    func narrows() throws {
        var session = up(
            try identity((.receive, "room/*"), (.publish, "room/*")),
            [Fixture.channel(hall, head: 2), Fixture.channel(team, head: 2)])
        _ = session.drain()
        session.pageRead(team, page: Fixture.page([1, 2]), now: now)
        _ = session.drain()
        // The hall's page is still being read.
        let answers = refresh(&session, try identity((.receive, "room/team-*"), (.publish, "room/team-*")))
        #expect(answers.frames.count == 2)
        guard case .refreshed = answers.frames.first else { return #expect(Bool(false), "REFRESHED goes first") }
        #expect(answers.frames.last == .stopped(ChannelStopped(channel: hall)))
        session.pageRead(hall, page: Fixture.page([1, 2]), now: now)
        session.logAdvanced(hall, head: Position(epoch: Fixture.epoch, offset: 3), now: now)
        #expect(session.drain().isEmpty)
        #expect(publish(&session, into: hall, lane: 1) == (false, .forbidden))
        session.logAdvanced(team, head: Position(epoch: Fixture.epoch, offset: 4), now: now)
        #expect(session.drain().reads == [2])
        session.pageRead(team, page: Fixture.page([4], after: 2), now: now)
        #expect(session.drain().delivered == [4])
    }

    @Test("What was sent may be confirmed after the stop, and delivery goes on behind it when it is allowed again")
    func comesBack() throws {
        let all = try identity((.receive, "room/*"))
        var session = up(all, [Fixture.channel(hall, head: 3)])
        _ = session.drain()
        session.pageRead(hall, page: Fixture.page([1, 2], head: 3), now: now)
        #expect(session.drain().delivered == [1, 2])
        #expect(refresh(&session, try identity()).frames.last == .stopped(ChannelStopped(channel: hall)))
        session.received(
            .lane(LaneHeader(channel: hall, epoch: Fixture.epoch)), lane: lane, early: false, now: now)
        session.received(.acknowledge(Acknowledge(offset: 2)), lane: lane, early: false, now: now)
        let moved = session.drain().compactMap { action -> Position? in
            if case .storeCursor(_, let position) = action { position } else { nil }
        }
        #expect(moved == [Position(epoch: Fixture.epoch, offset: 2)])
        session.logAdvanced(hall, head: Position(epoch: Fixture.epoch, offset: 9), now: now)
        // A read that was under way at the stop answers only now; its page means nothing any more.
        session.pageRead(hall, page: Fixture.page([3], after: 2), now: now)
        #expect(session.drain().isEmpty)
        let actions = refresh(&session, all)
        #expect(actions.reads == [2])
        session.pageRead(hall, page: Fixture.page([3, 9], after: 2), now: now)
        #expect(session.drain().delivered == [3, 9])
    }

    @Test("A channel that only the fresh token allows begins at its cursor, with what came meanwhile")
    func widens() throws {
        let cursor = Position(epoch: Fixture.epoch, offset: 4)
        var session = up(
            try identity((.receive, "user/*")), [Fixture.channel(), Fixture.channel(hall, head: 4, cursor: cursor)])
        _ = session.drain()
        session.logAdvanced(hall, head: Position(epoch: Fixture.epoch, offset: 6), now: now)
        let actions = refresh(&session, try identity((.receive, "user/*"), (.receive, "room/hall")))
        #expect(!actions.frames.contains { if case .stopped = $0 { true } else { false } })
        #expect(actions.reads == [4])
        session.pageRead(hall, page: Fixture.page([5, 6], after: 4), now: now)
        #expect(session.drain().delivered == [5, 6])
    }

    @Test("A fresh token with the same rights changes nothing, however they are written")
    func same() throws {
        var session = up(try identity((.receive, "room/*")), [Fixture.channel(hall, head: 2)])
        #expect(session.drain().reads == [0])
        #expect(refresh(&session, try identity((.receive, "room/h*"))).frames.count == 1)
        session.pageRead(hall, page: Fixture.page([1, 2]), now: now)
        #expect(session.drain().delivered == [1, 2])
    }

    // MARK: Logging out

    @Test("ERASE_ACCOUNT takes the right of that name, asks the host once, and waits for the handshake")
    func erasure() {
        func asks(_ actions: [ServerAction]) -> Int {
            actions.count { if case .eraseAccount = $0 { true } else { false } }
        }
        var identity = Fixture.identity()
        var session = up(identity, [Fixture.channel()])
        _ = session.drain()
        session.received(.eraseAccount, lane: .control, early: false, now: now)
        var actions = session.drain()
        #expect(asks(actions) == 0 && actions.frames == [.erasureRefused(ErasureRefused(code: .forbidden))])

        identity.mayErase = true
        session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: [Fixture.channel()],
                ticket: nil), time: 0, now: now)
        session.received(.eraseAccount, lane: .control, early: true, now: now)
        #expect(asks(session.drain()) == 0)
        session.handshakeCompleted(now: now)
        #expect(asks(session.drain()) == 1)
        session.received(.eraseAccount, lane: .control, early: false, now: now)
        #expect(asks(session.drain()) == 0, "said twice it is one")
        let refusal = ErasureRefused(code: .storageFull, retryAfter: 700)
        session.erasureRefused(refusal, now: now)
        session.erasureRefused(refusal, now: now)
        actions = session.drain()
        #expect(actions.frames == [.erasureRefused(refusal)])
        session.received(.eraseAccount, lane: .control, early: false, now: now)
        #expect(asks(session.drain()) == 1, "after a refusal it may be asked again")
    }

    @Test("LOGOUT asks the host once, and waits for the handshake: a replay logs nobody out")
    func logout() {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel()], ticket: nil),
            time: 0, now: now)
        session.received(.logout, lane: .control, early: true, now: now)
        func asks(_ actions: [ServerAction]) -> Int { actions.count { if case .logout = $0 { true } else { false } } }
        #expect(asks(session.drain()) == 0)
        session.handshakeCompleted(now: now)
        #expect(asks(session.drain()) == 1)
        session.received(.logout, lane: .control, early: false, now: now)
        #expect(asks(session.drain()) == 0)
        session.close(Close(code: .loggedOut), now: now)
        #expect(session.drain().closeCode == .loggedOut)
    }
}
