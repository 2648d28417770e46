import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

@Suite("Sending and receiving", .timeLimit(.minutes(1)))
struct DeliveryTests {
    @Test("what is sent is entered once and in order, wherever the link is cut", arguments: [UInt64(1), 2, 3, 4, 5])
    func cuts(seed: UInt64) async throws {
        let harness = try ClientHarness(seed: seed)
        var random = SeededRandom(seed: seed)
        try await harness.client.connect()
        var receipts: [SendReceipt] = []
        for index in 0..<150 {
            if index % 10 == 0 {
                let cut = Int.random(in: 1...12, using: &random)
                harness.service.state.withLock { $0.cutIn = $0.cutIn ?? cut }
            }
            receipts.append(try await harness.client.send("\(index)", to: .room("room\(index % 3)")))
        }
        for receipt in receipts { _ = try await receipt.acknowledged() }
        let entered = harness.service.state.withLock { $0.entered }
        #expect(entered.count == 150, "seed \(seed)")
        for room in 0..<3 {
            let channel = ChannelID.room(try RoomID("room\(room)"))
            let texts = entered.filter { $0.channel == channel }.map { String(buffer: $0.publish.payload) }
            #expect(texts == stride(from: room, to: 150, by: 3).map { "\($0)" }, "seed \(seed)")
        }
        #expect(await harness.client.statistics.waiting == 0)
        await harness.client.disconnect()
    }

    @Test("a channel's urgency reaches its lane, whether it is open or opens later")
    func urgency() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let room = ChannelID.room(try RoomID("files"))
        try await harness.client.setUrgency(.bulk, of: room)
        _ = try await harness.client.send("1", to: .room("files")).acknowledged()
        #expect(harness.service.state.withLock { $0.urgencies } == [.bulk])
        try await harness.client.setUrgency(.control, of: room)
        #expect(harness.service.state.withLock { $0.urgencies } == [.bulk, .control])
        await harness.client.disconnect()
    }

    @Test("a direct message goes to the sender's own inbox and names the recipient")
    func direct() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        _ = try await harness.client.send("hi", to: .user("bob"), timeToLive: .seconds(5)).acknowledged()
        let entered = try #require(harness.service.state.withLock { $0.entered.first })
        #expect(entered.channel.description == "user/alice")
        #expect(entered.publish.recipient?.description == "bob")
        #expect((1...5000).contains(entered.publish.timeToLive))
        await harness.client.disconnect()
    }

    @Test(
        "a time to live that ran in an earlier process is over by the wall clock, however short the machine has been up",
        arguments: [(1, [1, 3_600_000, 0]), (0, [7_200_000, 90_000_000, 0]), (-1, [7_200_000, 90_000_000, 0])]
            as [(Int64, [UInt64])])
    func livesOn(days: Int64, expected: [UInt64]) async throws {
        let hour: UInt64 = 3_600_000
        var random = SystemRandomNumberGenerator()
        let rows = try [(1, 2 * hour), (2, 25 * hour), (3, 0)].map { (id: UInt64, life: UInt64) in
            StoredPublish(
                id: id, tag: id, after: id - 1, channel: .user(try UserID("alice")), recipient: try UserID("bob"),
                timeToLive: life, queuedAt: 1_700_000_000_000, payload: ByteBuffer(string: "\(id)"),
                send: SendID.random(using: &random), attempted: true)
        }
        var left = StoredClientState()
        left.producer = ProducerID(high: 1, low: 2)
        (left.lastID, left.chains, left.outbox) = (3, [.user(try UserID("alice")): 3], rows)
        // Up for five minutes, a day after the messages were written, or before: the clock was set back meanwhile.
        let clock = DriverClock(
            now: { NIODeadline.uptimeNanoseconds(300_000_000_000) },
            wall: { UInt64(1_700_000_000_000 + days * 86_400_000) })
        let harness = try ClientHarness(storage: InMemoryClientStorage(left), clock: clock)
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.entered.count }) < 3 { await Task.yield() }
        let lives = harness.service.state.withLock { $0.entered.map(\.publish.timeToLive) }
        #expect(lives == expected)
        await harness.client.disconnect()
    }

    @Test("a wall clock that is set while a message waits changes nothing about its time to live")
    func wallClockIsSet() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(
            now: { NIODeadline.uptimeNanoseconds(300_000_000_000) }, wall: { wall.withLock { $0 } })
        let harness = try ClientHarness(clock: clock)
        _ = try await harness.client.send("hi", to: .user("bob"), timeToLive: .seconds(60))
        wall.withLock { $0 += 24 * 3_600_000 }
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        #expect(harness.service.state.withLock { $0.entered.map(\.publish.timeToLive) } == [60_000])
        await harness.client.disconnect()
    }

    @Test("a refusal for good fails its receipt, and what comes behind it is entered")
    func refused() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.refusedPrefix = "bad" }
        try await harness.client.connect()
        let receipts = try await [
            harness.client.send("one", to: .room("a")), harness.client.send("bad", to: .room("a")),
            harness.client.send("two", to: .room("a")),
        ]
        _ = try await receipts[0].acknowledged()
        let error = await #expect(throws: ClientError.self) { try await receipts[1].acknowledged() }
        #expect(error?.code == .refused && error?.refusal == .forbidden)
        _ = try await receipts[2].acknowledged()
        await harness.client.disconnect()
    }

    @Test("an ID that was used with another tag leads to a new producer, and nothing is lost")
    func renewedProducer() async throws {
        let producer = ProducerID(high: 5, low: 6)
        var state = StoredClientState()
        state.producer = producer
        state.connectNumber = 64
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage)
        harness.service.state.withLock { $0.spentProducer = producer }
        try await harness.client.start()
        let receipts = try await [
            harness.client.send("one", to: .room("a")), harness.client.send("two", to: .room("b")),
            harness.client.send("three", to: .room("a")),
        ]
        for receipt in receipts { _ = try await receipt.acknowledged() }
        try await harness.settle()
        let service = harness.service.state.withLock { $0 }
        #expect(service.entered.map { String(buffer: $0.publish.payload) }.sorted() == ["one", "three", "two"])
        #expect(service.entered.allSatisfy { $0.producer != producer })
        let stored = await storage.load()
        #expect(stored.producer == service.entered.first?.producer && stored.outbox.isEmpty)
        await harness.client.disconnect()
    }

    @Test("the outbox survives the process: same producer, IDs and tags, and the numbering goes on")
    func restart() async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("client.sqlite")
        do {
            let storage = try SQLiteClientStorage(path: path)
            let harness = try ClientHarness(storage: storage)
            // Never connected: the messages are on disk all the same.
            for index in 0..<5 { try await harness.client.send("\(index)", to: .room("a")) }
            try await harness.settle()
            try storage.close()
        }
        let storage = try SQLiteClientStorage(path: path)
        let before = try await storage.load()
        #expect(before.outbox.map(\.id) == [1, 2, 3, 4, 5])
        let harness = try ClientHarness(storage: storage, seed: 2)
        try await harness.client.connect()
        _ = try await harness.client.send("5", to: .room("a")).acknowledged()
        let entered = harness.service.state.withLock { $0.entered }
        #expect(entered.map { String(buffer: $0.publish.payload) } == (0...5).map { "\($0)" })
        #expect(entered.map(\.publish.id) == [1, 2, 3, 4, 5, 6])
        #expect(entered.prefix(5).map(\.publish.tag) == before.outbox.map(\.tag))
        #expect(entered.allSatisfy { $0.producer == before.producer })
        try await harness.settle()
        #expect(try await storage.load().outbox.isEmpty)
        await harness.client.disconnect()
    }

    @Test("a storage that can't write refuses the message by name, and later ones don't wait for it")
    func storageFails() async throws {
        let storage = FailingStorage()
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        try await harness.settle()
        await storage.fail(true)
        let error = await #expect(throws: ClientError.self) { try await harness.client.send("x", to: .room("a")) }
        #expect(error?.code == .storage)
        await storage.fail(false)
        _ = try await harness.client.send("y", to: .room("a")).acknowledged()
        #expect(harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } } == ["y"])
        await harness.client.disconnect()
    }

    @Test("messages come once and in order across cuts, and confirmed ones don't come again")
    func receiving() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let channel = ChannelID.room(try RoomID("a"))
        var messages = harness.client.messages.makeAsyncIterator()
        var texts: [String] = []
        for index in 0..<60 {
            if index % 20 == 19 { harness.service.cut() }
            try harness.service.post("\(index)", in: channel)
            if index >= 3, let message = await messages.next() { texts.append(message.text) }
        }
        while texts.count < 60, let message = await messages.next() { texts.append(message.text) }
        #expect(texts == (0..<60).map { "\($0)" })
        await harness.client.disconnect()
    }

    @Test(
        "a gap is confirmed by the app, alone or with the message behind it, and never passed over",
        arguments: [true, false])
    func gapConfirmed(alone: Bool) async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        let channel = ChannelID.room(try RoomID("a"))
        try harness.service.post("held", in: channel)
        var messages = harness.client.messages.makeAsyncIterator()
        var notices = harness.client.notices.makeAsyncIterator()
        let held = try #require(await messages.next())
        let next: Epoch = FakeService.epoch + 1
        let gap = Gap(from: Position(epoch: FakeService.epoch, offset: 1), first: 8)
        harness.service.send(.gap(gap), in: channel, epoch: next)
        guard case .gap(channel, let lost) = await notices.next() else {
            Issue.record("the gap was not told")
            return
        }
        #expect(lost.upTo == Position(epoch: next, offset: 8))
        harness.service.send(.skip(Skip(previous: 8, to: 9, reason: .expired)), in: channel, epoch: next)
        // A message of the log that is no more: its confirmation moves nothing.
        held.confirm()
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[channel]?.epoch != next)
        if alone { harness.client.confirm(lost, in: channel) }
        let entry = try Entry(
            offset: 12, previous: 9, kind: .message, sender: UserID("zoe"), device: DeviceID("d"),
            producer: ProducerID(high: 9, low: 9), publishID: 12, recipient: nil, origin: nil, time: 0, expiry: 0,
            payload: ByteBuffer(string: "after"))
        if alone {
            try await harness.settle()
            try await harness.settle()
            #expect(
                await storage.load().cursors[channel] == Position(epoch: next, offset: 9), "with the range behind it")
        }
        harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: channel, epoch: next)
        let message = try #require(await messages.next())
        #expect(message.gapBefore == (alone ? nil : lost))
        message.confirm()
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[channel] == Position(epoch: next, offset: 12))
        await harness.client.disconnect()
    }

    @Test("a log that lost its end takes the stored cursor back, and what was held beyond it can't bring it forward")
    func shorterLog() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        let channel = ChannelID.room(try RoomID("a"))
        for index in 1...3 { try harness.service.post("\(index)", in: channel) }
        var messages = harness.client.messages.makeAsyncIterator()
        var notices = harness.client.notices.makeAsyncIterator()
        _ = await messages.next()
        try #require(await messages.next()).confirm()
        let last = try #require(await messages.next())
        let gap = Gap(from: Position(epoch: FakeService.epoch, offset: 3), first: 1)
        try await harness.settle()
        harness.service.send(.gap(gap), in: channel)
        _ = await notices.next()
        last.confirm()
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[channel]?.offset == 1)
        await harness.client.disconnect()
    }

    @Test("this device's own messages are hidden, and confirmed in their turn")
    func ownMessages() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        try await harness.settle()
        let own = try #require(await storage.load().producer)
        let channel = ChannelID.room(try RoomID("a"))
        try harness.service.post("other", in: channel)
        try harness.service.post("mine", in: channel, producer: own)
        try harness.service.post("last", in: channel)
        var messages = harness.client.messages.makeAsyncIterator()
        let first = try #require(await messages.next())
        let second = try #require(await messages.next())
        #expect([first.text, second.text] == ["other", "last"])
        first.confirm()
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[channel]?.offset == 2)
        await harness.client.disconnect()
    }

    @Test(
        "own messages behind a gap stay hidden and the next one of somebody else tells of it, unless they would fill the window",
        arguments: [false, true])
    func ownBehindGap(isLarge: Bool) async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        try await harness.settle()
        let own = try #require(await storage.load().producer)
        let other = ProducerID(high: 9, low: 9)
        let channel = ChannelID.room(try RoomID("a"))
        try harness.service.post("held", in: channel)
        var messages = harness.client.messages.makeAsyncIterator()
        try #require(await messages.next()).confirm()
        let next: Epoch = FakeService.epoch + 1
        let gap = Gap(from: Position(epoch: FakeService.epoch, offset: 1), first: 8)
        harness.service.send(.gap(gap), in: channel, epoch: next)
        // The window has 64 KiB.
        let payload = isLarge ? String(repeating: "x", count: 9_000) : "mine"
        for (offset, producer) in [(Offset(9), own), (10, own), (11, other)] {
            let entry = try Entry(
                offset: offset, previous: offset - 1, kind: .message, sender: UserID("zoe"), device: DeviceID("d"),
                producer: producer, publishID: offset, recipient: nil, origin: nil, time: 0, expiry: 0,
                payload: ByteBuffer(string: producer == own ? payload : "theirs"))
            harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: channel, epoch: next)
        }
        let first = try #require(await messages.next())
        #expect(first.gapBefore?.upTo == Position(epoch: next, offset: 8))
        #expect(first.isOwn == isLarge && first.position.offset == (isLarge ? 10 : 11))
        let last = isLarge ? try #require(await messages.next()) : first
        #expect(last.text == "theirs")
        try await harness.settle()
        #expect(await storage.load().cursors[channel]?.epoch != next, "nothing is confirmed before the app has")
        last.confirm()
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[channel] == Position(epoch: next, offset: 11))
        #expect(await harness.client.statistics.unconfirmed == 0)
        await harness.client.disconnect()
    }

    @Test("an app's own cursors take the place of the client's")
    func cursorStore() async throws {
        let channel = ChannelID.room(try RoomID("a"))
        var state = StoredClientState()
        state.cursors[channel] = Position(epoch: FakeService.epoch, offset: 1)
        let harness = try ClientHarness(storage: InMemoryClientStorage(state)) {
            $0.cursorStore = FixedCursors([channel: Position(epoch: FakeService.epoch, offset: 2)])
        }
        for index in 1...3 { try harness.service.post("\(index)", in: channel) }
        try await harness.client.connect()
        var messages = harness.client.messages.makeAsyncIterator()
        #expect(await messages.next()?.text == "3")
        await harness.client.disconnect()
    }

    @Test("a join that lost its link is asked again on the next one")
    func joins() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.cutsRoomRequest = true }
        try await harness.client.start()
        let receipt = try await harness.client.join(RoomID("a"))
        #expect(receipt.position.offset == 5)
        // An older service says nothing of the room's settings.
        #expect(receipt.settings == nil)
        #expect(harness.service.state.withLock { $0.rooms.count } == 2)
        await harness.client.disconnect()
        let error = await #expect(throws: ClientError.self) { try await harness.client.join(RoomID("a")) }
        #expect(error?.code == .notConnected)
    }

    @Test("many joins at once are all answered")
    func manyJoins() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<50 { group.addTask { _ = try await harness.client.join(RoomID("r\(index)")) } }
            try await group.waitForAll()
        }
        #expect(harness.service.state.withLock { $0.rooms.count } == 50)
        await harness.client.disconnect()
    }

    @Test("the user is read from the token when the app doesn't name it")
    func userFromToken() async throws {
        // {"sub":"carol"}
        #expect(TokenSubject.read(from: "e30.eyJzdWIiOiJjYXJvbCJ9.sig")?.description == "carol")
        for text in ["", "a.b", "a.b.c", "e30.e30.sig", "..."] { #expect(TokenSubject.read(from: text) == nil) }
        let harness = try ClientHarness {
            $0.user = nil
            $0.tokenProvider = { "e30.eyJzdWIiOiJjYXJvbCJ9.sig" }
        }
        try await harness.client.connect()
        let receipt = try await harness.client.send("x", to: .user("bob"))
        #expect(receipt.channel.description == "user/carol")
        await harness.client.disconnect()
    }

    @Test("a disk that takes nothing more does not keep the client from coming back and receiving")
    func receivesWithoutDisk() async throws {
        let storage = FailingStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        try await harness.settle()
        await storage.fail(true)
        let inbox = ChannelID.user(try UserID("alice"))
        var messages = harness.client.messages.makeAsyncIterator()
        try harness.service.post("first", in: inbox)
        let first = try #require(await messages.next())
        // The cursor can't be written.
        first.confirm()
        harness.service.cut()
        while harness.service.state.withLock({ $0.connects.count }) < 2 { await Task.yield() }
        try harness.service.post("second", in: inbox)
        #expect(await messages.next()?.text == "second")
        // What would have to be durable does not leave.
        let error = await #expect(throws: ClientError.self) { try await harness.client.send("x", to: .user("bob")) }
        #expect(error?.code == .storage)
        await storage.fail(false)
        #expect(try await harness.client.send("y", to: .user("bob")).acknowledged().id == 2)
        #expect(harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } } == ["y"])
        await harness.client.disconnect()
    }

    @Test("a direct message before the first connect waits for a token that tells whose it is, one for all")
    func userBeforeConnect() async throws {
        let (asked, isOpen) = (Counter(), AsyncStream<Void>.makeStream())
        let harness = try ClientHarness {
            $0.user = nil
            $0.tokenProvider = {
                _ = asked.increment()
                for await _ in isOpen.stream { break }
                return "e30.eyJzdWIiOiJjYXJvbCJ9.sig"
            }
        }
        let client = harness.client
        async let first = client.send("a", to: .user("bob"))
        async let second = client.send("b", to: .user("bob"))
        // A room needs no user. Once both others are on the loop they wait.
        #expect(try await client.send("r", to: .room("hall")).channel.description == "room/hall")
        var waiting = 0
        while waiting < 2 {
            waiting = try await withCheckedThrowingContinuation { continuation in
                Task { try await client.run { continuation.resume(returning: $0.userWaiters.count) } }
            }
            await Task.yield()
        }
        #expect(try await client.outbox().map(\.channel.description) == ["room/hall"])
        isOpen.continuation.yield()
        let receipts = try await [first, second]
        #expect(receipts.allSatisfy { $0.channel.description == "user/carol" })
        #expect(asked.increment() == 2, "one token for both")
        isOpen.continuation.finish()
        try await client.connect()
        for receipt in receipts { _ = try await receipt.acknowledged() }
        await client.disconnect()
    }

    @Test("a direct message before the first connect fails when no token can be had, or none tells whose it is")
    func unknownUser() async throws {
        struct NoToken: Error {}
        let calls = Counter()
        let harness = try ClientHarness {
            $0.user = nil
            $0.tokenProvider = {
                switch calls.increment() {
                case 1: throw NoToken()
                case 2: return "opaque"
                default: return "e30.eyJzdWIiOiJjYXJvbCJ9.sig"
                }
            }
        }
        let none = await #expect(throws: ClientError.self) { try await harness.client.send("x", to: .user("bob")) }
        #expect(none?.code == .tokenProvider && none?.cause is NoToken)
        let opaque = await #expect(throws: ClientError.self) { try await harness.client.send("x", to: .user("bob")) }
        #expect(opaque?.code == .unknownUser)
        #expect(try await harness.client.outbox().isEmpty)
        #expect(try await harness.client.send("x", to: .user("bob")).channel.description == "user/carol")
        await harness.client.disconnect()
    }
}

/// A storage that fails on demand.
private actor FailingStorage: ClientStorage {
    private let inner = InMemoryClientStorage()
    private var fails = false

    func fail(_ fails: Bool) { self.fails = fails }
    func load() async throws -> StoredClientState { await inner.load() }
    func apply(_ changes: [StorageChange]) async throws {
        if fails { throw ClientError(.storage, message: "the disk is full") }
        await inner.apply(changes)
    }
    func erase() async throws { await inner.erase() }
}
