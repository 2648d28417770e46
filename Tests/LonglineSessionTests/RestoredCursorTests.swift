import LonglineSession
import LonglineWire
import NIOCore
import Testing

/// Devices in more channels than CONNECT and CONNECTED have room for, whose storage is lost or an older one.
@Suite("Restored cursors")
struct RestoredCursorTests {
    /// A server that remembers a device's cursors, the device, and the links between them.
    private struct World {
        static let entries: Offset = 3
        let rooms: [ChannelID]
        /// The server's record of the device.
        var record: [ChannelID: Position]
        var client: ClientSession
        /// What the app was given in each channel, over all links.
        var given: [ChannelID: [Offset]] = [:]
        var unmarked = 0
        var gaps = 0
        var connectNumber: UInt64 = 0
        /// What the client said before and in its last CONNECT, and what the server said before CONNECTED.
        var said: [Frame] = []
        var told: [CursorsAhead] = []
        var end: Close?
        /// A server that does not know the frames that go before CONNECT.
        var isOldServer = false
        /// A link that dies before anything is read from the logs.
        var diesEarly = false

        /// - Parameter own: the cursors that the device has.
        init(rooms count: Int, own: [Int: Offset] = [:], configuration: ClientSessionConfiguration = .init()) {
            rooms = (0..<count).map { .room(Fixture.name("r\($0)")) }
            let last = Position(epoch: Fixture.epoch, offset: Self.entries)
            record = Dictionary(uniqueKeysWithValues: rooms.map { ($0, last) })
            let rooms = rooms
            let cursors = own.map { (rooms[$0.key], Position(epoch: Fixture.epoch, offset: $0.value)) }
            client = ClientSession(
                configuration: configuration, producer: Fixture.producer,
                cursors: Dictionary(uniqueKeysWithValues: cursors), cursorVersion: own.isEmpty ? 0 : 7)
        }

        private var grant: SessionGrant {
            let channels = rooms.map {
                Fixture.channel($0, head: Self.entries, cursor: record[$0], sent: Self.entries)
            }
            return SessionGrant(
                identity: Fixture.identity(), session: 1, resumed: true, cursorVersion: 9, channels: channels,
                ticket: nil)
        }

        /// One link from its beginning until nothing moves.
        mutating func link(server configuration: ServerSessionConfiguration = .init()) {
            let now = Fixture.start
            connectNumber += 1
            (said, told, end) = ([], [], nil)
            var server = ServerSession(configuration: configuration, observedAddress: "", now: now)
            server.handshakeCompleted(now: now)
            client.linkOpened(
                credential: .token("token"), connectNumber: connectNumber, supportsPathChange: false, outbox: [],
                now: now)
            var isMoving = true
            while isMoving {
                isMoving = false
                while let action = client.nextAction() {
                    isMoving = true
                    clientDid(action, &server)
                }
                while let action = server.nextAction() {
                    isMoving = true
                    serverDid(action, &server)
                }
                if !isMoving, client.isConnected {
                    client.acknowledgeAll(now: now)
                    while let action = client.nextAction() {
                        isMoving = true
                        clientDid(action, &server)
                    }
                }
            }
            client.linkClosed(now: now)
        }

        private mutating func clientDid(_ action: ClientAction, _ server: inout ServerSession) {
            let now = Fixture.start
            switch action {
            case .send(let frame, let lane):
                switch frame {
                case .cursors:
                    said.append(frame)
                    if isOldServer { return }
                case .connect: said.append(frame)
                default: break
                }
                server.received(frame, lane: lane, early: false, now: now)
            case .finishLane(let lane): server.laneFinished(lane, now: now)
            case .deliver(let channel, let epoch, let deliver):
                given[channel, default: []].append(deliver.entry.offset)
                if !deliver.redelivered { unmarked += 1 }
                client.confirm(
                    channel: channel, position: Position(epoch: epoch, offset: deliver.entry.offset), now: now)
            case .gap: gaps += 1
            case .end(let end): self.end = end.close
            default: break
            }
        }

        private mutating func serverDid(_ action: ServerAction, _ server: inout ServerSession) {
            let now = Fixture.start
            switch action {
            case .authenticate(let connect):
                // The record only grows.
                for place in connect.cursors where place.position.offset > record[place.channel]?.offset ?? 0 {
                    record[place.channel] = place.position
                }
                server.authenticated(grant, time: 0, now: now)
            case .read(let channel, let after, _, _):
                guard !diesEarly else { return }
                let offsets = Array((after + 1)...Self.entries)
                server.pageRead(channel, page: Fixture.page(offsets, after: after), now: now)
            case .storeCursor(let channel, let position):
                if position.offset > record[channel]?.offset ?? 0 { record[channel] = position }
            case .send(let frame, let lane):
                if case .ahead(let ahead) = frame { told.append(ahead) }
                client.received(frame, lane: lane, now: now)
            case .finishLane(let lane): client.laneFinished(lane, now: now)
            default: break
            }
        }

        var named: [ChannelPosition] {
            said.flatMap { frame -> [ChannelPosition] in
                switch frame {
                case .cursors(let cursors): cursors.cursors
                case .connect(let connect): connect.cursors
                default: []
                }
            }
        }
    }

    @Test("A device that lost everything gets all of its channels from their beginning on its first link")
    func emptyDevice() {
        var world = World(rooms: 300)
        world.link()
        #expect(world.end == nil)
        #expect(world.given.count == 300 && world.given.values.allSatisfy { $0 == [1, 2, 3] })
        // All of it was there before.
        #expect(world.unmarked == 0 && world.gaps == 0)
        #expect(world.told.map(\.records.count) == [96, 96, 96, 12])
        // The next link has nothing more to say than what moved, and nothing comes again.
        world.link()
        #expect(world.end == nil && world.told.isEmpty)
        #expect(world.given.values.allSatisfy { $0 == [1, 2, 3] })
    }

    @Test("A device that was restored gets what it lacks in every channel, those that it does not know among them")
    func restoredDevice() {
        // Of 260 rooms it has the first entry in 200, all in 20, and does not know 40.
        var own: [Int: Offset] = [:]
        for number in 0..<220 { own[number] = number < 200 ? 1 : 3 }
        var world = World(rooms: 260, own: own)
        world.link()
        #expect(world.end == nil)
        for number in 0..<260 {
            let expected: [Offset] = number < 200 ? [2, 3] : number < 220 ? [] : [1, 2, 3]
            #expect(world.given[world.rooms[number]] ?? [] == expected, "room \(number)")
        }
        #expect(Set(world.told.flatMap(\.records).map(\.channel)).count == 240)
    }

    @Test("What a link that died did not bring, the next one does")
    func linkDies() {
        var world = World(rooms: 300)
        world.diesEarly = true
        world.link()
        #expect(world.given.isEmpty && world.told.count == 4)
        world.diesEarly = false
        world.link()
        // By now the device knows its channels, and names each.
        #expect(world.named.count == 300 && world.named.allSatisfy { $0.position.offset == 0 })
        #expect(world.given.count == 300 && world.given.values.allSatisfy { $0 == [1, 2, 3] })
        world.link()
        #expect(world.told.isEmpty && world.given.values.allSatisfy { $0 == [1, 2, 3] })
        // Where the record was, and said so: it names them no more.
        world.link()
        #expect(world.named.isEmpty && world.told.isEmpty)
    }

    @Test("A device that has all names it once, and is sent nothing")
    func nothingLost() {
        var own: [Int: Offset] = [:]
        for number in 0..<300 { own[number] = 3 }
        var world = World(rooms: 300, own: own)
        world.link()
        #expect(world.named.count == 300 && world.said.count == 4)
        #expect(world.told.isEmpty && world.given.isEmpty && world.end == nil)
        world.link()
        // It stays with what CONNECTED could not list heads of; nothing goes before CONNECT.
        #expect(world.said.count == 1 && world.given.isEmpty)
    }

    @Test("Places beyond those that can be named are not said to be all, and the record counts in their channels")
    func moreThanCanBeNamed() {
        var configuration = ClientSessionConfiguration()
        configuration.cursorsPerFrame = 2
        var own: [Int: Offset] = [:]
        for number in 0..<27 { own[number] = 3 }
        var world = World(rooms: 30, own: own, configuration: configuration)
        world.link()
        #expect(world.named.count == 26)
        let saysAll = world.said.contains { if case .cursors(let cursors) = $0 { cursors.areAll } else { false } }
        #expect(!saysAll)
    }

    @Test("With a server that passes over what goes before CONNECT a lost device starts over as before")
    func olderServer() {
        var world = World(rooms: 40)
        world.isOldServer = true
        world.link()
        #expect(world.end?.code == .normal && world.given.isEmpty)
        world.link()
        #expect(world.given.count == 40 && world.given.values.allSatisfy { $0 == [1, 2, 3] })
    }

    @Test("A room that is trimmed tells a lost device of what is gone")
    func trimmed() {
        let now = Fixture.start
        var session = ServerSession(configuration: ServerSessionConfiguration(), observedAddress: "", now: now)
        session.handshakeCompleted(now: now)
        session.received(.cursors(Cursors([], areAll: true)), lane: .control, early: false, now: now)
        session.received(.connect(Fixture.connect()), lane: .control, early: false, now: now)
        let stored = Position(epoch: Fixture.epoch, offset: 6)
        let grant = SessionGrant(
            identity: Fixture.identity(), session: 1, resumed: false, cursorVersion: 1,
            channels: [Fixture.channel(head: 9, first: 4, cursor: stored)], ticket: nil)
        session.authenticated(grant, time: 0, now: now)
        let gaps = session.drain().frames.compactMap { if case .gap(let gap) = $0 { gap } else { nil } }
        #expect(gaps == [Gap(from: Position(epoch: Fixture.epoch, offset: 0), first: 4)])
    }
}
