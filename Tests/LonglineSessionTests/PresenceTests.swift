import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Presence as the session machines of both sides take and give it.
@Suite("Presence")
struct PresenceTests {
    private let now = Fixture.start
    private static let bob = Fixture.user("bob")

    private func server(
        handshake: Bool = true, mayWatch: Bool = true, grants: [ChannelGrant] = [],
        _ change: (inout ServerSessionConfiguration) -> Void = { _ in }
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        var identity = Fixture.identity()
        identity.mayWatch = mayWatch
        identity.grants = grants
        var session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
        if handshake { session.handshakeCompleted(now: now) }
        session.received(.connect(Fixture.connect()), lane: .control, early: !handshake, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: [Fixture.channel()],
                ticket: nil), time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func users(_ range: Range<Int>) -> [UserID] { range.map { Fixture.user("u\($0)") } }

    private func subscribe(_ session: inout ServerSession, _ users: [UserID], request: UInt64 = 1) -> [ServerAction] {
        session.received(
            .subscribe(PresenceRequest(request: request, users: users)), lane: .control, early: false, now: now)
        return session.drain()
    }

    /// A session that is told of users.
    private func watching(_ users: [UserID], mode: SessionMode = .foreground) -> ServerSession {
        var session = server()
        session.received(.mode(mode), lane: .control, early: false, now: now)
        _ = subscribe(&session, users)
        session.watched(PresenceRequest(request: 1, users: users), refusal: nil, retryAfter: 0, now: now)
        _ = session.drain()
        return session
    }

    private func update(_ state: PresenceState) -> PresenceUpdate { update(Self.bob, state) }

    private func update(_ user: UserID, _ state: PresenceState) -> PresenceUpdate {
        PresenceUpdate(user: user, state: state, lastSeen: state == .online ? 0 : 77)
    }

    // MARK: Requests

    @Test("A request goes to the host, and its answer back")
    func requests() {
        var session = server()
        let request = PresenceRequest(request: 7, users: [Self.bob])
        #expect(subscribe(&session, [Self.bob], request: 7).watches == [request])
        session.watched(request, refusal: nil, retryAfter: 0, now: now)
        #expect(session.drain().frames == [.presenceAnswer(PresenceAnswer(request: 7))])
        session.watched(request, refusal: nil, retryAfter: 0, now: now)
        #expect(session.drain().isEmpty, "it was answered")
        #expect(subscribe(&session, [Self.bob], request: 7).watches == [request], "a number may be used again")
        session.watched(request, refusal: nil, retryAfter: 0, now: now)
        session.received(.unsubscribe(PresenceEnd()), lane: .control, early: false, now: now)
        _ = subscribe(&session, [Self.bob], request: 7)
        // What the host has no room for is not watched.
        session.watched(request, refusal: .overloaded, retryAfter: 50, now: now)
        #expect(
            session.drain().frames == [
                .presenceAnswer(PresenceAnswer(request: 7, refusal: .overloaded, retryAfter: 50))
            ])
        session.presenceChanged(update(.online), now: now)
        #expect(session.drain().isEmpty)
        // A refused request changes nothing of what another asked for.
        let both = PresenceRequest(request: 8, users: [Self.bob, Fixture.user("carol")])
        _ = subscribe(&session, [Self.bob], request: 7)
        session.watched(request, refusal: nil, retryAfter: 0, now: now)
        _ = session.drain()
        _ = subscribe(&session, both.users, request: 8)
        session.watched(both, refusal: .overloaded, retryAfter: 50, now: now)
        _ = session.drain()
        session.presenceChanged(update(Fixture.user("carol"), .online), now: now)
        session.presenceChanged(update(.online), now: now)
        #expect(session.drain().frames == [.presence(update(.online))])
    }

    @Test("The right is needed for each user but oneself, and a fresh token without it ends what it allowed")
    func rights() throws {
        let pattern = try #require(ChannelPattern("user/b*"))
        var session = server(mayWatch: false, grants: [ChannelGrant(.presence, pattern)])
        let refused = subscribe(&session, [Self.bob, Fixture.user("carol")], request: 1)
        #expect(refused.frames == [.presenceAnswer(PresenceAnswer(request: 1, refusal: .forbidden))])
        #expect(refused.watches.isEmpty)
        let mine = [Self.bob, Fixture.user("alice")]
        #expect(subscribe(&session, mine, request: 2).watches.map(\.users) == [mine])
        session.received(.refresh(Refresh(token: "t")), lane: .control, early: false, now: now)
        _ = session.drain()
        session.refreshed(Fixture.identity(), time: 0, now: now)
        let changed = session.drain()
        #expect(changed.unwatched == [[Self.bob]])
        // What was shown of bob last is so no more.
        let gone = Frame.presence(PresenceUpdate(user: Self.bob, state: .offline, lastSeen: 0))
        #expect(changed.frames.filter { $0 == gone }.count == 1)
        session.presenceChanged(update(.online), now: now)
        session.presenceChanged(update(Fixture.user("alice"), .online), now: now)
        #expect(session.drain().frames == [.presence(update(Fixture.user("alice"), .online))])
    }

    @Test("A session is told of so many users, and has so many requests without an answer")
    func limits() {
        var session = server { $0.maximumPresenceUsers = 5 }
        #expect(subscribe(&session, users(0..<3), request: 1).watches.count == 1)
        let answer = subscribe(&session, users(2..<6), request: 2).frames
        #expect(answer == [.presenceAnswer(PresenceAnswer(request: 2, refusal: .tooManySubscriptions))])
        #expect(subscribe(&session, users(2..<5), request: 3).watches.count == 1, "one of them is the same")
        session.received(
            .unsubscribe(PresenceEnd(users: users(0..<2))), lane: .control, early: false, now: now)
        #expect(session.drain().unwatched == [Set(users(0..<2))])
        #expect(subscribe(&session, users(5..<7), request: 4).watches.count == 1)

        var eager = server()
        for request in UInt64(1)...16 {
            #expect(subscribe(&eager, [Self.bob], request: request).watches.count == 1)
        }
        guard case .presenceAnswer(let refused)? = subscribe(&eager, [Self.bob], request: 17).frames.first else {
            Issue.record("no answer")
            return
        }
        #expect(refused.refusal == .overloaded && refused.retryAfter > 0)
        #expect(subscribe(&eager, [Self.bob], request: 16).closeCode == .unexpectedFrame, "it waits for its answer")
    }

    @Test("In early data requests wait for the handshake, and what they ask for takes effect then")
    func early() {
        var session = server(handshake: false)
        for frame in [
            Frame.subscribe(PresenceRequest(request: 1, users: [Self.bob])), .visibility(.nothing),
            .unsubscribe(PresenceEnd()),
        ] {
            session.received(frame, lane: .control, early: true, now: now)
        }
        #expect(session.drain().isEmpty)
        session.handshakeCompleted(now: now)
        let actions = session.drain()
        #expect(actions.isEstablished && actions.watches.count == 1 && actions.unwatched == [[Self.bob]])
        #expect(actions.contains { if case .setVisibility(.nothing) = $0 { true } else { false } })
    }

    // MARK: Updates

    @Test("Of each user the newest state leaves, behind everything else")
    func newest() {
        var session = watching([Self.bob, Fixture.user("carol")])
        for state in [PresenceState.online, .away, .offline] { session.presenceChanged(update(state), now: now) }
        session.presenceChanged(update(Fixture.user("carol"), .online), now: now)
        session.presenceChanged(update(Fixture.user("stranger"), .online), now: now)
        session.received(.ping(Ping(nonce: 1)), lane: .control, early: false, now: now)
        let frames = session.drain().frames
        guard case .pong = frames.first else {
            Issue.record("\(frames)")
            return
        }
        #expect(
            Array(frames.dropFirst()) == [
                .presence(update(.offline)), .presence(update(Fixture.user("carol"), .online)),
            ])
        session.presenceChanged(update(.online), now: now)
        session.received(.unsubscribe(PresenceEnd()), lane: .control, early: false, now: now)
        #expect(session.drain().frames.isEmpty, "what waited of a user who is watched no more is dropped")
    }

    @Test("Who is watched no more takes nobody's place among what waits", arguments: [true, false])
    func places(byRights: Bool) throws {
        let all = try #require(ChannelPattern("user/u*"))
        let few = ["user/u0", "user/u3", "user/u4"].compactMap { ChannelPattern($0) }
        var session = server(mayWatch: false, grants: [ChannelGrant(.presence, all)]) { $0.maximumPresenceUsers = 3 }
        session.laneWritable(.control, false, now: now)
        _ = subscribe(&session, users(0..<3))
        for user in users(0..<3) { session.presenceChanged(update(user, .online), now: now) }
        if byRights {
            session.received(.refresh(Refresh(token: "t")), lane: .control, early: false, now: now)
            var identity = Fixture.identity()
            identity.grants = few.map { ChannelGrant(.presence, $0) }
            session.refreshed(identity, time: 0, now: now)
        } else {
            session.received(
                .unsubscribe(PresenceEnd(users: users(1..<3))), lane: .control, early: false, now: now)
        }
        _ = subscribe(&session, users(3..<5), request: 2)
        for user in users(3..<5) { session.presenceChanged(update(user, .online), now: now) }
        _ = session.drain()
        session.laneWritable(.control, true, now: now)
        let kept = users(0..<1) + users(3..<5)
        #expect(session.drain().frames == kept.map { Frame.presence(update($0, .online)) })
    }

    @Test("A device in the background is told with what wakes it anyway, and in the foreground at once")
    func modes() {
        for mode in [SessionMode.background, .lowPower] {
            var session = watching([Self.bob], mode: mode)
            let deadline = session.nextDeadline
            session.presenceChanged(update(.online), now: now)
            session.presenceChanged(update(.away), now: now)
            #expect(session.drain().isEmpty && session.nextDeadline == deadline, "nothing wakes it")
            session.received(.ping(Ping(nonce: 1)), lane: .control, early: false, now: now)
            #expect(session.drain().frames.last == .presence(update(.away)))
            session.presenceChanged(update(.online), now: now)
            #expect(session.drain().isEmpty)
            session.received(.mode(.foreground), lane: .control, early: false, now: now)
            #expect(session.drain().frames == [.presence(update(.online))])
        }
    }

    @Test("While lane 0 is backed up the newest states wait, and no more of them than users")
    func backPressure() {
        var session = watching(users(0..<50))
        session.laneWritable(.control, false, now: now)
        for round in 0..<20 {
            for user in users(0..<50) {
                session.presenceChanged(update(user, round % 2 == 0 ? .online : .away), now: now)
            }
            #expect(session.drain().isEmpty)
        }
        session.laneWritable(.control, true, now: now)
        let frames = session.drain().frames
        #expect(frames == users(0..<50).map { .presence(update($0, .away)) })
    }

    @Test("A closed session says nothing more")
    func closed() {
        var session = watching([Self.bob])
        session.presenceChanged(update(.online), now: now)
        session.close(Close(code: .normal), now: now)
        #expect(session.drain().frames.count == 1)
        session.presenceChanged(update(.away), now: now)
        #expect(session.drain().isEmpty)
    }

    // MARK: The client

    @Test("A client asks on a connection, so many at a time, and is told")
    func client() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        func subscribe(_ number: UInt64) -> Bool {
            session.subscribe(PresenceRequest(request: number, users: [Self.bob]), now: now)
        }
        let before = [subscribe(1), session.setVisibility(.nothing, now: now)]
        session.unsubscribe([Self.bob], now: now)
        #expect(session.drain().isEmpty && before == [false, false])
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        let taken = [1, 1].map(subscribe) + (2...17).map { subscribe(UInt64($0)) }
        #expect(taken == [true, false] + Array(repeating: true, count: 15) + [false])
        let isSet = session.setVisibility(.stateOnly, now: now)
        #expect(isSet)
        session.unsubscribe([], now: now)
        let sent = session.drain().frames
        #expect(sent.count == 18 && sent.last == .unsubscribe(PresenceEnd()))
        session.received(.presence(update(.away)), lane: .control, now: now)
        session.received(.presenceAnswer(PresenceAnswer(request: 1)), lane: .control, now: now)
        session.received(.presenceAnswer(PresenceAnswer(request: 1)), lane: .control, now: now)
        session.received(.presenceAnswer(PresenceAnswer(request: 99)), lane: .control, now: now)
        let told = session.drain()
        #expect(told.count == 2, "an answer to nothing that was asked is ignored")
        guard case .presence(update(.away)) = told.first, case .presenceAnswered = told.last else {
            Issue.record("\(told)")
            return
        }
        let again = subscribe(17)
        session.linkClosed(now: now)
        _ = session.drain()
        let after = subscribe(1)
        #expect(again && !after)
    }
}

extension [ServerAction] {
    fileprivate var watches: [PresenceRequest] {
        compactMap { if case .watch(let request) = $0 { request } else { nil } }
    }
    fileprivate var unwatched: [Set<UserID>] { compactMap { if case .unwatch(let users) = $0 { users } else { nil } } }
}
