import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineClient

private let bobsInbox = must { ChannelID.user(try UserID("bob")) }
private let tea = must { try RoomID("tea") }

// Names in tests are right by construction.
private func must<Value>(_ name: () throws -> Value) -> Value {
    do { return try name() } catch { preconditionFailure("a test's name: \(error)") }
}

/// Client and server over QUIC on loopback.
@Suite("History, end to end", .serialized, .timeLimit(.minutes(2)))
struct LiveHistoryTests {
    @Test("a thousand messages are paged back while new ones come live: each comes once and in order on either way")
    func pagingWhileLive() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        let texts = (0..<1_200).map { "\($0)" }
        async let live = bob.receive(texts.count)
        try await alice.sendEach(texts[..<1_000])
        async let sending: Void = alice.sendEach(texts[1_000...])

        var back: [Message] = []
        var page = try await bob.history(of: bobsInbox, limit: 100)
        let first = page
        back = page.messages
        while page.hasMore {
            page = try await bob.history(of: bobsInbox, before: page.next, limit: 37)
            back = page.messages + back
        }
        #expect(back.count >= 1_000)
        #expect(back.map(\.text) == Array(texts[..<back.count]))
        #expect(back.allSatisfy { $0.gapBefore == nil && !$0.redelivered })

        try await sending
        var forth: [Message] = []
        var place = try #require(first.messages.last).position
        while true {
            let page = try await bob.history(of: bobsInbox, after: place, limit: 50)
            forth += page.messages
            place = page.next
            if !page.hasMore { break }
        }
        #expect((back + forth).map(\.text) == texts)
        let delivered = await live
        #expect(delivered.map(\.text) == texts)
        #expect(delivered.map(\.position) == (back + forth).map(\.position))
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a message says when its time is over, live and in a page; one without such a time says nothing")
    func expiry() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        _ = try await alice.send("for an hour", to: .user("bob"), timeToLive: .seconds(3_600)).acknowledged()
        _ = try await alice.send("for ever", to: .user("bob")).acknowledged()
        let live = await bob.receive(2)
        let paged = try await bob.history(of: bobsInbox).messages
        #expect(paged.map(\.expiry) == live.map(\.expiry))
        let expiry = try #require(live.first?.expiry)
        #expect(expiry > live[0].time && expiry <= live[0].time + 3_600_000)
        #expect(live[1].expiry == nil)
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a page moves no cursor, even when its messages are confirmed")
    func noCursor() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        try await alice.connect()
        try await alice.sendEach((0..<5).map { "\($0)" }[...])
        let bob = try service.client("bob") { $0.confirmation = .explicit }
        try await bob.connect()
        for message in try await bob.history(of: bobsInbox).messages { message.confirm() }
        await bob.disconnect()
        try await bob.connect()
        #expect(await bob.receive(5).map(\.text) == (0..<5).map { "\($0)" })
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("a device that lost its state is connected when it can ask, not when it has its places to claim first")
    func lostState() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        for client in [alice, bob] { try await client.connect() }
        try await alice.sendEach(["0", "1"])
        #expect(await bob.receive(2).count == 2)
        await bob.disconnect()
        let back = try service.client("bob")
        let states = back.states
        try await back.connect()
        // Each of these takes the connection that there is, and waits for no other.
        #expect(try await back.signal(.typing, to: .user("alice")))
        #expect(try await back.conversations().conversations.count == 1)
        #expect(try await back.history(of: bobsInbox).messages.map(\.text) == ["0", "1"])
        await back.disconnect()
        var connections = 0
        for await state in states {
            if case .connected = state { connections += 1 }
            if case .disconnected = state, connections > 0 { break }
        }
        #expect(connections == 1)
        await alice.disconnect()
        await service.stop()
    }

    @Test("a member of a room pages through its own stay only, and what can't be is refused by name")
    func roomAndRefusals() async throws {
        let service = try await LiveService()
        let alice = try service.client("alice")
        let bob = try service.client("bob")
        try await alice.connect()
        try await bob.connect()
        try await alice.join(tea)
        _ = try await alice.send("before", to: .room(tea)).acknowledged()
        func refusal(_ body: () async throws -> HistoryPage) async -> RefusalCode? {
            do { _ = try await body() } catch { return (error as? ClientError)?.refusal }
            return nil
        }
        #expect(await refusal { try await bob.history(of: .room(tea)) } == .unknownChannel)
        try await bob.join(tea)
        _ = try await alice.send("during", to: .room(tea)).acknowledged()
        try await bob.leave(tea)
        _ = try await alice.send("after", to: .room(tea)).acknowledged()
        let page = try await bob.history(of: .room(tea))
        #expect(page.messages.map(\.kind) == [.joined, .message, .left])
        #expect(page.messages[1].text == "during" && !page.hasMore)
        #expect(page.absent.map(\.reason) == [.notEntitled])

        let inbox = try #require(try? ChannelID("user/alice"))
        #expect(await refusal { try await bob.history(of: inbox) } == .unknownChannel)
        for limit in [0, -1, 101] {
            #expect(await refusal { try await bob.history(of: .room(tea), limit: limit) } == .invalidRange)
        }
        var place = page.next
        place.epoch &+= 1
        #expect(await refusal { try await bob.history(of: .room(tea), before: place) } == .epochChanged)
        place = Position(epoch: page.next.epoch, offset: 1 << 40)
        #expect(await refusal { try await bob.history(of: .room(tea), after: place) } == .invalidRange)
        place.offset = .max
        #expect(await refusal { try await bob.history(of: .room(tea), after: place) } == .invalidRange)
        for client in [alice, bob] { await client.disconnect() }
        await service.stop()
    }

    @Test("many pages at once are all answered")
    func many() async throws {
        let service = try await LiveService()
        let bob = try service.client("bob")
        try await bob.connect()
        try await bob.sendEach((0..<40).map { "\($0)" }[...], to: .user("bob"))
        let counts = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<30 { group.addTask { try await bob.history(of: bobsInbox, limit: 40).messages.count } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(counts == [Int](repeating: 40, count: 30))
        await bob.disconnect()
        await service.stop()
    }

    @Test("a device that was away longer than messages are kept is told of the gap, and reads on from what is left")
    func retentionGap() async throws {
        let service = try await LiveService(retention: RetentionPolicy(inbox: Retention(entries: 10)))
        let alice = try service.client("alice")
        let storage = InMemoryClientStorage()
        let bob = try service.client("bob") { $0.storage = storage }
        try await alice.connect()
        try await bob.connect()
        try await alice.sendEach((0..<5).map { "\($0)" }[...])
        #expect(await bob.receive(5).count == 5)
        await bob.disconnect()
        try await alice.sendEach((5..<40).map { "\($0)" }[...])
        let report = try #require(try await service.applyRetention())
        #expect(report.trimmed == 2 && report.entries == 60)

        let back = try service.client("bob") { $0.storage = storage }
        try await back.connect()
        let messages = await back.receive(10)
        #expect(messages.map(\.text) == (30..<40).map { "\($0)" })
        #expect(messages.first?.gapBefore != nil && messages.dropFirst().allSatisfy { $0.gapBefore == nil })
        #expect(await back.statistics.gaps == 1)
        let page = try await back.history(of: bobsInbox)
        #expect(page.messages.map(\.text) == messages.map(\.text) && page.absent.map(\.reason) == [.trimmed])
        for client in [alice, back] { await client.disconnect() }
        await service.stop()
    }
}

/// A service that never answers a request for history.
@Suite("History without an answer", .timeLimit(.minutes(1)))
struct UnansweredHistoryTests {
    @Test("without a connection it is refused at once")
    func offline() async throws {
        let harness = try ClientHarness()
        let error = await #expect(throws: ClientError.self) { try await harness.client.history(of: bobsInbox) }
        #expect(error?.code == .notConnected && error?.advice.isEmpty == false)
    }

    @Test("it ends with its time, with the task, and with the link")
    func endings() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let late = await #expect(throws: ClientError.self) {
            try await client.history(of: bobsInbox, timeout: .milliseconds(1))
        }
        #expect(late?.code == .timedOut)

        let task = Task { try await client.history(of: bobsInbox) }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }

        let lost = Task { try await client.history(of: bobsInbox) }
        while try await client.waitingForHistory() == 0 { await Task.yield() }
        await client.disconnect()
        let error = await #expect(throws: ClientError.self) { try await lost.value }
        #expect(error?.code == .disconnected)
        #expect(try await client.waitingForHistory() == 0)
    }

    @Test("more than 64 that wait are refused")
    func tooMany() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        let tasks = (0..<64).map { _ in Task { try await client.history(of: bobsInbox) } }
        while try await client.waitingForHistory() < 64 { await Task.yield() }
        let error = await #expect(throws: ClientError.self) { try await client.history(of: bobsInbox) }
        #expect(error?.code == .tooManyRequests)
        await client.disconnect()
        for task in tasks { await #expect(throws: ClientError.self) { try await task.value } }
    }
}

extension LonglineClient {
    fileprivate func sendEach(_ texts: ArraySlice<String>, to destination: Destination? = nil) async throws {
        let destination = try destination ?? .user("bob")
        var receipts: [SendReceipt] = []
        for text in texts { receipts.append(try await send(text, to: destination)) }
        for receipt in receipts { _ = try await receipt.acknowledged() }
    }

    fileprivate func waitingForHistory() async throws -> Int {
        let waiting = Outcome<Int>()
        try await run { driver in waiting.resolve(.success(driver.historyWaiters.count)) }
        return try await waiting.value()
    }
}
