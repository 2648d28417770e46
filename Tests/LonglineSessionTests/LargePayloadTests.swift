import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Testing

@testable import LonglineSession

/// Bytes that tell their place.
func placedBytes(_ count: Int) -> ByteBuffer {
    ByteBuffer(bytes: (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 / 7) })
}

extension [Frame] {
    var parts: [Part] { compactMap { if case .part(let part) = $0 { part } else { nil } } }
    var refusals: [Refused] { compactMap { if case .refused(let refused) = $0 { refused } else { nil } } }
}

extension [ServerAction] {
    var payloadReads: [PayloadRead] {
        compactMap { if case .readPayload(let read) = $0 { read } else { nil } }
    }
    var awaitedDeliveries: [LaneID] {
        compactMap { if case .awaitDelivery(let lane, _) = $0 { lane } else { nil } }
    }
    /// The number of the last question about a lane.
    var deliveryQuestion: UInt64? {
        compactMap { if case .awaitDelivery(_, let question) = $0 { question } else { nil } }.last
    }
    var appended: [Publish] {
        compactMap { if case .append(_, _, let publish) = $0 { publish } else { nil } }
    }
}

@Suite("Large payloads on their way in")
struct ArrivingPayloadTests {
    private let now = Fixture.start
    private let one = LaneID(rawValue: 1)

    private func server(
        maximum: UInt64 = 1 << 20, user: String = "alice",
        _ change: (inout ServerSessionConfiguration) -> Void = { _ in }
    ) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        configuration.limits.maximumPayload = maximum
        change(&configuration)
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let rooms = (0..<8).map { ChannelID.room(Fixture.name("r\($0)")) }
        var identity = Fixture.identity()
        identity.user = Fixture.user(user)
        let inbox = ChannelID.user(identity.user)
        session.authenticated(
            SessionGrant(
                identity: identity, session: 1, resumed: false, cursorVersion: 1,
                channels: ([inbox] + rooms).map { Fixture.channel($0, head: 5) }, ticket: nil),
            time: 0, now: now)
        session.received(
            .lane(LaneHeader(channel: inbox, epoch: Fixture.epoch)), lane: one, early: false, now: now)
        _ = session.drain()
        return session
    }

    /// A publish's first frame and its parts.
    private func frames(_ id: PublishID, after: PublishID = 0, of payload: ByteBuffer, timeToLive: UInt64 = 0)
        -> [Frame]
    {
        var rest = payload
        let head = rest.readSlice(length: 15_000) ?? ByteBuffer()
        var frames: [Frame] = []
        var offset = UInt64(head.readableBytes)
        frames.append(
            .publish(
                Publish(
                    id: id, tag: id, after: after, recipient: nil, timeToLive: timeToLive, payload: head,
                    following: UInt64(rest.readableBytes))))
        while let part = rest.readSlice(length: min(10_000, rest.readableBytes)), part.readableBytes > 0 {
            frames.append(.part(Part(offset: offset, bytes: part)))
            offset += UInt64(part.readableBytes)
        }
        return frames
    }

    private func receive(_ frames: some Sequence<Frame>, _ session: inout ServerSession, at time: NIODeadline? = nil) {
        for frame in frames { session.received(frame, lane: one, early: false, now: time ?? now) }
    }

    @Test("A payload in parts is one publish, entered when all of it is there")
    func whole() {
        var session = server()
        let payload = placedBytes(100_000)
        let frames = frames(1, of: payload)
        receive(frames.dropLast(), &session)
        #expect(session.drain().isEmpty)
        // An acknowledgement stands between parts.
        receive([.acknowledge(Acknowledge(offset: 4))], &session)
        #expect(session.drain().contains { if case .storeCursor = $0 { true } else { false } })
        receive(frames.suffix(1), &session)
        let appended = session.drain().appended
        #expect(appended.map(\.payload) == [payload])
        #expect(appended.map(\.following) == [0])
        receive([.publish(Fixture.publish(2, after: 1))], &session)
        #expect(session.drain().appends == [2])
    }

    @Test("Time to live counts from the publish's first frame", arguments: [(5_000, 3_000), (1_500, 1)])
    func timeToLive(_ life: UInt64, _ left: UInt64) {
        var session = server()
        let frames = frames(1, of: placedBytes(40_000), timeToLive: life)
        receive(frames.dropLast(), &session)
        receive(frames.suffix(1), &session, at: now + .seconds(2))
        #expect(session.drain().appended.map(\.timeToLive) == [left])
    }

    @Test("What is too large is refused at once, unless the ledger knows it, and its parts are passed over")
    func refused() {
        var session = server(maximum: 60_000)
        receive(frames(1, of: placedBytes(60_001)).prefix(2), &session)
        let actions = session.drain()
        // An earlier copy may have been entered, when more was allowed: the ledger has the word.
        #expect(actions.lookUps == [1: .payloadTooLarge] && actions.appends.isEmpty)
        receive(frames(1, of: placedBytes(60_001)).dropFirst(2), &session)
        receive(frames(2, of: placedBytes(60_000)), &session)
        #expect(session.drain().appends == [2])
        #expect(!session.isClosed)
    }

    @Test("A publish that is given up is refused, and the lane goes on")
    func givenUp() {
        var session = server()
        receive(frames(1, of: placedBytes(60_000)).prefix(3), &session)
        receive([.part(Part(offset: 0, bytes: ByteBuffer()))], &session)
        #expect(session.drain().frames.refusals == [Refused(id: 1, code: .incomplete)])
        // So is one whose lane ends.
        receive(frames(2, of: placedBytes(60_000)).prefix(3), &session)
        session.laneFinished(one, now: now)
        #expect(session.drain().frames.refusals == [Refused(id: 2, code: .incomplete)])
        #expect(!session.isClosed)
    }

    @Test("Parts out of their place close with 5002")
    func places() {
        let frames = frames(1, of: placedBytes(60_000))
        let orders: [[Int]] = [[1], [0, 2], [0, 1, 1], [0, 1, 3], [0, 0], [0, 1, 2, 3, 4, 5, 5]]
        for order in orders {
            var session = server()
            receive(order.map { frames[$0] }, &session)
            #expect(session.drain().closeCode == .unexpectedFrame, "\(order)")
        }
        var session = server()
        receive(frames.prefix(5), &session)
        receive([.part(Part(offset: 55_000, bytes: placedBytes(5_001)))], &session)
        #expect(session.drain().closeCode == .unexpectedFrame, "beyond the end")
        var other = server()
        receive(frames.prefix(2), &other)
        receive([.publish(Fixture.publish(2, after: 1))], &other)
        #expect(other.drain().closeCode == .unexpectedFrame)
    }

    @Test("A fifth payload at once closes with 5004")
    func tooMany() {
        var session = server()
        for number in 0..<5 {
            #expect(!session.isClosed)
            let lane = LaneID(rawValue: UInt64(number) + 2)
            let room = ChannelID.room(Fixture.name("r\(number)"))
            session.received(.lane(LaneHeader(channel: room, epoch: 0)), lane: lane, early: false, now: now)
            session.received(
                frames(PublishID(number) + 1, of: placedBytes(40_000))[0], lane: lane, early: false, now: now)
        }
        #expect(session.drain().closeCode == .limitExceeded)
    }

    @Test("Memory is taken as bytes come, refused beyond the budget, and given back")
    func budget() {
        let budget = PayloadBudget(limit: 150_000, limitPerUser: 150_000)
        var session = server {
            $0.payloadBudget = budget
            $0.limits.channelWindow = 1 << 20
        }
        let frames = frames(1, of: placedBytes(200_000))
        receive(frames.prefix(1), &session)
        #expect(budget.used == 65_536, "not what was announced")
        receive(frames.dropFirst().prefix(8), &session)
        #expect(budget.used == 131_072)
        receive(frames.dropFirst(9), &session)
        let refusals = session.drain().frames.refusals
        #expect(refusals.map(\.code) == [.overloaded])
        #expect(refusals.first?.retryAfter == 5_000)
        #expect(budget.used == 0)
        // The rest was passed over; the next one finds room.
        receive(self.frames(2, of: placedBytes(100_000)), &session)
        #expect(session.drain().appends == [2])
        #expect(budget.used == 0)
        receive(frames.prefix(3), &session)
        #expect(budget.used > 0)
        session.linkClosed()
        #expect(budget.used == 0)
    }

    @Test("A payload that stands still is refused, and its memory given back")
    func stalled() {
        let budget = PayloadBudget(limit: 1 << 20, limitPerUser: 1 << 20)
        var session = server {
            $0.payloadBudget = budget
            $0.minimumPartRate = 100
        }
        let frames = frames(1, of: placedBytes(60_000))
        receive(frames.prefix(2), &session)
        receive(frames.dropFirst(2).prefix(1), &session, at: now + .seconds(50))
        session.deadlineReached(now: now + .seconds(100))
        #expect(session.drain().frames.refusals.isEmpty)
        #expect(session.nextDeadline == now + .seconds(110))
        session.deadlineReached(now: now + .seconds(110))
        #expect(session.drain().frames.refusals.map(\.code) == [.overloaded])
        #expect(budget.used == 0)
        receive(frames.dropFirst(3), &session, at: now + .seconds(111))
        receive([.publish(Fixture.publish(2, after: 1))], &session, at: now + .seconds(111))
        #expect(session.drain().appends == [2])
    }

    @Test("A user's devices share a part of the memory; another user has the rest")
    func budgetPerUser() {
        let budget = PayloadBudget(limit: 300_000, limitPerUser: 150_000)
        let change: (inout ServerSessionConfiguration) -> Void = {
            $0.payloadBudget = budget
            $0.limits.channelWindow = 1 << 20
        }
        let payload = frames(1, of: placedBytes(120_000))
        var phone = server(change)
        receive(payload.dropLast(), &phone)
        #expect(phone.drain().frames.refusals.isEmpty)
        var tablet = server(change)
        receive(payload.prefix(1), &tablet)
        #expect(tablet.drain().frames.refusals.map(\.code) == [.overloaded])
        var other = server(user: "bob", change)
        receive(payload, &other)
        #expect(other.drain().appends == [1])
        #expect(budget.owners == 1)
        phone.linkClosed()
        #expect(budget.used == 0)
        #expect(budget.owners == 0)
        receive(payload.dropFirst(), &tablet)
        receive(frames(2, of: placedBytes(100_000)), &tablet)
        #expect(tablet.drain().appends == [2])
    }

    @Test("Who sends a byte now and then is refused when a slow sender would be done")
    func trickle() {
        let budget = PayloadBudget(limit: 1 << 20, limitPerUser: 1 << 20)
        var session = server {
            $0.payloadBudget = budget
            $0.minimumPartRate = 1000
        }
        receive(frames(1, of: placedBytes(60_000)).prefix(1), &session)
        var offset: UInt64 = 15_000
        for second in stride(from: 10, to: 120, by: 10) as StrideTo<Int64> {
            receive([.part(Part(offset: offset, bytes: placedBytes(1)))], &session, at: now + .seconds(second))
            offset += 1
            session.deadlineReached(now: now + .seconds(second))
        }
        #expect(session.drain().frames.refusals.isEmpty)
        #expect(session.nextDeadline == now + .seconds(120))
        session.deadlineReached(now: now + .seconds(120))
        #expect(session.drain().frames.refusals.map(\.code) == [.overloaded])
        #expect(budget.used == 0)
    }

    @Test("A window lets one payload through whatever its size, and not a second")
    func window() {
        var session = server { $0.limits.channelWindow = 100_000 }
        receive(frames(1, of: placedBytes(500_000)), &session)
        #expect(session.drain().appends == [1])
        receive([.publish(Fixture.publish(2, after: 1))], &session)
        #expect(session.drain().closeCode == .limitExceeded)
    }
}

@Suite("Large payloads on their way out")
struct SentPayloadTests {
    private let now = Fixture.start
    private let one = LaneID(rawValue: 1)

    private func server(_ channels: [SessionChannel], window: UInt64 = 1 << 18) -> ServerSession {
        var configuration = ServerSessionConfiguration()
        configuration.limits.channelWindow = window
        configuration.readBytes = 60_000
        configuration.maximumReads = 20
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: channels,
                ticket: nil), time: 0, now: now)
        return session
    }

    private func page(_ length: Int, at offset: Offset = 1, after previous: Offset = 0, head: Offset? = nil)
        -> SessionPage
    {
        var entry = Fixture.entry(offset, after: previous)
        entry.payload = placedBytes(length)
        return SessionPage(
            epoch: Fixture.epoch, items: [.entry(entry.head(FrameLimits.maximumPayload))], head: head ?? offset,
            first: 0)
    }

    private func bytes(_ read: PayloadRead, of length: Int) -> ByteBuffer? {
        placedBytes(length).getSlice(at: Int(read.from), length: min(read.maximumBytes, length - Int(read.from)))
    }

    @Test("An entry is read on as its lane takes it, and only then the next one")
    func sent() throws {
        var session = server([Fixture.channel(head: 2)])
        _ = session.drain()
        session.pageRead(Fixture.inbox, page: page(100_000, head: 2), now: now)
        var frames: [Frame] = []
        var actions = session.drain()
        var reads = 0
        while let read = actions.payloadReads.first {
            frames += actions.frames
            reads += 1
            #expect(actions.reads.isEmpty && actions.payloadReads.count == 1)
            // Nothing is read for a lane that takes nothing.
            session.laneWritable(LaneID(rawValue: 1), false, now: now)
            session.payloadRead(read, bytes: bytes(read, of: 100_000), now: now)
            let held = session.drain()
            #expect(held.payloadReads.isEmpty)
            session.laneWritable(LaneID(rawValue: 1), true, now: now)
            frames += held.frames
            actions = session.drain()
        }
        #expect(reads == 2)
        #expect(actions.reads == [1])
        let parts = frames.parts
        #expect(parts.map { Int($0.offset) } == [15_360, 30_720, 46_080, 61_440, 75_360, 90_720])
        var whole = placedBytes(FrameLimits.maximumPayload)
        for part in parts { whole.writeImmutableBuffer(part.bytes) }
        #expect(whole == placedBytes(100_000))
    }

    @Test("The window counts the whole payload, and lets one through that is larger")
    func window() throws {
        var session = server([Fixture.channel(head: 3)], window: 100_000)
        _ = session.drain()
        session.pageRead(Fixture.inbox, page: page(200_000, head: 3), now: now)
        while let read = session.drain().payloadReads.first {
            session.payloadRead(read, bytes: bytes(read, of: 200_000), now: now)
        }
        session.logAdvanced(Fixture.inbox, head: Position(epoch: Fixture.epoch, offset: 4), now: now)
        #expect(session.drain().reads.isEmpty)
        let lane = LaneID(rawValue: 1)
        session.received(
            .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, early: false, now: now)
        session.received(.acknowledge(Acknowledge(offset: 1)), lane: lane, early: false, now: now)
        #expect(session.drain().reads == [1])
    }

    @Test("An entry that is trimmed while it is sent is given up, and the device is told of the gap")
    func trimmed() throws {
        var session = server([Fixture.channel(head: 2)])
        _ = session.drain()
        session.pageRead(Fixture.inbox, page: page(100_000, head: 2), now: now)
        let read = try #require(session.drain().payloadReads.first)
        session.payloadRead(read, bytes: nil, now: now)
        let actions = session.drain()
        #expect(actions.frames.parts == [Part(offset: 0, bytes: ByteBuffer())])
        #expect(actions.reads == [0], "it counts as not sent")
        session.pageRead(Fixture.inbox, page: Fixture.page([2], after: 1, first: 1), now: now)
        let frames = session.drain().frames
        #expect(frames.first == .gap(Gap(from: Position(epoch: Fixture.epoch, offset: 0), first: 1)))
    }

    @Test("A device that has the entry from before is spared the rest")
    func acknowledged() throws {
        var session = server([Fixture.channel(head: 2)])
        _ = session.drain()
        session.pageRead(Fixture.inbox, page: page(100_000, head: 2), now: now)
        _ = session.drain()
        let lane = LaneID(rawValue: 1)
        session.received(
            .lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: lane, early: false, now: now)
        session.received(.acknowledge(Acknowledge(offset: 1)), lane: lane, early: false, now: now)
        let actions = session.drain()
        #expect(actions.frames.parts.map(\.isEnd) == [true])
        #expect(actions.reads == [1])
    }

    /// Rooms with a payload in parts in each: the first four have a place, and their payloads are being read.
    private func crowd(_ count: Int, head: Offset = 1) -> (
        rooms: [ChannelID], session: ServerSession, actions: [ServerAction]
    ) {
        let rooms = (0..<count).map { ChannelID.room(Fixture.name("r\($0)")) }
        var session = server(rooms.map { Fixture.channel($0, head: head) })
        _ = session.drain()
        for room in rooms { session.pageRead(room, page: page(40_000), now: now) }
        let actions = session.drain()
        return (rooms, session, actions)
    }

    @Test("Four payloads are under way at once; the fifth begins when one is done")
    func places() throws {
        let (rooms, begun, first) = crowd(6)
        var (session, actions) = (begun, first)
        let reads = actions.payloadReads
        #expect(reads.map(\.channel) == Array(rooms.prefix(4)))
        #expect(actions.delivered == [1, 1, 1, 1])
        session.payloadRead(reads[2], bytes: bytes(reads[2], of: 40_000), now: now)
        actions = session.drain()
        #expect(actions.reads.isEmpty, "it was sent, and has not arrived")
        let third = LaneID(rawValue: 3)
        #expect(actions.awaitedDeliveries == [third])
        session.laneDelivered(third, question: try #require(actions.deliveryQuestion), now: now)
        #expect(session.drain().reads == [0], "one of those that wait reads its page again")
        session.pageRead(rooms[4], page: page(40_000), now: now)
        #expect(session.drain().payloadReads.map(\.channel) == [rooms[4]])
        session.payloadRead(reads[0], bytes: bytes(reads[0], of: 40_000), now: now)
        actions = session.drain()
        #expect(actions.reads.isEmpty)
        session.laneDelivered(one, question: try #require(actions.deliveryQuestion), now: now)
        #expect(session.drain().reads == [0])
        session.pageRead(rooms[5], page: page(40_000), now: now)
        #expect(session.drain().payloadReads.map(\.channel) == [rooms[5]])
    }

    @Test("A channel that sends two payloads has its place until the second arrived", arguments: [false, true])
    func placeOfTwo(arrivesLate: Bool) throws {
        let (rooms, begun, actions) = crowd(5, head: 2)
        var session = begun
        let reads = actions.payloadReads
        session.payloadRead(reads[0], bytes: bytes(reads[0], of: 40_000), now: now)
        let asked = session.drain()
        #expect(asked.awaitedDeliveries == [one])
        // Before the first arrived the second begins.
        session.pageRead(rooms[0], page: page(40_000, at: 2, after: 1), now: now)
        let second = try #require(session.drain().payloadReads.last)
        let first = try #require(asked.deliveryQuestion)
        if arrivesLate {
            // Its answer meets a question that the link was not asked yet.
            session.payloadRead(second, bytes: bytes(second, of: 40_000), now: now)
            session.laneDelivered(one, question: first, now: now)
        } else {
            session.laneDelivered(one, question: first, now: now)
            #expect(session.drain().reads.isEmpty)
            session.payloadRead(second, bytes: bytes(second, of: 40_000), now: now)
        }
        let last = session.drain()
        #expect(last.awaitedDeliveries == [one] && last.reads.isEmpty)
        session.laneDelivered(one, question: try #require(last.deliveryQuestion), now: now)
        #expect(session.drain().reads == [0])
    }

    @Test("A place that was promised is free again when its channel's right ends")
    func promisedPlace() throws {
        let (rooms, begun, actions) = crowd(6)
        var session = begun
        let reads = actions.payloadReads
        session.payloadRead(reads[0], bytes: bytes(reads[0], of: 40_000), now: now)
        let question = try #require(session.drain().deliveryQuestion)
        session.laneDelivered(one, question: question, now: now)
        #expect(session.drain().reads == [0], "the fifth")
        var identity = Fixture.identity()
        identity.mayReceive = false
        identity.grants = try rooms.filter { $0 != rooms[4] }.map {
            ChannelGrant(.receive, try #require(ChannelPattern($0.description)))
        }
        session.received(.refresh(Refresh(token: "t")), lane: .control, early: false, now: now)
        session.refreshed(identity, time: 0, now: now)
        #expect(session.drain().reads == [0], "the sixth")
    }

    @Test("A page of history sends its payload in parts, then goes on")
    func history() throws {
        var session = server([Fixture.channel(head: 1)])
        session.received(
            .history(
                HistoryRequest(
                    request: 7, channel: Fixture.inbox, epoch: 0, from: 2, direction: .older, limit: 5)),
            lane: .control, early: false, now: now)
        _ = session.drain()
        session.historyRead(7, page: page(70_000), now: now)
        let read = try #require(session.drain().payloadReads.last)
        #expect(read.history == 7)
        session.payloadRead(read, bytes: bytes(read, of: 70_000), now: now)
        let actions = session.drain()
        #expect(actions.frames.parts.map { Int($0.offset) } == [15_360, 30_720, 46_080, 61_440])
        #expect(actions.payloadReads.isEmpty)
    }
}
