import LonglineWire
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
