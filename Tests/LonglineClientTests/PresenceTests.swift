import LonglineSession
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// Presence as an app sees it, against a service in memory.
@Suite("Presence of an app", .timeLimit(.minutes(1)))
struct PresenceTests {
    private func users(_ names: String...) throws -> [UserID] { try names.map { try UserID($0) } }

    private func update(_ name: String, _ state: PresenceState, lastSeen: UInt64 = 0) throws -> PresenceUpdate {
        PresenceUpdate(user: try UserID(name), state: state, lastSeen: lastSeen)
    }

    private func subscribed(_ harness: ClientHarness) -> [[String]] {
        harness.service.state.withLock { state in
            state.frames.compactMap {
                if case .subscribe(let request) = $0 { request.users.map(\.description) } else { nil }
            }
        }
    }

    @Test("watch returns when it is known where each user is, and changes come after")
    func watching() async throws {
        let harness = try ClientHarness()
        let bob = try UserID("bob")
        harness.service.state.withLock { $0.presences[bob] = PresenceUpdate(user: bob, state: .online, lastSeen: 0) }
        await #expect(throws: ClientError.self) { try await harness.client.watch([bob]) }
        try await harness.client.connect()
        let changes = harness.client.presenceChanges
        try await harness.client.watch(try users("bob", "carol", "bob"))
        #expect(harness.client.presence(of: bob)?.state == .online)
        let carol = try #require(harness.client.presence(of: try UserID("carol")))
        #expect(carol.state == .offline && carol.lastSeen == nil && carol.isCurrent)
        #expect(harness.client.presences.count == 2)
        harness.service.send(.presence(try update("bob", .away, lastSeen: 1_767_225_600_000)))
        harness.service.send(.presence(try update("mallory", .online)))
        var seen: [String] = []
        for await presence in changes {
            seen.append("\(presence.user) \(presence.state)")
            if presence.state == .away { break }
        }
        #expect(seen.last == "bob away" && !seen.contains("mallory online"), "nobody asked for mallory")
        #expect(harness.client.presence(of: bob)?.lastSeen == 1_767_225_600_000)
        // A new reader finds what is so.
        var first: Set<String> = []
        for await presence in harness.client.presenceChanges {
            first.insert("\(presence.user) \(presence.state)")
            if first.count == 2 { break }
        }
        #expect(first == ["bob away", "carol offline"])
        await harness.client.disconnect()
    }

    @Test("after a reconnect the client asks again by itself, and only what changed is told")
    func reconnect() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        try await harness.client.setVisibility(.stateOnly)
        try await harness.client.watch(try users("bob", "carol"))
        try await harness.client.unwatch(try users("carol"))
        let changes = harness.client.presenceChanges
        let bob = try UserID("bob")
        harness.service.state.withLock { $0.presences[bob] = PresenceUpdate(user: bob, state: .away, lastSeen: 5) }
        await harness.lose()
        try await harness.client.connect()
        var seen: [String] = []
        for await presence in changes {
            seen.append("\(presence.user) \(presence.state)")
            if presence.state == .away { break }
        }
        #expect(seen == ["bob offline", "bob away"] || seen == ["bob away"])
        #expect(subscribed(harness) == [["bob", "carol"], ["bob"]])
        let settings = harness.service.state.withLock { state in
            state.frames.compactMap { if case .visibility(let visibility) = $0 { visibility } else { nil } }
        }
        #expect(settings == [.stateOnly, .stateOnly])
        #expect(harness.client.presence(of: bob)?.isCurrent == true)
        #expect(harness.client.presence(of: try UserID("carol")) == nil)
        await harness.client.disconnect()
        #expect(harness.client.presence(of: bob)?.isCurrent == false, "it is what was so")
    }

    @Test("more than a hundred users are asked for in parts, and more than a thousand not at all")
    func parts() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let many = try (0..<250).map { try UserID("user\($0)") }
        try await harness.client.watch(many)
        #expect(subscribed(harness).map(\.count) == [100, 100, 50] && harness.client.presences.count == 250)
        let more = try (0..<1_001).map { try UserID("user\($0)") }
        let error = await #expect(throws: ClientError.self) { try await harness.client.watch(more) }
        #expect(error?.refusal == .tooManySubscriptions && harness.client.presences.count == 250)
        try await harness.client.unwatch(many)
        #expect(harness.client.presences.isEmpty)
        await harness.client.disconnect()
    }

    @Test("a refusal throws and leaves what was watched before; one for now is asked again")
    func refusals() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        try await harness.client.watch(try users("bob"))
        harness.service.state.withLock { $0.presenceRefusals = [.forbidden] }
        let error = await #expect(throws: ClientError.self) {
            try await harness.client.watch(try users("bob", "carol"))
        }
        #expect(error?.code == .refused && error?.refusal == .forbidden && error?.advice.isEmpty == false)
        #expect(harness.client.presences.keys.map(\.description) == ["bob"])
        harness.service.state.withLock { $0.presenceRefusals = [.overloaded, .overloaded] }
        try await harness.client.watch(try users("dave"))
        #expect(subscribed(harness).suffix(3) == [["dave"], ["dave"], ["dave"]])
        // A fresh token may allow less: what was watched ends.
        let lost = Set(try users("bob", "dave"))
        harness.service.state.withLock { $0.presenceForbidden = lost }
        await harness.lose()
        try await harness.client.connect()
        try await harness.client.watch(try users("erin"))
        while harness.client.presences.count != 1 { await Task.yield() }
        #expect(harness.client.presences.keys.map(\.description) == ["erin"])
        await harness.client.disconnect()
    }

    @Test("a token that allows one user less leaves all the others watched")
    func oneUserLess() async throws {
        let harness = try ClientHarness()
        try await harness.client.connect()
        let many = try (0..<150).map { try UserID("user\($0)") }
        try await harness.client.watch(many)
        let lost = try UserID("user77")
        harness.service.state.withLock { state in
            state.presenceForbidden = [lost]
            for user in many { state.presences[user] = PresenceUpdate(user: user, state: .online, lastSeen: 0) }
        }
        await harness.lose()
        try await harness.client.connect()
        while harness.client.presence(of: lost) != nil { await Task.yield() }
        let others = many.filter { $0 != lost }
        while !others.allSatisfy({ harness.client.presence(of: $0)?.state == .online }) { await Task.yield() }
        #expect(harness.client.presences.count == 149)
        // Halved until it was alone, so that it costs a few requests and not one for each user.
        #expect(subscribed(harness).filter { $0.contains(lost.description) }.last == [lost.description])
        #expect(subscribed(harness).count <= 2 + 2 + 2 * 7)
        await harness.client.disconnect()
    }

    @Test("a token that allows none of a thousand users any more costs some requests, and not one for each")
    func nobodyLeft() async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop)
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.connect() }
        let many = try (0..<1_000).map { try UserID("user\($0)") }
        try await virtual.running { try await client.watch(many) }
        #expect(subscribed(harness).count == 10)
        service.state.withLock { $0.presenceForbidden = Set(many) }
        try await virtual.running {
            await harness.lose()
            try await client.connect()
        }
        try await virtual.pass(.zero) { client.presences.isEmpty }
        // Twice ten, and each of 32 refusals leads to two others.
        #expect(subscribed(harness).count == 84)
        try await virtual.running { await client.disconnect() }
    }

    @Test("who unwatches whom a watch waits for ends that wait, though the request can't be said again")
    func unwatchedBeforeReconnect() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        harness.service.state.withLock { $0.leavesPresence = true }
        let bob = try users("bob")
        let watching = Task { try await client.watch(bob) }
        while subscribed(harness).isEmpty { await Task.yield() }
        try await client.unwatch(bob)
        harness.service.state.withLock { $0.leavesPresence = false }
        await harness.lose()
        try await client.connect()
        try await watching.value
        #expect(subscribed(harness) == [["bob"]] && client.presences.isEmpty)
        await client.disconnect()
    }

    @Test("who waits to be told of users that a fresh token does not allow any more waits for them no longer")
    func refusedBeforeToldOf() async throws {
        let harness = try ClientHarness()
        let client = harness.client
        try await client.connect()
        harness.service.state.withLock { $0.withholdsPresence = true }
        let bob = try users("bob")
        let watching = Task { try await client.watch(bob) }
        while try await client.core.ask({ $0.presence.accepted.isEmpty }) { await Task.yield() }
        harness.service.state.withLock { $0.presenceForbidden = Set(bob) }
        await harness.lose()
        let error = await #expect(throws: ClientError.self) { try await watching.value }
        #expect(error?.code == .refused && error?.refusal == .forbidden)
        #expect(client.presences.isEmpty)
        await client.disconnect()
    }

    @Test("who unwatches whom a refused watch is about to ask for again ends that wait")
    func unwatchedBeforeAnotherTry() async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop)
        let client = harness.client
        try await virtual.running { try await client.connect() }
        harness.service.state.withLock { $0.presenceRefusals = [.overloaded] }
        let bob = try users("bob")
        let watching = Task { try await client.watch(bob) }
        try await virtual.pass(.zero) { harness.service.state.withLock { $0.presenceRefusals.isEmpty } }
        try await virtual.running { try await client.unwatch(bob) }
        await virtual.pass(.milliseconds(100))
        try await virtual.running { try await watching.value }
        #expect(subscribed(harness) == [["bob"]] && client.presences.isEmpty)
        try await virtual.running { await client.disconnect() }
    }

    @Test("a change that comes while somebody begins to read is not lost")
    func changeBesideNewReader() async throws {
        let online = try update("bob", .online)
        for _ in 0..<3_000 {
            let board = PresenceBoard()
            async let learned: Void = board.learn(online)
            let changes = board.stream()
            await learned
            board.finish()
            var seen: [PresenceState] = []
            for await presence in changes { seen.append(presence.state) }
            #expect(seen == [.online])
        }
    }

    @Test("a wait without a connection goes on with it; cancelled or disconnected it ends")
    func waits() async throws {
        let harness = try ClientHarness()
        harness.service.state.withLock { $0.answers = [.silence] }
        try await harness.client.start()
        let bob = try users("bob")
        let ended = Task { try await harness.client.watch(bob) }
        let cancelled = Task { try await harness.client.watch(bob) }
        cancelled.cancel()
        await #expect(throws: (any Error).self) { try await cancelled.value }
        // The attempt is under way once what it needs is on disk.
        try await harness.settle()
        await harness.client.disconnect()
        await #expect(throws: (any Error).self) { try await ended.value }
        try await harness.client.connect()
        try await harness.client.watch(bob)
        try await harness.client.logout()
        for await _ in harness.client.presenceChanges.dropFirst() { Issue.record("a change after the end") }
    }
}
