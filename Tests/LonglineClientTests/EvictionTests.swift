import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A newer login elsewhere took this device's place.
@Suite("Eviction", .timeLimit(.minutes(1)))
struct EvictionTests {
    private let close = Close(code: .evicted, reason: "another device has a newer login")

    private func eviction(_ notices: AsyncStream<ClientNotice>) async -> (reason: String, waiting: Int)? {
        for await notice in notices {
            if case .evicted(let reason, let waiting) = notice { return (reason, waiting) }
        }
        return nil
    }

    @Test("the client stops, says why, drops its ticket and keeps what waits", arguments: [true, false])
    func stops(connected: Bool) async throws {
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage)
        let notices = harness.client.notices
        try await harness.client.connect()
        harness.service.state.withLock { $0.cutIn = connected ? nil : 1 }
        if connected {
            harness.service.send(.close(close))
        } else {
            // It was away when it happened, with a message on its way.
            harness.service.state.withLock { $0.answers = [.close(close)] }
            _ = try await harness.client.send("waits", to: .user("bob"))
        }
        let told = try #require(await eviction(notices))
        #expect(told.reason == close.reason)
        #expect(told.waiting == (connected ? 0 : 1))
        let state = await harness.state { if case .stopped = $0 { true } else { false } }
        #expect(state?.stopError?.closeCode == .evicted)
        #expect(state?.stopError?.advice == "let the user log in on this device again, then connect")
        // What is sent now waits as well.
        _ = try await harness.client.send("later", to: .user("bob"))
        try await harness.settle()
        let kept = await storage.load()
        #expect(kept.resumeTicket == nil)
        #expect(kept.outbox.map { String(buffer: $0.payload) } == (connected ? ["later"] : ["waits", "later"]))
        // The user logged in again: a token is asked for, and everything leaves.
        try await harness.client.connect()
        let next = try await harness.client.send("last", to: .user("bob"))
        _ = try await next.acknowledged()
        #expect(harness.tokens.count == 2)
        let entered = harness.service.state.withLock { $0.entered.map { String(buffer: $0.publish.payload) } }
        #expect(entered == (connected ? ["later", "last"] : ["waits", "later", "last"]))
        await harness.client.disconnect()
    }

    @Test("over a real service the newer login stays, and the older one comes back by a newer one only")
    func live() async throws {
        let service = try await LiveService(devicePolicies: DevicePolicies(standard: .one)) {
            $0.drainSpread = .milliseconds(500)
        }
        let storage = InMemoryClientStorage()
        let old = try service.client("alice", "old", login: 5) { $0.storage = storage }
        let notices = old.notices
        try await old.connect()
        let new = try service.client("alice", "new", login: 6)
        try await new.connect()
        let told = try #require(await eviction(notices))
        #expect(told.reason.contains("one device for each user"))
        let error = await #expect(throws: ClientError.self) { try await old.connect() }
        #expect(error?.closeCode == .evicted)
        // Also by a process that knows nothing of it, after a restart of the service.
        await service.stop()
        try await service.start()
        let again = try service.client("alice", "old", login: 5) { $0.storage = storage }
        let refused = await #expect(throws: ClientError.self) { try await again.connect() }
        #expect(refused?.closeCode == .evicted)
        let login = try service.client("alice", "old", login: 7)
        try await login.connect()
        var states = new.states.makeAsyncIterator()
        var state = await states.next()
        while let shown = state, shown.stopError == nil { state = await states.next() }
        #expect(state?.stopError?.closeCode == .evicted)
        await login.disconnect()
        await service.stop()
    }
}
