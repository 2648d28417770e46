import LonglineSession
import LonglineTestKit
import LonglineWire
import Synchronization
import Testing

@testable import LonglineClient

/// An app that keeps its cursors itself, and doesn't see all that is confirmed for it, on an outbox that it gives up and owns again.
@Suite("The app's own cursors, turn by turn", .timeLimit(.minutes(1)))
struct OwnCursorTests {
    /// A client whose own message stands between what the app stored, if anything, and two messages that wait for it.
    private func twoWaiting(
        _ shared: SharedClientStorage, in room: ChannelID, storesFirst: Bool
    ) async throws -> ClientHarness {
        let store = AppCursors()
        let harness = try ClientHarness(storage: shared) {
            $0.cursorStore = store
            $0.confirmation = .explicit
        }
        let (client, service) = (harness.client, harness.service)
        try await client.connect()
        if storesFirst {
            try service.post("stored", in: room)
            var messages = client.messages.makeAsyncIterator()
            let message = try #require(await messages.next())
            store.keep(message)
            message.confirm()
        }
        let connect = service.state.withLock { $0.connects.last }
        try service.post("own", in: room, producer: try #require(connect).producer)
        for text in ["a", "b"] { try service.post(text, in: room) }
        while await client.statistics.delivered < (storesFirst ? 3 : 2) { await Task.yield() }
        for _ in 0..<2 { try await harness.settle() }
        let own = Position(epoch: FakeService.epoch, offset: storesFirst ? 2 : 1)
        #expect(try await shared.load().cursors[room] == own, "the client confirmed it by itself")
        return harness
    }

    @Test(
        "what waits for the app comes once, though its record is behind what it doesn't see",
        arguments: OwnershipTests.End.allCases, [true, false])
    func once(end: OwnershipTests.End, storesFirst: Bool) async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let harness = try await twoWaiting(try directory.sharedStorage(), in: room, storesFirst: storesFirst)
        let client = harness.client
        switch end {
        case .disconnect: await client.disconnect()
        case .yield: await client.core.yieldOwnership(.standby)
        }
        try await client.connect()
        try harness.service.post("c", in: room)
        var texts: [String] = []
        for await message in client.messages {
            texts.append(message.text)
            if message.text == "c" { break }
        }
        #expect(texts == ["a", "b", "c"])
        await client.disconnect()
    }

    @Test("what the app lost of its record comes again")
    func lostRecord() async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let store = AppCursors()
        let harness = try ClientHarness(storage: try directory.sharedStorage()) {
            $0.cursorStore = store
            $0.confirmation = .explicit
        }
        let client = harness.client
        try await client.connect()
        for text in ["a", "b"] { try harness.service.post(text, in: room) }
        var messages = client.messages.makeAsyncIterator()
        let first = try #require(await messages.next())
        store.keep(first)
        first.confirm()
        let second = try #require(await messages.next())
        second.confirm()
        for _ in 0..<2 { try await harness.settle() }
        await client.disconnect()
        try await client.connect()
        for await message in client.messages {
            #expect(message.text == "b")
            break
        }
        await client.disconnect()
    }

    @Test("the app's record counts where another process took the client's own back, as when the log lost its end")
    func tookBack() async throws {
        let directory = try TemporaryFolder()
        let room = ChannelID.room(try RoomID("r"))
        let first = Position(epoch: FakeService.epoch, offset: 1)
        let client = try await twoWaiting(try directory.sharedStorage(), in: room, storesFirst: true).client
        await client.disconnect()
        let other = try directory.sharedStorage()
        #expect(try await other.contend())
        try await other.apply([.cursor(room, first)])
        try await other.close()
        let place = try await client.core.ask { $0.session.cursor(of: room) }
        #expect(place == first)
        await client.disconnect()
    }
}

/// What an app keeps of its own places.
private final class AppCursors: CursorStore {
    private let positions = Mutex<[ChannelID: Position]>([:])

    func keep(_ message: Message) { positions.withLock { $0[message.channel] = message.position } }

    func cursors() async throws -> [ChannelID: Position] { positions.withLock { $0 } }
}
