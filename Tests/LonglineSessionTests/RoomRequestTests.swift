import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// What a session does with requests about rooms.
@Suite("Requests about rooms")
struct RoomRequestTests {
    private let now = Fixture.start
    private let hall = Fixture.name("hall")

    private func server(mayManage: Bool = true, mayReceive: Bool = true, _ channels: [SessionChannel] = [])
        -> ServerSession
    {
        var identity = Fixture.identity(mayReceive: mayReceive)
        identity.mayManage = mayManage
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: channels, ticket: nil),
            time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func refusals(_ actions: [ServerAction]) -> [RefusalCode?] {
        actions.frames.compactMap { frame -> RefusalCode?? in
            switch frame {
            case .roomAnswer(let answer): .some(answer.refusal)
            case .membersPage(let page): .some(page.refusal)
            default: nil
            }
        }
    }

    @Test("A change of a room needs the right to manage it, and shares the limit with joins")
    func changes() {
        let command = Frame.room(RoomCommand(request: 1, room: hall, action: .delete))
        var stranger = server(mayManage: false)
        stranger.received(command, lane: .control, early: false, now: now)
        #expect(refusals(stranger.drain()) == [.forbidden])

        var owner = server()
        owner.received(command, lane: .control, early: false, now: now)
        var handed = owner.drain()
        #expect(handed.contains { if case .manage(let given) = $0 { given.action == .delete } else { false } })
        for request in 2...16 as ClosedRange<UInt64> {
            owner.received(.join(RoomRequest(request: request, room: hall)), lane: .control, early: false, now: now)
        }
        _ = owner.drain()
        owner.received(
            .room(RoomCommand(request: 17, room: hall, action: .setJoining(.nobody))), lane: .control, early: false,
            now: now)
        #expect(refusals(owner.drain()) == [.overloaded])
        let position = Position(epoch: Fixture.epoch, offset: 9)
        owner.roomAnswered(RoomAnswer(request: 1, refusal: nil, position: position), channel: nil, now: now)
        handed = owner.drain()
        #expect(refusals(handed).count == 1 && refusals(handed).first == RefusalCode?.none)
        owner.received(.join(RoomRequest(request: 2, room: hall)), lane: .control, early: false, now: now)
        #expect(owner.drain().closeCode == .unexpectedFrame)
    }

    @Test("In early data 64 requests wait for the handshake and are then worked off as others are; one more closes")
    func early() {
        func waiting(_ count: UInt64) -> ServerSession {
            var session = ServerSession(
                configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
            session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
            session.authenticated(
                SessionGrant(
                    identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: [],
                    ticket: nil), time: 0, now: now)
            for request in 1...count {
                session.received(
                    .join(RoomRequest(request: request, room: hall)), lane: .control, early: true, now: now)
            }
            return session
        }
        func joins(_ actions: [ServerAction]) -> [UInt64] {
            actions.compactMap { if case .join(let request) = $0 { request.request } else { nil } }
        }
        var session = waiting(64)
        let before = session.drain()
        #expect(joins(before).isEmpty && before.closeCode == nil)
        session.handshakeCompleted(now: now)
        let actions = session.drain()
        #expect(joins(actions) == Array(1...16))
        #expect(refusals(actions) == [RefusalCode?](repeating: .overloaded, count: 48))
        var over = waiting(65)
        #expect(over.drain().closeCode == .limitExceeded)
    }

    @Test("Pages of members are read one at a time, and none while lane 0 is not writable")
    func membersOneByOne() {
        func ask(_ request: UInt64, limit: UInt64 = 100) -> Frame {
            .members(MembersRequest(request: request, room: hall, after: nil, limit: limit))
        }
        func reads(_ actions: [ServerAction]) -> [UInt64] {
            actions.compactMap { if case .listMembers(let request) = $0 { request.request } else { nil } }
        }
        var session = server()
        for request in 1...4 as ClosedRange<UInt64> {
            session.received(ask(request), lane: .control, early: false, now: now)
        }
        #expect(reads(session.drain()) == [1])
        let member = RoomMember(user: Fixture.user("bob"), role: .owner)
        session.membersRead(MembersPage(request: 1, total: 1, members: [member], more: false), now: now)
        #expect(reads(session.drain()) == [2])
        // An answer that nobody waits for changes nothing.
        session.membersRead(MembersPage(request: 1, total: 1, members: [], more: false), now: now)
        #expect(session.drain().isEmpty)
        session.laneWritable(.control, false, now: now)
        session.membersRead(MembersPage(request: 2, total: 1, members: [], more: false), now: now)
        #expect(reads(session.drain()).isEmpty)
        session.laneWritable(.control, true, now: now)
        #expect(reads(session.drain()) == [3])
        for request in 5...6 as ClosedRange<UInt64> {
            session.received(ask(request), lane: .control, early: false, now: now)
        }
        #expect(session.drain().closeCode == nil)
        session.received(ask(7), lane: .control, early: false, now: now)
        #expect(session.drain().closeCode == .limitExceeded, "a fifth that waits")
        session = server()
        for _ in 0..<2 { session.received(ask(1), lane: .control, early: false, now: now) }
        #expect(session.drain().closeCode == .unexpectedFrame, "a number that waits")
    }

    private var settings: RoomSettings {
        RoomSettings(
            room: hall, position: Position(epoch: Fixture.epoch, offset: 9), joining: .byOwners, publishing: .owners,
            role: .member)
    }

    @Test(
        "A room's settings are told right before the answer to a join and before a page, in a frame that may be skipped"
    )
    func settingsFirst() {
        let told = Frame.roomSettings(settings)
        #expect(told.typeNumber.isMultiple(of: 2))
        let answer = RoomAnswer(request: 1, refusal: nil, position: settings.position)
        var session = server()
        session.received(.join(RoomRequest(request: 1, room: hall)), lane: .control, early: false, now: now)
        _ = session.drain()
        session.roomAnswered(answer, settings: settings, channel: nil, now: now)
        #expect(session.drain().frames == [told, .roomAnswer(answer)])
        // An answer that nobody waits for has none either.
        session.roomAnswered(answer, settings: settings, channel: nil, now: now)
        #expect(session.drain().isEmpty)

        let page = MembersPage(request: 2, total: 2, members: [], more: true)
        let request = MembersRequest(request: 2, room: hall, after: nil, limit: 10)
        session.received(.members(request), lane: .control, early: false, now: now)
        _ = session.drain()
        session.membersRead(page, settings: settings, now: now)
        #expect(session.drain().frames == [told, .membersPage(page)])
        session.membersRead(page, settings: settings, now: now)
        #expect(session.drain().isEmpty)

        // Who may not receive the room joins it all the same, and is told nothing of it.
        session = server(mayReceive: false)
        session.received(.join(RoomRequest(request: 1, room: hall)), lane: .control, early: false, now: now)
        _ = session.drain()
        session.roomAnswered(answer, settings: settings, channel: nil, now: now)
        #expect(session.drain().frames == [.roomAnswer(answer)])
    }

    @Test("Who may not receive a room does not see who is in it, and a page has 1 to 100 members")
    func membersRefused() {
        for (mayReceive, limit, code) in [
            (false, 1, RefusalCode.forbidden), (true, 0, .invalidRange), (true, 101, .invalidRange),
        ] {
            var session = server(mayReceive: mayReceive)
            session.received(
                .members(MembersRequest(request: 1, room: hall, after: nil, limit: UInt64(limit))), lane: .control,
                early: false, now: now)
            let actions = session.drain()
            #expect(refusals(actions) == [code] && actions.count == 1)
        }
    }

    // MARK: Where a stay ends

    private func entry(_ offset: Offset, _ kind: EntryKind, _ member: String?, payload: ByteBuffer = ByteBuffer())
        -> SessionPage.Item
    {
        var entry = Fixture.entry(offset, after: offset - 1)
        entry.kind = kind
        entry.sender = Fixture.user("bob")
        entry.recipient = member.map(Fixture.user)
        entry.payload = payload
        return .entry(entry)
    }

    private func delivered(_ items: [SessionPage.Item]) -> [Offset] {
        var session = server([Fixture.channel(.room(hall), head: 9)])
        _ = session.drain()
        // The read that the grant began.
        session.pageRead(
            .room(hall), page: SessionPage(epoch: Fixture.epoch, items: items, head: 9, first: 0), now: now)
        return session.drain().delivered
    }

    @Test("Nothing behind the entry that ends a stay is sent, even before the host says so")
    func endOfStay() {
        let rest = [entry(3, .message, nil), entry(4, .message, nil)]
        #expect(delivered([entry(1, .message, nil), entry(2, .left, "alice")] + rest) == [1, 2])
        #expect(delivered([entry(1, .message, nil), entry(2, .left, "carol")] + rest) == [1, 2, 3, 4])
        #expect(delivered([entry(1, .joined, "alice"), entry(2, .left, nil)] + rest) == [1, 2, 3, 4])
        let deleted = entry(2, .changed, nil, payload: Entry.payload(of: .delete))
        #expect(delivered([entry(1, .message, nil), deleted] + rest) == [1, 2])
        let changed = entry(2, .changed, nil, payload: Entry.payload(of: .setJoining(.nobody)))
        #expect(delivered([entry(1, .message, nil), changed] + rest) == [1, 2, 3, 4])
    }

    @Test("What a change records is read back, and what a later version records is passed over")
    func recorded() throws {
        let user = Fixture.user("carol")
        let actions: [RoomAction] = [
            .setRole(.owner, of: user), .setRole(.member, of: user), .setJoining(.byOwners), .setPublishing(.owners),
            .delete,
        ]
        for action in actions {
            var entry = Fixture.entry(1, after: 0)
            entry.kind = .changed
            entry.recipient = action.user
            entry.payload = Entry.payload(of: action)
            #expect(entry.change == action)
            entry.payload.writeInteger(UInt8(0))
            #expect(entry.change == nil)
            entry.kind = .message
            #expect(entry.change == nil && entry.member == nil)
        }
    }

    @Test("A client asks for four pages of members at a time, and takes no answer twice")
    func clientMembers() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        let request = MembersRequest(request: 1, room: hall, after: nil, limit: 10)
        var isTaken = session.listMembers(request, now: now)
        #expect(!isTaken)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        for number in 1...5 as ClosedRange<UInt64> {
            var request = request
            request.request = number
            isTaken = session.listMembers(request, now: now)
            #expect(isTaken == (number < 5))
        }
        _ = session.drain()
        let page = Frame.membersPage(MembersPage(request: 1, total: 0, members: [], more: false))
        for count in [1, 0] {
            session.received(page, lane: .control, now: now)
            #expect(session.drain().count { if case .members = $0 { true } else { false } } == count)
        }
        isTaken = session.manage(RoomCommand(request: 9, room: hall, action: .delete), now: now)
        #expect(isTaken)
    }

    @Test("A client takes a room's settings with the answer right behind them, and with no other one")
    func clientSettings() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        func open() {
            session.linkOpened(
                credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
            session.received(.connected(Fixture.connected()), lane: .control, now: now)
        }
        /// What is told with each answer.
        func told(_ frames: Frame...) -> [RoomSettings?] {
            for frame in frames { session.received(frame, lane: .control, now: now) }
            return session.drain().compactMap { action -> RoomSettings?? in
                switch action {
                case .roomAnswered(_, let settings), .members(_, let settings): .some(settings)
                default: nil
                }
            }
        }
        func ask(_ request: UInt64) {
            _ = session.join(hall, request: request, now: now)
            _ = session.listMembers(MembersRequest(request: request, room: hall, after: nil, limit: 1), now: now)
        }
        func answer(_ request: UInt64) -> Frame {
            .roomAnswer(RoomAnswer(request: request, refusal: nil, position: settings.position))
        }
        func page(_ request: UInt64) -> Frame {
            .membersPage(MembersPage(request: request, total: 0, members: [], more: false))
        }
        open()
        for request in 1...3 as ClosedRange<UInt64> { ask(request) }
        // A server that is older tells none.
        #expect(told(answer(1), page(1)) == [nil, nil])
        #expect(told(.roomSettings(settings), answer(2), page(2)) == [settings, nil])
        #expect(told(.roomSettings(settings), page(3), answer(3)) == [settings, nil])
        // What the link before said last means nothing on the next one.
        #expect(told(.roomSettings(settings)).isEmpty)
        session.linkClosed(now: now)
        open()
        ask(4)
        #expect(told(answer(4), page(4)) == [nil, nil])
    }
}
