import Foundation
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// How far each message is, as an app sees it, also across its restarts.
@Suite("Send states", .timeLimit(.minutes(1)))
struct SendStateTests {
    private func code(_ body: () async throws -> Void) async -> ClientError? {
        do { try await body() } catch { return error as? ClientError }
        return nil
    }

    private func states(_ receipt: SendReceipt) async -> [SendState] {
        await receipt.states.reduce(into: []) { $0.append($1) }
    }

    @Test("a request shows in the outbox as one, and ends when it is taken back")
    func cancelledRequest() async throws {
        let client = try ClientHarness().client
        let sends = client.sends
        let reply = Task { try await client.request(to: UserID("bob"), text: "?", deadline: .seconds(60)) }
        for await _ in sends { break }
        let waiting = try #require(try await client.outbox().first)
        #expect(waiting.kind == .request && waiting.payload.map { String(buffer: $0) } == "?")
        #expect(try await client.cancel(waiting.send) == .cancelled)
        let error = await #expect(throws: ClientError.self) { try await reply.value }
        #expect(error?.code == .cancelled)
        await client.disconnect()
    }

    @Test("a message is queued, sent, acknowledged, and its stream ends")
    func acknowledged() async throws {
        let harness = try ClientHarness()
        let changes = harness.client.sends
        let receipt = try await harness.client.send("a", to: .room("hall"))
        #expect(receipt.state == .queued)
        let listed = try await harness.client.outbox()
        #expect(listed.map(\.send) == [receipt.send] && listed.map(\.state) == [.queued])
        #expect(listed.map(\.isCancellable) == [true] && listed.map(\.payload) == [ByteBuffer(string: "a")])
        let stream = receipt.states
        try await harness.client.connect()
        let published = try await receipt.acknowledged()
        let seen: [SendState] = await stream.reduce(into: []) { $0.append($1) }
        #expect(seen == [.queued, .sent, .acknowledged(published)])
        #expect(await states(receipt) == [.acknowledged(published)], "who comes late is told the end")
        #expect(try await harness.client.outbox().isEmpty)
        #expect(try await harness.client.status(of: receipt.send)?.state == .acknowledged(published))
        let hall = ChannelID.room(try RoomID("hall"))
        var all: [SendState] = []
        for await status in changes {
            #expect(status.send == receipt.send && status.channel == hall)
            all.append(status.state)
            if status.state.isFinal { break }
        }
        #expect(all == seen)
        await harness.client.disconnect()
    }

    @Test(
        "each refusal is a state of its own",
        arguments: [
            (RefusalCode.forbidden, SendState.refused(.forbidden), ClientError.Code.refused),
            (.expired, .expired, .refused), (.outcomeUnknown, .outcomeUnknown, .outcomeUnknown),
        ])
    func refused(refusal: RefusalCode, state: SendState, error: ClientError.Code) async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock {
            $0.refusedPrefix = "no"
            $0.refusedCode = refusal
        }
        try await harness.client.connect()
        let receipt = try await harness.client.send("no", to: .room("hall"))
        #expect(await code { _ = try await receipt.acknowledged() }?.code == error)
        #expect(receipt.state == state)
        #expect(try await harness.client.status(of: receipt.send)?.state == state)
        await harness.client.disconnect()
    }

    // MARK: Across a restart of the app

    @Test("a later process lists what waits, takes it up, and learns what was finished meanwhile")
    func reattached() async throws {
        let storage = InMemoryClientStorage()
        var names: [SendID] = []
        do {
            let first = try ClientHarness(storage: storage)
            for text in ["a", "b"] { names.append(try await first.client.send(text, to: .user("bob")).send) }
        }
        let second = try ClientHarness(storage: storage, seed: 2)
        let listed = try await second.client.outbox()
        #expect(listed.map(\.send) == names && listed.map(\.state) == [.queued, .queued])
        #expect(listed.map { $0.recipient?.description } == ["bob", "bob"])
        let taken = try #require(try await second.client.receipt(for: names[0]))
        try await second.client.connect()
        let published = try await taken.acknowledged()
        // Nobody followed the second one: the notice tells of it, and the name does later.
        let last = try await second.client.send("c", to: .user("bob"))
        _ = try await last.acknowledged()
        try await second.settle()
        await second.client.disconnect()
        let third = try ClientHarness(storage: storage, seed: 3)
        #expect(try await third.client.outbox().isEmpty)
        #expect(try await third.client.status(of: names[0])?.state == .acknowledged(published))
        let done = try #require(try await third.client.receipt(for: names[1]))
        #expect(try await done.acknowledged().id == 2)
        #expect(await states(done).count == 1)
        let name = try #require(SendID(names[1].description))
        #expect(name == names[1])
        #expect(SendID("x" + String(repeating: "0", count: 31)) == nil && SendID("12") == nil)
        let unknown = try #require(SendID(String(repeating: "7", count: 32)))
        #expect(try await third.client.receipt(for: unknown) == nil)
        #expect(try await third.client.status(of: unknown) == nil)
        #expect(try await third.client.cancel(unknown) == .unknown)
    }

    @Test("what left the device is sent to a later process as well, and can't be taken back")
    func leftBefore() async throws {
        let storage = InMemoryClientStorage()
        let first = try ClientHarness(storage: storage)
        first.service.state.withLock {
            $0.cutIn = 1
            $0.answers = [.accept] + Array(repeating: .silence, count: 100)
        }
        try await first.client.connect()
        let receipt = try await first.client.send("a", to: .user("bob"))
        var states = receipt.states.makeAsyncIterator()
        while let state = await states.next(), state != .sent {}
        // The process ends here; nobody has heard of an answer.
        let kept = await storage.load()
        let second = try ClientHarness(storage: InMemoryClientStorage(kept), seed: 2)
        let listed = try await second.client.outbox()
        #expect(listed.map(\.state) == [.sent] && listed.map(\.isCancellable) == [false])
        #expect(try await second.client.cancel(receipt.send) == .tooLate(.sent))
        try await second.client.connect()
        let again = try #require(try await second.client.receipt(for: receipt.send))
        _ = try await again.acknowledged()
        for harness in [first, second] { await harness.client.disconnect() }
    }

    @Test("nothing leaves before it is durable that it may")
    func markedFirst() async throws {
        let storage = MarkRefusingStorage()
        let harness = try ClientHarness(storage: storage)
        let receipt = try await harness.client.send("a", to: .user("bob"))
        try await harness.client.connect()
        await storage.waitForRefusal()
        #expect(harness.service.state.withLock { $0.entered.isEmpty })
        let later = try await harness.client.send("b", to: .user("bob"))
        _ = try await receipt.acknowledged()
        _ = try await later.acknowledged()
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == ["a", "b"])
        await harness.client.disconnect()
    }

    @Test("what comes while the client connects stays behind what came before", arguments: [false, true])
    func markedInOrder(hasTickets: Bool) async throws {
        var state = StoredClientState()
        if hasTickets {
            state.resumeTicket = StoredSecret(bytes: [1], expiry: 1)
            for point in ["one:1", "two:2"] { state.transportTickets[point] = StoredSecret(bytes: [1], expiry: 0) }
        }
        let storage = MarkRefusingStorage(state)
        let gate = AsyncStream<Void>.makeStream()
        let harness = try ClientHarness(storage: storage) {
            $0.tokenProvider = {
                for await _ in gate.stream { break }
                return "token"
            }
        }
        var receipts = [try await harness.client.send("a", to: .user("bob"))]
        try await harness.client.start()
        receipts.append(try await harness.client.send("b", to: .user("bob")))
        gate.continuation.finish()
        await storage.waitForRefusal()
        receipts.append(try await harness.client.send("c", to: .user("bob")))
        for receipt in receipts { _ = try await receipt.acknowledged() }
        let (entered, refusals) = harness.service.state.withLock {
            ($0.entered.map { String(buffer: $0.publish.payload) }, $0.refusals)
        }
        #expect(entered == ["a", "b", "c"])
        #expect(refusals.isEmpty)
        await harness.client.disconnect()
    }

    // MARK: Taking back

    @Test("what has not left is taken back for good, and what comes behind it goes on")
    func cancelled() async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        let texts = ["a", "b", "c"]
        var receipts: [SendReceipt] = []
        for text in texts { receipts.append(try await harness.client.send(text, to: .user("bob"))) }
        #expect(try await harness.client.cancel(receipts[1].send) == .cancelled)
        #expect(await storage.load().outbox.map { String(buffer: $0.payload) } == ["a", "c"])
        #expect(await code { _ = try await receipts[1].acknowledged() }?.code == .cancelled)
        #expect(receipts[1].state == .cancelled)
        #expect(try await harness.client.cancel(receipts[1].send) == .tooLate(.cancelled))
        try await harness.client.connect()
        for index in [0, 2] { _ = try await receipts[index].acknowledged() }
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == ["a", "c"])
        #expect(harness.service.state.withLock { $0.refusals.isEmpty })
        let late = try await harness.client.cancel(receipts[0].send)
        #expect(late == .tooLate(receipts[0].state))
        #expect(await harness.client.statistics.cancelled == 1)
        await harness.client.disconnect()
    }

    @Test(
        "attempts that never had a link leave a message cancellable; with a ticket the first attempt may have sent it")
    func attempts() async throws {
        var state = StoredClientState()
        let failure = ClientError(.connectFailed, message: "no network")
        for hasTickets in [false, true] {
            if hasTickets {
                state.resumeTicket = StoredSecret(bytes: [1], expiry: 0)
                for point in ["one:1", "two:2"] { state.transportTickets[point] = StoredSecret(bytes: [1], expiry: 0) }
            }
            let harness = try ClientHarness(storage: InMemoryClientStorage(state))
            harness.service.state.withLock { $0.answers = Array(repeating: .fail(failure), count: 100_000) }
            let receipt = try await harness.client.send("a", to: .user("bob"))
            let stream = harness.client.states
            try await harness.client.start()
            for await state in stream { if case .waiting = state { break } }
            let result = try await harness.client.cancel(receipt.send)
            #expect(result == (hasTickets ? .tooLate(.queued) : .cancelled))
            await harness.client.disconnect()
        }
    }

    // MARK: Waiting

    @Test("a wait with a deadline ends, and the message does not")
    func deadline() async throws {
        let harness = try ClientHarness()
        let error = await code {
            try await harness.client.send("a", to: .user("bob"), acknowledgedWithin: .milliseconds(20))
        }
        #expect(error?.code == .timedOut)
        let send = try #require(error?.send)
        let receipt = try #require(try await harness.client.receipt(for: send))
        try await harness.client.connect()
        let published = try await receipt.acknowledged()
        #expect(published.id == 1)
        let next = try await harness.client.send("b", to: .user("bob"), acknowledgedWithin: .seconds(30))
        #expect(next.id == 2)
        // As long as can be said.
        let last = try await harness.client.send("c", to: .user("bob"), acknowledgedWithin: .seconds(Int64.max))
        #expect(last.id == 3)
        try await harness.client.connect(within: .seconds(Int64.max))
        await harness.client.disconnect()
    }

    @Test("who waits for room gets it from the next message that ends, and takes none when cancelled")
    func room() async throws {
        let harness = try ClientHarness { $0.outbox = OutboxLimits(messages: 2) }
        let client = harness.client
        let first = try await client.send("a", to: .user("bob"))
        try await client.send("b", to: .user("bob"))
        let error = await code { try await client.send("c", to: .user("bob")) }
        #expect(error?.code == .outboxFull)
        let waiting = Task { try await client.sendWhenRoom(ByteBuffer(string: "c"), to: .user("bob")) }
        let given = Task { try await client.sendWhenRoom(ByteBuffer(string: "x"), to: .room("hall")) }
        given.cancel()
        await #expect(throws: CancellationError.self) { try await given.value }
        #expect(try await client.cancel(first.send) == .cancelled)
        let third = try await waiting.value
        #expect(try await client.outbox().map { $0.payload.map { String(buffer: $0) } } == ["b", "c"])
        try await client.connect()
        // More than the limit, one behind the other.
        for index in 0..<20 { try await client.sendWhenRoom(ByteBuffer(string: "\(index)"), to: .user("bob")) }
        _ = try await third.acknowledged()
        while try await !client.outbox().isEmpty { await Task.yield() }
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == ["b", "c"] + (0..<20).map(String.init))
        await client.disconnect()
    }

    @Test("a message larger than the whole outbox is refused, and waits for no room", arguments: [true, false])
    func largerThanOutbox(inStandby: Bool) async throws {
        let directory = try TemporaryFolder()
        let path = directory.file("shared.sqlite")
        let owner = inStandby ? try SharedClientStorage(path: path) : nil
        if let owner { #expect(try await owner.contend()) }
        let storage: any ClientStorage =
            inStandby ? try SharedClientStorage(path: path, pollInterval: .milliseconds(10)) : InMemoryClientStorage()
        let client = try ClientHarness(storage: storage) { $0.outbox = OutboxLimits(bytes: 10) }.client
        let error = await code { try await client.sendWhenRoom(ByteBuffer(string: "12345678901"), to: .user("bob")) }
        #expect(error?.code == .payloadTooLarge && error?.advice.contains("outbox limits") == true)
        try await client.sendWhenRoom(ByteBuffer(string: "1234567890"), to: .user("bob"))
        #expect(await code { try await client.send("1", to: .user("bob")) }?.code == .outboxFull)
        await client.disconnect()
        try await owner?.close()
    }

    @Test("so many outcomes are remembered, and the oldest goes")
    func outcomes() throws {
        var random = SeededRandom(seed: 1)
        let names = (0..<2_500).map { _ in SendID.random(using: &random) }
        var memory = OutcomeMemory([])
        var state = StoredClientState()
        for name in names {
            let outcome = StoredOutcome(
                send: name, channel: .user(try UserID("a")), recipient: nil, queuedAt: 0, state: .cancelled)
            memory.add(outcome)
            state.apply(.outcome(outcome))
        }
        #expect(names.filter { memory[$0] != nil } == Array(names.suffix(StoredOutcome.limit)))
        #expect(state.outcomes.map(\.send) == Array(names.suffix(StoredOutcome.limit)))
    }
}

/// A storage that refuses, once, to write that a message may leave.
private actor MarkRefusingStorage: ClientStorage {
    private let inner: InMemoryClientStorage
    private var hasRefused = false
    private var waiter: CheckedContinuation<Void, Never>?

    init(_ state: StoredClientState = StoredClientState()) { inner = InMemoryClientStorage(state) }

    func waitForRefusal() async {
        if !hasRefused { await withCheckedContinuation { waiter = $0 } }
    }

    func load() async -> StoredClientState { await inner.load() }
    func apply(_ changes: [StorageChange]) async throws {
        let marks = changes.contains { if case .attempted = $0 { true } else { false } }
        if marks, !hasRefused {
            hasRefused = true
            waiter?.resume()
            throw ClientError(.storage, message: "no")
        }
        await inner.apply(changes)
    }
    func erase() async { await inner.erase() }
}
