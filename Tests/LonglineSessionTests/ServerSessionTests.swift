import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// One link seen from the server: a frame in, actions out.
@Suite("Server session")
struct ServerSessionTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)

    private func session(_ change: (inout ServerSessionConfiguration) -> Void = { _ in }) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        change(&configuration)
        return ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
    }

    private func grant(
        _ channels: [SessionChannel] = [Fixture.channel()], identity: SessionIdentity = Fixture.identity()
    ) -> SessionGrant {
        SessionGrant(
            identity: identity, session: 1, resumed: false, cursorVersion: 1, channels: channels, ticket: nil)
    }

    /// A session that is up and established.
    private func up(
        _ channels: [SessionChannel] = [Fixture.channel()], identity: SessionIdentity = Fixture.identity(),
        _ change: (inout ServerSessionConfiguration) -> Void = { _ in }
    ) -> ServerSession {
        var session = session(change)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(grant(channels, identity: identity), time: 0, now: now)
        return session
    }

    private func receive(_ frame: Frame, on lane: LaneID, _ session: inout ServerSession) -> [ServerAction] {
        session.received(frame, lane: lane, early: false, now: now)
        return session.drain()
    }

    // MARK: Connect

    @Test("Anything before CONNECT on the control lane ends the session")
    func connectFirst() {
        var session = session()
        #expect(receive(.ping(Ping(nonce: 1)), on: .control, &session).closeCode == .unexpectedFrame)
        #expect(session.isClosed)
    }

    @Test("A second CONNECT, and a frame only servers send, end the session")
    func wrongFrames() {
        for frame in [Frame.connect(Fixture.connect()), .pong(Pong(nonce: 1, observedAddress: ""))] {
            var session = up()
            _ = session.drain()
            #expect(receive(frame, on: .control, &session).closeCode == .unexpectedFrame)
        }
    }

    @Test("Without a common version the client is told to upgrade")
    func version() {
        var session = session { $0.versions = [9] }
        #expect(
            receive(.connect(Fixture.connect()), on: .control, &session).closeCode == .versionUnsupported)
    }

    @Test("Lanes that overtake CONNECT wait for the grant, and are bounded")
    func holds() {
        var session = session()
        session.handshakeCompleted(now: now)
        let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: 0))
        #expect(receive(header, on: lane, &session).isEmpty)
        #expect(receive(.publish(Fixture.publish(1)), on: lane, &session).isEmpty)
        #expect(receive(.connect(Fixture.connect()), on: .control, &session).appends.isEmpty)
        session.authenticated(grant(), time: 0, now: now)
        let actions = session.drain()
        #expect(actions.appends == [1])
        guard case .connected = actions.frames.first else { return #expect(Bool(false), "CONNECTED goes first") }

        var flooded = self.session { $0.maximumEarlyBytes = 1_000 }
        var code: CloseCode?
        for id in UInt64(1)...10 { code = code ?? receive(.publish(Fixture.publish(id)), on: lane, &flooded).closeCode }
        #expect(code == .limitExceeded)
    }

    @Test(
        "What the link holds of unfinished frames counts with what is held, until lanes are read",
        arguments: [UInt64(1), 2])
    func partialFrames(number: UInt64) {
        for (partial, isTooMuch) in [(700, false), (800, true)] {
            var session = self.session { $0.maximumEarlyBytes = 1_000 }
            session.received(.connect(Fixture.connect(number: number)), lane: .control, early: true, now: now)
            session.received(.publish(Fixture.publish(1, bytes: 100)), lane: lane, early: true, now: now)
            session.partialFrames(bytes: partial, now: now)
            #expect(session.drain().closeCode == (isTooMuch ? .limitExceeded : nil))
            session = self.session { $0.maximumEarlyBytes = 1_000 }
            session.partialFrames(bytes: partial, now: now)
            session.received(.publish(Fixture.publish(1, bytes: 100)), lane: lane, early: true, now: now)
            #expect(session.drain().closeCode == (isTooMuch ? .limitExceeded : nil))
        }
        var session = self.session { $0.maximumEarlyBytes = 1_000 }
        session.received(.connect(Fixture.connect(number: number)), lane: .control, early: true, now: now)
        session.authenticated(grant(), time: 0, now: now)
        // The lanes of a first connect wait for the handshake.
        var early = session
        early.partialFrames(bytes: 1_001, now: now)
        #expect(early.drain().closeCode == (number == 1 ? .limitExceeded : nil))
        session.handshakeCompleted(now: now)
        session.partialFrames(bytes: 1_001, now: now)
        #expect(session.drain().closeCode == nil)
    }

    @Test("What came on the control lane before the grant goes before what comes behind it, also where lanes wait")
    func controlBeforeTheGrant() {
        var session = session()
        let control = { (frame: Frame) in session.received(frame, lane: .control, early: true, now: self.now) }
        control(.connect(Fixture.connect(number: 1)))
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), lane: lane, early: true, now: now)
        control(.mode(.background))
        session.received(.publish(Fixture.publish(1)), lane: lane, early: true, now: now)
        control(.ping(Ping(nonce: 1)))
        control(.join(RoomRequest(request: 1, room: Fixture.name("room"))))
        session.authenticated(grant(), time: 0, now: now)
        #expect(session.mode == .background)
        control(.mode(.foreground))
        control(.ping(Ping(nonce: 2)))
        control(.leave(RoomRequest(request: 2, room: Fixture.name("room"))))
        let early = session.drain()
        let pongs = early.frames.compactMap { if case .pong(let pong) = $0 { pong.nonce } else { nil } }
        #expect(pongs == [1, 2] && early.appends.isEmpty)
        session.handshakeCompleted(now: now)
        #expect(session.mode == .foreground)
        let actions = session.drain()
        let requests = actions.compactMap { action -> UInt64? in
            switch action {
            case .join(let request), .leave(let request): request.request
            default: nil
            }
        }
        #expect(requests == [1, 2] && actions.appends == [1])
    }

    @Test("In early data a token waits for the handshake, and a ticket does not")
    func earlyToken() {
        var session = session()
        session.received(.connect(Fixture.connect(.token("x"))), lane: .control, early: true, now: now)
        #expect(session.drain().isEmpty)
        session.handshakeCompleted(now: now)
        #expect(session.drain().contains { if case .authenticate = $0 { true } else { false } })

        session = self.session()
        session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
        #expect(session.drain().contains { if case .authenticate = $0 { true } else { false } })
    }

    @Test("Early data publishes, but takes over and joins only after the handshake", arguments: [UInt64(1), 2])
    func earlyEffects(number: UInt64) {
        var session = session()
        session.received(.connect(Fixture.connect(number: number)), lane: .control, early: true, now: now)
        session.authenticated(grant(), time: 0, now: now)
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), lane: lane, early: true, now: now)
        session.received(.publish(Fixture.publish(1)), lane: lane, early: true, now: now)
        session.received(
            .join(RoomRequest(request: 1, room: Fixture.name("room"))), lane: .control, early: true, now: now)
        let early = session.drain()
        #expect(!early.isEstablished)
        #expect(!early.contains { if case .join = $0 { true } else { false } })
        // A producer's first connect has no ledger that could know a replay.
        #expect(early.appends == (number == 1 ? [] : [1]))
        session.handshakeCompleted(now: now)
        let late = session.drain()
        #expect(late.isEstablished)
        #expect(late.contains { if case .join = $0 { true } else { false } })
        #expect(early.appends + late.appends == [1])
    }

    @Test("Everything after a close is discarded")
    func closed() {
        var session = up()
        _ = session.drain()
        session.close(Close(code: .replaced), now: now)
        #expect(session.drain().closeCode == .replaced)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: 0)), on: lane, &session)
        _ = receive(.publish(Fixture.publish(1)), on: lane, &session)
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 9), now: now)
        session.deadlineReached(now: now + .hours(100))
        #expect(session.drain().isEmpty)
        #expect(session.nextDeadline == nil)
    }

    @Test("Deadlines: CONNECT, silence, the credential with its grace")
    func deadlines() {
        var session = session()
        session.deadlineReached(now: now + .seconds(10))
        #expect(session.drain().closeCode == .connectTimeout)

        session = up()
        _ = session.drain()
        session.deadlineReached(now: now + .milliseconds(599_999))
        #expect(session.drain().closeCode == nil)
        session.deadlineReached(now: now + .milliseconds(600_000))
        #expect(session.drain().closeCode == .idle)

        session = up(identity: Fixture.identity(expiry: 1_000))
        _ = session.drain()
        session.deadlineReached(now: now + .milliseconds(60_999))
        #expect(session.drain().closeCode == nil)
        session.deadlineReached(now: now + .milliseconds(61_000))
        #expect(session.drain().closeCode == .credentialExpired)
    }

    @Test("A refresh prolongs; one for somebody else ends the session")
    func refresh() throws {
        var session = up(identity: Fixture.identity(expiry: 1_000))
        _ = receive(.refresh(Refresh(token: "new")), on: .control, &session)
        session.refreshed(Fixture.identity(expiry: 1_000_000), time: 0, now: now)
        #expect(session.drain().frames == [.refreshed(Refreshed(credentialExpiry: 1_000_000))])
        session.deadlineReached(now: now + .seconds(100))
        #expect(!session.isClosed)
        _ = receive(.refresh(Refresh(token: "new")), on: .control, &session)
        var other = Fixture.identity()
        other.device = try DeviceID("other")
        session.refreshed(other, time: 0, now: now)
        #expect(session.drain().closeCode == .forbidden)
    }

    @Test("PING is answered with the address of now")
    func ping() {
        var session = up()
        _ = session.drain()
        session.observedAddressChanged("192.0.2.2:2")
        #expect(
            receive(.ping(Ping(nonce: 5)), on: .control, &session).frames
                == [.pong(Pong(nonce: 5, observedAddress: "192.0.2.2:2"))])
    }

    // MARK: Publishing

    private func open(_ session: inout ServerSession, channel: ChannelID = Fixture.inbox, epoch: Epoch = Fixture.epoch)
    {
        _ = receive(.lane(LaneHeader(channel: channel, epoch: epoch)), on: lane, &session)
    }

    @Test("Answers leave in the order of the publishes, whatever the order of the store's")
    func answersInOrder() {
        var session = up()
        open(&session)
        for id in UInt64(1)...3 { _ = receive(.publish(Fixture.publish(id, after: id - 1)), on: lane, &session) }
        func answer(_ id: PublishID) -> [PublishID] {
            let position = Position(epoch: Fixture.epoch, offset: id)
            session.appended(
                channel: Fixture.inbox, id: id, outcome: .published(Published(id: id, position: position, time: 0)),
                now: now)
            return session.drain().frames.compactMap { if case .published(let done) = $0 { done.id } else { nil } }
        }
        #expect(answer(2).isEmpty)
        #expect(answer(1) == [1, 2])
        #expect(answer(3) == [3])
    }

    @Test(
        "What is refused on sight",
        arguments: [
            (RefusalCode.invalidID, Fixture.publish(0)), (.invalidID, Fixture.publish(4, after: 4)),
            (.invalidID, Fixture.publish(4, after: 4, bytes: 20_000)),
        ])
    func refusals(code: RefusalCode, publish: Publish) {
        var session = up()
        open(&session)
        let actions = receive(.publish(publish), on: lane, &session)
        #expect(actions.appends.isEmpty)
        #expect(actions.frames.contains(.refused(Refused(id: publish.id, code: code))))
    }

    @Test("What may have been entered before is refused by the ledger's word only, and in its turn")
    func lookUps() {
        var session = up()
        open(&session)
        let large = receive(.publish(Fixture.publish(1, bytes: 20_000)), on: lane, &session)
        #expect(large.appends.isEmpty && large.frames.isEmpty && large.lookUps == [1: .payloadTooLarge])
        _ = receive(.publish(Fixture.publish(2, after: 1)), on: lane, &session)
        let position = Position(epoch: Fixture.epoch, offset: 4)
        func answer(_ id: PublishID, _ outcome: PublishOutcome) -> [Frame] {
            session.appended(channel: Fixture.inbox, id: id, outcome: outcome, now: now)
            return session.drain().frames
        }
        #expect(answer(2, .published(Published(id: 2, position: position, time: 0))).isEmpty)
        let answers = answer(1, .refused(Refused(id: 1, code: .payloadTooLarge)))
        #expect(answers.contains(.refused(Refused(id: 1, code: .payloadTooLarge))))
        #expect(answers.contains(.published(Published(id: 2, position: position, time: 0))))
    }

    @Test("Another user's inbox, and a token without the scope, are refused")
    func forbidden() {
        var session = up()
        open(&session, channel: .user(Fixture.user("bob")), epoch: 0)
        #expect(
            receive(.publish(Fixture.publish(1)), on: lane, &session).frames.contains(
                .refused(Refused(id: 1, code: .unknownChannel))))
        session = up(identity: Fixture.identity(mayPublish: false, mayJoin: false))
        open(&session)
        #expect(receive(.publish(Fixture.publish(1)), on: lane, &session).lookUps == [1: .forbidden])
        let answer = receive(.join(RoomRequest(request: 1, room: Fixture.name("r"))), on: .control, &session)
        #expect(answer.frames.contains { if case .roomAnswer(let a) = $0 { a.refusal == .forbidden } else { false } })
    }

    @Test("A client that ignores the window is closed")
    func publishWindow() {
        var session = up()
        open(&session)
        var code: CloseCode?
        for id in UInt64(1)...2_000 where code == nil {
            code = receive(.publish(Fixture.publish(id, after: id - 1)), on: lane, &session).closeCode
        }
        #expect(code == .limitExceeded)
    }

    @Test("Lanes: no header, a second header, a number used again, too many")
    func lanes() {
        var session = up()
        #expect(receive(.publish(Fixture.publish(1)), on: lane, &session).closeCode == .unexpectedFrame)
        session = up()
        open(&session)
        let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: 0))
        #expect(receive(header, on: lane, &session).closeCode == .unexpectedFrame)
        session = up()
        open(&session)
        session.laneFinished(lane, now: now)
        #expect(receive(header, on: lane, &session).closeCode == .unexpectedFrame)
        session = up()
        #expect(receive(header, on: LaneID(rawValue: 513), &session).closeCode == .limitExceeded)
    }

    // MARK: Delivery

    @Test("A wake only makes it read; what was read is sent in order on one lane")
    func delivers() {
        var session = up([Fixture.channel(cursor: Position(epoch: Fixture.epoch, offset: 0))])
        _ = session.drain()
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 7), now: now)
        let woken = session.drain()
        #expect(woken.reads == [0] && woken.frames.isEmpty)
        session.pageRead(Fixture.inbox, page: Fixture.page([3, 7]), now: now)
        let actions = session.drain()
        #expect(actions.opened == [LaneID(rawValue: 1)])
        #expect(actions.frames.first == .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)))
        #expect(actions.delivered == [3, 7])
        #expect(actions.reads.isEmpty)
    }

    enum OldAnswer: CaseIterable, Sendable { case oldLog, emptyNewLog, newLogFurtherOn, failure }

    /// A room is made again while its old log is read: the answer comes from the old log or already from the new one.
    @Test("A read of a log that is no more answers nothing about the new one", arguments: OldAnswer.allCases)
    func oldRead(answer: OldAnswer) {
        var session = up([Fixture.channel(Fixture.room, head: 9)])
        #expect(session.drain().reads == [0])
        let again = Fixture.epoch + 1
        session.channelChanged(
            SessionChannel(
                channel: Fixture.room, head: Position(epoch: again, offset: 3), first: 0, after: 0, upTo: nil,
                cursor: nil, sent: nil), now: now)
        #expect(session.drain().reads.isEmpty, "one read at a time")
        switch answer {
        case .oldLog: session.pageRead(Fixture.room, page: Fixture.page([1, 2]), now: now)
        case .emptyNewLog:
            session.pageRead(Fixture.room, page: SessionPage(epoch: again, items: [], head: 3, first: 0), now: now)
        case .newLogFurtherOn:
            let items = [SessionPage.Item.entry(Fixture.entry(9, after: 8))]
            session.pageRead(Fixture.room, page: SessionPage(epoch: again, items: items, head: 9, first: 0), now: now)
        case .failure: session.readFailed(Fixture.room, now: now)
        }
        let actions = session.drain()
        #expect(actions.closeCode == nil && actions.delivered.isEmpty)
        #expect(actions.reads == [0])
        let items = Fixture.page([1, 2, 3]).items
        session.pageRead(Fixture.room, page: SessionPage(epoch: again, items: items, head: 3, first: 0), now: now)
        #expect(session.drain().delivered == [1, 2, 3])
    }

    @Test("Nothing is read while the lane isn't writable or the window is full")
    func backPressure() {
        var session = up([Fixture.channel(head: 9)]) { $0.limits.channelWindow = 300 }
        #expect(session.drain().reads == [0])
        session.pageRead(Fixture.inbox, page: Fixture.page([1, 2, 3, 4, 5], head: 9), now: now)
        let actions = session.drain()
        // 138 each: the third goes beyond the window, and the rest waits.
        #expect(actions.delivered == [1, 2, 3])
        #expect(actions.reads.isEmpty)
        open(&session)
        session.laneWritable(LaneID(rawValue: 1), false, now: now)
        #expect(receive(.acknowledge(Acknowledge(offset: 3)), on: lane, &session).reads.isEmpty)
        session.laneWritable(LaneID(rawValue: 1), true, now: now)
        #expect(session.drain().reads == [3])
    }

    @Test("A lane is finished when it is quiet and everything on it is acknowledged, not before")
    func finishesLane() {
        var session = up([Fixture.channel(head: 3)])
        session.pageRead(Fixture.inbox, page: Fixture.page([3]), now: now)
        _ = session.drain()
        session.deadlineReached(now: now + .seconds(120))
        #expect(session.drain().finished.isEmpty)
        open(&session)
        _ = receive(.acknowledge(Acknowledge(offset: 3)), on: lane, &session)
        session.deadlineReached(now: now + .seconds(240))
        #expect(session.drain().finished == [LaneID(rawValue: 1)])
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 5), now: now)
        session.pageRead(Fixture.inbox, page: Fixture.page([5], after: 3), now: now)
        #expect(session.drain().opened == [LaneID(rawValue: 2)])
    }

    @Test("Cursors only grow, only in the lane's epoch, and never beyond the log")
    func acknowledgements() {
        var session = up([Fixture.channel(head: 7)])
        session.pageRead(Fixture.inbox, page: Fixture.page([3, 7]), now: now)
        _ = session.drain()
        open(&session)
        func cursors(_ actions: [ServerAction]) -> [Offset] {
            actions.compactMap { if case .storeCursor(_, let position) = $0 { position.offset } else { nil } }
        }
        #expect(cursors(receive(.acknowledge(Acknowledge(offset: 7)), on: lane, &session)) == [7])
        #expect(cursors(receive(.acknowledge(Acknowledge(offset: 3)), on: lane, &session)).isEmpty)
        let old = LaneID(rawValue: 2)
        _ = receive(.lane(LaneHeader(channel: Fixture.inbox, epoch: 5)), on: old, &session)
        #expect(receive(.acknowledge(Acknowledge(offset: 99)), on: old, &session).isEmpty)
    }

    @Test("A device that is ahead of a log which lost its end is not thrown out, and the session goes on")
    func acknowledgesBeyondTheEnd() {
        var session = up([Fixture.channel(head: 7)])
        session.pageRead(Fixture.inbox, page: Fixture.page([3, 7]), now: now)
        _ = session.drain()
        open(&session)
        #expect(receive(.acknowledge(Acknowledge(offset: 8)), on: lane, &session).isEmpty)
        #expect(!session.isClosed)
        let actions = receive(.acknowledge(Acknowledge(offset: 7)), on: lane, &session)
        #expect(actions.contains { if case .storeCursor(_, let position) = $0 { position.offset == 7 } else { false } })
    }

    @Test("A log that was replaced, or has a hole, ends the session", arguments: [false, true])
    func damagedLog(hole: Bool) {
        var session = up([Fixture.channel(head: 7)])
        var page = Fixture.page([7], after: hole ? 2 : 0)
        if !hole { page.epoch = 8 }
        session.pageRead(Fixture.inbox, page: page, now: now)
        #expect(session.drain().closeCode == (hole ? .internalError : .normal))
    }

    @Test("A few reads at a time, and the channels take turns")
    func turns() {
        let channels = (1...6).map { Fixture.channel(.room(Fixture.name("r\($0)")), head: 3) }
        var session = up(channels) { $0.maximumReads = 2 }
        #expect(session.drain().reads.count == 2)
        session.pageRead(channels[0].channel, page: Fixture.page([3]), now: now)
        #expect(session.drain().reads.count == 1)
        session.readFailed(channels[1].channel, now: now)
        #expect(session.drain().reads.count == 1)
    }

    @Test("A cursor that CONNECT names goes before the stored one")
    func claimedCursor() {
        var session = session()
        session.handshakeCompleted(now: now)
        let claim = ChannelPosition(channel: Fixture.inbox, position: Position(epoch: Fixture.epoch, offset: 2))
        session.received(.connect(Fixture.connect(cursors: [claim])), lane: .control, early: false, now: now)
        let stored = Position(epoch: Fixture.epoch, offset: 6)
        session.authenticated(grant([Fixture.channel(head: 9, cursor: stored)]), time: 0, now: now)
        #expect(session.drain().reads == [2])
    }
}
