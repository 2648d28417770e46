import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore
import Testing

/// More channels than lanes, on both sides: nothing is lost, and nothing waits that doesn't have to.
@Suite("Limits of lanes")
struct LaneLimitTests {
    private let now = Fixture.start

    private static func room(_ number: Int) -> ChannelID { .room(Fixture.name("r\(number)")) }

    // MARK: The client's lanes

    /// A client opens and finishes a lane, with a publish that the store does not answer, or none.
    private func lane(_ number: Int, publishes: Bool, _ session: inout ServerSession) {
        let lane = LaneID(rawValue: UInt64(number) + 1)
        let header = LaneHeader(channel: Self.room(number), epoch: 0)
        session.received(.lane(header), lane: lane, early: false, now: now)
        if publishes { session.received(.publish(Fixture.publish(1)), lane: lane, early: false, now: now) }
        session.laneFinished(lane, now: now)
    }

    @Test("Of channels that are not the user's those count that are kept, and none that was named before or is joined")
    func strangers() {
        var configuration = ServerSessionConfiguration()
        configuration.maximumLanes = 2
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: [Fixture.channel()],
            ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        for number in 0..<10 { lane(number, publishes: false, &session) }
        for number in 10..<12 { lane(number, publishes: true, &session) }
        #expect(session.drain().closeCode == nil)
        var joined = session
        lane(12, publishes: true, &session)
        #expect(session.drain().closeCode == .limitExceeded)
        joined.channelChanged(Fixture.channel(Self.room(10), head: 1), now: now)
        lane(12, publishes: true, &joined)
        #expect(joined.drain().closeCode == nil)
        lane(13, publishes: true, &joined)
        #expect(joined.drain().closeCode == .limitExceeded)
    }

    // MARK: The server's lanes

    /// A server's session with rooms that have one entry each, the link's lanes, and a client that listens.
    private struct Serving {
        var session: ServerSession
        var now = Fixture.start
        var channels: [LaneID: ChannelID] = [:]
        var open: Set<LaneID> = []
        var most = 0
        /// What was delivered, in order.
        var delivered: [ChannelID] = []
        var behind: [ChannelID: Bool] = [:]
        var pages: [UInt64] = []
        /// What was answered, in order.
        var answers: [PublishID] = []
        var nextLane: UInt64 = 1

        init(rooms: Int, lanes: Int) {
            session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
            session.handshakeCompleted(now: now)
            session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
            session.lanesAllowed(lanes)
            let channels = (0..<rooms).map { Fixture.channel(LaneLimitTests.room($0), head: 1) }
            let grant = SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: channels,
                ticket: nil)
            session.authenticated(grant, time: 0, now: now)
            work()
        }

        mutating func work() {
            while let action = session.nextAction() {
                switch action {
                case .openLane(let lane):
                    open.insert(lane)
                    most = max(most, open.count)
                case .finishLane(let lane): open.remove(lane)
                case .read(let channel, let after, _, _):
                    session.pageRead(channel, page: Fixture.page([after + 1], after: after), now: now)
                case .readHistory(let read):
                    session.historyRead(read.request, page: Fixture.page([1]), now: now)
                case .append(let channel, _, let publish):
                    let position = Position(epoch: Fixture.epoch, offset: 2)
                    let published = Published(id: publish.id, position: position, time: 0)
                    session.appended(channel: channel, id: publish.id, outcome: .published(published), now: now)
                case .send(.published(let published), let lane):
                    #expect(open.contains(lane))
                    answers.append(published.id)
                case .send(.lane(let header), let lane): channels[lane] = header.channel
                case .send(.deliver, let lane):
                    #expect(open.contains(lane))
                    if let channel = channels[lane] { delivered.append(channel) }
                case .send(.behind(let lag), _): behind[lag.channel] = lag.isBehind
                case .send(.historyPage(let page), _): pages.append(page.request)
                default: break
                }
            }
        }

        mutating func say(_ frames: [Frame], on lane: LaneID) {
            for frame in frames { session.received(frame, lane: lane, early: false, now: now) }
            work()
        }

        mutating func publish(_ id: PublishID, in channel: ChannelID) {
            let lane = LaneID(rawValue: nextLane)
            nextLane += 1
            say([.lane(LaneHeader(channel: channel, epoch: 0)), .publish(Fixture.publish(id))], on: lane)
            session.laneFinished(lane, now: now)
            work()
        }

        mutating func acknowledge(_ channel: ChannelID, _ offset: Offset = 1) {
            let lane = LaneID(rawValue: nextLane)
            nextLane += 1
            say(
                [
                    .lane(LaneHeader(channel: channel, epoch: Fixture.epoch)),
                    .acknowledge(Acknowledge(offset: offset)),
                ], on: lane)
            session.laneFinished(lane, now: now)
            work()
        }
    }

    @Test("A device with more unconfirmed rooms than lanes gets the rest as it confirms, once, and is told meanwhile")
    func unconfirmedRooms() {
        var server = Serving(rooms: 600, lanes: 256)
        #expect(server.most == 240 && server.delivered.count == 240)
        // Nobody is told that soon.
        #expect(server.behind.isEmpty)
        server.now = server.now + .seconds(5)
        server.session.deadlineReached(now: server.now)
        server.work()
        #expect(server.behind.count == 360 && server.behind.values.allSatisfy { $0 })
        // History and an answer have their lanes.
        let request = HistoryRequest(
            request: 9, channel: Self.room(500), epoch: 0, from: 5, direction: .older, limit: 10)
        server.say([.history(request)], on: .control)
        #expect(server.pages == [9])
        for number in 0..<600 {
            guard number < server.delivered.count else {
                Issue.record("room \(number) of those in line got nothing")
                return
            }
            server.acknowledge(server.delivered[number])
        }
        #expect(Set(server.delivered).count == 600 && server.delivered.count == 600)
        #expect(server.behind.values.allSatisfy { !$0 })
        #expect(server.most <= 256)
    }

    @Test("A client that confirms nothing gets history and each answer all the same, however few lanes it has")
    func answersBesideWhatWaits() {
        var server = Serving(rooms: 20, lanes: 8)
        #expect(server.delivered.count == 6)
        let request = HistoryRequest(
            request: 9, channel: Self.room(15), epoch: 0, from: 5, direction: .older, limit: 10)
        server.say([.history(request)], on: .control)
        #expect(server.pages == [9])
        // Rooms without a lane, and one with one.
        for id in 1...10 as ClosedRange<PublishID> { server.publish(id, in: Self.room(20 - Int(id))) }
        server.publish(11, in: server.delivered[0])
        #expect(server.answers == Array(1...11))
        #expect(server.delivered.count == 6 && server.open.count == 7 && server.most <= 8)
        for number in 0..<20 {
            guard number < server.delivered.count else {
                Issue.record("room \(number) of those in line got nothing")
                return
            }
            server.acknowledge(server.delivered[number])
        }
        #expect(Set(server.delivered).count == 20 && server.most <= 8)
        #expect(!server.session.isClosed)
    }

    @Test(
        "Publishes into more rooms of others than there are lanes are refused one by one, and the session goes on",
        arguments: [true, false])
    func roomsOfOthers(finishesEarly: Bool) {
        var configuration = ServerSessionConfiguration()
        configuration.maximumLanes = 4
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: [], ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        _ = session.drain()
        var actions: [ServerAction] = []
        for number in 1...6 {
            let (id, lane, room) = (PublishID(number), LaneID(rawValue: UInt64(number)), Self.room(number))
            session.received(.lane(LaneHeader(channel: room, epoch: 0)), lane: lane, early: false, now: now)
            session.received(.publish(Fixture.publish(id)), lane: lane, early: false, now: now)
            if finishesEarly { session.laneFinished(lane, now: now) }
            let refused = Refused(id: id, code: .unknownChannel)
            session.appended(channel: room, id: id, outcome: .refused(refused), now: now)
            if !finishesEarly { session.laneFinished(lane, now: now) }
            actions += session.drain()
        }
        #expect(actions.closeCode == nil && !session.isClosed)
        #expect(actions.frames.refusals.map(\.id) == [1, 2, 3, 4, 5, 6])
        #expect(actions.opened.count == 6 && actions.finished == actions.opened)
    }

    @Test("Confirmed lanes are finished for the messages of other rooms, the oldest first, however young they are")
    func confirmedRooms() {
        var server = Serving(rooms: 20, lanes: 16)
        for number in 0..<20 { server.acknowledge(server.delivered[number]) }
        #expect(server.delivered.count == 20)
        let before = server.delivered
        for round in 1...3 as ClosedRange<Offset> {
            for number in 0..<20 {
                let room = Self.room(number)
                server.session.logAdvanced(
                    room, head: Position(epoch: Fixture.epoch, offset: round + 1), now: server.now)
                server.work()
                #expect(server.delivered.last == room)
                server.acknowledge(room, round + 1)
            }
        }
        #expect(server.delivered.count == before.count + 60)
        #expect(server.most <= 16)
        #expect(!server.session.isClosed)
    }

    @Test("A link that allows one lane carries all rooms on it, one after the other")
    func oneLane() {
        var server = Serving(rooms: 5, lanes: 0)
        for number in 0..<5 {
            #expect(server.delivered.count == number + 1)
            server.acknowledge(server.delivered[number])
        }
        #expect(Set(server.delivered).count == 5 && server.most == 1)
    }

    // MARK: The client's lanes

    /// A client's session, connected, and a server that answers when it is told to.
    private struct Speaking {
        var session: ClientSession
        var now = Fixture.start
        var random = SeededRandom(seed: 5)
        var channels: [LaneID: ChannelID] = [:]
        var open: Set<LaneID> = []
        var most = 0
        var published: [(channel: ChannelID, id: PublishID)] = []
        var acknowledged: [ChannelID: Offset] = [:]
        var serverLanes: [ChannelID: LaneID] = [:]

        init(lanes: Int = .max, _ change: (inout ClientSessionConfiguration) -> Void = { _ in }) {
            var configuration = ClientSessionConfiguration()
            configuration.acknowledgeEvery = 1
            configuration.maximumLanes = 20_000
            change(&configuration)
            session = ClientSession(
                configuration: configuration, producer: Fixture.producer, cursors: [:], cursorVersion: 0)
            session.lanesAllowed(lanes)
            session.linkOpened(
                credential: .token("t"), connectNumber: 1, supportsPathChange: false, outbox: [], now: now)
            session.received(.connected(Fixture.connected()), lane: .control, now: now)
            work()
        }

        mutating func work() {
            while let action = session.nextAction() {
                switch action {
                case .openLane(let lane):
                    open.insert(lane)
                    most = max(most, open.count)
                case .finishLane(let lane): open.remove(lane)
                case .send(.lane(let header), let lane): channels[lane] = header.channel
                case .send(.publish(let publish), let lane):
                    #expect(open.contains(lane))
                    if let channel = channels[lane] { published.append((channel, publish.id)) }
                case .send(.acknowledge(let acknowledge), let lane):
                    #expect(open.contains(lane))
                    if let channel = channels[lane] { acknowledged[channel] = acknowledge.offset }
                case .end(let end): Issue.record("ended: \(end)")
                default: break
                }
            }
        }

        mutating func receive(_ frame: Frame, in channel: ChannelID) {
            var lane = serverLanes[channel]
            if lane == nil {
                lane = LaneID(rawValue: UInt64(serverLanes.count) + 1)
                serverLanes[channel] = lane
                let header = Frame.lane(LaneHeader(channel: channel, epoch: Fixture.epoch))
                session.received(header, lane: lane ?? .control, now: now)
            }
            session.received(frame, lane: lane ?? .control, now: now)
            work()
        }

        mutating func publish(_ id: PublishID, in channel: ChannelID) {
            let taken = session.enqueue(Fixture.row(id, in: channel), now: now)
            #expect(taken)
            work()
        }

        mutating func answer(_ id: PublishID, in channel: ChannelID) {
            let position = Position(epoch: Fixture.epoch, offset: 1)
            receive(.published(Published(id: id, position: position, time: 0)), in: channel)
        }

        /// A message comes, and the app is done with it.
        mutating func confirm(in channel: ChannelID, _ offset: Offset = 1) {
            receive(.deliver(Deliver(entry: Fixture.entry(offset, after: offset - 1), redelivered: false)), in: channel)
            session.confirm(channel: channel, position: Position(epoch: Fixture.epoch, offset: offset), now: now)
            work()
        }
    }

    @Test("Ten thousand channels are published into and confirmed over one link, with few lanes at a time")
    func tenThousandChannels() {
        var client = Speaking()
        for number in 0..<10_000 {
            let room = LaneLimitTests.room(number)
            client.publish(PublishID(number + 1), in: room)
            client.answer(PublishID(number + 1), in: room)
            client.confirm(in: room)
        }
        #expect(client.published.count == 10_000 && client.acknowledged.count == 10_000)
        #expect(client.most <= 257)
    }

    @Test(
        "Messages for more rooms than there are lanes leave as others are answered, once, and so do acknowledgements",
        arguments: [1, 2, 100, Int.max])
    func moreRoomsThanLanes(lanes: Int) {
        var client = Speaking(lanes: lanes)
        let limit = min(lanes, 512)
        for number in 0..<600 { client.publish(PublishID(number + 1), in: LaneLimitTests.room(number)) }
        #expect(client.published.count == limit)
        for number in 600..<700 { client.confirm(in: LaneLimitTests.room(number)) }
        #expect(client.acknowledged.isEmpty)
        // What waits for a lane waits for no time.
        for _ in 0..<5 {
            guard let deadline = client.session.nextDeadline else { break }
            #expect(deadline > client.now)
            client.session.packetReceived(now: client.now)
            client.session.deadlineReached(now: client.now, random: &client.random)
        }
        for number in 0..<600 {
            guard number < client.published.count else {
                Issue.record("message \(number) did not leave")
                return
            }
            let next = client.published[number]
            client.answer(next.id, in: next.channel)
        }
        #expect(client.published.map(\.id) == (1...600).map { PublishID($0) }, "as they came to wait")
        #expect(client.acknowledged.count == 100)
        #expect(client.most <= limit)
    }

    @Test("A lane with a publish that has no answer is never finished for another")
    func unansweredLane() {
        var client = Speaking(lanes: 8)
        client.publish(1, in: LaneLimitTests.room(0))
        for number in 1..<50 { client.confirm(in: LaneLimitTests.room(number)) }
        #expect(client.acknowledged.count == 49)
        #expect(client.open.contains { client.channels[$0] == LaneLimitTests.room(0) })
        #expect(client.most <= 8)
    }

    @Test("With the learned heartbeat, too, lanes that were quiet for long are finished")
    func learnedHeartbeat() {
        var client = Speaking {
            $0.laneIdleTime = .seconds(1)
            $0.heartbeat = .learned()
        }
        var question: Ping?
        for _ in 0..<20 where question == nil {
            guard let deadline = client.session.nextDeadline else { break }
            client.now = max(client.now, deadline)
            client.session.deadlineReached(now: client.now, random: &client.random)
            while let action = client.session.nextAction() {
                if case .send(.ping(let ping), _) = action, ping.answerAfter > 0 { question = ping }
            }
        }
        guard let question else {
            Issue.record("nothing is asked")
            return
        }
        client.publish(1, in: LaneLimitTests.room(0))
        client.answer(1, in: LaneLimitTests.room(0))
        client.publish(2, in: LaneLimitTests.room(1))
        #expect(client.open.count == 2)
        client.now = client.now + .milliseconds(Int64(question.answerAfter))
        let pong = Pong(nonce: question.nonce, observedAddress: "192.0.2.1:1")
        client.session.received(.pong(pong), lane: .control, now: client.now)
        client.work()
        #expect(client.open.map { client.channels[$0] } == [LaneLimitTests.room(1)], "one has no answer yet")
    }
}
