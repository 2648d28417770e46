import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Paging through a log, seen from the server: requests in, reads and pages out.
@Suite("History on the server")
struct ServerHistoryTests {
    private let now = Fixture.start

    private func up(
        _ channels: [SessionChannel] = [Fixture.channel(head: 90, cursor: Position(epoch: Fixture.epoch, offset: 90))],
        identity: SessionIdentity = Fixture.identity()
    ) -> ServerSession {
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

    private func request(
        _ number: UInt64 = 1, _ channel: ChannelID = Fixture.inbox, epoch: Epoch = Fixture.epoch, from: Offset = 60,
        _ direction: HistoryDirection = .older, limit: UInt64 = 10
    ) -> Frame {
        .history(
            HistoryRequest(
                request: number, channel: channel, epoch: epoch, from: from, direction: direction, limit: limit))
    }

    private func receive(_ frame: Frame, _ session: inout ServerSession) -> [ServerAction] {
        session.received(frame, lane: .control, early: false, now: now)
        return session.drain()
    }

    private func answer(
        _ session: inout ServerSession, _ page: SessionPage, to number: UInt64 = 1
    ) -> [ServerAction] {
        session.historyRead(number, page: page, now: now)
        return session.drain()
    }

    @Test("A page is read in its range, and leaves on a lane of its own: the head, then the entries in their order")
    func older() throws {
        var session = up()
        let read = try #require(receive(request(), &session).historyReads.first)
        #expect(read.after == 0 && read.upTo == 59 && read.direction == .older && read.maximumEntries == 10)
        let actions = answer(&session, Fixture.page([40, 50], after: 30, head: 90))
        let lane = try #require(actions.opened.first)
        #expect(
            actions.frames == [
                .historyPage(
                    HistoryAnswer(request: 1, epoch: Fixture.epoch, start: 30, end: 50, more: true, items: 2)),
                .deliver(Deliver(entry: Fixture.entry(40, after: 30), redelivered: false)),
                .deliver(Deliver(entry: Fixture.entry(50, after: 40), redelivered: false)),
            ])
        #expect(actions.lanes == [lane])
        // The next one goes on the same lane; delivery has others.
        _ = receive(request(2, from: 31), &session)
        let next = answer(&session, Fixture.page([10, 20], head: 90), to: 2)
        #expect(next.opened.isEmpty && next.lanes == [lane])
        #expect(next.pages.first?.start == 0 && next.pages.first?.more == false)
    }

    @Test("The other way, a page goes on behind its place, up to the log's end")
    func newer() throws {
        var session = up()
        let read = try #require(receive(request(from: 60, .newer, limit: 2), &session).historyReads.first)
        #expect(read.after == 60 && read.upTo == nil && read.direction == .newer && read.maximumEntries == 2)
        let page = answer(&session, Fixture.page([70, 80], after: 60, head: 90)).pages.first
        #expect(page == HistoryAnswer(request: 1, epoch: Fixture.epoch, start: 60, end: 80, more: true, items: 2))
        _ = receive(request(from: 80, .newer), &session)
        #expect(answer(&session, Fixture.page([90], after: 80)).pages.first?.more == false)
        _ = receive(request(from: 90, .newer), &session)
        let empty = answer(&session, Fixture.page([], after: 90)).pages.first
        #expect(empty == HistoryAnswer(request: 1, epoch: Fixture.epoch, start: 90, end: 90, more: false, items: 0))
    }

    @Test("A client that knows no epoch asks for the present one, and from behind the end")
    func withoutEpoch() throws {
        var session = up()
        let read = receive(request(epoch: 0, from: FrameLimits.maximumNumber), &session).historyReads.first
        #expect(try #require(read).upTo == FrameLimits.maximumNumber - 1)
        let page = answer(&session, Fixture.page([80, 90], after: 70)).pages.first
        #expect(page?.epoch == Fixture.epoch && page?.end == 90)
    }

    @Test("What lies before the readable part is named by a skip", arguments: [false, true])
    func beginning(trimmed: Bool) throws {
        var session = up([Fixture.channel(head: 90, after: trimmed ? 0 : 30)])
        let reason: SkipReason = trimmed ? .trimmed : .notEntitled
        let first: Offset = trimmed ? 30 : 0
        let read = try #require(receive(request(), &session).historyReads.first)
        #expect(read.after == (trimmed ? 0 : 30))
        var actions = answer(&session, Fixture.page([40, 50], after: 30, head: 90, first: first))
        #expect(actions.pages.first?.start == 0 && actions.pages.first?.more == false)
        #expect(actions.skips == [Skip(previous: 0, to: 30, reason: reason)])
        // Also for who asks from within it, in both directions.
        _ = receive(request(from: 20), &session)
        actions = answer(&session, Fixture.page([], after: 30, head: 90, first: first))
        #expect(actions.skips == [Skip(previous: 0, to: 19, reason: reason)] && actions.pages.first?.end == 19)
        let on = try #require(receive(request(from: 20, .newer), &session).historyReads.first)
        #expect(on.after == (trimmed ? 20 : 30))
        actions = answer(&session, Fixture.page([40, 50], after: 30, head: 90, first: first))
        #expect(actions.skips == [Skip(previous: 20, to: 30, reason: reason)])
        #expect(actions.pages.first?.start == 20 && actions.pages.first?.end == 50)
    }

    @Test("Who left a room reads up to the leave, and who joined again from the new join on")
    func stays() throws {
        var session = up([Fixture.channel(Fixture.room, head: 90, after: 20, upTo: 70)])
        let old = try #require(receive(request(1, Fixture.room, from: 85), &session).historyReads.first)
        #expect(old.after == 20 && old.upTo == 70)
        _ = answer(&session, Fixture.page([70], after: 20, head: 90))
        let on = try #require(receive(request(1, Fixture.room, from: 60, .newer), &session).historyReads.first)
        #expect(on.after == 60 && on.upTo == 70)
        #expect(answer(&session, Fixture.page([70], after: 60, head: 90)).pages.first?.more == false)
        session.channelChanged(Fixture.channel(Fixture.room, head: 95, after: 90), now: now)
        _ = session.drain()
        let new = try #require(receive(request(1, Fixture.room, from: 99), &session).historyReads.first)
        #expect(new.after == 90 && new.upTo == 98)
    }

    @Test("What was entered behind the end of a stay is in no page, although the end is not known yet")
    func unknownEnd() throws {
        var session = up([Fixture.channel(Fixture.room, head: 90, after: 20)])
        var page = Fixture.page([30, 70, 80, 90], after: 20, head: 90)
        guard case .entry(var left) = page.items[1] else { throw CancellationError() }
        left.kind = .left
        left.sender = Fixture.user("alice")
        page.items[1] = .entry(left)
        #expect(left.endsStay(of: Fixture.user("alice")))
        _ = receive(request(1, Fixture.room, from: 99), &session)
        #expect(
            answer(&session, page).pages.first
                == HistoryAnswer(
                    request: 1, epoch: Fixture.epoch, start: 0, end: 70, more: false, items: 3))
        _ = receive(request(1, Fixture.room, from: 20, .newer), &session)
        #expect(
            answer(&session, page).pages.first
                == HistoryAnswer(
                    request: 1, epoch: Fixture.epoch, start: 20, end: 70, more: false, items: 2))
    }

    @Test("A page that lies behind the end of a stay is read again up to there, although the host has not said so")
    func untoldEnd() throws {
        let session = up([Fixture.channel(Fixture.room, head: 90, after: 20)])
        let ended = SessionPage.Stay(after: 20, upTo: 50)
        var back = session
        _ = receive(request(1, Fixture.room, from: 99), &back)
        var page = Fixture.page([80, 90], after: 70, head: 90)
        page.stay = ended
        let again = answer(&back, page)
        #expect(again.pages.isEmpty)
        #expect(try #require(again.historyReads.first).upTo == 50)
        page = Fixture.page([30, 50], after: 20, head: 90)
        page.stay = ended
        #expect(
            answer(&back, page).pages.first
                == HistoryAnswer(request: 1, epoch: Fixture.epoch, start: 0, end: 50, more: false, items: 3))
        var forth = session
        _ = receive(request(1, Fixture.room, from: 60, .newer), &forth)
        page = Fixture.page([70, 80], after: 60, head: 90)
        page.stay = ended
        #expect(try #require(answer(&forth, page).historyReads.first).upTo == 50)
        #expect(
            answer(&forth, Fixture.page([], after: 60, head: 90)).pages.first
                == HistoryAnswer(request: 1, epoch: Fixture.epoch, start: 60, end: 60, more: false, items: 0))
        // Another stay began meanwhile: what is between belongs to nobody's.
        var anew = session
        _ = receive(request(1, Fixture.room, from: 20, .newer), &anew)
        page = Fixture.page([30, 60], after: 20, head: 90)
        page.stay = SessionPage.Stay(after: 70, upTo: nil)
        let read = try #require(answer(&anew, page).historyReads.first)
        #expect(read.after == 70 && read.upTo == nil)
        // The stay that the session knows changes nothing.
        page = Fixture.page([80, 90], after: 70, head: 90)
        page.stay = SessionPage.Stay(after: 70, upTo: nil)
        #expect(answer(&anew, page).pages.first?.end == 90)
    }

    @Test("What delivery knows of a stay's end counts for pages that don't hold it")
    func deliveredEnd() throws {
        var session = up([
            Fixture.channel(Fixture.room, head: 90, after: 20, cursor: Position(epoch: Fixture.epoch, offset: 30))
        ])
        var page = Fixture.page([70, 80, 90], after: 30, head: 90)
        guard case .entry(var left) = page.items[0] else { throw CancellationError() }
        left.kind = .left
        left.sender = Fixture.user("alice")
        page.items[0] = .entry(left)
        session.pageRead(Fixture.room, page: page, now: now)
        #expect(session.drain().delivered == [70])
        let older = try #require(receive(request(1, Fixture.room, from: 99, limit: 1), &session).historyReads.first)
        #expect(older.upTo == 70)
        _ = answer(&session, Fixture.page([70], after: 30, head: 90))
        let newer = try #require(receive(request(2, Fixture.room, from: 75, .newer), &session).historyReads.first)
        #expect(newer.after == 75 && newer.upTo == 70)
    }

    @Test("A right that changes during a read makes it be read again")
    func changeDuringRead() throws {
        var session = up([Fixture.channel(Fixture.room, head: 90, after: 20)])
        _ = receive(request(1, Fixture.room, from: 99), &session)
        session.channelChanged(Fixture.channel(Fixture.room, head: 90, after: 20, upTo: 80), now: now)
        _ = session.drain()
        let actions = answer(&session, Fixture.page([85, 90], after: 80, head: 90))
        #expect(actions.pages.isEmpty)
        #expect(try #require(actions.historyReads.first).upTo == 80)
    }

    @Test("What can't be answered is refused by name")
    func refusals() throws {
        func refusal(_ frame: Frame, _ session: ServerSession) -> HistoryAnswer? {
            var session = session
            return receive(frame, &session).pages.first
        }
        let session = up()
        for limit in [0, 101, FrameLimits.maximumNumber] as [UInt64] {
            #expect(refusal(request(limit: limit), session)?.refusal == .invalidRange, "\(limit)")
        }
        #expect(refusal(request(from: 0), session)?.refusal == .invalidRange)
        #expect(refusal(request(1, Fixture.room), session)?.refusal == .unknownChannel)
        #expect(refusal(request(1, .user(Fixture.user("bob"))), session)?.refusal == .unknownChannel)
        let other = refusal(request(epoch: 5), session)
        #expect(other?.refusal == .epochChanged && other?.epoch == Fixture.epoch)
        let deaf = up(identity: Fixture.identity(mayReceive: false))
        #expect(refusal(request(), deaf)?.refusal == .forbidden)
        // What only the log knows.
        var asked = up()
        _ = receive(request(from: 91, .newer), &asked)
        let beyond = answer(&asked, Fixture.page([], after: 90)).pages.first
        #expect(beyond?.refusal == .invalidRange && beyond?.epoch == 0)
        _ = receive(request(), &asked)
        var replaced = Fixture.page([40])
        replaced.epoch = 6
        let page = answer(&asked, replaced).pages.first
        #expect(page?.refusal == .epochChanged && page?.epoch == 6)
        _ = receive(request(), &asked)
        asked.historyFailed(1, code: .overloaded, retryAfter: 700, now: now)
        let failed = asked.drain().pages.first
        #expect(failed?.refusal == .overloaded && failed?.retryAfter == 700)
        #expect(!asked.isClosed)
    }

    @Test(
        "One page is read at a time, in the order of the requests; a fifth request closes, as a number used twice does")
    func bounds() {
        var session = up()
        #expect(receive(request(1), &session).historyReads.map(\.request) == [1])
        for number in 2...4 as ClosedRange<UInt64> { #expect(receive(request(number), &session).isEmpty) }
        var twice = session
        #expect(receive(request(3), &twice).closeCode == .unexpectedFrame)
        var fifth = session
        #expect(receive(request(5), &fifth).closeCode == .limitExceeded)
        #expect(fifth.isClosed)
        for number in 1...4 as ClosedRange<UInt64> {
            let actions = answer(&session, Fixture.page([40], head: 90), to: number)
            #expect(actions.pages.map(\.request) == [number])
            #expect(actions.historyReads.map(\.request) == (number < 4 ? [number + 1] : []))
        }
        #expect(receive(request(5), &session).historyReads.count == 1)
    }

    @Test("While the link takes no more of the history lane, nothing is read for it; pings and delivery go on")
    func backPressure() throws {
        var session = up()
        _ = receive(request(1), &session)
        let lane = try #require(answer(&session, Fixture.page([40], head: 90)).opened.first)
        session.laneWritable(lane, false, now: now)
        #expect(receive(request(2), &session).isEmpty)
        // Refusals wait too: they would take memory as well.
        #expect(receive(request(3, limit: 0), &session).isEmpty)
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 99), now: now)
        #expect(session.drain().reads == [90])
        let pong = receive(.ping(Ping(nonce: 7)), &session).frames
        #expect(pong == [.pong(Pong(nonce: 7, observedAddress: "192.0.2.1:1"))])
        session.laneWritable(lane, true, now: now)
        #expect(session.drain().historyReads.map(\.request) == [2])
        #expect(answer(&session, Fixture.page([40], head: 90), to: 2).pages.map(\.request) == [2, 3])
    }

    @Test("In early data a request waits for the handshake")
    func early() {
        var session = ServerSession(
            configuration: ServerSessionConfiguration(), observedAddress: "192.0.2.1:1", now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: true, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: [Fixture.channel(head: 90)], ticket: nil), time: 0, now: now)
        session.received(request(), lane: .control, early: true, now: now)
        #expect(session.drain().historyReads.isEmpty)
        session.handshakeCompleted(now: now)
        #expect(session.drain().historyReads.count == 1)
    }
}

/// Paging through a log, seen from the client: pages in, whole answers out.
@Suite("History on the client")
struct ClientHistoryTests {
    private let now = Fixture.start
    private let lane = LaneID(rawValue: 1)

    private func connected() -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        return session
    }

    private func request(_ number: UInt64) -> HistoryRequest {
        HistoryRequest(
            request: number, channel: Fixture.inbox, epoch: Fixture.epoch, from: 60, direction: .older, limit: 10)
    }

    private func head(_ number: UInt64 = 1, start: Offset = 30, end: Offset = 50, items: Int = 2) -> Frame {
        .historyPage(
            HistoryAnswer(request: number, epoch: Fixture.epoch, start: start, end: end, more: true, items: items))
    }

    private func deliver(_ offset: Offset, after previous: Offset) -> Frame {
        .deliver(Deliver(entry: Fixture.entry(offset, after: previous), redelivered: false))
    }

    private func receive(_ frames: [Frame], on lane: LaneID? = nil, _ session: inout ClientSession) -> [ClientAction] {
        for frame in frames { session.received(frame, lane: lane ?? self.lane, now: now) }
        return session.drain()
    }

    @Test("A page is given on once it is whole, and moves no cursor")
    func whole() throws {
        var session = connected()
        let asked = session.history(request(1), now: now)
        #expect(asked)
        #expect(session.drain().frames == [.history(request(1))])
        let expired = Skip(previous: 30, to: 40, reason: .expired)
        #expect(receive([head(), .skip(expired)], &session).isEmpty)
        let result = try #require(receive([deliver(50, after: 40)], &session).histories.first)
        #expect(result.items == [.skip(expired), .entry(Fixture.entry(50, after: 40))])
        #expect(session.cursors.isEmpty)
        // Several on the lane, also one that nobody waits for.
        let again = session.history(request(2), now: now)
        #expect(again)
        _ = session.drain()
        let pages = receive(
            [head(9, start: 30, end: 40, items: 1), deliver(40, after: 30), head(2, start: 0, end: 0, items: 0)],
            &session
        ).histories
        #expect(pages.map(\.answer.request) == [2])
    }

    @Test("A page with a hole ends the link", arguments: 0..<4)
    func holes(_ wrong: Int) {
        var session = connected()
        _ = session.history(request(1), now: now)
        _ = session.drain()
        let pages: [[Frame]] = [
            [head(), deliver(40, after: 35), deliver(50, after: 40)],
            [head(), deliver(40, after: 30), deliver(50, after: 45)],
            [head(), deliver(50, after: 30), deliver(40, after: 30)],
            [head(end: 60), deliver(40, after: 30), deliver(50, after: 40)],
        ]
        let actions = receive(pages[wrong], &session)
        #expect(actions.histories.isEmpty && actions.endCode == .internalError)
    }

    @Test("Frames that have no place on the history lane, and pages elsewhere, end the session")
    func wrongFrames() {
        let header = Frame.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch))
        for frames in [
            [head(), head()], [head(end: 30, items: 0), deliver(40, after: 30)], [head(), header], [header, head()],
            [head(), .published(Published(id: 1, position: Position(epoch: 1, offset: 1), time: 1))],
        ] {
            var session = connected()
            #expect(receive(frames, &session).endCode == .unexpectedFrame, "\(frames)")
        }
        var session = connected()
        _ = receive([head()], &session)
        #expect(receive([head(2)], on: LaneID(rawValue: 2), &session).endCode == .unexpectedFrame)
        session = connected()
        #expect(receive([head()], on: .control, &session).endCode == .unexpectedFrame)
        session = connected()
        _ = receive([head()], &session)
        session.laneFinished(lane, now: now)
        #expect(session.drain().endCode == .unexpectedFrame)
    }

    @Test("An entry with a large payload is the only one of its page, beside what is absent")
    func largePayloads() throws {
        func large(_ offset: Offset, after previous: Offset) -> [Frame] {
            var entry = Fixture.entry(offset, after: previous)
            entry.following = 5
            let rest = Part(offset: UInt64(entry.payload.readableBytes), bytes: ByteBuffer(repeating: 1, count: 5))
            return [.deliver(Deliver(entry: entry, redelivered: false)), .part(rest)]
        }
        let skip = Frame.skip(Skip(previous: 30, to: 40, reason: .expired))
        for frames in [
            [head(), deliver(40, after: 30)] + large(50, after: 40),
            [head()] + large(40, after: 30) + large(50, after: 40),
            [head()] + large(40, after: 30) + [deliver(50, after: 40)],
            [head(items: 3), deliver(35, after: 30), .skip(Skip(previous: 35, to: 40, reason: .expired))]
                + large(50, after: 40),
        ] {
            var session = connected()
            _ = session.history(request(1), now: now)
            _ = session.drain()
            let actions = receive(frames, &session)
            #expect(actions.histories.isEmpty && actions.endCode == .unexpectedFrame)
        }
        var session = connected()
        for number in 1...3 as ClosedRange<UInt64> { _ = session.history(request(number), now: now) }
        _ = session.drain()
        let pages =
            [head(1), skip] + large(50, after: 40) + [head(2), deliver(40, after: 30), deliver(50, after: 40), head(3)]
            + large(40, after: 30) + [.skip(Skip(previous: 40, to: 50, reason: .expired))]
        #expect(receive(pages, &session).histories.map(\.answer.request) == [1, 2, 3])
    }

    @Test("A history lane may end between pages, and another follows")
    func laneChange() {
        var session = connected()
        _ = session.history(request(1), now: now)
        _ = receive([head(7, start: 0, end: 0, items: 0)], &session)
        session.laneFinished(lane, now: now)
        let pages = receive([head(1, start: 0, end: 0, items: 0)], on: LaneID(rawValue: 2), &session)
        #expect(pages.histories.count == 1 && pages.endCode == nil)
    }

    @Test("No more than four wait for their answers, and none outlives its link")
    func bounds() {
        var session = connected()
        for number in 1...4 as ClosedRange<UInt64> {
            let taken = session.history(request(number), now: now)
            #expect(taken)
        }
        let fifth = session.history(request(5), now: now)
        #expect(!fifth)
        session.linkClosed(now: now)
        let offline = session.history(request(5), now: now)
        #expect(!offline)
        session.linkOpened(
            credential: .token("t"), connectNumber: 2, supportsPathChange: false, outbox: [], now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        _ = session.drain()
        let taken = session.history(request(6), now: now)
        #expect(taken)
        #expect(receive([head(1, start: 0, end: 0, items: 0)], &session).histories.isEmpty)
    }
}

extension [ServerAction] {
    fileprivate var historyReads: [HistoryRead] {
        compactMap { if case .readHistory(let read) = $0 { read } else { nil } }
    }
    fileprivate var pages: [HistoryAnswer] {
        frames.compactMap { if case .historyPage(let page) = $0 { page } else { nil } }
    }
    fileprivate var skips: [Skip] { frames.compactMap { if case .skip(let skip) = $0 { skip } else { nil } } }
    /// The lanes that frames were sent on.
    fileprivate var lanes: Set<LaneID> { Set(compactMap { if case .send(_, let lane) = $0 { lane } else { nil } }) }
}

extension [ClientAction] {
    fileprivate var histories: [HistoryResult] {
        compactMap { if case .history(let result) = $0 { result } else { nil } }
    }
}
