import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Messages that the service refuses while the disk takes no word of that: a later process finds them in the outbox.
@Suite("Refusals that are not written", .timeLimit(.minutes(1)))
struct UnwrittenRefusalTests {
    /// Sends a message that is refused, and waits until the disk did not take that.
    private func sendRefused(_ harness: ClientHarness, _ storage: FaultyDisk) async throws -> SendReceipt {
        harness.service.state.withLock { $0.refusedPrefix = "no" }
        try await harness.client.connect()
        storage.fail(where: { changes in
            changes.contains { change in if case .outcome = change { true } else { false } }
        })
        let notices = harness.client.notices
        let receipt = try await harness.client.send("no", to: .room("hall"))
        for await notice in notices { if case .storageFailed = notice { break } }
        return receipt
    }

    @Test("nobody is told that a message was refused while a later process would still send it")
    func durableFirst() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        let client = harness.client
        let receipt = try await sendRefused(harness, storage)
        let changes = client.sends
        #expect(receipt.state == .sent)
        let status = try await client.status(of: receipt.send)
        #expect(status?.state == .sent && status?.isCancellable == false)
        #expect(try await client.outbox().map(\.send) == [receipt.send], "it may be sent again")
        #expect(try await client.cancel(receipt.send) == .tooLate(.sent))
        let again = try #require(try await client.receipt(for: receipt.send))
        #expect(again.state == .sent)
        #expect(await client.statistics.refused == 0)

        // The process ends here, and what stood in the message's way is gone: the user has joined the room, say.
        let kept = await storage.inner.load()
        let later = try ClientHarness(storage: InMemoryClientStorage(kept), seed: 2)
        let found = try #require(try await later.client.receipt(for: receipt.send))
        try await later.client.connect()
        _ = try await found.acknowledged()
        #expect(later.service.state.withLock { $0.entered.count } == 1)
        #expect(receipt.state == .sent, "the message was entered, and nobody was told that it would not be")
        await later.client.disconnect()

        // Where the process lives on, the end is told once the disk is well again.
        storage.fail(false)
        try await harness.settle()
        for each in [receipt, again] {
            let error = await #expect(throws: ClientError.self) { try await each.acknowledged() }
            #expect(error?.refusal == .forbidden)
            #expect(each.state == .refused(.forbidden))
        }
        #expect(try await client.status(of: receipt.send)?.state == .refused(.forbidden))
        #expect(try await client.outbox().isEmpty)
        #expect(await client.statistics.refused == 1)
        let written = await storage.inner.load()
        #expect(written.outbox.isEmpty && written.outcomes.map(\.state) == [.refused(.forbidden)])
        for await status in changes {
            #expect(status.send == receipt.send && status.state == .refused(.forbidden))
            break
        }
        await client.disconnect()
    }

    @Test("what was sent behind it does not overtake it: a later process may have it entered yet")
    func staysInOrder() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        harness.service.state.withLock { $0.refusedPrefix = "no" }
        for text in ["no", "yes"] { _ = try await harness.client.send(text, to: .room("hall")) }
        storage.fail(where: { changes in
            changes.contains { change in if case .outcome = change { true } else { false } }
        })
        let notices = harness.client.notices
        try await harness.client.connect()
        for await notice in notices { if case .storageFailed = notice { break } }
        // Whatever could leave has left by then.
        for _ in 0..<5 { try await harness.settle() }
        let entered = { (harness: ClientHarness) in
            harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        }
        #expect(entered(harness).isEmpty)

        // The process ends here, and what stood in the first message's way is gone.
        let kept = await storage.inner.load()
        let later = try ClientHarness(storage: InMemoryClientStorage(kept), seed: 2)
        try await later.client.connect()
        while entered(later).count < 2 { try await Task.sleep(for: .milliseconds(1)) }
        #expect(entered(later) == ["no", "yes"])
        await later.client.disconnect()

        // Where the process lives on, the second one leaves once the disk is well again.
        storage.fail(false)
        try await harness.settle()
        while entered(harness).isEmpty { try await Task.sleep(for: .milliseconds(1)) }
        #expect(entered(harness) == ["yes"])
        await harness.client.disconnect()
    }

    @Test("what waits stands in its order beside what is taken back and not written, also where the clock was set back")
    func orderBesideUnwritten() async throws {
        let storage = FaultyDisk()
        let wall = Mutex<UInt64>(0)
        let clock = DriverClock(now: DriverClock.system.now, wall: { wall.withLock { $0 } })
        let client = try ClientHarness(storage: storage, clock: clock).client
        var sends: [SendID] = []
        for time: UInt64 in [5_000, 3_000, 2_000] {
            wall.withLock { $0 = time }
            sends.append(try await client.send("\(time)", to: .room("hall")).send)
        }
        let taken = sends[1]
        storage.fail(where: { changes in
            changes.contains { change in if case .outcome = change { true } else { false } }
        })
        let notices = client.notices
        let cancelling = Task { try? await client.cancel(taken) }
        for await notice in notices { if case .storageFailed = notice { break } }
        #expect(try await client.outbox().map(\.send) == [taken, sends[0], sends[2]])
        storage.fail(false)
        _ = await cancelling.value
    }

    @Test("a new producer waits for the disk as well: nothing leaves before, and then what waits does in its order")
    func renewedProducer() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        harness.service.state.withLock { $0.refusedPrefix = "no" }
        let refused = try await harness.client.send("no", to: .room("hall"))
        let waiting = try await [
            harness.client.send("1", to: .room("hall")), harness.client.send("2", to: .room("hall")),
        ]
        storage.fail(where: { changes in
            changes.contains { change in if case .outcome = change { true } else { false } }
        })
        let notices = harness.client.notices
        try await harness.client.connect()
        for await notice in notices { if case .storageFailed = notice { break } }
        try await harness.client.run { $0.needsNewProducer = true }
        harness.service.cut()
        while await harness.client.statistics.failedAttempts < 3 { await Task.yield() }
        #expect(entered(by: harness).isEmpty)
        #expect(harness.service.state.withLock { $0.connects.count } == 1)

        // The process ends here: the next one finds the old producer's rows, all of them.
        let kept = await storage.inner.load()
        let old = try #require(kept.producer)
        let later = try ClientHarness(storage: InMemoryClientStorage(kept), seed: 2)
        try await later.client.connect()
        while entered(by: later).count < 3 { await Task.yield() }
        #expect(entered(by: later).map(\.text) == ["no", "1", "2"])
        #expect(entered(by: later).allSatisfy { $0.producer == old })
        await later.client.disconnect()

        // Where the process lives on, what was not refused leaves once the disk is well again.
        storage.fail(false)
        for receipt in waiting { _ = try await receipt.acknowledged() }
        let error = await #expect(throws: ClientError.self) { try await refused.acknowledged() }
        #expect(error?.refusal == .forbidden)
        #expect(entered(by: harness).map(\.text) == ["1", "2"])
        #expect(entered(by: harness).allSatisfy { $0.producer != old })
        for _ in 0..<2 { try await harness.settle() }
        let written = await storage.inner.load()
        #expect(written.outbox.isEmpty && written.producer == entered(by: harness).first?.producer)
        await harness.client.disconnect()
    }

    @Test("a new producer that is due while the refusal is being written begins behind it")
    func renewedDuringWrite() async throws {
        let virtual = VirtualLoop()
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage, loop: virtual.loop)
        harness.service.state.withLock { state in
            state.refusedPrefix = "no"
            state.refusedCode = .overloaded
        }
        let (old, receipts) = try await virtual.running {
            let receipts = try await [
                harness.client.send("no", to: .room("hall")), harness.client.send("yes", to: .room("hall")),
            ]
            try await harness.client.connect()
            while harness.service.state.withLock({ $0.refusals.count }) < 2 { await Task.yield() }
            for _ in 0..<2 { try await harness.settle() }
            let old = try #require(await storage.inner.load().producer)
            return (old, receipts)
        }
        storage.close()
        harness.service.state.withLock { $0.refusedCode = .forbidden }
        // It is sent again, and refused for good this time.
        try await virtual.pass(.seconds(1)) { storage.waiting == 1 }
        try await virtual.running {
            try await harness.client.run { $0.needsNewProducer = true }
            await harness.lose()
        }
        try await virtual.pass(.milliseconds(10)) {
            try await harness.client.core.ask { if case .preparing = $0.phase { true } else { false } }
        }
        #expect(storage.waiting == 1 && entered(by: harness).isEmpty)
        #expect(harness.service.state.withLock { $0.connects.count } == 1)

        storage.open()
        try await virtual.pass(.zero) { !entered(by: harness).isEmpty }
        try await virtual.running {
            _ = try await receipts[1].acknowledged()
            let error = await #expect(throws: ClientError.self) { try await receipts[0].acknowledged() }
            #expect(error?.refusal == .forbidden)
            for _ in 0..<2 { try await harness.settle() }
        }
        #expect(entered(by: harness).map(\.text) == ["yes"] && entered(by: harness).first?.producer != old)
        let written = await storage.inner.load()
        #expect(written.outbox.isEmpty && written.producer == entered(by: harness).first?.producer)
        try await virtual.running { await harness.client.disconnect() }
    }

    @Test("a disconnection leaves it open, and it is told later all the same")
    func disconnected() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        let receipt = try await sendRefused(harness, storage)
        await harness.client.disconnect()
        #expect(receipt.state == .sent)
        storage.fail(false)
        try await harness.settle()
        #expect(receipt.state == .refused(.forbidden))
        await harness.client.disconnect()
    }

    @Test("a message that is given up with its client is told so, though it was refused")
    func loggedOut() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage)
        let receipt = try await sendRefused(harness, storage)
        try await harness.client.logout()
        let error = await #expect(throws: ClientError.self) { try await receipt.acknowledged() }
        #expect(error?.code == .loggedOut)
    }

    @Test("a refusal that could not be written before another process took over is told as that one ends it")
    func takenOver() async throws {
        let hall = try RoomID("hall")
        try await takeOver { first, receipt in
            try await first.client.run { driver in
                driver.refused(Refused(id: 1, code: .forbidden), in: .room(hall))
                driver.pump()
            }
            #expect(!receipt.state.isFinal)
        }
    }
}

private func entered(by harness: ClientHarness) -> [FakeService.Entered] {
    harness.service.state.withLock { $0.entered }
}

extension FakeService.Entered {
    fileprivate var text: String { String(buffer: publish.payload) }
}
