import LonglineSession
import LonglineWire
import NIOCore
import Testing

@Suite("Rooms that a session's user left")
struct EndedChannelTests {
    private let now = Fixture.start

    private func up(
        _ change: (inout ServerSessionConfiguration) -> Void, places: [ChannelPosition] = []
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect(cursors: places)), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 0, channels: [Fixture.channel()],
            ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        _ = session.drain()
        return session
    }

    private func room(_ number: UInt64) -> ChannelID { .room(Fixture.name("r\(number)")) }

    /// Joins a room and leaves it, with one entry each, which the device gets.
    private func visit(_ number: UInt64, _ session: inout ServerSession) {
        let joined = Offset(number * 10)
        session.channelChanged(
            Fixture.channel(room(number), head: joined, after: joined - 1, sent: joined - 1), now: now)
        session.channelChanged(
            Fixture.channel(room(number), head: joined + 1, after: joined - 1, upTo: joined + 1, sent: joined - 1),
            now: now)
        session.pageRead(
            room(number), page: Fixture.page([joined, joined + 1], after: joined - 1, first: joined - 1), now: now)
    }

    private func confirm(_ number: UInt64, _ session: inout ServerSession) {
        let lane = LaneID(rawValue: number)
        session.received(
            .lane(LaneHeader(channel: room(number), epoch: Fixture.epoch)), lane: lane, early: false, now: now)
        session.received(
            .acknowledge(Acknowledge(offset: number * 10 + 1)), lane: lane, early: false, now: now)
        session.laneFinished(lane, now: now)
    }

    private func forgotten(_ actions: [ServerAction]) -> [ChannelID] {
        actions.compactMap { if case .forget(let channel) = $0 { channel } else { nil } }
    }

    @Test("The last ones are kept, and those before forgotten with their lanes once they are confirmed")
    func forgets() throws {
        var session = up { $0.maximumEndedChannels = 2 }
        for number in UInt64(1)...5 { visit(number, &session) }
        var actions = session.drain()
        #expect(actions.delivered.count == 10)
        #expect(forgotten(actions).isEmpty, "nothing is confirmed")
        let lanes = actions.opened
        #expect(lanes.count == 5)
        confirm(4, &session)
        actions = session.drain()
        #expect(forgotten(actions) == [room(4)] && actions.finished == [lanes[3]])
        for number in UInt64(1)...3 { confirm(number, &session) }
        actions = session.drain()
        #expect(forgotten(actions) == [room(1), room(2)])
        #expect(session.sentPositions.map(\.channel).filter { $0 != Fixture.inbox }.count == 2)
        // What is late for a room that was forgotten means nothing.
        session.logAdvanced(room(1), head: Position(epoch: Fixture.epoch, offset: 99), now: now)
        session.pageRead(room(1), page: Fixture.page([99], after: 11), now: now)
        #expect(session.drain().isEmpty)
        // Who joins again begins behind the gap.
        session.channelChanged(Fixture.channel(room(1), head: 200, after: 199, sent: 199), now: now)
        let again = session.drain()
        #expect(again.frames.contains(.skip(Skip(previous: 0, to: 199, reason: .notEntitled))))
        #expect(again.reads == [199])
    }

    @Test("What is under way, or has a lane of the client's, is not forgotten")
    func keeps() {
        var session = up { $0.maximumEndedChannels = 0 }
        visit(1, &session)
        let lane = LaneID(rawValue: 1)
        session.received(.lane(LaneHeader(channel: room(1), epoch: Fixture.epoch)), lane: lane, early: false, now: now)
        session.received(.publish(Fixture.publish(1)), lane: lane, early: false, now: now)
        session.received(.acknowledge(Acknowledge(offset: 11)), lane: lane, early: false, now: now)
        #expect(forgotten(session.drain()).isEmpty)
        session.laneFinished(lane, now: now)
        #expect(forgotten(session.drain()).isEmpty, "a publish waits for its answer")
        session.appended(
            channel: room(1), id: 1, outcome: .refused(Refused(id: 1, code: .unknownChannel)), now: now)
        _ = session.drain()
        session.deadlineReached(now: now + .seconds(121))
        #expect(forgotten(session.drain()) == [room(1)])
    }

    @Test("A device that leaves room after room and confirms none is closed")
    func bounds() {
        var session = up {
            $0.maximumEndedChannels = 1
            $0.maximumUnconfirmedEnds = 3
        }
        for number in UInt64(1)...3 { visit(number, &session) }
        #expect(session.drain().closeCode == nil)
        visit(4, &session)
        #expect(session.drain().closeCode == .limitExceeded)
    }

    @Test("What the device has not got of a log that is gone is told to be lost, and not asked for again")
    func logIsGone() {
        var session = up { $0.maximumEndedChannels = 0 }
        session.channelChanged(Fixture.channel(room(1), head: 11, after: 9, upTo: 11, sent: 9), now: now)
        #expect(session.drain().reads == [9])
        session.logGone(room(1), now: now)
        let actions = session.drain()
        #expect(actions.frames.contains(.gap(Gap(from: Position(epoch: Fixture.epoch, offset: 9), first: 11))))
        #expect(actions.closeCode == nil && actions.reads.isEmpty)
        session.deadlineReached(now: now + .seconds(2))
        #expect(session.drain().reads.isEmpty)
        confirm(1, &session)
        #expect(forgotten(session.drain()) == [room(1)])
    }

    @Test("Who joins a room that was made anew is told first that the log is gone in which the device has a place")
    func madeAnew() {
        let old = Position(epoch: Fixture.epoch - 1, offset: 5)
        let left = Position(epoch: Fixture.epoch, offset: 5)
        let places = [
            ChannelPosition(channel: room(1), position: old), ChannelPosition(channel: room(2), position: left),
        ]
        var session = up({ _ in }, places: places)
        session.channelChanged(Fixture.channel(room(1), head: 1, sent: 0), now: now)
        let actions = session.drain()
        #expect(actions.frames.contains(.gap(Gap(from: old, first: 0))))
        #expect(actions.reads == [0])
        // A log that is the same goes on behind what the device has no right to.
        session.channelChanged(Fixture.channel(room(2), head: 9, after: 8, sent: 8), now: now)
        let again = session.drain()
        #expect(again.frames.contains(.skip(Skip(previous: 0, to: 8, reason: .notEntitled))))
        #expect(again.reads == [8])
    }
}
