import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Testing

@testable import LonglineSession

@Suite("Large payloads at a client")
struct ClientPayloadTests {
    private let now = Fixture.start
    private let one = LaneID(rawValue: 1)

    private func client(_ rows: [OutboxRow] = [], window: UInt64 = 1 << 20) -> ClientSession {
        var session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: [:], cursorVersion: 0)
        session.linkOpened(
            credential: .token("token"), connectNumber: 1, supportsPathChange: false, outbox: rows, now: now)
        session.received(.connected(Fixture.connected(window: window)), lane: .control, now: now)
        return session
    }

    private func row(_ id: PublishID, after: PublishID = 0, in channel: ChannelID = Fixture.inbox, bytes: Int)
        -> OutboxRow
    {
        var row = Fixture.row(id, after: after, in: channel)
        row.publish.payload = placedBytes(bytes)
        return row
    }

    private func awaits(_ actions: [ClientAction]) -> [LaneID] {
        actions.compactMap { if case .awaitRoom(let lane) = $0 { lane } else { nil } }
    }

    private func payload(_ frames: [Frame]) -> ByteBuffer {
        frames.reduce(into: ByteBuffer()) { bytes, frame in
            if case .publish(let publish) = frame { bytes.writeImmutableBuffer(publish.payload) }
            if case .part(let part) = frame { bytes.writeImmutableBuffer(part.bytes) }
        }
    }

    @Test("A payload leaves in parts, a burst at a time, and what is behind it after it")
    func sent() {
        var session = client([row(1, bytes: 200_000), row(2, after: 1, bytes: 10)])
        var frames: [Frame] = []
        var actions = session.drain()
        var rounds = 0
        while let lane = awaits(actions).first {
            rounds += 1
            frames += actions.frames
            #expect(actions.frames.parts.reduce(0) { $0 + $1.bytes.readableBytes } < 90_000)
            session.laneWritable(lane, true, now: now)
            actions = session.drain()
        }
        frames += actions.frames
        #expect(rounds == 2)
        let publishes = frames.compactMap { if case .publish(let publish) = $0 { publish } else { nil } }
        #expect(publishes.map(\.id) == [1, 2])
        #expect(publishes.first?.following == 200_000 - 15_360)
        #expect(frames.last == .publish(publishes[1]))
        #expect(payload(Array(frames.dropLast())) == placedBytes(200_000))
    }

    @Test("A publish that is refused before all of it left is given up, and the next one goes")
    func refused() {
        var session = client([row(1, bytes: 200_000), row(2, after: 1, bytes: 10)])
        _ = session.drain()
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: one, now: now)
        session.received(.refused(Refused(id: 1, code: .payloadTooLarge)), lane: one, now: now)
        var actions = session.drain()
        #expect(actions.frames.parts == [Part(offset: 0, bytes: ByteBuffer())])
        session.laneWritable(one, true, now: now)
        #expect(session.drain().publishes.isEmpty, "the row is on the disk")
        session.rowRemoved(1, from: Fixture.inbox, now: now)
        actions += session.drain()
        #expect(actions.publishes.map(\.id) == [2])
    }

    @Test("After a lost link all of it is sent again")
    func again() {
        let rows = [row(1, bytes: 50_000)]
        var session = client(rows)
        _ = session.drain()
        session.linkClosed(now: now)
        session.linkOpened(
            credential: .token("token"), connectNumber: 2, supportsPathChange: false, outbox: rows, now: now)
        session.received(.connected(Fixture.connected()), lane: .control, now: now)
        let frames = session.drain().frames.filter(\.isOfParts)
        #expect(payload(frames) == placedBytes(50_000))
    }

    @Test("Four payloads are under way at once; small messages of other channels pass")
    func places() {
        let rooms = (0..<6).map { ChannelID.room(Fixture.name("r\($0)")) }
        let large = rooms.enumerated().map { row(PublishID($0 + 1), in: $1, bytes: 150_000) }
        var session = client(large + [row(9, bytes: 10)])
        var actions = session.drain()
        #expect(Set(actions.publishes.map(\.id)) == [1, 2, 3, 4, 9])
        let lane = awaits(actions)[0]
        session.laneWritable(lane, true, now: now)
        session.laneWritable(lane, true, now: now)
        session.received(.lane(LaneHeader(channel: rooms[0], epoch: 0)), lane: one, now: now)
        session.received(
            .published(Published(id: 1, position: Position(epoch: 1, offset: 1), time: 0)), lane: one, now: now)
        actions = session.drain()
        #expect(actions.publishes.map(\.id) == [5])
    }

    @Test("A payload that was sent has its place until it is answered, and the next of its channel needs none")
    func placesOfSent() {
        let rooms = (0..<5).map { ChannelID.room(Fixture.name("r\($0)")) }
        let large = rooms.enumerated().map { row(PublishID($0 + 1), in: $1, bytes: 40_000) }
        var session = client(large + [row(9, after: 1, in: rooms[0], bytes: 40_000)])
        // All of it is with the transport, and perhaps not with the server.
        #expect(Set(session.drain().publishes.map(\.id)) == [1, 2, 3, 4, 9])
        session.received(.lane(LaneHeader(channel: rooms[1], epoch: 0)), lane: one, now: now)
        session.received(.refused(Refused(id: 2, code: .forbidden)), lane: one, now: now)
        #expect(session.drain().publishes.map(\.id) == [5])
    }

    private func frames(_ length: Int, at offset: Offset = 1, after previous: Offset = 0) -> [Frame] {
        var entry = Fixture.entry(offset, after: previous)
        entry.payload = placedBytes(length)
        let head = entry.head(FrameLimits.maximumPayload)
        var sending = PayloadSending(head)
        let rest = placedBytes(length).getSlice(
            at: FrameLimits.maximumPayload, length: length - FrameLimits.maximumPayload)
        return [.deliver(Deliver(entry: head, redelivered: false))]
            + sending.parts(rest ?? ByteBuffer(), partBytes: FrameLimits.maximumPayload)
    }

    private func open(_ session: inout ClientSession) {
        session.received(.lane(LaneHeader(channel: Fixture.inbox, epoch: Fixture.epoch)), lane: one, now: now)
    }

    @Test("An entry in parts is given to the app once, when it is whole")
    func received() {
        var session = client()
        open(&session)
        _ = session.drain()
        let frames = frames(100_000)
        for frame in frames.dropLast() { session.received(frame, lane: one, now: now) }
        #expect(session.drain().delivered.isEmpty)
        // An answer stands between parts.
        session.received(.refused(Refused(id: 3, code: .forbidden)), lane: one, now: now)
        session.received(frames[frames.count - 1], lane: one, now: now)
        let entries = session.drain().compactMap { action -> Entry? in
            if case .deliver(_, _, let deliver) = action { deliver.entry } else { nil }
        }
        #expect(entries.map(\.payload) == [placedBytes(100_000)])
        #expect(entries.map(\.following) == [0])
    }

    @Test("A part that is lost, doubled or swapped closes the link, and nothing is given to the app")
    func damaged() {
        let frames = frames(100_000)
        for order in [[0, 2], [0, 1, 1], [0, 2, 1], [1], [0, 0]] {
            var session = client()
            open(&session)
            _ = session.drain()
            for index in order { session.received(frames[index], lane: one, now: now) }
            let actions = session.drain()
            #expect(actions.endCode == .unexpectedFrame, "\(order)")
            #expect(actions.delivered.isEmpty)
        }
    }

    @Test("What is given up leaves nothing behind: the entry comes again, or is told lost")
    func givenUp() {
        var session = client()
        open(&session)
        _ = session.drain()
        for frame in frames(100_000).prefix(3) { session.received(frame, lane: one, now: now) }
        session.received(.part(Part(offset: 0, bytes: ByteBuffer())), lane: one, now: now)
        session.received(
            .gap(Gap(from: Position(epoch: Fixture.epoch, offset: 0), first: 1)), lane: one, now: now)
        session.received(.deliver(Deliver(entry: Fixture.entry(2, after: 1), redelivered: false)), lane: one, now: now)
        let actions = session.drain()
        #expect(actions.gaps.map(\.first) == [1])
        #expect(actions.delivered == [2])
        #expect(actions.endCode == nil)
    }

    @Test("A break of the chain is seen when the entry is whole")
    func broken() {
        var session = client()
        open(&session)
        session.received(.deliver(Deliver(entry: Fixture.entry(1, after: 0), redelivered: false)), lane: one, now: now)
        _ = session.drain()
        for frame in frames(50_000, at: 9, after: 7) { session.received(frame, lane: one, now: now) }
        let actions = session.drain()
        #expect(actions.endCode == .internalError)
        #expect(actions.delivered.isEmpty)
    }

    @Test("Another entry or an absence inside the parts of one closes the link")
    func inside() {
        let others: [Frame] = [
            .deliver(Deliver(entry: Fixture.entry(1, after: 0), redelivered: false)),
            .skip(Skip(previous: 0, to: 1, reason: .expired)),
            .gap(Gap(from: Position(epoch: Fixture.epoch, offset: 0), first: 1)),
        ]
        for other in others {
            var session = client()
            open(&session)
            session.received(frames(40_000)[0], lane: one, now: now)
            #expect(session.drain().endCode == nil)
            session.received(other, lane: one, now: now)
            let actions = session.drain()
            #expect(actions.endCode == .unexpectedFrame && actions.delivered.isEmpty && actions.gaps.isEmpty)
        }
    }

    @Test("A window that is full takes no absence either")
    func full() {
        let absences: [Frame] = [
            .skip(Skip(previous: 1, to: 2, reason: .expired)),
            .gap(Gap(from: Position(epoch: Fixture.epoch, offset: 1), first: 2)),
        ]
        for absence in absences {
            var session = client(window: 100)
            open(&session)
            let entry = Fixture.entry(1, after: 0)
            session.received(.deliver(Deliver(entry: entry, redelivered: false)), lane: one, now: now)
            #expect(session.drain().delivered == [1])
            session.received(absence, lane: one, now: now)
            let actions = session.drain()
            #expect(actions.endCode == .limitExceeded && actions.gaps.isEmpty)
        }
    }

    @Test("A server that sends five payloads at once, or one over 16 MiB, is left")
    func limits() {
        var session = client()
        var entry = Fixture.entry(1, after: 0)
        entry.following = UInt64(FrameLimits.maximumWholePayload)
        open(&session)
        session.received(.deliver(Deliver(entry: entry, redelivered: false)), lane: one, now: now)
        #expect(session.drain().endCode == .limitExceeded)
        session = client()
        for number in 1...5 {
            let lane = LaneID(rawValue: UInt64(number))
            let room = ChannelID.room(Fixture.name("r\(number)"))
            session.received(.lane(LaneHeader(channel: room, epoch: Fixture.epoch)), lane: lane, now: now)
            session.received(frames(40_000)[0], lane: lane, now: now)
        }
        #expect(session.drain().endCode == .limitExceeded)
    }

    @Test("A server that begins a payload with the window full already is left before any of it is gathered")
    func overfullWindow() {
        var session = client(window: 20_000)
        open(&session)
        for frame in frames(40_000) { session.received(frame, lane: one, now: now) }
        #expect(session.drain().delivered == [1], "one may go beyond")
        session.received(frames(40_000, at: 2, after: 1)[0], lane: one, now: now)
        #expect(session.drain().endCode == .limitExceeded)
        #expect(session.arriving.isEmpty)
    }

    @Test("A page of history holds the whole entry, or is refused when it is given up", arguments: [true, false])
    func history(isWhole: Bool) {
        var session = client()
        let request = HistoryRequest(
            request: 3, channel: Fixture.inbox, epoch: 0, from: 9, direction: .older, limit: 1)
        _ = session.history(request, now: now)
        _ = session.drain()
        session.received(
            .historyPage(HistoryAnswer(request: 3, epoch: Fixture.epoch, start: 0, end: 1, more: false, items: 1)),
            lane: one, now: now)
        let frames = frames(50_000)
        for frame in frames.dropLast() { session.received(frame, lane: one, now: now) }
        #expect(session.drain().isEmpty)
        let last = isWhole ? frames[frames.count - 1] : .part(Part(offset: 0, bytes: ByteBuffer()))
        session.received(last, lane: one, now: now)
        let results = session.drain().compactMap { action -> HistoryResult? in
            if case .history(let result) = action { result } else { nil }
        }
        #expect(results.map(\.answer.refusal) == [isWhole ? nil : .overloaded])
        let payloads = results.first?.items.map { item -> ByteBuffer? in
            if case .entry(let entry) = item { entry.payload } else { nil }
        }
        #expect(payloads == (isWhole ? [placedBytes(50_000)] : []))
    }
}

@Suite("Large payloads over QUIC, in virtual time")
struct PayloadTransferTests {
    /// A path of 400 kB/s that loses a packet in a hundred, or a worse one.
    private func simulation(
        seed: UInt64 = 5, _ change: (inout NetworkConditions) -> Void = { _ in }
    ) throws -> QUICSessionSimulation {
        var conditions = NetworkConditions()
        conditions.delay = .milliseconds(20)
        conditions.bytesPerSecond = 400_000
        conditions.maximumQueue = 16_000
        conditions.loss = 0.01
        change(&conditions)
        var server = ServerSessionConfiguration()
        server.limits.maximumPayload = UInt64(FrameLimits.maximumWholePayload)
        return try QUICSessionSimulation(
            seed: seed, conditions: conditions, heartbeat: HeartbeatPolicy(interval: .seconds(30)), server: server)
    }

    @Test(
        "Pictures of many rooms come over a thin path, and go, more at a time than there are places",
        arguments: 1...4 as ClosedRange<UInt64>)
    func crowd(seed: UInt64) throws {
        let simulation = try simulation(seed: seed) {
            $0.delay = .milliseconds(100)
            $0.bytesPerSecond = 100_000
            $0.loss = 0.03
        }
        simulation.rooms = (0..<12).map { .room(Fixture.name("room-\($0)")) }
        #expect(simulation.run(for: .seconds(5)) { simulation.grants == 1 })
        simulation.run(for: .seconds(1))
        for room in simulation.rooms { simulation.post(in: room, bytes: 40_000, count: 2) }
        #expect(simulation.run(for: .seconds(120)) { simulation.deliveries.count == 24 || !simulation.ends.isEmpty })
        for (index, room) in simulation.rooms.enumerated() {
            simulation.publish(PublishID(2 * index + 1), in: room, bytes: 40_000)
            simulation.publish(PublishID(2 * index + 2), after: PublishID(2 * index + 1), in: room, bytes: 40_000)
        }
        #expect(simulation.run(for: .seconds(120)) { simulation.published.count == 24 || !simulation.ends.isEmpty })
        #expect(simulation.deliveries.count == 24 && simulation.published.count == 24)
        #expect(simulation.ends.isEmpty, "\(simulation.ends)")
    }

    /// What of a large payload may arrive between a message that is handed over and its arrival: what is on the way already,
    /// and what takes the place of lost packets meanwhile. A queue's worth more is too much.
    private static let onTheWay = 100_000

    @Test("One of 10 MB is delivered whole, and messages of the inbox pass it")
    func delivery() throws {
        let simulation = try simulation()
        #expect(simulation.run(for: .seconds(5)) { simulation.grants == 1 })
        simulation.run(for: .seconds(1))
        simulation.post(in: simulation.room, bytes: 10_000_000)
        var passed: [Int] = []
        for number in 1...10 {
            simulation.run(for: .seconds(2))
            let before = simulation.partBytes.client
            simulation.post(in: simulation.inbox, bytes: 200)
            func arrived() -> Int { simulation.deliveries.count { $0.channel == simulation.inbox } }
            #expect(simulation.run(for: .seconds(20)) { arrived() == number })
            passed.append(simulation.partBytes.client - before)
        }
        #expect(passed.allSatisfy { $0 < Self.onTheWay }, "\(passed)")
        #expect(simulation.partBytes.client > 5_000_000, "it goes on")
        #expect(!simulation.deliveries.contains { $0.channel == simulation.room }, "still under way")
        #expect(simulation.run(for: .seconds(120)) { simulation.deliveries.contains { $0.channel == simulation.room } })
        #expect(simulation.ends.isEmpty)
    }

    @Test("One of 10 MB is published whole, and messages of the inbox pass it")
    func publishing() throws {
        let simulation = try simulation()
        #expect(simulation.run(for: .seconds(5)) { simulation.grants == 1 })
        simulation.run(for: .seconds(1))
        simulation.publish(1, in: simulation.room, bytes: 10_000_000)
        var passed: [Int] = []
        for number in 2...10 as ClosedRange<PublishID> {
            simulation.run(for: .seconds(2))
            let before = simulation.partBytes.server
            simulation.publish(number, after: number - 1, in: simulation.inbox, bytes: 200)
            #expect(simulation.run(for: .seconds(20)) { simulation.published.last?.publish.id == number })
            passed.append(simulation.partBytes.server - before)
        }
        #expect(passed.allSatisfy { $0 < Self.onTheWay }, "\(passed)")
        #expect(simulation.partBytes.server > 5_000_000, "it goes on")
        #expect(simulation.run(for: .seconds(120)) { simulation.published.count == 10 })
        #expect(simulation.published.last?.publish.payload == ByteBuffer(repeating: 121, count: 10_000_000))
        #expect(simulation.ends.isEmpty)
    }
}
