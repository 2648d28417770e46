import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Numbers over 2^62 - 1, which no frame can carry: refused by name, and never in the way of anything else.
@Suite("What no frame can carry", .timeLimit(.minutes(1)))
struct UnrepresentableTests {
    private let beyond = Position(epoch: 1, offset: FrameLimits.maximumNumber + 1)

    private func refusal(_ body: () async throws -> Void) async -> RefusalCode? {
        do { try await body() } catch { return (error as? ClientError)?.refusal }
        return nil
    }

    @Test("a place that can't be is refused where it is named, and nothing comes into the outbox")
    func places() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        let reference = MessageReference(try .user("bob"), beyond)
        #expect(await refusal { try await client.edit(reference, to: "x") } == .invalidTarget)
        #expect(await refusal { try await client.retract(reference) } == .invalidTarget)
        #expect(await refusal { try await client.react(to: reference, with: "x") } == .invalidTarget)
        #expect(await refusal { try await client.markRead(.room("a"), upTo: beyond) } == .invalidRange)
        #expect(try await client.outbox().isEmpty)
        let largest = MessageReference(try .user("bob"), Position(epoch: .max, offset: FrameLimits.maximumNumber))
        try await client.edit(largest, to: "x")
        try await client.connect()
        while harness.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        await client.disconnect()
    }

    @Test(
        "a page of more conversations than there may be is refused, and the connection goes on",
        arguments: [0, 51, .max])
    func page(limit: Int) async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        #expect(await refusal { _ = try await harness.client.conversations(limit: limit) } == .invalidRange)
        #expect(try await harness.client.send("x", to: .user("bob")).acknowledged().id == 1)
        #expect(harness.service.state.withLock { $0.connects.count } == 1)
        await harness.client.disconnect()
    }

    @Test("a cursor of the app's own store that can't be is told by name")
    func cursor() async throws {
        let channel = ChannelID.room(try RoomID("a"))
        let harness = try ClientHarness { $0.cursorStore = FixedCursors([channel: beyond]) }
        let error = await #expect(throws: ClientError.self) { try await harness.client.start() }
        #expect(error?.code == .storage && error?.message.contains("room/a") == true)
    }

    @Test("a stored message that no frame can carry is given up, and what is behind it is sent")
    func stored() async throws {
        let channel = ChannelID.user(try UserID("alice"))
        func row(_ id: PublishID, _ kind: PublishKind) throws -> StoredPublish {
            StoredPublish(
                id: id, tag: id, after: id - 1, channel: channel, recipient: try UserID("bob"), kind: kind,
                timeToLive: 0, queuedAt: 0, payload: ByteBuffer(string: "\(id)"), send: SendID(high: 0, low: id),
                attempted: true)
        }
        var state = StoredClientState()
        state.producer = ProducerID(high: 1, low: 2)
        (state.lastID, state.chains) = (3, [channel: 3])
        state.outbox = [try row(1, .message), try row(2, .edit(beyond)), try row(3, .message)]
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.entered.count }) < 2 { await Task.yield() }
        #expect(harness.service.state.withLock { $0.entered.map(\.publish.id) } == [1, 3])
        let given = try await harness.client.status(of: SendID(high: 0, low: 2))
        #expect(given?.state == .refused(.invalidTarget))
        try await harness.settle()
        #expect(await storage.load().outcomes.contains { $0.state == .refused(.invalidTarget) })
        #expect(await !storage.load().outbox.contains { $0.id == 2 })
        await harness.client.disconnect()
    }

    @Test("one that an earlier version of the app put into a shared outbox is given up, and what is behind it is sent")
    func submitted() async throws {
        let directory = try TemporaryFolder()
        let storage = try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
        for (number, kind) in [(UInt64(1), PublishKind.edit(beyond)), (2, .message)] {
            let submission = Submission(
                send: SendID(high: 1, low: number), destination: .user(try UserID("bob")), kind: kind, timeToLive: 0,
                queuedAt: 5, payload: ByteBuffer(string: "\(number)"))
            _ = try await storage.submit(submission, limits: OutboxLimits())
        }
        let harness = try ClientHarness(storage: storage)
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        #expect(harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } } == ["2"])
        #expect(
            try await harness.client.status(of: SendID(high: 1, low: 1))?.state == .refused(.invalidTarget))
        await harness.client.disconnect()
    }

    @Test("what was given up leaves the shared file with its outcome, also when that is written a second time")
    func writtenAgain() throws {
        let (given, waiting) = (SendID(high: 1, low: 1), SendID(high: 1, low: 2))
        let outcome = StoredOutcome(
            send: given, channel: .room(try RoomID("a")), recipient: nil, queuedAt: 5,
            state: .refused(.payloadTooLarge))
        var failed = PendingWrites()
        failed.inserts = [1, 2]
        failed.adopted = [given, waiting]
        failed.outcomes = [outcome]
        var pending = PendingWrites()
        pending.restore(failed)
        #expect(
            pending.changes(outbox: Outbox(producer: ProducerID(high: 1, low: 2)))
                == [.adopted(given), .outcome(outcome)])
    }

    @Test("so it does where a new producer begins before that is written")
    func writtenUnderNewProducer() async throws {
        let storage = FaultyDisk()
        let harness = try ClientHarness(storage: storage) { $0.outbox = OutboxLimits(bytes: 10) }
        try await harness.settle()
        storage.fail(true)
        let submission = Submission(
            send: SendID(high: 1, low: 1), destination: .room(try RoomID("a")), timeToLive: 0, queuedAt: 5,
            payload: ByteBuffer(string: "more than ten"))
        try await harness.client.run { $0.adopt([submission]) { _ in } }
        try await harness.client.run { driver in driver.afterDurable { _ in driver.renewProducer() } }
        try await harness.settle()
        let written = Mutex<[StorageChange]>([])
        storage.fail(where: { changes in
            written.withLock { $0 += changes }
            return false
        })
        try await harness.settle()
        #expect(written.withLock { $0.contains(.adopted(submission.send)) })
        #expect(await storage.inner.load().outcomes.map(\.state) == [.refused(.payloadTooLarge)])
        await harness.client.disconnect()
    }

    @Test("one in a shared outbox that is larger than its owner's may be is given up, and what is behind it is sent")
    func tooLarge() async throws {
        let directory = try TemporaryFolder()
        let storage = try SharedClientStorage(path: directory.file("shared.sqlite"), pollInterval: .milliseconds(10))
        for (number, text) in [(UInt64(1), "more than ten"), (2, "2")] {
            let submission = Submission(
                send: SendID(high: 1, low: number), destination: .user(try UserID("bob")), timeToLive: 0, queuedAt: 5,
                payload: ByteBuffer(string: text))
            _ = try await storage.submit(submission, limits: OutboxLimits())
        }
        let harness = try ClientHarness(storage: storage) { $0.outbox = OutboxLimits(bytes: 10) }
        try await harness.client.connect()
        while harness.service.state.withLock({ $0.entered.isEmpty }) { await Task.yield() }
        #expect(harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } } == ["2"])
        #expect(
            try await harness.client.status(of: SendID(high: 1, low: 1))?.state == .refused(.payloadTooLarge))
        await harness.client.disconnect()
    }
}
