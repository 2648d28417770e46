import LonglineSession
import LonglineWire
import NIOCore
import Testing

@Suite("What a server holds back")
struct DeliveryHoldTests {
    private let now = Fixture.start

    private func up(_ mode: SessionMode, _ change: (inout ServerSessionConfiguration) -> Void = { _ in })
        -> ServerSession
    {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        var session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 0,
            channels: [Fixture.channel(), Fixture.channel(Fixture.room)], ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        session.received(.mode(mode), lane: .control, early: false, now: now)
        _ = session.drain()
        return session
    }

    /// The channels that a wake makes the session read.
    private func wake(
        _ channel: ChannelID, to offset: Offset, _ session: inout ServerSession, at time: NIODeadline
    ) -> [ChannelID] {
        session.logAdvanced(channel, head: Position(epoch: Fixture.epoch, offset: offset), now: time)
        return reads(&session)
    }

    private func reads(_ session: inout ServerSession) -> [ChannelID] {
        session.drain().compactMap { if case .read(let channel, _, _, _) = $0 { channel } else { nil } }
    }

    @Test("The inbox wakes a device in every mode, a room only in the foreground", arguments: SessionMode.allCases)
    func urgency(mode: SessionMode) {
        var session = up(mode)
        #expect(wake(Fixture.room, to: 1, &session, at: now) == (mode == .foreground ? [Fixture.room] : []))
        session = up(mode)
        #expect(wake(Fixture.inbox, to: 1, &session, at: now) == [Fixture.inbox])
    }

    @Test("A channel of control wakes a device in the background, and takes along what waits")
    func control() {
        func become(_ urgency: Urgency, _ session: inout ServerSession) {
            let said = ChannelUrgency(channel: Fixture.room, urgency: urgency)
            session.received(.urgency(said), lane: .control, early: false, now: now)
        }
        for mode in SessionMode.allCases {
            var session = up(mode)
            become(.control, &session)
            #expect(wake(Fixture.room, to: 1, &session, at: now) == (mode == .lowPower ? [] : [Fixture.room]))
        }
        var session = up(.background)
        become(.bulk, &session)
        #expect(wake(Fixture.room, to: 1, &session, at: now).isEmpty)
        become(.control, &session)
        #expect(reads(&session) == [Fixture.room])
    }

    @Test("What waits goes out after its time", arguments: [(SessionMode.background, Int64(30)), (.lowPower, 300)])
    func time(mode: SessionMode, seconds: Int64) {
        var session = up(mode)
        #expect(wake(Fixture.room, to: 1, &session, at: now).isEmpty)
        #expect(wake(Fixture.room, to: 2, &session, at: now + .seconds(20)).isEmpty)
        #expect(session.nextDeadline.map { $0 <= now + .seconds(seconds) } == true)
        session.deadlineReached(now: now + .seconds(seconds) - .nanoseconds(1))
        #expect(reads(&session).isEmpty)
        session.deadlineReached(now: now + .seconds(seconds))
        #expect(reads(&session) == [Fixture.room])
    }

    @Test("What waits goes out when it is much, with an urgent message, with an answer, and with a change of mode")
    func releases() {
        var session = up(.background) { $0.maximumHeldWakes = 3 }
        #expect(wake(Fixture.room, to: 1, &session, at: now).isEmpty)
        #expect(wake(Fixture.room, to: 2, &session, at: now).isEmpty)
        #expect(wake(Fixture.room, to: 3, &session, at: now) == [Fixture.room])

        session = up(.background)
        _ = wake(Fixture.room, to: 1, &session, at: now)
        #expect(Set(wake(Fixture.inbox, to: 1, &session, at: now)) == [Fixture.inbox, Fixture.room])

        session = up(.lowPower)
        _ = wake(Fixture.room, to: 1, &session, at: now)
        session.received(.ping(Ping(nonce: 1)), lane: .control, early: false, now: now)
        #expect(reads(&session) == [Fixture.room])

        session = up(.lowPower)
        _ = wake(Fixture.room, to: 1, &session, at: now)
        session.received(.mode(.foreground), lane: .control, early: false, now: now)
        #expect(reads(&session) == [Fixture.room])
        #expect(wake(Fixture.room, to: 1, &session, at: now).isEmpty, "it is being read")
    }

    @Test("An answer after a silence comes by itself, with what waited; a new question takes the place of the last")
    func laterAnswer() {
        var session = up(.background) { $0.backgroundHold = .minutes(5) }
        func ask(_ nonce: UInt64, _ seconds: UInt64) -> [ServerAction] {
            session.received(
                .ping(Ping(nonce: nonce, answerAfter: seconds * 1000)), lane: .control, early: false, now: now)
            return session.drain()
        }
        #expect(ask(1, 20).isEmpty)
        #expect(ask(2, 60).isEmpty)
        session.observedAddressChanged("192.0.2.9:9")
        _ = wake(Fixture.room, to: 1, &session, at: now)
        session.deadlineReached(now: now + .seconds(59))
        #expect(session.drain().isEmpty)
        #expect(session.nextDeadline == now + .seconds(60))
        session.deadlineReached(now: now + .seconds(60))
        let actions = session.drain()
        #expect(actions.frames == [.pong(Pong(nonce: 2, observedAddress: "192.0.2.9:9"))])
        #expect(actions.reads == [0])
        session.deadlineReached(now: now + .seconds(61))
        #expect(session.drain().isEmpty)
    }

    @Test("An answer later than the idle timeout is asked by nobody who knows the rules")
    func tooLate() {
        var session = up(.foreground)
        session.received(.ping(Ping(nonce: 1, answerAfter: 600_001)), lane: .control, early: false, now: now)
        #expect(session.drain().closeCode == .limitExceeded)
        session = up(.foreground)
        session.received(
            .ping(Ping(nonce: 1, answerAfter: FrameLimits.maximumNumber)), lane: .control, early: false, now: now)
        #expect(session.drain().closeCode == .limitExceeded)
    }
}
