import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Signals as the session machines of both sides take and give them.
@Suite("Signals")
struct SignalTests {
    private let now = Fixture.start
    private static let bob = SignalSender(user: Fixture.user("bob"), device: Fixture.identity().device)

    private func signal(
        _ channel: ChannelID = Fixture.room, kind: SignalKind = .typing, deadline: UInt64 = 5_000,
        from sender: SignalSender? = nil, text: String = ""
    ) -> Signal {
        Signal(channel: channel, kind: kind, deadline: deadline, sender: sender, payload: ByteBuffer(string: text))
    }

    private func server(
        channels: [SessionChannel] = [Fixture.channel(), Fixture.channel(Fixture.room)],
        identity: SessionIdentity = Fixture.identity(), handshake: Bool = true
    ) -> ServerSession {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        if handshake { session.handshakeCompleted(now: now) }
        session.received(.connect(Fixture.connect()), lane: .control, early: !handshake, now: now)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: channels, ticket: nil),
            time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func client() -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        return session
    }

    // MARK: From the client

    @Test("A signal goes to others with its sender and its deadline, whichever way it came")
    func passedOn() {
        for isDatagram in [true, false] {
            var session = server()
            let sent = signal(text: "x")
            if isDatagram {
                session.receivedDatagram(.signal(sent), now: now)
            } else {
                session.received(.signal(sent), lane: .control, early: false, now: now)
            }
            let actions = session.drain()
            #expect(actions.frames.isEmpty, "nothing is acknowledged")
            guard case .signal(let passed, let until) = actions.first, actions.count == 1 else {
                Issue.record("\(actions)")
                continue
            }
            #expect(passed.sender == SignalSender(user: Fixture.user("alice"), device: Fixture.identity().device))
            #expect(until == now + .seconds(5) && passed.channel == sent.channel && passed.payload == sent.payload)
        }
    }

    @Test("No deadline is longer than a minute, and none of 0 is passed on")
    func deadlines() {
        var session = server()
        session.receivedDatagram(.signal(signal(deadline: FrameLimits.maximumNumber)), now: now)
        guard case .signal(_, let until) = session.drain().first else {
            Issue.record("it was not passed on")
            return
        }
        #expect(until == now + .minutes(1))
        session.receivedDatagram(.signal(signal(deadline: 0)), now: now)
        #expect(session.drain().drops == [.expired])
    }

    @Test("What the user may not do is dropped without a word: a right, a membership, a stay that is over")
    func rights() {
        var without = server(identity: Fixture.identity(mayPublish: false))
        without.receivedDatagram(.signal(signal()), now: now)
        #expect(without.drain().drops == [.forbidden])
        var stranger = server(channels: [Fixture.channel()])
        stranger.receivedDatagram(.signal(signal()), now: now)
        #expect(stranger.drain().drops == [.forbidden])
        var former = server(channels: [Fixture.channel(Fixture.room, head: 9, upTo: 7)])
        former.receivedDatagram(.signal(signal()), now: now)
        #expect(former.drain().drops == [.forbidden])
        var limited = Fixture.identity(mayPublish: false)
        limited.grants = [ChannelPattern("user/bo*").map { ChannelGrant(.publish, $0) }].compactMap { $0 }
        var some = server(identity: limited)
        some.receivedDatagram(.signal(signal(.user(Fixture.user("bob")))), now: now)
        some.receivedDatagram(.signal(signal(.user(Fixture.user("carol")))), now: now)
        let actions = some.drain()
        #expect(actions.signals.map(\.channel) == [.user(Fixture.user("bob"))] && actions.drops == [.forbidden])
        for session in [without, stranger, former, some] { #expect(!session.isClosed) }
    }

    @Test("Before the handshake completed, and before CONNECT is accepted, signals are dropped and not kept")
    func early() {
        var early = server(handshake: false)
        early.received(.signal(signal()), lane: .control, early: true, now: now)
        early.receivedDatagram(.signal(signal()), now: now)
        #expect(early.drain().drops == [.early, .early])
        early.relay(signal(from: Self.bob), until: now + .seconds(5), now: now)
        #expect(early.drain().relayed.isEmpty)
        early.handshakeCompleted(now: now)
        #expect(early.drain().signals.isEmpty, "nothing of the flight is left")
        early.receivedDatagram(.signal(signal()), now: now)
        #expect(early.drain().signals.count == 1)

        var waiting = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
        waiting.handshakeCompleted(now: now)
        waiting.receivedDatagram(.signal(signal()), now: now)
        waiting.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        waiting.received(.signal(signal()), lane: .control, early: false, now: now)
        waiting.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel(Fixture.room)], ticket: nil), time: 0, now: now)
        let actions = waiting.drain()
        #expect(actions.drops == [.early, .early] && actions.signals.isEmpty && !waiting.isClosed)
    }

    @Test("In a datagram nothing but a signal has a place, and a client names no sender")
    func misplaced() {
        for frame in [Frame.ping(Ping(nonce: 1)), .connect(Fixture.connect()), .publish(Fixture.publish(1))] {
            var server = server()
            server.receivedDatagram(frame, now: now)
            #expect(server.drain().closeCode == .unexpectedFrame)
            var client = client()
            client.receivedDatagram(frame, now: now)
            #expect(client.drain().endCode == .unexpectedFrame)
        }
        for isDatagram in [true, false] {
            var server = server()
            var client = client()
            if isDatagram {
                server.receivedDatagram(.signal(signal(from: Self.bob)), now: now)
                client.receivedDatagram(.signal(signal()), now: now)
            } else {
                server.received(.signal(signal(from: Self.bob)), lane: .control, early: false, now: now)
                client.received(.signal(signal()), lane: .control, now: now)
            }
            #expect(server.drain().closeCode == .unexpectedFrame)
            #expect(client.drain().endCode == .unexpectedFrame)
        }
    }

    // MARK: To the client

    @Test("A signal for a device in the foreground leaves behind the other actions, the newest of its kind only")
    func newest() {
        var session = server(channels: [Fixture.channel(), Fixture.channel(Fixture.room, head: 3)])
        let until = now + .seconds(5)
        for text in ["1", "2", "3"] {
            session.relay(signal(kind: .app(1), from: Self.bob, text: text), until: until, now: now)
        }
        session.relay(signal(kind: .app(2), from: Self.bob, text: "other kind"), until: until, now: now)
        session.received(.ping(Ping(nonce: 7)), lane: .control, early: false, now: now)
        let actions = session.drain()
        #expect(actions.relayed.map { String(buffer: $0.payload) } == ["3", "other kind"])
        #expect(actions.drops == [.replaced, .replaced])
        guard case .sendSignal = actions.last else {
            Issue.record("PONG goes first")
            return
        }
    }

    @Test("So many signals wait for a device at most; the oldest is dropped")
    func bounded() throws {
        var session = server()
        for number in 0..<200 {
            let sender = SignalSender(user: Fixture.user("u\(number)"), device: Self.bob.device)
            session.relay(signal(from: sender), until: now + .seconds(5), now: now)
        }
        let actions = session.drain()
        #expect(actions.relayed.count == 64 && actions.drops.count == 136)
        #expect(actions.relayed.last?.sender?.user == Fixture.user("u199"))
    }

    @Test("A signal wakes no device in the background or in low power, and what waits for those stays where it is")
    func modes() {
        for mode in [SessionMode.background, .lowPower] {
            var session = server()
            session.received(.mode(mode), lane: .control, early: false, now: now)
            session.logAdvanced(Fixture.room, head: Position(epoch: Fixture.epoch, offset: 4), now: now)
            _ = session.drain()
            let deadline = session.nextDeadline
            session.relay(signal(from: Self.bob), until: now + .seconds(60), now: now)
            session.relay(
                signal(Fixture.inbox, from: Self.bob), until: now + .seconds(60), now: now)
            let actions = session.drain()
            #expect(actions.relayed.isEmpty && actions.reads.isEmpty && actions.drops == [.mode, .mode])
            #expect(session.nextDeadline == deadline)
            session.received(.mode(.foreground), lane: .control, early: false, now: now)
            #expect(session.drain().relayed.isEmpty, "nothing waited")
            session.relay(signal(from: Self.bob), until: now + .seconds(60), now: now)
            #expect(session.drain().relayed.count == 1)
        }
    }

    @Test("A device is sent no signal of a channel that it may not receive, that it left, or that is too late")
    func entitled() {
        let until = now + .seconds(5)
        var deaf = server(identity: Fixture.identity(mayReceive: false))
        deaf.relay(signal(from: Self.bob), until: until, now: now)
        #expect(deaf.drain().drops == [.forbidden])
        var former = server(channels: [Fixture.channel(Fixture.room, head: 9, upTo: 7)])
        former.relay(signal(from: Self.bob), until: until, now: now)
        #expect(former.drain().drops == [.forbidden])
        var stranger = server(channels: [])
        stranger.relay(signal(from: Self.bob), until: until, now: now)
        #expect(stranger.drain().drops == [.forbidden])
        var late = server()
        late.relay(signal(from: Self.bob), until: now, now: now)
        #expect(late.drain().drops == [.expired])
        var closed = server()
        closed.relay(signal(from: Self.bob), until: until, now: now)
        closed.close(Close(code: .normal), now: now)
        #expect(closed.drain().relayed.isEmpty)
    }

    // MARK: The client

    @Test("A client sends a signal now or never, and is told those of others")
    func atTheClient() {
        var away = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        let withoutLink = away.signal(signal(), now: now)
        away.linkOpened(
            credential: .ticket(ByteBuffer(string: "t")), connectNumber: 1, supportsPathChange: false, outbox: [],
            now: now)
        let inFirstFlight = away.signal(signal(), now: now)
        #expect(!withoutLink && !inFirstFlight)
        away.receivedDatagram(.signal(signal(from: Self.bob)), now: now)
        #expect(away.drain().allSatisfy { if case .signal = $0 { false } else { true } }, "it overtook CONNECTED")

        var session = client()
        let sent = [0, 2_000].map { session.signal(signal(deadline: $0), now: now) }
        #expect(sent == [false, true])
        guard case .sendSignal(_, let until) = session.drain().first else {
            Issue.record("nothing was sent")
            return
        }
        #expect(until == now + .seconds(2))
        session.receivedDatagram(.signal(signal(deadline: FrameLimits.maximumNumber, from: Self.bob)), now: now)
        session.received(.signal(signal(deadline: 3, from: Self.bob)), lane: .control, now: now)
        session.received(.signal(signal(deadline: 0, from: Self.bob)), lane: .control, now: now)
        let told = session.drain().compactMap { if case .signal(_, let until) = $0 { until } else { nil } }
        #expect(told == [now + .minutes(1), now + .milliseconds(3)])
    }

    @Test("A signal that nothing answers is followed by a PING: the path may be dead")
    func proofOfLife() throws {
        var configuration = ClientSessionConfiguration()
        configuration.heartbeat = HeartbeatPolicy()
        var session = client()
        _ = session.signal(signal(), now: now)
        _ = session.drain()
        var random = SystemRandomNumberGenerator()
        let due = now + configuration.heartbeat.answerTimeout
        #expect(try #require(session.nextDeadline) <= due)
        session.deadlineReached(now: due, random: &random)
        #expect(session.drain().pings == 1)
    }
}

extension [ServerAction] {
    /// The signals for others.
    fileprivate var signals: [Signal] { compactMap { if case .signal(let signal, _) = $0 { signal } else { nil } } }
    /// The signals for the device itself.
    fileprivate var relayed: [Signal] { compactMap { if case .sendSignal(let signal, _) = $0 { signal } else { nil } } }
    fileprivate var drops: [SignalDrop] { compactMap { if case .signalDropped(let drop) = $0 { drop } else { nil } } }
}
