import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// A log that lost its end within its epoch, and what a device gets of it: one whose process goes on, and one that was started again.
@Suite("Lost ends")
struct LostEndTests {
    /// A server, the device, and the links between them.
    private struct World {
        /// The log, by the sizes of its payloads.
        var log: [Offset: Int] = [:]
        /// The server's record of the device.
        var record: Position?
        var client = World.newClient([:], version: 0)
        /// Up to where the app confirms what it is given.
        var confirmsUpTo: Offset
        /// What the app was given on the last link: the entries, their sizes, and the gaps.
        var given: [Offset] = []
        var sizes: [Int] = []
        var gaps: [Gap] = []
        var end: Close?
        private var connectNumber: UInt64 = 0

        init(confirmsUpTo: Offset) { self.confirmsUpTo = confirmsUpTo }

        private static func newClient(_ cursors: [ChannelID: Position], version: UInt64) -> ClientSession {
            ClientSession(
                configuration: ClientSessionConfiguration(), producer: Fixture.producer, cursors: cursors,
                cursorVersion: version)
        }

        private var head: Offset { log.keys.max() ?? 0 }

        mutating func enter(_ offsets: ClosedRange<Offset>, bytes: Int) {
            for offset in offsets { log[offset] = bytes }
        }

        /// The store is as it was once: the log ends at `end`, and the record does not go further than that of then.
        mutating func lose(behind end: Offset, record: Offset) {
            log = log.filter { $0.key <= end }
            self.record = Position(epoch: Fixture.epoch, offset: record)
        }

        mutating func restartClient() { client = Self.newClient(client.cursors, version: client.cursorVersion) }

        /// One link from its beginning until nothing moves.
        mutating func link() {
            let now = Fixture.start
            connectNumber += 1
            (given, sizes, gaps, end) = ([], [], [], nil)
            var server = ServerSession(
                configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
            server.handshakeCompleted(now: now)
            client.linkOpened(
                credential: .token("token"), connectNumber: connectNumber, supportsPathChange: false, outbox: [],
                now: now)
            var isMoving = true
            while isMoving {
                isMoving = move(&server)
                if !isMoving, client.isConnected {
                    client.acknowledgeAll(now: now)
                    isMoving = move(&server)
                }
            }
            client.linkClosed(now: now)
        }

        private mutating func move(_ server: inout ServerSession) -> Bool {
            var isMoving = false
            while let action = client.nextAction() {
                isMoving = true
                clientDid(action, &server)
            }
            while let action = server.nextAction() {
                isMoving = true
                serverDid(action, &server)
            }
            return isMoving
        }

        private mutating func clientDid(_ action: ClientAction, _ server: inout ServerSession) {
            let now = Fixture.start
            switch action {
            case .send(let frame, let lane): server.received(frame, lane: lane, early: false, now: now)
            case .finishLane(let lane): server.laneFinished(lane, now: now)
            case .deliver(let channel, let epoch, let deliver):
                let offset = deliver.entry.offset
                given.append(offset)
                sizes.append(deliver.entry.payload.readableBytes)
                guard offset <= confirmsUpTo else { return }
                client.confirm(channel: channel, position: Position(epoch: epoch, offset: offset), now: now)
            case .gap(_, _, let gap): gaps.append(gap)
            case .end(let end): self.end = end.close
            default: break
            }
        }

        private mutating func serverDid(_ action: ServerAction, _ server: inout ServerSession) {
            let now = Fixture.start
            switch action {
            case .authenticate(let connect):
                for place in connect.cursors { keep(place.position) }
                let channel = Fixture.channel(head: head, cursor: record, sent: nil)
                server.authenticated(
                    SessionGrant(
                        identity: Fixture.identity(), session: 1, resumed: true, cursorVersion: 9,
                        channels: [channel], ticket: nil),
                    time: 0, now: now)
            case .read(let channel, let after, _, _):
                var previous = after
                let items = log.sorted { $0.key < $1.key }.filter { $0.key > after }.map { offset, bytes in
                    defer { previous = offset }
                    return SessionPage.Item.entry(Fixture.entry(offset, after: previous, bytes: bytes))
                }
                server.pageRead(
                    channel, page: SessionPage(epoch: Fixture.epoch, items: items, head: head, first: 0), now: now)
            case .storeCursor(_, let position): keep(position)
            case .send(let frame, let lane): client.received(frame, lane: lane, now: now)
            case .finishLane(let lane): client.laneFinished(lane, now: now)
            default: break
            }
        }

        /// The record only grows, and not beyond the log.
        private mutating func keep(_ position: Position) {
            if position.offset <= head, position.offset > record?.offset ?? 0 { record = position }
        }
    }

    private func place(_ offset: Offset) -> Position { Position(epoch: Fixture.epoch, offset: offset) }

    /// A device that was given six messages of ten bytes each, and whose second link had nothing more to say.
    private func world(confirmsUpTo offset: Offset) -> World {
        var world = World(confirmsUpTo: offset)
        world.enter(1...6, bytes: 10)
        world.link()
        #expect(world.given == [1, 2, 3, 4, 5, 6] && world.record == place(offset))
        world.link()
        #expect(world.given.isEmpty && world.gaps.isEmpty)
        return world
    }

    @Test("What comes in place of an end that the app was done with is given to it", arguments: [true, false])
    func confirmedEnd(isRestarted: Bool) {
        var world = world(confirmsUpTo: 6)
        world.lose(behind: 4, record: 2)
        if isRestarted { world.restartClient() }
        world.link()
        #expect(world.gaps == [Gap(from: place(6), first: 4)] && world.given.isEmpty && world.end == nil)
        #expect(world.client.cursor(of: Fixture.inbox) == place(4) && world.record == place(4))
        world.confirmsUpTo = 9
        world.enter(5...7, bytes: 20)
        world.link()
        #expect(world.given == [5, 6, 7] && world.sizes == [20, 20, 20] && world.gaps.isEmpty)
        #expect(world.end == nil && world.record == place(7))
    }

    @Test("So is what comes in place of an end that the app held", arguments: [true, false])
    func heldEnd(isRestarted: Bool) {
        var world = world(confirmsUpTo: 3)
        world.lose(behind: 4, record: 2)
        if isRestarted { world.restartClient() }
        world.link()
        // A process that goes on has the fourth, and one that does not never had what is lost.
        #expect(world.given == (isRestarted ? [4] : []) && world.end == nil)
        #expect(world.gaps == (isRestarted ? [] : [Gap(from: place(6), first: 4)]))
        #expect(world.client.cursor(of: Fixture.inbox) == place(3))
        world.confirmsUpTo = 9
        world.enter(5...7, bytes: 20)
        world.link()
        #expect(world.given == [5, 6, 7] && world.sizes == [20, 20, 20] && world.gaps.isEmpty)
        #expect(world.end == nil && world.record == place(7))
    }
}
