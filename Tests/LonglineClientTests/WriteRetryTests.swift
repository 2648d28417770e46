import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// What becomes of changes that the disk does not take.
@Suite("Writes that fail", .timeLimit(.minutes(1)))
struct WriteRetryTests {
    @Test("what could not be written is tried again, less and less often, and at once when somebody sends")
    func backsOff() async throws {
        let virtual = VirtualLoop()
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage, loop: virtual.loop) { $0.confirmation = .explicit }
        let room = ChannelID.room(try RoomID("a"))
        let message = try await virtual.running {
            try await harness.client.connect()
            try await harness.settle()
            try harness.service.post("first", in: room)
            var messages = harness.client.messages.makeAsyncIterator()
            return try #require(await messages.next())
        }
        storage.fail(true)
        let before = storage.writes
        /// Time passes, and then so many writes are over, and another waits for its time or doesn't.
        func pass(_ time: TimeAmount, writes: Int, waits: Bool = true) async throws {
            try await virtual.pass(time) {
                try await harness.client.core.ask { !$0.isFlushing && ($0.retryTimer != nil) == waits }
                    && storage.writes - before == writes
            }
        }
        message.confirm()
        try await pass(.zero, writes: 1)
        let delays: [Int64] = [1, 2, 4, 8, 16, 32, 60, 60]
        for (index, delay) in delays.enumerated() {
            await virtual.pass(.milliseconds(delay * 1_000 - 1))
            #expect(storage.writes - before == index + 1, "not before \(delay) s are over")
            try await pass(.milliseconds(1), writes: index + 2)
        }
        let error = try await virtual.running {
            await #expect(throws: ClientError.self) { try await harness.client.send("x", to: .room("a")) }
        }
        #expect(error?.code == .storage)
        try await pass(.zero, writes: 10)
        // The timer began anew with that failure.
        await virtual.pass(.milliseconds(59_999))
        #expect(storage.writes - before == 10)
        storage.fail(false)
        try await pass(.milliseconds(1), writes: 11, waits: false)
        #expect(try await virtual.running { try await harness.client.core.ask { $0.retries } } == 0)
        #expect(await storage.inner.load().cursors[room] == Position(epoch: FakeService.epoch, offset: 1))
        await virtual.pass(.seconds(60))
        #expect(storage.writes - before == 11)
        try await virtual.running { await harness.client.disconnect() }
    }

    @Test("a message that could not be written makes room for one that waits for it")
    func room() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage) { $0.outbox = OutboxLimits(messages: 1) }
        let client = harness.client
        try await harness.settle()
        storage.close()
        storage.fail(true)
        let first = Task { try await client.send("first", to: .room("a")) }
        while storage.waiting == 0 { await Task.yield() }
        let second = Task { try await client.sendWhenRoom(ByteBuffer(string: "second"), to: .room("a")) }
        // It looks for room, in vain, before the first one fails.
        for _ in 0..<100 {
            _ = await client.statistics
            await Task.yield()
        }
        // The one that waits comes after the disk is well again.
        try await client.run { driver in
            driver.afterFlush.append { _ in storage.fail(false) }
            storage.open()
        }
        await #expect(throws: ClientError.self) { _ = try await first.value }
        _ = try await second.value
        #expect(try await client.outbox().map(\.payload) == [ByteBuffer(string: "second")])
        await client.disconnect()
    }
}
