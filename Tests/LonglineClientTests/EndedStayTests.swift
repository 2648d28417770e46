import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// What a client keeps of rooms that its user left.
@Suite("Rooms that were left", .serialized, .timeLimit(.minutes(1)))
struct EndedStayTests {
    @Test("a room is named no more once the service was told of the end of the stay, and the others are")
    func isForgotten() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let (client, service) = (harness.client, harness.service)
        let (hall, den) = (ChannelID.room(try RoomID("hall")), ChannelID.room(try RoomID("den")))
        func settle() async throws {
            try await harness.settle()
            try await harness.settle()
        }
        try await client.connect()
        for channel in [hall, den] { try service.post("one", in: channel) }
        // The room is deleted.
        try service.post("\u{5}\u{0}", in: hall, kind: .changed)
        var messages: [Message] = []
        var iterator = client.messages.makeAsyncIterator()
        for _ in 0..<3 { messages.append(try #require(await iterator.next())) }
        let end = try #require(messages.first { $0.kind == .changed })

        // The app is not done with the end yet.
        for message in messages where message.kind == .message { message.confirm() }
        try await settle()
        await harness.lose()
        try await client.connect()
        try await settle()
        #expect(Set(await storage.load().cursors.keys) == [hall, den])
        // Now it is, and the service has not accepted a connect since.
        end.confirm()
        try await settle()
        #expect(Set(await storage.load().cursors.keys) == [hall, den])
        // One accepted connect may be one of a service that could not write it.
        await harness.lose()
        try await client.connect()
        try await settle()
        #expect(Set(await storage.load().cursors.keys) == [hall, den])
        await harness.lose()
        try await client.connect()
        try await settle()
        #expect(Set(await storage.load().cursors.keys) == [den])
        await harness.lose()
        try await client.connect()
        let named = service.state.withLock { $0.connects.last?.cursors.map(\.channel) }
        #expect(named == [den])
        await client.disconnect()
    }

    /// Has the user leave a room, and the app be done with all that came.
    private func leave(_ harness: ClientHarness) async throws -> (hall: ChannelID, den: ChannelID) {
        let (hall, den) = (ChannelID.room(try RoomID("hall")), ChannelID.room(try RoomID("den")))
        try await harness.client.connect()
        for channel in [hall, den] { try harness.service.post("one", in: channel) }
        try harness.service.post("\u{5}\u{0}", in: hall, kind: .changed)
        var iterator = harness.client.messages.makeAsyncIterator()
        for _ in 0..<3 { try #require(await iterator.next()).confirm() }
        try await settle(harness)
        return (hall, den)
    }

    private func settle(_ harness: ClientHarness) async throws {
        for _ in 0..<2 { try await harness.settle() }
    }

    @Test("a room that was left is named twice, also where the answer has no room to list all")
    func isNamedTwice() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let (hall, den) = try await leave(harness)
        let rooms = try (0..<FrameLimits.maximumCursors).map { number in
            ChannelAnswer(
                channel: .room(try RoomID("room\(number)")), head: Position(epoch: FakeService.epoch, offset: 0),
                recovery: .fresh)
        }
        harness.service.state.withLock { $0.channels = rooms }
        for left in [[hall, den], [den]] as [Set<ChannelID>] {
            await harness.lose()
            try await harness.client.connect()
            try await settle(harness)
            #expect(Set(await storage.load().cursors.keys) == left)
        }
        await harness.client.disconnect()
    }

    @Test("the next driver of the process goes on to forget a room")
    func nextDriver() async throws {
        let storage = InMemoryClientStorage()
        let first = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let (hall, den) = try await leave(first)
        let memory = try await first.client.core.ask { $0.memory }
        await first.client.disconnect()
        let second = try ClientHarness(storage: storage, service: first.service) { $0.confirmation = .explicit }
        try await second.client.run { $0.goOn(from: memory) }
        for left in [[hall, den], [den]] as [Set<ChannelID>] {
            try await second.client.connect()
            try await settle(second)
            #expect(Set(await storage.load().cursors.keys) == left)
            await second.lose()
        }
        await second.client.disconnect()
    }

    @Test("what one process saw end the next ones forget, also where each of them connects but once")
    func nextProcess() async throws {
        let storage = InMemoryClientStorage()
        let first = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let (hall, den) = try await leave(first)
        await first.client.disconnect()
        let end = Position(epoch: FakeService.epoch, offset: 2)
        #expect(await storage.load().endedStays == [hall: StoredStay(end: end)])
        for left in [[hall, den], [den]] as [Set<ChannelID>] {
            let next = try ClientHarness(storage: storage, service: first.service) { $0.confirmation = .explicit }
            try await next.client.connect()
            try await settle(next)
            #expect(Set(await storage.load().cursors.keys) == left)
            await next.client.disconnect()
        }
        #expect(await storage.load().endedStays.isEmpty)
    }

    /// A place in a log of the service's.
    private func place(_ offset: Offset) -> Position { Position(epoch: FakeService.epoch, offset: offset) }

    @Test("what another process saw end, or is done with, is neither lost nor kept by what this one remembers")
    func otherProcess() async throws {
        let rooms = try (0..<5).map { ChannelID.room(try RoomID("room\($0)")) }
        var before = StoredClientState()
        for room in rooms.dropLast() { before.cursors[room] = place(2) }
        for room in rooms.prefix(3) { before.endedStays[room] = StoredStay(end: place(2)) }
        let first = try ClientHarness(storage: InMemoryClientStorage(before))
        var memory = try await first.client.core.ask { $0.memory }
        #expect(Set(memory.endedStays.keys) == Set(rooms.prefix(3)))
        memory.endedStays[rooms[0]]?.namedAt = 7
        // Meanwhile one forgot the second room, joined the third again and left it, and left the fourth. The last it forgot without a word
        // of its end.
        var since = before
        (since.cursors[rooms[1]], since.endedStays[rooms[1]]) = (nil, nil)
        (since.cursors[rooms[2]], since.endedStays[rooms[2]]) = (place(5), StoredStay(end: place(6)))
        since.endedStays[rooms[3]] = StoredStay(end: place(4), namedAt: 3)
        since.endedStays[rooms[4]] = StoredStay(end: place(2))
        let storage = InMemoryClientStorage(since)
        let second = try ClientHarness(storage: storage)
        let remembered = memory
        try await second.client.run { driver in
            driver.goOn(from: remembered)
            driver.scheduleFlush()
        }
        try await settle(second)
        let stays = [
            rooms[0]: StoredStay(end: place(2), namedAt: 7), rooms[2]: StoredStay(end: place(6)),
            rooms[3]: StoredStay(end: place(4), namedAt: 3),
        ]
        #expect(try await second.client.core.ask { $0.endedStays } == stays)
        #expect(await storage.load().endedStays == stays)
    }

    @Test("a stay is kept without a cursor while the app has something of it that it didn't confirm")
    func unconfirmed() async throws {
        let storage = InMemoryClientStorage()
        let first = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let hall = ChannelID.room(try RoomID("hall"))
        try await first.client.connect()
        try first.service.post("\u{5}\u{0}", in: hall, kind: .changed)
        var iterator = first.client.messages.makeAsyncIterator()
        _ = try #require(await iterator.next())
        try await settle(first)
        let memory = try await first.client.core.ask { $0.memory }
        await first.client.disconnect()
        let second = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        #expect(try await second.client.core.ask { $0.endedStays.isEmpty }, "it comes again")
        try await second.client.run { driver in
            driver.goOn(from: memory)
            driver.scheduleFlush()
        }
        try await settle(second)
        let stays = [hall: StoredStay(end: place(1))]
        #expect(try await second.client.core.ask { $0.endedStays } == stays)
        #expect(await storage.load().endedStays == stays)
    }

    /// What tells that the user is in a room again, where the entry that says so doesn't come.
    enum Sign: CaseIterable { case gap, skip, lostEnd }

    @Test("whoever is in a room again keeps its cursor, also where the entry of that is gone", arguments: Sign.allCases)
    func joinedUnseen(sign: Sign) async throws {
        let hall = ChannelID.room(try RoomID("hall"))
        var left = StoredClientState()
        left.cursors = [hall: place(2)]
        left.endedStays = [hall: StoredStay(end: place(2))]
        let storage = InMemoryClientStorage(left)
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        let client = harness.client
        let notices = client.notices
        try await client.connect()
        switch sign {
        case .gap: harness.service.send(.gap(Gap(from: place(2), first: 5)), in: hall)
        case .lostEnd: harness.service.send(.gap(Gap(from: place(2), first: 1)), in: hall)
        case .skip: harness.service.send(.skip(Skip(previous: 2, to: 5, reason: .notEntitled)), in: hall)
        }
        for await notice in notices {
            if case .gap = notice { break }
            if case .skipped = notice { break }
        }
        try await settle(harness)
        #expect(await storage.load().endedStays.isEmpty)
        for _ in 0..<2 {
            await harness.lose()
            try await client.connect()
        }
        try await settle(harness)
        let cursor: Offset =
            switch sign {
            case .gap: 2
            case .skip: 5
            case .lostEnd: 1
            }
        #expect(await storage.load().cursors == [hall: place(cursor)])
        await client.disconnect()
    }

    @Test("a stay that ended before a place that was confirmed is over, and its cursor is kept")
    func confirmedBeyond() async throws {
        let hall = ChannelID.room(try RoomID("hall"))
        var left = StoredClientState()
        left.cursors = [hall: place(5)]
        let storage = InMemoryClientStorage(left)
        let harness = try ClientHarness(storage: storage)
        let end = place(2)
        try await harness.client.run { $0.endedStays[hall] = StoredStay(end: end, namedAt: 0) }
        for _ in 0..<2 {
            try await harness.client.connect()
            await harness.lose()
        }
        try await settle(harness)
        #expect(await storage.load().cursors == left.cursors)
        #expect(try await harness.client.core.ask { $0.endedStays.isEmpty })
        await harness.client.disconnect()
    }

    @Test(
        "who is in a room again keeps its cursor, whichever process saw the end before and however far it came",
        arguments: [EntryKind.joined, .message])
    func joinedAgain(kind: EntryKind) async throws {
        let (hall, den) = (ChannelID.room(try RoomID("hall")), ChannelID.room(try RoomID("den")))
        let joined = Entry(
            offset: 3, previous: 2, kind: kind, sender: try UserID("alice"), device: try DeviceID("d"),
            producer: ProducerID(high: 9, low: 9), publishID: 3, recipient: nil, origin: nil, time: 0, expiry: 0,
            payload: ByteBuffer())
        var left = StoredClientState()
        // In one a process without this went on; in the other the user joins now.
        left.cursors = [hall: place(5), den: place(2)]
        left.endedStays = [hall: StoredStay(end: place(2), namedAt: 0), den: StoredStay(end: place(2), namedAt: 0)]
        let storage = InMemoryClientStorage(left)
        let harness = try ClientHarness(storage: storage)
        let third = place(3)
        try await harness.client.run { driver in
            driver.noteStay(joined, at: third, in: den)
            driver.scheduleFlush()
        }
        try await settle(harness)
        #expect(await storage.load().endedStays.isEmpty)
        for _ in 0..<2 {
            try await harness.client.connect()
            await harness.lose()
        }
        try await settle(harness)
        #expect(await storage.load().cursors == left.cursors)
        await harness.client.disconnect()
    }

    @Test("what the disk did not take is forgotten with the next batch, unless the room has a place again")
    func isForgottenLater() throws {
        let (hall, den) = (ChannelID.room(try RoomID("hall")), ChannelID.room(try RoomID("den")))
        let place = Position(epoch: 1, offset: 2)
        var failed = PendingWrites()
        failed.forgottenCursors = [hall]
        failed.cursors = [den: place]
        var nothing = PendingWrites()
        nothing.restore(failed)
        #expect(nothing.forgottenCursors == [hall] && nothing.cursors == [den: place])
        var newer = PendingWrites()
        newer.cursors = [hall: place]
        newer.forgottenCursors = [den]
        #expect(!newer.isEmpty)
        newer.restore(failed)
        #expect(newer.forgottenCursors == [den] && newer.cursors == [hall: place])
    }

    @Test("a stay that ends before the one before is forgotten on the disk is kept, and nothing of the other")
    func endsAgain() throws {
        let hall = ChannelID.room(try RoomID("hall"))
        let old = StoredStay(end: Position(epoch: 1, offset: 2), namedAt: 3)
        let new = StoredStay(end: Position(epoch: 1, offset: 9))
        func left(by writes: PendingWrites) -> StoredClientState {
            var state = StoredClientState()
            state.cursors = [hall: old.end]
            state.endedStays = [hall: old]
            state.apply(writes.changes(outbox: Outbox(producer: ProducerID(high: 1, low: 1))))
            return state
        }
        var forgets = PendingWrites()
        forgets.forgottenCursors = [hall]
        var together = forgets
        together.endedStays = [hall: new]
        #expect(left(by: together).endedStays == [hall: new])
        // The disk did not take that the first is forgotten.
        var since = PendingWrites()
        since.endedStays = [hall: new]
        since.restore(forgets)
        #expect(left(by: since).endedStays == [hall: new])
        // Nor, before that was known, what the first has been named by.
        var names = PendingWrites()
        names.endedStays = [hall: old]
        var later = forgets
        later.restore(names)
        #expect(left(by: later).endedStays.isEmpty && left(by: later).cursors.isEmpty)
    }

    @Test("who joins a forgotten room again gets the new stay, and nothing of the old one")
    func newStay() async throws {
        let hall = try RoomID("hall")
        let service = try await LiveService()
        let storage = InMemoryClientStorage()
        func process() throws -> LonglineClient {
            try service.client("alice") {
                $0.storage = storage
                $0.confirmation = .explicit
            }
        }
        let bob = try service.client("bob")
        let first = try process()
        for client in [bob, first] {
            try await client.connect()
            try await client.join(hall)
        }
        _ = try await bob.send("old", to: .room(hall)).acknowledged()
        try await first.leave(hall)
        let alice = try UserID("alice")
        for await message in first.messages {
            message.confirm()
            if message.kind == .left, message.sender == alice { break }
        }
        for _ in 0..<2 {
            await first.disconnect()
            try await first.connect()
        }
        while await storage.load().cursors[.room(hall)] != nil { await Task.yield() }
        await first.disconnect()

        let second = try process()
        try await second.connect()
        try await second.join(hall)
        _ = try await bob.send("new", to: .room(hall)).acknowledged()
        var texts: [String] = []
        for await message in second.messages {
            message.confirm()
            guard message.kind == .message else { continue }
            texts.append(message.text)
            if message.text == "new" { break }
        }
        #expect(texts == ["new"])
        #expect(await second.statistics.gaps == 0)
        for client in [bob, second] { await client.disconnect() }
        await service.stop()
    }
}
