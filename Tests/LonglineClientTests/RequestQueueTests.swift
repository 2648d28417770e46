import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

/// Requests of others that wait for the app to read them.
@Suite("Requests that wait", .timeLimit(.minutes(1)))
struct RequestQueueTests {
    @Test("one that another device of the user has answered by then is left out")
    func answeredElsewhere() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        let alice = try UserID("alice")
        let inbox = ChannelID.user(alice)
        for text in ["first", "second"] {
            let origin = Position(epoch: 5, offset: 1)
            try harness.service.post(text, in: inbox, kind: .request, origin: origin)
        }
        // The record of what the tablet replied to the first.
        let reply = Entry(
            offset: 3, previous: 2, kind: .reply, sender: alice, device: try DeviceID("tablet"),
            producer: ProducerID(high: 8, low: 8), publishID: 1, recipient: try UserID("zoe"), origin: nil, target: 1,
            time: 0, expiry: 0, payload: ByteBuffer(string: "done"))
        harness.service.send(.deliver(Deliver(entry: reply, redelivered: false)), in: inbox)
        while await storage.load().cursors[inbox]?.offset != 3 { await Task.yield() }
        var requests = harness.client.requests.makeAsyncIterator()
        #expect(await requests.next()?.text == "second")
        #expect(harness.client.core.outlets.requests.count == 0)
        await harness.client.disconnect()
    }

    @Test("the app learns that another device of the user answered a request that it has already")
    func answeredWhileItRings() async throws {
        let harness = try ClientHarness(storage: InMemoryClientStorage())
        try await harness.client.connect()
        let alice = try UserID("alice")
        let inbox = ChannelID.user(alice)
        for text in ["first", "second"] {
            try harness.service.post(text, in: inbox, kind: .request, origin: Position(epoch: 5, offset: 1))
        }
        var requests = harness.client.requests.makeAsyncIterator()
        let first = try #require(await requests.next())
        let second = try #require(await requests.next())
        #expect(!first.isAnswered && !second.isAnswered)
        let ringing = Task { await first.waitUntilAnswered() }
        let other = Task { await second.waitUntilAnswered() }
        let reply = Entry(
            offset: 3, previous: 2, kind: .reply, sender: alice, device: try DeviceID("tablet"),
            producer: ProducerID(high: 8, low: 8), publishID: 1, recipient: try UserID("zoe"), origin: nil, target: 1,
            time: 0, expiry: 0, payload: ByteBuffer(string: "done"))
        harness.service.send(.deliver(Deliver(entry: reply, redelivered: false)), in: inbox)
        #expect(await ringing.value)
        #expect(first.isAnswered && !second.isAnswered)
        #expect(await first.waitUntilAnswered(), "known already")
        other.cancel()
        #expect(await !other.value)
        await harness.client.disconnect()
    }

    @Test("who waits for an answer waits no longer than the client lasts, and what the app let go of is forgotten")
    func boardEnds() async throws {
        let board = RequestBoard()
        let kept = board.open(Position(epoch: 1, offset: 1))
        for offset in 2..<1_000 { _ = board.open(Position(epoch: 1, offset: Offset(offset))) }
        board.answered(Position(epoch: 1, offset: 5))
        #expect(!kept.isKnown)
        let waiting = Task { await kept.wait() }
        board.finish()
        #expect(await !waiting.value)
        let last = board.open(Position(epoch: 1, offset: 1))
        board.answered(Position(epoch: 1, offset: 1))
        #expect(await last.wait())
        let late = board.open(Position(epoch: 1, offset: 2))
        #expect(await !late.wait())
    }

    @Test("what is taken out of a queue weighs nothing any more")
    func removal() async throws {
        let queue = HandOverQueue<Int>(limit: 4, bytes: 100) { $0 }
        for element in [10, 20, 30] { queue.append(element) }
        queue.remove { $0 == 20 }
        #expect(queue.count == 2 && queue.weight == 40)
        #expect(await queue.next(since: queue.ends) == 10)
        #expect(await queue.next(since: queue.ends) == 30)
        #expect(queue.weight == 0)
    }
}
