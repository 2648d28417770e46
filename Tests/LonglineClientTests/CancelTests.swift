import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Messages that the app takes back while the disk takes nothing.
@Suite("Taking back", .timeLimit(.minutes(1)))
struct CancelTests {
    @Test("nobody is told that a message was taken back before that is durable")
    func durableFirst() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        let receipt = try await client.send("a", to: .room("hall"))
        let changes = client.sends
        storage.fail(true)
        let error = await #expect(throws: ClientError.self) { try await client.cancel(receipt.send) }
        #expect(error?.code == .storage)
        #expect(receipt.state == .queued)
        #expect(try await client.status(of: receipt.send)?.state == .queued)
        let again = try #require(try await client.receipt(for: receipt.send))
        #expect(again.state == .queued)
        #expect(await client.statistics.cancelled == 0)
        #expect(await storage.inner.load().outbox.count == 1)
        // It is taken back once the disk is well again, whoever asks once more.
        storage.fail(false)
        #expect(try await client.cancel(receipt.send) == .cancelled)
        for each in [receipt, again] {
            let ended = await #expect(throws: ClientError.self) { try await each.acknowledged() }
            #expect(ended?.code == .cancelled)
        }
        #expect(receipt.state == .cancelled)
        #expect(await storage.inner.load().outbox.isEmpty)
        #expect(await client.statistics.cancelled == 1)
        for await status in changes {
            #expect(status.send == receipt.send && status.state == .cancelled)
            break
        }
        await client.disconnect()
    }

    @Test("a message that is given up with its client is told so, though it was taken back")
    func loggedOut() async throws {
        let storage = FaultyDisk()
        let client = try ClientHarness(storage: storage).client
        let receipt = try await client.send("a", to: .room("hall"))
        storage.fail(true)
        await #expect(throws: ClientError.self) { try await client.cancel(receipt.send) }
        try await client.logout()
        let error = await #expect(throws: ClientError.self) { try await receipt.acknowledged() }
        #expect(error?.code == .loggedOut)
    }

    @Test("a message that could not be taken back durably before another process took over is told as that one ends it")
    func takenOver() async throws {
        try await takeOver { first, receipt in
            await #expect(throws: ClientError.self) { try await first.client.cancel(receipt.send) }
            #expect(receipt.state != .cancelled)
        }
    }
}
