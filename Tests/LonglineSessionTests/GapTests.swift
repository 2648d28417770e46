import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// What a device says of gaps: a server waits for the acknowledgement of each, and sends it again on every link until then.
@Suite("Gaps")
struct GapTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)

    private func place(_ offset: Offset, epoch: Epoch = Fixture.epoch) -> Position {
        Position(epoch: epoch, offset: offset)
    }

    /// A session that is connected, with a server's lane open for the inbox.
    private func session(cursor: Offset?) -> ClientSession {
        var configuration = ClientSessionConfiguration()
        configuration.acknowledgeEvery = 1
        let cursors = cursor.map { [Fixture.inbox: place($0)] } ?? [:]
        var session = ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: cursors, cursorVersion: 4)
        _ = link(&session)
        return session
    }

    /// A link of the session, up to the lane's header.
    /// - Parameter head: the log's last entry, where CONNECTED has room for the channel.
    /// - Returns: the cursors that CONNECT named, and what came of CONNECTED.
    private func link(
        _ session: inout ClientSession, epoch: Epoch = Fixture.epoch, head: Offset? = nil
    ) -> (named: [ChannelPosition], actions: [ClientAction]) {
        session.linkClosed(now: now)
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        let named = session.drain().frames.flatMap { frame -> [ChannelPosition] in
            if case .connect(let connect) = frame { connect.cursors } else { [] }
        }
        let answers = head.map {
            [ChannelAnswer(channel: Fixture.inbox, head: place($0, epoch: epoch), recovery: .recovered)]
        }
        session.received(.connected(Fixture.connected(answers ?? [])), lane: .control, now: now)
        let actions = session.drain()
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: epoch)), lane: lane, now: now)
        _ = session.drain()
        return (named, actions)
    }

    private func deliver(_ offset: Offset, after previous: Offset) -> Frame {
        .deliver(Deliver(entry: Fixture.entry(offset, after: previous), redelivered: false))
    }

    private func receive(_ frame: Frame, _ session: inout ClientSession) -> [ClientAction] {
        session.received(frame, lane: lane, now: now)
        return session.drain()
    }

    @Test("A gap before what the app was done with is not told, and acknowledged as far as the app is")
    func knownGap() {
        var session = session(cursor: 9)
        for first: Offset in [4, 9] {
            let actions = receive(.gap(Gap(from: place(2), first: first)), &session)
            #expect(actions.gaps.isEmpty && actions.acknowledged == [9], "first \(first)")
        }
    }

    @Test("A gap before messages that the app holds is not told, and acknowledged with them")
    func heldMessages() {
        var session = session(cursor: 2)
        let deliver = Deliver(entry: Fixture.entry(3, after: 2), redelivered: false)
        #expect(receive(.deliver(deliver), &session).delivered == [3])
        let actions = receive(.gap(Gap(from: place(2), first: 3)), &session)
        #expect(actions.gaps.isEmpty && actions.acknowledged.isEmpty)
        session.confirm(channel: Fixture.inbox, position: place(3), now: now)
        #expect(session.drain().acknowledged == [3])
    }

    @Test("A log that lost its end is told of once: its place is acknowledged, and named in the next CONNECT")
    func lostEnd() {
        var session = session(cursor: 9)
        let gap = Gap(from: place(9), first: 6)
        let told = receive(.gap(gap), &session)
        #expect(told.gaps == [gap] && told.acknowledged == [6])
        #expect(session.cursor(of: Fixture.inbox) == place(6))
        // The app's own confirmation of it has nothing to add.
        session.confirm(channel: Fixture.inbox, position: place(6), now: now)
        #expect(session.drain().acknowledged.isEmpty)

        #expect(link(&session).named == [ChannelPosition(channel: Fixture.inbox, position: place(6))])
        // A server whose record only grows says it again.
        let again = receive(.gap(gap), &session)
        #expect(again.gaps.isEmpty && again.acknowledged == [6] && again.endCode == nil)
        let next = Deliver(entry: Fixture.entry(7, after: 6), redelivered: false)
        #expect(receive(.deliver(next), &session).delivered == [7])
    }

    @Test("A lost end behind the cursor is told by where the log ends, and what comes in its place is given to the app")
    func lostBehindCursor() {
        var session = session(cursor: 2)
        for offset: Offset in 3...6 { _ = receive(deliver(offset, after: offset - 1), &session) }
        session.confirm(channel: Fixture.inbox, position: place(3), now: now)
        #expect(session.drain().acknowledged == [3])
        // The server goes on from the cursor, and says nothing of what it does not know.
        let told = link(&session, head: 4).actions
        #expect(told.gaps == [Gap(from: place(6), first: 4)] && told.acknowledged.isEmpty)
        #expect(session.cursor(of: Fixture.inbox) == place(3))
        let again = receive(deliver(4, after: 3), &session)
        #expect(again.delivered.isEmpty && again.endCode == nil)
        for offset: Offset in 5...7 {
            #expect(receive(deliver(offset, after: offset - 1), &session).delivered == [offset])
        }
        // What the app held before the end is confirmed with the gap.
        session.confirm(channel: Fixture.inbox, position: place(4), now: now)
        #expect(session.drain().acknowledged == [4])
        #expect(link(&session, head: 7).actions.gaps.isEmpty)
    }

    @Test("A cursor beyond a lost end goes back, whether the server's GAP tells of it or not")
    func cursorBeyondEnd() {
        for tells in [true, false] {
            var session = session(cursor: 9)
            let told = link(&session, head: 6).actions
            #expect(told.gaps == [Gap(from: place(9), first: 6)] && told.acknowledged == [6])
            #expect(session.cursor(of: Fixture.inbox) == place(6))
            if tells {
                let again = receive(.gap(Gap(from: place(9), first: 6)), &session)
                #expect(again.gaps.isEmpty && again.acknowledged == [6])
            } else {
                // Its record went back further.
                #expect(receive(deliver(6, after: 5), &session).acknowledged == [6])
            }
            #expect(receive(deliver(7, after: 6), &session).delivered == [7])
            #expect(link(&session, head: 7).named.map(\.position) == [place(6)])
        }
    }

    @Test("Where a log ends says nothing of another life of it, nor of what a device has not got yet")
    func ordinaryEnds() {
        for (head, epoch) in [(Offset(9), Fixture.epoch), (12, Fixture.epoch), (0, 78)] {
            var session = session(cursor: 9)
            let actions = link(&session, epoch: epoch, head: head).actions
            #expect(actions.gaps.isEmpty && actions.endCode == nil)
            #expect(session.cursor(of: Fixture.inbox) == place(9))
        }
    }

    @Test("That another log took the place of one waits for the app, whatever comes again or behind it")
    func anotherLog() {
        let next: Epoch = 78
        var session = session(cursor: 9)
        _ = link(&session, epoch: next)
        let gap = Gap(from: place(9), first: 0)
        #expect(receive(.gap(gap), &session).gaps == [gap])
        // The app has not seen it when the link is lost: its next process has to be told.
        #expect(link(&session, epoch: next).named == [ChannelPosition(channel: Fixture.inbox, position: place(9))])
        let again = receive(.gap(gap), &session)
        #expect(again.gaps.isEmpty && again.acknowledged.isEmpty)
        #expect(session.cursor(of: Fixture.inbox) == place(9))
        let behind = receive(.skip(Skip(previous: 0, to: 3, reason: .notEntitled)), &session)
        #expect(behind.acknowledged.isEmpty && session.cursor(of: Fixture.inbox) == place(9))
        session.confirm(channel: Fixture.inbox, position: place(0, epoch: next), now: now)
        #expect(session.drain().acknowledged == [3])
        #expect(session.cursor(of: Fixture.inbox) == place(3, epoch: next))
    }

    @Test("That all of a log is lost waits for an app that was done with nothing of it")
    func lostAll() {
        var session = session(cursor: nil)
        #expect(receive(deliver(1, after: 0), &session).delivered == [1])
        #expect(link(&session, head: 0).actions.gaps == [Gap(from: place(1), first: 0)])
        let behind = receive(.skip(Skip(previous: 0, to: 3, reason: .notEntitled)), &session)
        #expect(behind.acknowledged.isEmpty && session.cursor(of: Fixture.inbox) == nil)
        session.confirm(channel: Fixture.inbox, position: place(0), now: now)
        #expect(session.drain().acknowledged == [3])
    }

    @Test("The gap of a log of which nothing came, and of which nothing is gone, is confirmed by the session")
    func nothingLost() {
        var session = session(cursor: nil)
        let next: Epoch = 78
        _ = link(&session, epoch: next)
        let actions = receive(.gap(Gap(from: place(0), first: 0)), &session)
        #expect(actions.gaps.isEmpty && actions.acknowledged == [0])
        let deliver = Deliver(entry: Fixture.entry(1, after: 0), redelivered: false)
        #expect(receive(.deliver(deliver), &session).delivered == [1])
        session.confirm(channel: Fixture.inbox, position: place(1, epoch: next), now: now)
        #expect(session.drain().acknowledged == [1])
    }
}
