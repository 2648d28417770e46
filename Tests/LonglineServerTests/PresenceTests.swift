import Dispatch
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// Presence between the sessions of a server.
@Suite("Presence between sessions", .timeLimit(.minutes(1))) struct PresenceTests {
    /// Changes are told at once; who is gone is gone at once, or, where it matters, never.
    private func limits(grace: TimeAmount = .hours(1)) -> ServerLimits {
        var limits = ServerLimits()
        limits.presenceGrace = grace
        limits.presenceInterval = .milliseconds(1)
        limits.presenceDelay = .milliseconds(1)
        return limits
    }

    @discardableResult
    private func subscribe(_ device: TestDevice, _ users: [UserID], request: UInt64 = 1) async throws -> RefusalCode? {
        try await device.send([(.subscribe(PresenceRequest(request: request, users: users)), .control)])
        return try await answer(device, request)
    }

    private func answer(_ device: TestDevice, _ request: UInt64) async throws -> RefusalCode? {
        let answer = try await device.next {
            if case .presenceAnswer(let answer) = $0, answer.request == request { answer } else { nil }
        }
        return answer.refusal
    }

    /// A device that is connected, and known to be where its user's presence is kept: CONNECTED comes before that.
    private func present(
        _ server: TestServer, _ user: String, _ name: String = "phone", loop: Int = 0
    ) async throws -> TestDevice {
        let device = try await server.connected(user, name, loop: loop)
        // The first round is behind the turn in which it was connected, the second behind what that told another loop.
        for _ in 0..<2 { for loop in server.runtime.loops { try await loop.submit { _ in } } }
        return device
    }

    private func presence(_ device: TestDevice) async throws -> PresenceUpdate {
        try await device.next { if case .presence(let update) = $0 { update } else { nil } }
    }

    private func mode(_ device: TestDevice, _ mode: SessionMode) async throws {
        try await device.send([(.mode(mode), .control)])
    }

    @Test(arguments: [0, 1, 2]) func aDeviceIsToldOfAnotherUserOnWhicheverLoop(loop: Int) async throws {
        try await withServer(limits: limits(grace: .milliseconds(5)), loops: 3) { server in
            let watcher = try await present(server, "bob")
            #expect(try await subscribe(watcher, [ann]) == nil)
            #expect(try await presence(watcher) == PresenceUpdate(user: ann, state: .offline, lastSeen: 0))
            let phone = try await present(server, "ann", loop: loop)
            #expect(try await presence(watcher).state == .online)
            try await mode(phone, .background)
            let away = try await presence(watcher)
            #expect(away.state == .away && away.lastSeen > 1_700_000_000_000)
            try await mode(phone, .foreground)
            #expect(try await presence(watcher) == PresenceUpdate(user: ann, state: .online, lastSeen: 0))
            try await phone.drop()
            let gone = try await presence(watcher)
            #expect(gone.state == .offline && gone.lastSeen >= away.lastSeen)
        }
    }

    @Test func whoSubscribesFindsThePresentStateAtOnce() async throws {
        try await withServer(limits: limits()) { server in
            let phone = try await present(server, "ann", loop: 1)
            let first = try await present(server, "bob")
            let second = try await present(server, "bob", "tablet")
            try await subscribe(first, [ann, bob])
            var found = [try await presence(first), try await presence(first)].map { "\($0.user) \($0.state)" }
            #expect(found.sorted() == ["ann online", "bob online"])
            // Of a user that the loop knows already nothing is asked.
            try await subscribe(second, [ann])
            #expect(try await presence(second).state == .online)
            try await mode(phone, .lowPower)
            found = [try await presence(first), try await presence(second)].map { "\($0.user) \($0.state)" }
            #expect(found == ["ann away", "ann away"])
        }
    }

    @Test(arguments: [true, false]) func whoeverBlocksTheOtherNeitherSeesTheOther(watcherBlocks: Bool) async throws {
        try await withServer(limits: limits(), loops: 2) { server in
            let watcher = try await present(server, "bob")
            let phone = try await present(server, "ann", loop: 1)
            try await subscribe(watcher, [ann])
            #expect(try await presence(watcher).state == .online)
            let (blocker, blocked) = watcherBlocks ? (watcher, ann) : (phone, bob)
            _ = try await blocker.change(1, .user(blocked), .block(true))
            // As one that never was there: without a time, too.
            #expect(try await presence(watcher) == PresenceUpdate(user: ann, state: .offline, lastSeen: 0))
            try await mode(phone, .background)
            // Who subscribes anew sees no more.
            let tablet = try await present(server, "bob", "tablet", loop: 1)
            try await subscribe(tablet, [ann])
            #expect(try await presence(tablet) == PresenceUpdate(user: ann, state: .offline, lastSeen: 0))
            try await mode(phone, .foreground)
            _ = try await blocker.change(2, .user(blocked), .block(false))
            // What the phone was last may be on its way when the block ends.
            for device in [watcher, tablet] { while try await presence(device).state != .online {} }
        }
    }

    @Test func withoutAnAnswerWhoIsBlockedNothingIsShownAndTheStoreIsAskedAgain() async throws {
        let store = FaultyStore()
        store.set { $0.touch = StoreError(.unavailable, message: "not now", advice: "later") }
        var limits = limits()
        limits.retryAfter = .milliseconds(5)
        try await withServer(store: store, limits: limits, loops: 1) { server in
            let watcher = try await present(server, "bob")
            let phone = try await present(server, "ann")
            try await subscribe(watcher, [ann])
            try await mode(phone, .background)
            // Its answer is behind whatever could have been shown.
            try await subscribe(watcher, [ann], request: 2)
            try await mode(phone, .foreground)
            store.set { $0.touch = nil }
            var states = [try await presence(watcher).state]
            if states == [.away] { states.append(try await presence(watcher).state) }
            #expect(states.last == .online)
        }
    }

    @Test func aNewLinkOfADeviceAndAReconnectWithinTheGraceAreNoChange() async throws {
        // An earlier link's end that is heard of behind the last change has a grace, too.
        try await withServer(limits: limits(grace: .seconds(10))) { server in
            let watcher = try await present(server, "bob")
            try await subscribe(watcher, [ann])
            #expect(try await presence(watcher).state == .offline)
            var phone = try await present(server, "ann")
            #expect(try await presence(watcher).state == .online)
            for index in 0..<6 {
                if index % 2 == 0 { try await phone.drop() }
                let next = try await server.device("ann", loop: index)
                next.producer = phone.producer
                next.connectNumber = UInt64(index) + 2
                _ = try await next.connect()
                phone = next
            }
            // The next that is told is what happens now.
            try await mode(phone, .background)
            #expect(try await presence(watcher).state == .away)
        }
    }

    /// A client that connects in the background says so right behind CONNECT.
    @Test func aDeviceThatConnectsInTheBackgroundWasNeverOnline() async throws {
        try await withServer(limits: limits()) { server in
            let watcher = try await present(server, "bob")
            try await subscribe(watcher, [ann])
            #expect(try await presence(watcher).state == .offline)
            let phone = try await server.device("ann", loop: 1)
            _ = try await phone.connect(with: [(.mode(.background), .control)])
            #expect(try await presence(watcher).state == .away)
        }
    }

    @Test func earlyDataShowsNobodyAndTellsNobodyBeforeTheHandshake() async throws {
        try await withServer(limits: limits(grace: .milliseconds(1)), loops: 1) { server in
            let watcher = try await present(server, "bob")
            let first = try await present(server, "ann")
            let ticket = try #require(first.ticket)
            try await first.drop()
            try await subscribe(watcher, [ann])
            while try await presence(watcher).state != .offline {}
            let early = try await server.device("ann", early: true)
            early.producer = first.producer
            early.connectNumber = 2
            _ = try await early.connect(
                credential: .ticket(ticket.ticket), early: true,
                with: [
                    (.subscribe(PresenceRequest(request: 9, users: [bob])), .control),
                    (.visibility(.stateOnly), .control),
                ])
            // Something else changes, and is the first that is told.
            let other = try await present(server, "eve")
            try await subscribe(watcher, [identifier { try UserID("eve") }], request: 2)
            #expect(try await presence(watcher).user.description == "eve")
            try await early.completeHandshake()
            #expect(try await answer(early, 9) == nil)
            #expect(try await presence(early) == PresenceUpdate(user: bob, state: .online, lastSeen: 0))
            // Deciding what is shown is a change of its own.
            var last = try await presence(watcher)
            while last.state != .online { last = try await presence(watcher) }
            #expect(last == PresenceUpdate(user: ann, state: .online, lastSeen: 0))
            _ = other
        }
    }

    // MARK: What is kept

    @Test func ofManyDecisionsTheLastCounts() async throws {
        let store = FaultyStore()
        var limits = limits()
        (limits.presenceRequestBurst, limits.presenceRequestsPerSecond) = (1, 200)
        (limits.retryAfter, limits.presenceDelay) = (.milliseconds(5), .milliseconds(1))
        try await withServer(store: store, limits: limits) { server in
            let phone = try await present(server, "ann")
            for _ in 0..<100 {
                try await phone.send([(.visibility(.nothing), .control)])
                try await phone.send([(.visibility(.everything), .control)])
            }
            try await phone.send([(.visibility(.stateOnly), .control)])
            while try await store.presence(of: [ann], in: TokenIssuer.tenant)[ann]?.visibility != .stateOnly {
                await Task.yield()
            }
        }
        // Nor was one before it written behind it.
        #expect(try await store.presence(of: [ann], in: TokenIssuer.tenant)[ann]?.visibility == .stateOnly)
    }

    @Test func decisionsBeyondTheRateWait() async throws {
        var limits = limits()
        (limits.presenceRequestBurst, limits.presenceRequestsPerSecond) = (1, 0.000_1)
        try await withServer(limits: limits) { server in
            let phone = try await present(server, "ann")
            try await phone.send([(.visibility(.nothing), .control)])
            try await phone.send([(.visibility(.everything), .control)])
            // Both have been read when this is answered.
            try await phone.message("and then", to: bob)
            let watcher = try await present(server, "bob")
            try await subscribe(watcher, [ann])
            #expect(try await presence(watcher) == PresenceUpdate(user: ann, state: .offline, lastSeen: 0))
        }
    }

    /// What a watcher's loop read may be older by the time that the user's home hears of it.
    @Test func aDecisionThatComesWhileTheHomeIsAskedCounts() async throws {
        var limits = limits()
        limits.presenceDelay = .hours(1)
        try await withServer(limits: limits) { server in
            let key = UserKey(tenant: TokenIssuer.tenant, user: ann)
            let home = Int(UInt(bitPattern: key.hashValue) % 2)
            let (busy, other) = (server.runtime.loops[home], server.runtime.loops[1 - home])
            let phone = try await present(server, "ann", loop: home)
            let watcher = try await present(server, "bob", loop: 1 - home)
            let release = DispatchSemaphore(value: 0)
            defer { release.signal() }
            busy.eventLoop.execute { release.wait() }
            try await subscribe(watcher, [ann])
            let worked = other.eventLoop.makePromise(of: Void.self)
            let appended = other.eventLoop.makePromise(of: Void.self)
            other.execute { $0.whenAnswered(work: worked, appends: appended) }
            try await worked.futureResult.get()
            try await appended.futureResult.get()
            server.runtime.core.presence.put(
                PresenceNote(tenant: TokenIssuer.tenant, user: ann, visibility: .nothing))
            release.signal()
            #expect(try await presence(watcher) == PresenceUpdate(user: ann, state: .offline, lastSeen: 0))
            _ = phone
        }
    }

    @Test func lastSeenAndVisibilitySurviveARestart() async throws {
        let store = InMemoryStore()
        let before = WallClock.milliseconds()
        try await withServer(store: store, limits: limits()) { server in
            _ = try await present(server, "ann", loop: 1)
            let hidden = try await present(server, "eve")
            try await hidden.send([(.visibility(.nothing), .control)])
            let watcher = try await present(server, "bob")
            try await subscribe(watcher, [ann, hidden.user])
            let states = [try await presence(watcher), try await presence(watcher)]
            #expect(states.first { $0.user == ann }?.state == .online)
            #expect(states.first { $0.user == hidden.user }?.state == .offline)
            server.runtime.drain()
            #expect(await server.runtime.waitUntilIdle(timeout: .seconds(5)) == 0)
        }
        let after = WallClock.milliseconds()
        try await withServer(store: store, limits: limits()) { server in
            let watcher = try await present(server, "bob")
            let hidden = try await present(server, "eve", loop: 1)
            try await subscribe(watcher, [ann])
            let seen = try await presence(watcher)
            #expect(seen.state == .offline && (before...after).contains(seen.lastSeen))
            try await subscribe(watcher, [hidden.user], request: 2)
            #expect(
                try await presence(watcher) == PresenceUpdate(user: hidden.user, state: .offline, lastSeen: 0),
                "it is connected, and does not show")
            try await hidden.send([(.visibility(.everything), .control)])
            #expect(try await presence(watcher).state == .online)
        }
    }

    @Test func comingAndGoingCostsThePublishPathNothingAndTheStoreLittle() async throws {
        let store = FaultyStore()
        var limits = limits()
        limits.presenceDelay = .hours(1)
        try await withServer(store: store, limits: limits) { server in
            let producer = ProducerID(high: 5, low: 5)
            for index in 0..<20 {
                let phone = try await server.device("ann", loop: index)
                phone.producer = producer
                phone.connectNumber = UInt64(index) + 1
                _ = try await phone.connect()
                try await phone.message("\(index)", to: bob)
                try await phone.drop()
            }
            #expect(store.notes.withLock { $0 }.isEmpty)
            #expect(store.batches.withLock { $0.count } == 20)
            server.runtime.drain()
            _ = await server.runtime.waitUntilIdle(timeout: .seconds(5))
        }
        #expect(store.notes.withLock { $0.map(\.count) } == [1], "one row, at the end")
    }

    @Test func aStoreThatFailsIsAskedAgain() async throws {
        let store = FaultyStore()
        var limits = limits()
        limits.retryAfter = .milliseconds(5)
        try await withServer(store: store, limits: limits) { server in
            let watcher = try await present(server, "bob")
            store.set { $0.presence = StoreError(.unavailable, message: "not now") }
            try await subscribe(watcher, [ann])
            while await server.runtime.statistics().storeFailures < 3 {}
            store.set { $0.presence = nil }
            #expect(try await presence(watcher).state == .offline)
        }
    }

    @Test func anErasedAccountIsNeverSeen() async throws {
        let store = FaultyStore()
        try await withServer(store: store, limits: limits()) { server in
            let phone = try await present(server, "ann", loop: 1)
            try await phone.send([(.visibility(.stateOnly), .control)])
            while try await store.presence(of: [ann], in: TokenIssuer.tenant).isEmpty {}
            let user = UserKey(tenant: TokenIssuer.tenant, user: ann)
            try await server.runtime.core.beginErasure(user, on: server.runtime.loops).finished()
            #expect(try await phone.closed() == .loggedOut)
        }
        #expect(try await store.presence(of: [ann], in: TokenIssuer.tenant).isEmpty)
    }

    // MARK: Rights and limits

    @Test func presenceNeedsTheRightForEachUserButOneself() async throws {
        try await withServer(limits: limits()) { server in
            let device = try await server.device("bob")
            let token = try await server.issuer.token(
                "bob", "phone", scopes: [.publish, .receive],
                grants: [ChannelPattern("user/an*").map { ChannelGrant(.presence, $0) }].compactMap { $0 })
            _ = try await device.connect(credential: .token(token))
            let eve = try UserID("eve")
            #expect(try await subscribe(device, [ann, eve], request: 1) == .forbidden)
            #expect(try await subscribe(device, [ann], request: 2) == nil)
            #expect(try await presence(device).user == ann)
            #expect(try await subscribe(device, [bob], request: 3) == nil)
            #expect(try await presence(device) == PresenceUpdate(user: bob, state: .online, lastSeen: 0))
            // A fresh token without the right ends it.
            let less = try await server.issuer.token("bob", "phone", scopes: [.publish, .receive])
            try await device.send([(.refresh(Refresh(token: less)), .control)])
            _ = try await device.next { if case .refreshed(let refreshed) = $0 { refreshed } else { nil } }
            let other = try await present(server, "ann", loop: 1)
            try await mode(device, .background)
            try await mode(device, .foreground)
            var last = try await presence(device)
            while last.state != .online { last = try await presence(device) }
            #expect(last.user == bob)
            _ = other
        }
    }

    @Test func limitsOfASessionAndOfALoopRefuseAndHarmNobody() async throws {
        var limits = limits()
        limits.presencePerSession = 3
        limits.presenceWatchesPerLoop = 5
        try await withServer(limits: limits, loops: 1) { server in
            func users(_ range: Range<Int>) throws -> [UserID] { try range.map { try UserID("u\($0)") } }
            let first = try await present(server, "ann")
            #expect(try await subscribe(first, try users(0..<3), request: 1) == nil)
            #expect(try await subscribe(first, try users(3..<4), request: 2) == .tooManySubscriptions)
            #expect(try await subscribe(first, try users(0..<3), request: 3) == nil, "the same are no more")
            let second = try await present(server, "bob")
            #expect(try await subscribe(second, try users(10..<13), request: 1) == .overloaded)
            #expect(try await subscribe(second, try users(10..<12), request: 2) == nil)
            try await first.send([(.unsubscribe(PresenceEnd(users: try users(0..<2))), .control)])
            #expect(try await subscribe(second, try users(12..<13), request: 3) == nil)
            #expect(try await server.runtime.loops[0].submit { $0.presence.watchers.count } == 4)
            try await first.drop()
            try await second.drop()
            #expect(try await server.runtime.loops[0].submit { $0.presence.watchers.count } == 0)
        }
    }

    @Test func beyondItsRateASessionIsToldToWait() async throws {
        var limits = limits()
        limits.presenceRequestsPerSecond = 0.001
        limits.presenceRequestBurst = 2
        try await withServer(limits: limits) { server in
            let device = try await present(server, "bob")
            var answers: [RefusalCode?] = []
            for request in UInt64(1)...3 { answers.append(try await subscribe(device, [ann], request: request)) }
            #expect(answers == [nil, nil, .overloaded])
        }
    }

    @Test func whoUnsubscribesIsToldNoMore() async throws {
        try await withServer(limits: limits(), loops: 1) { server in
            let watcher = try await present(server, "bob")
            let eve = try UserID("eve")
            try await subscribe(watcher, [ann, eve])
            for _ in 0..<2 { _ = try await presence(watcher) }
            try await watcher.send([(.unsubscribe(PresenceEnd(users: [ann])), .control)])
            let phone = try await present(server, "ann")
            let other = try await present(server, "eve")
            #expect(try await presence(watcher).user == eve)
            try await watcher.send([(.unsubscribe(PresenceEnd()), .control)])
            _ = (phone, other)
        }
    }
}
