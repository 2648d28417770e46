import LonglineSession
import LonglineWire
import NIOCore
import Testing

@Suite("A device that is slower than its channels")
struct DeliveryLagTests {
    private let now = Fixture.start

    /// A session whose inbox has more than the window takes: three entries fill it.
    private func full() -> ServerSession {
        var configuration = ServerSessionConfiguration()
        configuration.limits.channelWindow = 3 * 138
        var session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 0,
            channels: [Fixture.channel(head: 6)], ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        session.pageRead(Fixture.inbox, page: Fixture.page([1, 2, 3], head: 6), now: now)
        #expect(session.drain().delivered == [1, 2, 3])
        return session
    }

    private func acknowledge(_ offset: Offset, _ session: inout ServerSession, at time: NIODeadline) {
        let lane = LaneID(rawValue: offset)
        session.received(
            .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, early: false, now: time)
        session.received(.acknowledge(Acknowledge(offset: offset)), lane: lane, early: false, now: time)
        session.laneFinished(lane, now: time)
    }

    private func lags(_ session: inout ServerSession) -> [ChannelLag] {
        session.drain().frames.compactMap { if case .behind(let lag) = $0 { lag } else { nil } }
    }

    private func lag(_ head: Offset, isBehind: Bool) -> ChannelLag {
        ChannelLag(
            channel: Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: head), isBehind: isBehind)
    }

    @Test("It is told once, after the time, with the log's end as it is then")
    func told() {
        var session = full()
        #expect(session.nextDeadline.map { $0 <= now + .seconds(5) } == true)
        session.deadlineReached(now: now + .seconds(5) - .nanoseconds(1))
        #expect(lags(&session).isEmpty)
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 9), now: now + .seconds(4))
        session.deadlineReached(now: now + .seconds(5))
        #expect(lags(&session) == [lag(9, isBehind: true)])
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 10), now: now + .seconds(6))
        session.deadlineReached(now: now + .seconds(30))
        #expect(lags(&session).isEmpty)
    }

    @Test("Confirming a little is no end of it; having been sent everything is")
    func ends() {
        var session = full()
        session.deadlineReached(now: now + .seconds(5))
        #expect(lags(&session) == [lag(6, isBehind: true)])
        acknowledge(1, &session, at: now + .seconds(6))
        session.pageRead(Fixture.inbox, page: Fixture.page([4], after: 3, head: 6), now: now + .seconds(6))
        #expect(lags(&session).isEmpty)
        acknowledge(4, &session, at: now + .seconds(7))
        session.pageRead(Fixture.inbox, page: Fixture.page([5, 6], after: 4, head: 6), now: now + .seconds(7))
        #expect(lags(&session) == [lag(6, isBehind: false)])
        // And it may begin anew.
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 8), now: now + .seconds(8))
        session.pageRead(Fixture.inbox, page: Fixture.page([7], after: 6, head: 8), now: now + .seconds(8))
        session.deadlineReached(now: now + .seconds(13))
        #expect(lags(&session) == [lag(8, isBehind: true)])
    }

    @Test("Who catches up in time hears nothing")
    func inTime() {
        var session = full()
        acknowledge(3, &session, at: now + .seconds(4))
        session.pageRead(Fixture.inbox, page: Fixture.page([4, 5, 6], after: 3, head: 6), now: now + .seconds(4))
        session.deadlineReached(now: now + .seconds(60))
        #expect(lags(&session).isEmpty)
    }

    @Test("A client passes it on to its app")
    func client() {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        session.received(.behind(lag(6, isBehind: true)), lane: .control, now: now)
        let passed = session.drain().compactMap { if case .behind(let lag) = $0 { lag } else { nil } }
        #expect(passed == [lag(6, isBehind: true)])
    }
}
