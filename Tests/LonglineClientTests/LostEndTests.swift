import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A log that lost its end while a client was away that had been given it, and goes on in the same process.
@Suite("Lost ends", .timeLimit(.minutes(1)))
struct LostEndTests {
    private func place(_ offset: Offset) -> Position { Position(epoch: FakeService.epoch, offset: offset) }

    /// The next link's CONNECTED names this as the log's last entry.
    private func end(_ channel: ChannelID, at offset: Offset, _ harness: ClientHarness) {
        let answer = ChannelAnswer(channel: channel, head: place(offset), recovery: .recovered)
        harness.service.state.withLock { $0.channels = [answer] }
    }

    @Test("what comes in place of what the app held is given to it, behind the gap")
    func held() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        let room = ChannelID.room(try RoomID("a"))
        for index in 1...3 { try harness.service.post("\(index)", in: room) }
        var messages = harness.client.messages.makeAsyncIterator()
        let notices = harness.client.notices
        try #require(await messages.next()).confirm()
        let second = try #require(await messages.next())
        let third = try #require(await messages.next())
        try await harness.settle()
        harness.service.state.withLock { _ = $0.log[room]?.removeLast() }
        try harness.service.post("3 anew", in: room)
        end(room, at: 2, harness)
        await harness.lose()
        let anew = try #require(await messages.next())
        let lost = MessageGap(from: place(3), upTo: place(2))
        #expect(anew.text == "3 anew" && anew.gapBefore == lost)
        for await notice in notices {
            guard case .gap(let channel, let gap) = notice else { continue }
            #expect(channel == room && gap == lost)
            break
        }
        #expect(second.position == place(2) && third.position == anew.position)
        // The app is done with what is lost only now: that says nothing of what stands there since.
        for (message, offset) in [(third, Offset(1)), (second, 2), (third, 2), (anew, 3)] {
            message.confirm()
            for _ in 0..<2 { try await harness.settle() }
            #expect(await storage.load().cursors[room] == place(offset))
        }
        await harness.client.disconnect()
    }

    @Test("the message at the log's new end is confirmed without the gap behind it, which is told with the next one")
    func newEnd() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage) { $0.confirmation = .explicit }
        try await harness.client.connect()
        let room = ChannelID.room(try RoomID("a"))
        for index in 1...2 { try harness.service.post("\(index)", in: room) }
        var messages = harness.client.messages.makeAsyncIterator()
        let notices = harness.client.notices
        let first = try #require(await messages.next())
        _ = try #require(await messages.next())
        harness.service.state.withLock { _ = $0.log[room]?.removeLast() }
        end(room, at: 1, harness)
        await harness.lose()
        for await notice in notices { if case .gap = notice { break } }
        first.confirm()
        for _ in 0..<2 { try await harness.settle() }
        #expect(await storage.load().cursors[room] == place(1))
        try harness.service.post("2 anew", in: room)
        let anew = try #require(await messages.next())
        #expect(anew.text == "2 anew" && anew.gapBefore == MessageGap(from: place(2), upTo: place(1)))
        anew.confirm()
        for _ in 0..<2 { try await harness.settle() }
        #expect(await storage.load().cursors[room] == place(2))
        await harness.client.disconnect()
    }

    @Test("requests that were handed over before the end are not forgotten, though the app's own place is before them")
    func requests() async throws {
        let inbox = ChannelID.user(try UserID("alice"))
        var state = StoredClientState()
        state.cursors[inbox] = place(7)
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage) {
            $0.cursorStore = FixedCursors([inbox: place(5)])
            $0.confirmation = .explicit
        }
        end(inbox, at: 8, harness)
        try await harness.client.connect()
        for (offset, kind) in [(Offset(6), EntryKind.message), (7, .request), (8, .message)] {
            let entry = Entry(
                offset: offset, previous: offset - 1, kind: kind, sender: try UserID("zoe"),
                device: try DeviceID("d"), producer: ProducerID(high: 9, low: 9), publishID: offset, recipient: nil,
                origin: Position(epoch: 5, offset: offset), time: 0, expiry: 0, payload: ByteBuffer(string: "x"))
            harness.service.send(.deliver(Deliver(entry: entry, redelivered: true)), in: inbox)
        }
        var messages = harness.client.messages.makeAsyncIterator()
        let notices = harness.client.notices
        for _ in 0..<2 { _ = await messages.next() }
        end(inbox, at: 7, harness)
        await harness.lose()
        for await notice in notices { if case .gap = notice { break } }
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[inbox] == place(7))
        await harness.client.disconnect()
    }

    @Test("a reply that names the place of a lost request is not taken for its own")
    func replies() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        let inbox = ChannelID.user(try UserID("alice"))
        try await client.connect()
        for text in ["1", "2"] { _ = try await client.send(text, to: .room("a")).acknowledged() }
        let asking = Task { try await client.request(to: UserID("bob"), text: "lost", deadline: .seconds(60)) }
        while try await client.core.ask({ $0.requestPlaces[Position(epoch: FakeService.epoch, offset: 3)] == nil }) {
            await Task.yield()
        }
        harness.service.state.withLock {
            $0.channels = [ChannelAnswer(channel: inbox, head: place(1), recovery: .fresh)]
        }
        await harness.lose()
        try await client.connect()
        // Another device of the user asked meanwhile, and got that place.
        let reply = Entry(
            offset: 4, previous: 0, kind: .reply, sender: try UserID("bob"), device: try DeviceID("d"),
            producer: ProducerID(high: 9, low: 9), publishID: 1, recipient: nil,
            origin: Position(epoch: 5, offset: 1), target: 3, time: 0, expiry: 0, payload: ByteBuffer(string: "x"))
        harness.service.send(.deliver(Deliver(entry: reply, redelivered: false)), in: inbox)
        while try await client.core.ask({ $0.statistics.lateReplies == 0 && !$0.requestWaiters.isEmpty }) {
            await Task.yield()
        }
        #expect(await client.statistics.lateReplies == 1)
        asking.cancel()
        _ = await asking.result
        await client.disconnect()
    }

    @Test("what the user reads of it counts, though more had been read of what is lost")
    func reads() async throws {
        let harness = try ClientHarness()
        let room = ChannelID.room(try RoomID("a"))
        try await harness.client.connect()
        func isSaid(_ offset: Offset) -> Bool {
            let mark = ReadMark(conversation: room, position: place(offset), isPrivate: false)
            return harness.service.state.withLock { $0.frames.contains(.read(mark)) }
        }
        try await harness.client.markRead(.room("a"), upTo: place(9))
        while !isSaid(9) { await Task.yield() }
        end(room, at: 4, harness)
        await harness.lose()
        try await harness.client.connect()
        try await harness.client.markRead(.room("a"), upTo: place(5))
        while !isSaid(5) { await Task.yield() }
        await harness.client.disconnect()
    }
}
