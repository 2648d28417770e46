import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Testing

@testable import LonglineSession

extension [ServerAction] {
    fileprivate var priorities: [LaneID: Urgency] {
        reduce(into: [:]) { if case .prioritize(let lane, let urgency) = $1 { $0[lane] = urgency } }
    }
}

extension [ClientAction] {
    fileprivate var priorities: [LaneID: Urgency] {
        reduce(into: [:]) { if case .prioritize(let lane, let urgency) = $1 { $0[lane] = urgency } }
    }
    fileprivate var said: [ChannelUrgency] {
        frames.compactMap { if case .urgency(let urgency) = $0 { urgency } else { nil } }
    }
}

@Suite("Urgency of channels")
struct UrgencyTests {
    private let now = Fixture.start
    private let one = LaneID(rawValue: 1)

    private func server(_ channels: [SessionChannel]) -> ServerSession {
        var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1, channels: channels,
                ticket: nil), time: 0, now: now)
        return session
    }

    private func client(_ rows: [OutboxRow] = [], urgencies: [ChannelID: Urgency] = [:]) -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        for (channel, urgency) in urgencies { _ = session.setUrgency(urgency, of: channel, now: now) }
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: rows, now: now)
        return session
    }

    @Test("A server's lane takes the urgency that the client named, before and after it is opened")
    func serverLanes() {
        var session = server([Fixture.channel(), Fixture.channel(Fixture.room)])
        _ = session.drain()
        let bulk = ChannelUrgency(channel: Fixture.room, urgency: .bulk)
        session.received(.urgency(bulk), lane: .control, early: false, now: now)
        session.logAdvanced(Fixture.room, head: Position(epoch: Fixture.epoch, offset: 1), now: now)
        session.pageRead(Fixture.room, page: Fixture.page([1]), now: now)
        let actions = session.drain()
        #expect(actions.priorities == [one: .bulk])
        // The link knows it before the first byte.
        let order = actions.map { action in
            switch action {
            case .openLane: "open"
            case .prioritize: "prioritize"
            case .send: "send"
            default: ""
            }
        }
        #expect(order.filter { !$0.isEmpty } == ["open", "prioritize", "send", "send"])
        let control = ChannelUrgency(channel: Fixture.room, urgency: .control)
        session.received(.urgency(control), lane: .control, early: false, now: now)
        #expect(session.drain().priorities == [one: .control])
        session.received(.urgency(control), lane: .control, early: false, now: now)
        #expect(session.drain().priorities.isEmpty)
        let chat = ChannelUrgency(channel: Fixture.room, urgency: .chat)
        session.received(.urgency(chat), lane: .control, early: false, now: now)
        #expect(session.drain().priorities == [one: .chat])
    }

    @Test("Of channels that wait, the urgent ones are read first")
    func reads() {
        var configuration = ServerSessionConfiguration()
        configuration.maximumReads = 1
        let rooms = (0..<4).map { ChannelID.room(Fixture.name("r\($0)")) }
        var session = ServerSession(configuration: configuration, observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        session.authenticated(
            SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
                channels: rooms.map { Fixture.channel($0) }, ticket: nil), time: 0, now: now)
        session.received(
            .urgency(ChannelUrgency(channel: rooms[1], urgency: .bulk)), lane: .control, early: false, now: now)
        session.received(
            .urgency(ChannelUrgency(channel: rooms[3], urgency: .control)), lane: .control, early: false, now: now)
        _ = session.drain()
        for room in rooms {
            session.logAdvanced(room, head: Position(epoch: Fixture.epoch, offset: 1), now: now)
        }
        var order: [ChannelID] = []
        for _ in rooms {
            for action in session.drain() {
                if case .read(let channel, _, _, _) = action { order.append(channel) }
            }
            guard let last = order.last else { break }
            session.pageRead(last, page: Fixture.page([1]), now: now)
        }
        #expect(order == [rooms[0], rooms[3], rooms[2], rooms[1]])
    }

    @Test("A client that names too many channels is closed, one that takes its word back isn't")
    func tooMany() {
        var session = server([Fixture.channel()])
        for number in 0..<600 {
            let channel = ChannelID.room(Fixture.name("r\(number)"))
            session.received(
                .urgency(ChannelUrgency(channel: channel, urgency: .bulk)), lane: .control, early: false, now: now)
            session.received(
                .urgency(ChannelUrgency(channel: channel, urgency: .chat)), lane: .control, early: false, now: now)
        }
        #expect(session.drain().closeCode == nil)
        for number in 0...FrameLimits.maximumUrgencies {
            #expect(!session.isClosed, "\(number)")
            let channel = ChannelID.room(Fixture.name("r\(number)"))
            session.received(
                .urgency(ChannelUrgency(channel: channel, urgency: .bulk)), lane: .control, early: false, now: now)
        }
        #expect(session.drain().closeCode == .limitExceeded)
    }

    @Test("A client says urgencies on every link, and publishes the urgent first")
    func clientLanes() {
        let rows = [Fixture.row(1, in: Fixture.room), Fixture.row(2, in: Fixture.inbox)]
        var session = client(rows, urgencies: [Fixture.room: .bulk])
        #expect(session.drain().said == [ChannelUrgency(channel: Fixture.room, urgency: .bulk)])
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        var actions = session.drain()
        #expect(actions.publishes.map(\.id) == [2, 1])
        #expect(actions.priorities == [LaneID(rawValue: 2): .bulk])
        _ = session.setUrgency(.chat, of: Fixture.room, now: now)
        _ = session.setUrgency(.control, of: Fixture.inbox, now: now)
        actions = session.drain()
        #expect(actions.priorities == [LaneID(rawValue: 2): .chat, one: .control])
        #expect(actions.said.count == 2)
        session.linkClosed(now: now)
        session.linkOpened(
            credential: .token("token"), connectNumber: 2, supportsPathChange: false, outbox: [], now: now)
        #expect(session.drain().said == [ChannelUrgency(channel: Fixture.inbox, urgency: .control)])
    }

    @Test("A client names no more channels than a server takes")
    func clientLimit() {
        var session = client()
        func takes(_ urgency: Urgency, of name: String) -> Bool {
            session.setUrgency(urgency, of: .room(Fixture.name(name)), now: now)
        }
        let taken = (0..<FrameLimits.maximumUrgencies).map { takes(.bulk, of: "r\($0)") }
        #expect(taken.allSatisfy { $0 })
        let beyond = [
            takes(.bulk, of: "more"), takes(.control, of: "r3"), takes(.chat, of: "r4"), takes(.bulk, of: "more"),
        ]
        #expect(beyond == [false, true, true, true])
    }

    /// The slowest of some messages into the inbox, in seconds of virtual time, while 30 rooms want to send 10 MB over a
    /// path of 100 kB/s.
    private func slowest(during urgency: Urgency) throws -> Double {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(25)
        conditions.bytesPerSecond = 100_000
        conditions.maximumQueue = 6_000
        let simulation = try QUICSessionSimulation(
            seed: 3, conditions: conditions, heartbeat: HeartbeatPolicy(interval: .seconds(30)))
        simulation.rooms = (0..<30).map { .room(Fixture.name("file-\($0)")) }
        #expect(simulation.run(for: .seconds(5)) { simulation.grants == 1 })
        for room in simulation.rooms { simulation.setUrgency(urgency, of: room) }
        simulation.run(for: .seconds(1))
        for room in simulation.rooms { simulation.post(in: room, bytes: 10_000, count: 34) }
        var slowest = 0.0
        for message in 1...4 {
            simulation.run(for: .milliseconds(1_500))
            let posted = simulation.seconds
            simulation.post(in: simulation.inbox, bytes: 100)
            func arrived() -> Int { simulation.deliveries.count { $0.channel == simulation.inbox } }
            #expect(simulation.run(for: .seconds(20)) { arrived() == message })
            slowest = max(slowest, simulation.seconds - posted)
        }
        let bulk = simulation.deliveries.count { $0.channel != simulation.inbox }
        #expect((10..<900).contains(bulk), "the transfer is under way all the time, and goes on")
        #expect(simulation.ends.isEmpty)
        return slowest
    }

    @Test("A transfer of 10 MB does not delay a chat message")
    func transfer() throws {
        let beside = try slowest(during: .bulk)
        // Behind what is in the path already: its delay and its queue, twice when a packet is lost.
        #expect(beside < 0.25, "\(beside) s")
        // Where nobody named the rooms bulk it takes its turn among them.
        let among = try slowest(during: .chat)
        #expect(among > 1.5 * beside, "\(among) s, and \(beside) s")
    }
}
