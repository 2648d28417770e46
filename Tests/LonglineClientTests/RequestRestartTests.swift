import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Requests of others, when the process that they came to is not the one that reads on.
@Suite("Requests across a restart", .timeLimit(.minutes(1)))
struct RequestRestartTests {
    @Test("a request that was handed over does not come again, though the app's own cursors are behind it")
    func once() async throws {
        let inbox = ChannelID.user(try UserID("alice"))
        let origin = Position(epoch: 5, offset: 1)
        // Of requests the app has no place: its own record stays at the last message.
        let store = FixedCursors([inbox: Position(epoch: FakeService.epoch, offset: 1)])
        let storage = InMemoryClientStorage()
        let asked = ["first", "second", "third", "fourth"]
        for process in 1...3 {
            let harness = try ClientHarness(storage: storage, seed: UInt64(process)) { $0.cursorStore = store }
            try harness.service.post("a message", in: inbox)
            // What was asked before is in the log still; the last one is new, and in the first process so is the one before it.
            for text in asked.prefix(process + 1) {
                try harness.service.post(text, in: inbox, kind: .request, origin: origin)
            }
            try await harness.client.connect()
            var requests = harness.client.requests.makeAsyncIterator()
            for text in asked[(process == 1 ? 0 : process)...process] {
                #expect(await requests.next()?.text == text, "process \(process)")
            }
            try await harness.settle()
            try await harness.settle()
            #expect(await storage.load().cursors[inbox]?.offset == Offset(process + 2))
            await harness.client.disconnect()
        }
    }

    @Test("so is one in place of what a log lost behind the app's own place, though no gap tells of that")
    func shorterLogBehindTheApp() async throws {
        let inbox = ChannelID.user(try UserID("alice"))
        func place(_ offset: Offset) -> Position { Position(epoch: FakeService.epoch, offset: offset) }
        var state = StoredClientState()
        state.cursors[inbox] = place(9)
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage) { $0.cursorStore = FixedCursors([inbox: place(6)]) }
        harness.service.state.withLock {
            $0.channels = [ChannelAnswer(channel: inbox, head: place(7), recovery: .recovered)]
        }
        try await harness.client.connect()
        for (offset, text) in [(Offset(7), "handed over before"), (8, "anew")] {
            let entry = Entry(
                offset: offset, previous: offset - 1, kind: .request, sender: try UserID("zoe"),
                device: try DeviceID("d"), producer: ProducerID(high: 9, low: 9), publishID: offset, recipient: nil,
                origin: Position(epoch: 5, offset: offset), time: 0, expiry: 0, payload: ByteBuffer(string: text))
            harness.service.send(.deliver(Deliver(entry: entry, redelivered: true)), in: inbox)
        }
        var requests = harness.client.requests.makeAsyncIterator()
        #expect(await requests.next()?.text == "anew")
        try await harness.settle()
        try await harness.settle()
        #expect(await storage.load().cursors[inbox] == place(8), "the next process goes on behind it")
        await harness.client.disconnect()
    }

    @Test("one that comes in place of what a log lost is handed over")
    func shorterLog() async throws {
        let inbox = ChannelID.user(try UserID("alice"))
        var state = StoredClientState()
        state.cursors[inbox] = Position(epoch: FakeService.epoch, offset: 9)
        let store = FixedCursors([inbox: Position(epoch: FakeService.epoch, offset: 6)])
        let harness = try ClientHarness(storage: InMemoryClientStorage(state)) { $0.cursorStore = store }
        try await harness.client.connect()
        let gap = Gap(from: Position(epoch: FakeService.epoch, offset: 6), first: 2)
        harness.service.send(.gap(gap), in: inbox)
        let entry = Entry(
            offset: 3, previous: 2, kind: .request, sender: try UserID("zoe"), device: try DeviceID("d"),
            producer: ProducerID(high: 9, low: 9), publishID: 1, recipient: nil, origin: Position(epoch: 5, offset: 1),
            time: 0, expiry: 0, payload: ByteBuffer(string: "anew"))
        harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: inbox)
        var requests = harness.client.requests.makeAsyncIterator()
        #expect(await requests.next()?.text == "anew")
        await harness.client.disconnect()
    }
}
