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
