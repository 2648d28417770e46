import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

/// One device seen from itself: a frame in, actions out.
@Suite("Client session")
struct ClientSessionTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)
    private let ticket = Credential.ticket(ByteBuffer(string: "t"))

    private func session(
        cursors: [ChannelID: Position] = [:], _ change: (inout ClientSessionConfiguration) -> Void = { _ in }
    ) -> ClientSession {
        var configuration = ClientSessionConfiguration()
        change(&configuration)
        return ClientSession(
            configuration: configuration, producer: Fixture.producer, cursors: cursors, cursorVersion: 4)
    }

    private func open(
        _ session: inout ClientSession, _ credential: Credential? = nil, outbox: [OutboxRow] = [],
        supportsPathChange: Bool = false
    ) -> [ClientAction] {
        session.linkOpened(
            credential: credential ?? ticket, connectNumber: 1, supportsPathChange: supportsPathChange, outbox: outbox,
            now: now)
        return session.drain()
    }

    private func receive(
        _ frame: Frame, on lane: LaneID = .control, _ session: inout ClientSession, at time: NIODeadline? = nil
    ) -> [ClientAction] {
        session.received(frame, lane: lane, now: time ?? now)
        return session.drain()
    }

    /// A session that is connected, with a server's lane open for the inbox.
    private func connected(
        cursors: [ChannelID: Position] = [:], outbox: [OutboxRow] = [], supportsPathChange: Bool = false,
        window: UInt64 = 1 << 20, _ change: (inout ClientSessionConfiguration) -> Void = { _ in }
    ) -> ClientSession {
        var session = session(cursors: cursors, change)
        _ = open(&session, outbox: outbox, supportsPathChange: supportsPathChange)
        _ = receive(.connected(Fixture.connected(window: window)), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        return session
    }

    private func deliver(_ offset: Offset, after previous: Offset) -> Frame {
        .deliver(Deliver(entry: Fixture.entry(offset, after: previous), redelivered: false))
    }

    // MARK: Connect

    @Test("With a ticket the waiting publishes leave behind CONNECT; with a token they wait for CONNECTED")
    func firstFlight() {
        let rows = [Fixture.row(1), Fixture.row(2, after: 1)]
        var session = session()
        let early = open(&session, outbox: rows)
        // That it has no cursors goes before it, once.
        #expect(early.frames.prefix(1) == [.cursors(Cursors([], areAll: true))])
        guard case .connect = early.frames.dropFirst().first else { return #expect(Bool(false), "CONNECT goes first") }
        #expect(early.publishes.map(\.id) == [1, 2])

        session = self.session()
        #expect(open(&session, .token("x"), outbox: rows).publishes.isEmpty)
        #expect(receive(.connected(Fixture.connected()), &session).publishes.map(\.id) == [1, 2])
    }

    @Test("The first flight is bounded, and the rest follows CONNECTED")
    func earlyBytes() {
        let rows = (UInt64(1)...100).map { Fixture.row($0, after: $0 - 1, bytes: 2_000) }
        var session = session()
        let early = open(&session, outbox: rows).publishes.count
        #expect(early == (64 * 1024 - 128) / 2_128)
        #expect(receive(.connected(Fixture.connected()), &session).publishes.count == 100 - early)
    }

    @Test("CONNECT carries the cursors that moved since the version it names")
    func cursors() {
        let place = Position(epoch: Fixture.epoch, offset: 3)
        var session = session(cursors: [Fixture.inbox: place])
        func sent(_ actions: [ClientAction]) -> [ChannelPosition]? {
            for case .connect(let connect) in actions.frames { return connect.cursors }
            return nil
        }
        #expect(sent(open(&session)) == [ChannelPosition(channel: Fixture.inbox, position: place)])
        let answer = ChannelAnswer(channel: Fixture.inbox, head: place, recovery: .recovered)
        _ = receive(.connected(Fixture.connected([answer])), &session)
        session.linkClosed(now: now)
        #expect(sent(open(&session)) == [])
        _ = receive(.connected(Fixture.connected()), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        _ = receive(deliver(5, after: 3), on: lane, &session)
        session.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 5), now: now)
        session.linkClosed(now: now)
        #expect(sent(open(&session))?.map(\.position.offset) == [5])
    }

    @Test(
        "A session that takes another one's place goes on with what arrived, unless the cursor says that the log is another one"
    )
    func goesOn() {
        func place(_ offset: Offset, epoch: Epoch = Fixture.epoch) -> Position {
            Position(epoch: epoch, offset: offset)
        }
        var first = connected(cursors: [Fixture.inbox: place(2)])
        #expect(receive(deliver(3, after: 2), on: lane, &first).delivered == [3])
        #expect(receive(deliver(4, after: 3), on: lane, &first).delivered == [4])
        /// What of 3, 4 and 5 a next session takes that starts from a cursor, and what it then holds for confirmed up to 4.
        func next(_ cursor: Position?, from previous: Offset) -> (delivered: [Offset], isFourOpen: Bool) {
            var session = session(cursors: cursor.map { [Fixture.inbox: $0] } ?? [:])
            session.goOn(from: first.memory)
            _ = open(&session)
            _ = receive(.connected(Fixture.connected()), &session)
            let epoch = cursor?.epoch ?? Fixture.epoch
            _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: epoch)), on: lane, &session)
            let isOpen = session.isUnconfirmed(place(4), in: Fixture.inbox)
            let delivered = (previous + 1...5).flatMap { offset in
                receive(deliver(offset, after: offset - 1), on: lane, &session).delivered
            }
            return (delivered, isOpen)
        }
        #expect(next(place(2), from: 2) == ([5], true))
        #expect(next(place(3), from: 3) == ([5], true))
        #expect(next(place(4), from: 4) == ([5], false))
        // The log lost its end, or is a new one.
        #expect(next(place(1), from: 1) == ([2, 3, 4, 5], false))
        #expect(next(place(2, epoch: Fixture.epoch + 1), from: 2) == ([3, 4, 5], false))
        // A confirmation of what the earlier one received counts before it comes again.
        var last = session(cursors: [Fixture.inbox: place(2)])
        last.goOn(from: first.memory)
        last.confirm(channel: Fixture.inbox, position: place(4), now: now)
        #expect(last.cursor(of: Fixture.inbox) == place(4))
    }

    @Test("Lanes that overtake CONNECTED are held; other control frames before it end the link")
    func holds() {
        var session = session()
        _ = open(&session)
        #expect(receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: 7)), on: lane, &session).isEmpty)
        #expect(receive(deliver(3, after: 0), on: lane, &session).isEmpty)
        let actions = receive(.connected(Fixture.connected()), &session)
        guard case .connected = actions.first else { return #expect(Bool(false), "connected goes first") }
        #expect(actions.delivered == [3])
        session.linkClosed(now: now)
        _ = open(&session)
        #expect(receive(.pong(Pong(nonce: 1, observedAddress: "")), &session).endCode == .unexpectedFrame)
    }

    @Test("No answer to CONNECT ends the link; what the server says of it is passed on")
    func noAnswer() {
        var session = session()
        var random = SeededRandom(seed: 1)
        _ = open(&session)
        session.deadlineReached(now: now + .seconds(15), random: &random)
        #expect(session.drain().endCode == .connectTimeout)
        session.linkClosed(now: now)
        _ = open(&session)
        let close = Close(code: .ticketRejected, reason: "r")
        let actions = receive(.close(close), &session)
        #expect(actions.frames.isEmpty)
        guard case .end(let end) = actions.first else { return #expect(Bool(false)) }
        #expect(end == SessionEnd(close: close, byServer: true))
        #expect(receive(.connected(Fixture.connected()), &session).isEmpty)
    }

    @Test("Where the server remembers a place that this device has not, the next CONNECT claims the beginning")
    func restored() {
        var session = session()
        _ = open(&session)
        let answer = ChannelAnswer(
            channel: Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 9), recovery: .recovered)
        #expect(receive(.connected(Fixture.connected([answer])), &session).endCode == .normal)
        session.linkClosed(now: now)
        guard case .connect(let connect) = open(&session).frames.first else { return #expect(Bool(false)) }
        #expect(connect.cursors.map(\.position) == [Position(epoch: Fixture.epoch, offset: 0)])
    }

    // MARK: Receiving

    @Test("Duplicates are dropped, continuations accepted")
    func chain() {
        var session = connected()
        #expect(receive(deliver(3, after: 0), on: lane, &session).delivered == [3])
        #expect(receive(deliver(3, after: 0), on: lane, &session).delivered.isEmpty)
        #expect(receive(deliver(7, after: 3), on: lane, &session).delivered == [7])
        session.linkClosed(now: now)
        _ = open(&session)
        _ = receive(.connected(Fixture.connected()), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        #expect(receive(deliver(7, after: 3), on: lane, &session).delivered.isEmpty)
        #expect(receive(deliver(8, after: 7), on: lane, &session).delivered == [8])
    }

    @Test("A hole ends the link; at the same place again it is told as a loss")
    func hole() {
        var session = connected()
        #expect(receive(deliver(9, after: 5), on: lane, &session).endCode == .internalError)
        session.linkClosed(now: now)
        guard case .connect(let connect) = open(&session).frames.first else { return #expect(Bool(false)) }
        #expect(connect.cursors.map(\.position.offset) == [0])
        _ = receive(.connected(Fixture.connected()), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        let actions = receive(deliver(9, after: 5), on: lane, &session)
        #expect(actions.gaps == [Gap(from: Position(epoch: Fixture.epoch, offset: 0), first: 5)])
        #expect(actions.delivered == [9])
    }

    @Test("Where a hole was, the next CONNECT names the channel before all that moved, the last hole first")
    func holes() {
        let place = Position(epoch: Fixture.epoch, offset: 1)
        let rooms = (100..<300).map { ChannelID.room(Fixture.name("r\($0)")) }
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer,
            cursors: Dictionary(uniqueKeysWithValues: rooms.map { ($0, place) }), cursorVersion: 0)
        var named: [[ChannelID]] = []
        for hole in [rooms[198], rooms[199], nil] {
            let connect = open(&session).frames.lazy.compactMap { frame -> Connect? in
                if case .connect(let connect) = frame { connect } else { nil }
            }.first
            guard let connect else { return #expect(Bool(false)) }
            named.append(connect.cursors.map(\.channel))
            let answers = connect.cursors.map { ChannelAnswer(channel: $0.channel, head: place, recovery: .recovered) }
            _ = receive(.connected(Fixture.connected(answers)), &session)
            guard let hole else { continue }
            _ = receive(.lane(LaneHeader(channel: hole, epoch: Fixture.epoch)), on: lane, &session)
            #expect(receive(deliver(9, after: 5), on: lane, &session).endCode == .internalError)
            session.linkClosed(now: now)
        }
        #expect(named[0] == Array(rooms[..<96]))
        // The others went before the first CONNECT: the server knows them.
        #expect(named[1] == [rooms[198]])
        #expect(named[2] == [rooms[199], rooms[198]])
    }

    @Test("ACK leaves after the app confirmed: after a number of entries, or a delay")
    func acknowledges() {
        var session = connected { $0.acknowledgeEvery = 2 }
        var random = SeededRandom(seed: 1)
        for offset in UInt64(1)...3 {
            #expect(receive(deliver(offset, after: offset - 1), on: lane, &session).acknowledged.isEmpty)
        }
        func confirm(_ offset: Offset, epoch: Epoch = Fixture.epoch) -> [Offset] {
            session.confirm(channel: Fixture.inbox, position: Position(epoch: epoch, offset: offset), now: now)
            return session.drain().acknowledged
        }
        #expect(confirm(1).isEmpty)
        #expect(confirm(2) == [2])
        #expect(confirm(2).isEmpty)
        #expect(confirm(9).isEmpty, "what was never received can't be confirmed")
        #expect(confirm(3, epoch: 5).isEmpty)
        #expect(confirm(3).isEmpty)
        session.deadlineReached(now: now + .milliseconds(100), random: &random)
        #expect(session.drain().acknowledged == [3])
    }

    @Test("Acknowledgements that wait for more go out ahead of a farewell")
    func acknowledgesAll() {
        var session = connected()
        _ = receive(deliver(1, after: 0), on: lane, &session)
        session.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 1), now: now)
        #expect(session.drain().acknowledged.isEmpty)
        session.acknowledgeAll(now: now)
        session.close(Close(code: .normal), now: now)
        let frames = session.drain().frames
        #expect(frames.suffix(2) == [.acknowledge(Acknowledge(offset: 1)), .close(Close(code: .normal))])
    }

    @Test("A server that goes on with a full window is left, and what it sent too much comes again")
    func overfullWindow() {
        var session = connected(window: 1_000)
        // Each weighs 138: the eighth may go beyond, as the window was not full before it.
        for offset in UInt64(1)...8 {
            #expect(receive(deliver(offset, after: offset - 1), on: lane, &session).delivered == [offset])
        }
        session.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 1), now: now)
        #expect(receive(deliver(9, after: 8), on: lane, &session).delivered == [9])
        let over = receive(deliver(10, after: 9), on: lane, &session)
        #expect(over.endCode == .limitExceeded && over.delivered.isEmpty)

        session.linkClosed(now: now)
        _ = open(&session)
        _ = receive(.connected(Fixture.connected(window: 1_000)), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        for offset in UInt64(2)...9 {
            #expect(receive(deliver(offset, after: offset - 1), on: lane, &session).delivered.isEmpty)
        }
        #expect(receive(deliver(10, after: 9), on: lane, &session).delivered == [10])
    }

    @Test("A server that claims a larger window than any may have has the largest that there is")
    func boundlessWindow() {
        var session = connected(window: FrameLimits.maximumNumber)
        var large = Fixture.entry(1, after: 0, bytes: FrameLimits.maximumWholePayload)
        for offset in UInt64(1)...4 {
            (large.offset, large.previous) = (offset, offset - 1)
            let taken = receive(.deliver(Deliver(entry: large, redelivered: false)), on: lane, &session)
            #expect(taken.delivered == [offset])
        }
        #expect(receive(deliver(5, after: 4), on: lane, &session).endCode == .limitExceeded)
    }

    @Test("What is unconfirmed of another log takes no room from the new one's")
    func windowOfAnotherLog() {
        var session = connected(window: 1_000)
        for offset in UInt64(1)...8 { _ = receive(deliver(offset, after: offset - 1), on: lane, &session) }
        let next = LaneID(rawValue: 2)
        let gap = Gap(from: Position(epoch: Fixture.epoch, offset: 8), first: 0)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch + 1)), on: next, &session)
        #expect(receive(.gap(gap), on: next, &session).gaps == [gap])
        #expect(receive(deliver(1, after: 0), on: next, &session).delivered == [1])
    }

    @Test("A skip is confirmed by itself, once nothing before it waits for the app")
    func skips() {
        var session = connected { $0.acknowledgeEvery = 1 }
        let skip = Frame.skip(Skip(previous: 0, to: 4, reason: .expired))
        #expect(receive(skip, on: lane, &session).acknowledged == [4])
        _ = receive(deliver(5, after: 4), on: lane, &session)
        #expect(receive(.skip(Skip(previous: 5, to: 8, reason: .expired)), on: lane, &session).acknowledged.isEmpty)
        session.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 5), now: now)
        #expect(session.drain().acknowledged == [8])
    }

    @Test("An acknowledgement needs a lane of its epoch, which waits for the answers on the old one")
    func changesLane() {
        var session = session { $0.acknowledgeEvery = 1 }
        _ = open(&session, outbox: [Fixture.row(1)])
        _ = receive(.connected(Fixture.connected()), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), on: lane, &session)
        _ = receive(deliver(3, after: 0), on: lane, &session)
        session.confirm(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 3), now: now)
        #expect(session.drain().acknowledged.isEmpty)
        #expect(session.enqueue(Fixture.row(2, after: 1), now: now) == true)
        #expect(session.drain().publishes.isEmpty)
        let published = Published(id: 1, position: Position(epoch: Fixture.epoch, offset: 3), time: 0)
        let actions = receive(.published(published), on: lane, &session)
        #expect(actions.acknowledged == [3])
        #expect(actions.publishes.map(\.id) == [2])
        let finished = actions.contains { if case .finishLane(lane) = $0 { true } else { false } }
        #expect(finished)
        #expect(actions.frames.first == .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)))
    }

    // MARK: Heartbeat

    @Test("A quiet link is asked after a drawn time; no answer is a probe where the path can change, and then the end")
    func heartbeat() {
        var session = connected(supportsPathChange: true)
        var random = SeededRandom(seed: 3)
        _ = session.drain()
        var pinged: NIODeadline?
        var probed: NIODeadline?
        var ended: NIODeadline?
        while let deadline = session.nextDeadline, ended == nil {
            session.deadlineReached(now: deadline, random: &random)
            let actions = session.drain()
            if actions.pings > 0, pinged == nil { pinged = deadline }
            if actions.contains(where: { if case .probePath = $0 { true } else { false } }) { probed = deadline }
            if actions.endCode != nil { ended = deadline }
        }
        #expect((now + .seconds(15)...now + .seconds(30)).contains(pinged ?? now))
        #expect(probed == pinged.map { $0 + .seconds(5) })
        #expect(ended == probed.map { $0 + .seconds(5) })
    }

    @Test("Only what is received proves life")
    func proofOfLife() {
        var session = connected()
        var random = SeededRandom(seed: 3)
        _ = session.drain()
        for step in Int64(0)..<5 {
            _ = session.enqueue(Fixture.row(UInt64(step) + 1, after: UInt64(step)), now: now + .seconds(step))
            session.deadlineReached(now: now + .seconds(step), random: &random)
        }
        #expect(session.drain().endCode == nil)
        session.deadlineReached(now: now + .seconds(5), random: &random)
        #expect(session.drain().endCode == .idle)
    }

    @Test("A quiet lane is finished with a heartbeat, unless a publish on it has no answer", arguments: [false, true])
    func finishesLane(answered: Bool) {
        var session = connected(outbox: [Fixture.row(1)]) { $0.laneIdleTime = .seconds(1) }
        var random = SeededRandom(seed: 3)
        let published = Published(id: 1, position: Position(epoch: Fixture.epoch, offset: 3), time: 0)
        if answered { session.received(.published(published), lane: lane, now: now) }
        session.packetReceived(now: now)
        var actions = session.drain()
        while actions.pings == 0, let deadline = session.nextDeadline {
            session.deadlineReached(now: deadline, random: &random)
            actions = session.drain()
        }
        #expect(actions.contains { if case .finishLane = $0 { true } else { false } } == answered)
    }

    @Test("The address that the server sees is passed on when it changes")
    func observedAddress() {
        var session = connected()
        _ = session.drain()
        #expect(receive(.pong(Pong(nonce: 1, observedAddress: "192.0.2.1:1")), &session).isEmpty)
        let actions = receive(.pong(Pong(nonce: 1, observedAddress: "192.0.2.1:9")), &session)
        guard case .observedAddress("192.0.2.1:9") = actions.first else { return #expect(Bool(false)) }
    }

    // MARK: Tokens

    @Test("One refresh at a time: the latest token waits for the answer, and no longer than its link")
    func refreshes() {
        var session = connected()
        _ = session.drain()
        func tokens(_ actions: [ClientAction]) -> [String] {
            actions.frames.compactMap { if case .refresh(let refresh) = $0 { refresh.token } else { nil } }
        }
        for token in ["a", "b", "c"] { #expect(session.refresh(token: token, now: now) == true) }
        #expect(tokens(session.drain()) == ["a"])
        #expect(tokens(receive(.refreshed(Refreshed(credentialExpiry: 5)), &session)) == ["c"])
        #expect(tokens(receive(.refreshed(Refreshed(credentialExpiry: 6)), &session)) == [])
        for token in ["d", "e"] { _ = session.refresh(token: token, now: now) }
        session.linkClosed(now: now)
        #expect(session.refresh(token: "f", now: now) == false)
        _ = open(&session)
        #expect(tokens(receive(.connected(Fixture.connected()), &session)) == [])
        #expect(session.refresh(token: "g", now: now) == true)
        #expect(tokens(session.drain()) == ["g"])
    }

    @Test("Who received nothing of a channel loses nothing when its log is made anew")
    func newEpochFromTheStart() {
        var session = connected()
        _ = session.drain()
        session.linkClosed(now: now)
        _ = open(&session)
        _ = receive(.connected(Fixture.connected()), &session)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: 78)), on: lane, &session)
        let actions = receive(deliver(3, after: 0), on: lane, &session)
        #expect(actions.delivered == [3])
        #expect(actions.gaps.isEmpty && actions.endCode == nil)
        session.confirm(channel: Fixture.inbox, position: Position(epoch: 78, offset: 3), now: now)
        #expect(session.cursor(of: Fixture.inbox) == Position(epoch: 78, offset: 3))
    }

    // MARK: A used-up producer

    @Test("A new producer is asked for once all that was sent is resolved, and nothing new is sent before")
    func renews() {
        var session = connected(outbox: [Fixture.row(1), Fixture.row(2, after: 1)])
        _ = session.drain()
        let first = receive(.refused(Refused(id: 1, code: .idReused)), on: lane, &session)
        #expect(first.endCode == nil)
        #expect(session.enqueue(Fixture.row(3, after: 2), now: now) == true)
        #expect(session.drain().publishes.isEmpty)
        let published = Published(id: 2, position: Position(epoch: Fixture.epoch, offset: 3), time: 0)
        let actions = receive(.published(published), on: lane, &session)
        #expect(actions.contains { if case .renewProducer = $0 { true } else { false } })
        #expect(actions.endCode == .normal)
    }

    @Test("What was confirmed in a log's old life, or beyond its lost end, is not acknowledged in what follows")
    func acknowledgesWithinOneLife() {
        for (epoch, first) in [(Epoch(78), Offset(1)), (Fixture.epoch, 4)] {
            var random = SeededRandom(seed: 1)
            var session = ClientSession(
                configuration: ClientSessionConfiguration(), producer: Fixture.producer,
                cursors: [Fixture.inbox: Position(epoch: Fixture.epoch, offset: 3)], cursorVersion: 0)
            let start = Fixture.start
            session.linkOpened(
                credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: start)
            session.received(.connected(Fixture.connected()), lane: .control, now: start)
            let (old, next) = (LaneID(rawValue: 1), LaneID(rawValue: 2))
            session.received(
                .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: old, now: start)
            let deliver = Deliver(entry: Fixture.entry(5, after: 3), redelivered: false)
            session.received(.deliver(deliver), lane: old, now: start)
            session.confirm(
                channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 5), now: start)
            // The log was replaced, or lost its end, before the acknowledgement left.
            session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: epoch)), lane: next, now: start)
            let gap = Gap(from: Position(epoch: Fixture.epoch, offset: 5), first: first)
            session.received(.gap(gap), lane: next, now: start)
            session.confirm(channel: Fixture.inbox, position: Position(epoch: epoch, offset: first), now: start)
            session.deadlineReached(now: start + .seconds(1), random: &random)
            #expect(session.drain().acknowledged == [first], "epoch \(epoch)")
        }
    }
}
