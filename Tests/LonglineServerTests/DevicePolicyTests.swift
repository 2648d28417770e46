import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }

private let phone = identifier { try DevicePlatform("phone") }
private let tablet = identifier { try DevicePlatform("tablet") }

/// How many devices of a user may be logged in, and who has to go.
@Suite(.timeLimit(.minutes(1))) struct DevicePolicyTests {
    private func withPolicy(
        _ policy: DevicePolicy, store: any MessageStore = InMemoryStore(), limits: ServerLimits = ServerLimits(),
        authorization: AuthorizationSettings? = nil, _ body: (TestServer) async throws -> Void
    ) async throws {
        let policies = DevicePolicies(tenants: [TokenIssuer.tenant: policy])
        let server = try await TestServer(
            store: store, limits: limits, authorization: authorization, devicePolicies: policies)
        try await server.use(body)
    }

    private func credential(
        _ server: TestServer, _ name: String, login: UInt64, platform: DevicePlatform = phone
    ) async throws -> Credential {
        .token(try await server.issuer.token("ann", name, login: login, platform: platform))
    }

    /// A device whose session has its place: what the policy does is done.
    private func placed(
        _ server: TestServer, _ name: String, login: UInt64, platform: DevicePlatform = phone, loop: Int = 0
    ) async throws -> TestDevice {
        let device = try await server.device("ann", name, loop: loop)
        _ = try await device.connect(credential: try await credential(server, name, login: login, platform: platform))
        await settle(server, name)
        return device
    }

    /// Waits until a device has its session; it comes after CONNECTED.
    private func settle(_ server: TestServer, _ name: String) async {
        while !server.runtime.core.registry.devices(of: UserKey(tenant: TokenIssuer.tenant, user: ann)).contains(
            where: {
                $0.description == name
            })
        { await Task.yield() }
    }

    /// What a connect is refused with.
    private func refusal(
        _ server: TestServer, _ name: String, _ credential: Credential, loop: Int = 0
    ) async throws -> Close {
        let device = try await server.device("ann", name, loop: loop)
        try await device.send([(device.connectFrame(credential), .control)])
        return try await device.next { if case .close(let close) = $0 { close } else { nil } }
    }

    // MARK: Who goes

    @Test func aNewerLoginEvictsTheOlderDeviceOnAnyLoop() async throws {
        try await withPolicy(.one) { server in
            let old = try await placed(server, "old", login: 5, platform: tablet)
            let new = try await placed(server, "new", login: 6, loop: 1)
            let close = try await old.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .evicted)
            #expect(close.reason.contains("one device for each user"))
            #expect(try await old.closed() == .evicted)
            // Its credentials are void, the token as well as the ticket, and it is told the same.
            let token = try await credential(server, "old", login: 5, platform: tablet)
            for credential in [token, .ticket(try #require(old.ticket).ticket)] {
                #expect(try await refusal(server, "old", credential, loop: 1) == close)
            }
            try await new.message("still here", to: ann)
            // Logged in again, it evicts in its turn.
            _ = try await placed(server, "old", login: 7, platform: tablet)
            #expect(try await new.closed() == .evicted)
        }
    }

    @Test func aPlaceOutlivesTheServersProcess() async throws {
        let store = InMemoryStore()
        var ticket: Ticket?
        try await withPolicy(.one, store: store) { server in
            let old = try await placed(server, "old", login: 5)
            ticket = old.ticket
            // The device was offline when it happened.
            try await old.drop()
            _ = try await placed(server, "new", login: 6)
        }
        try await withPolicy(.one, store: store) { server in
            #expect(ticket != nil)
            let token = try await credential(server, "old", login: 5)
            #expect(try await refusal(server, "old", token).code == .evicted)
        }
    }

    @Test func anAutomaticReconnectNeverEvictsANewerLogin() async throws {
        try await withPolicy(.one) { server in
            let new = try await placed(server, "new", login: 6)
            for login in [5, 6] as [UInt64] {
                let close = try await refusal(server, "old", try await credential(server, "old", login: login), loop: 1)
                #expect(close.code == .evicted)
            }
            try await new.message("still here", to: ann)
            // Its own older login gets what it got without a policy.
            #expect(try await refusal(server, "new", try await credential(server, "new", login: 4)).code == .replaced)
        }
    }

    @Test func eachPlatformHasItsPlace() async throws {
        try await withPolicy(.onePerPlatform) { server in
            let first = try await placed(server, "first", login: 5)
            let pad = try await placed(server, "pad", login: 4, platform: tablet, loop: 1)
            let other = try await placed(server, "other", login: 3, platform: .unknown, loop: 1)
            let second = try await placed(server, "second", login: 6, loop: 1)
            let close = try await first.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .evicted && close.reason.contains("phone"))
            for device in [pad, other, second] { try await device.message("still here", to: ann) }
        }
    }

    @Test func withoutAPolicyAllStay() async throws {
        try await withPolicy(.all) { server in
            let first = try await placed(server, "first", login: 1)
            let second = try await placed(server, "second", login: 9, loop: 1)
            for device in [first, second] { try await device.message("still here", to: ann) }
            #expect(
                try await server.store.place(
                    of: DeviceLogin(
                        device: DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("x")),
                        platform: phone, number: 1), policy: .one) == .taken)
        }
    }

    @Test func aPolicyNeedsNoRoomForBoth() async throws {
        var limits = ServerLimits()
        limits.maximumSessionsPerUser = 1
        try await withPolicy(.one, limits: limits) { server in
            let old = try await placed(server, "old", login: 5)
            let new = try await placed(server, "new", login: 6, loop: 1)
            #expect(try await old.closed() == .evicted)
            try await new.message("still here", to: ann)
        }
    }

    // MARK: When

    @Test func whatIsAskedBeforeTheDeviceHasItsPlaceIsNotLost() async throws {
        let store = FaultyStore()
        var limits = ServerLimits()
        limits.presenceInterval = .milliseconds(1)
        try await withPolicy(.one, store: store, limits: limits) { server in
            let bob = try UserID("bob")
            let (gate, open) = AsyncStream<Void>.makeStream()
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let device = try await server.device("ann", "hidden")
            _ = try await device.connect(credential: try await credential(server, "hidden", login: 2))
            let watch = PresenceRequest(request: 1, users: [bob])
            try await device.send([
                (.visibility(.nothing), .control), (.subscribe(watch), .control),
                (.ping(Ping(nonce: 1, answerAfter: 0)), .control),
            ])
            _ = try await device.next { if case .pong = $0 { true } else { nil } }
            // Whom it watches comes while it has no place yet.
            let other = try await server.device("bob", loop: 1)
            let token = try await server.issuer.token("bob", "phone", login: 2, platform: phone)
            _ = try await other.connect(credential: .token(token))
            try await other.send([(.subscribe(PresenceRequest(request: 1, users: [bob])), .control)])
            _ = try await other.next {
                if case .presence(let update) = $0, update.state == .online { true } else { nil }
            }
            open.finish()
            await settle(server, "hidden")
            _ = try await device.next {
                if case .presence(let update) = $0, update.state == .online { true } else { nil }
            }
            try await other.send([(.subscribe(PresenceRequest(request: 2, users: [ann])), .control)])
            let shown = try await other.next { frame -> PresenceUpdate? in
                if case .presence(let update) = frame, update.user == ann { update } else { nil }
            }
            #expect(shown.state == .offline)
        }
    }

    @Test func earlyDataEvictsNobody() async throws {
        try await withPolicy(.one) { server in
            let old = try await placed(server, "old", login: 5)
            // The newer login's own ticket, from a time when the policy was another.
            let sealed = server.runtime.core.authenticator.tickets.seal(
                AuthenticatedIdentity(
                    identity: SessionIdentity(
                        tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("new"), loginEpoch: 6, tokenID: "t",
                        expiry: .max, mayPublish: true, mayReceive: true, mayJoin: true, platform: phone),
                    generations: RevocationGenerations(user: 0, device: 0),
                    keyTag: TokenVerifier.tag(of: server.issuer.key.verificationKey)),
                now: WallClock.milliseconds())
            let ticket = try #require(sealed).ticket
            let new = try await server.device("ann", "new", loop: 1, early: true)
            _ = try await new.connect(credential: .ticket(ticket), early: true)
            try await old.message("still here", to: ann)
            try await new.completeHandshake()
            #expect(try await old.closed() == .evicted)
            await settle(server, "new")
            try await new.message("still here", to: ann)
        }
    }

    @Test func whatIsPublishedWaitsForThePlace() async throws {
        let store = FaultyStore()
        try await withPolicy(.one, store: store) { server in
            let (gate, open) = AsyncStream<Void>.makeStream()
            defer { open.finish() }
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let device = try await server.device("ann", "new")
            _ = try await device.connect(
                credential: try await credential(server, "new", login: 5),
                with: device.publishFrames("first", to: .user(ann)) + device.publishFrames("second", to: .user(ann)))
            try await device.send([(.ping(Ping(nonce: 1, answerAfter: 0)), .control)])
            _ = try await device.next { if case .pong = $0 { true } else { nil } }
            #expect(store.batches.withLock { $0.isEmpty })
            open.finish()
            #expect(try await device.text(.user(ann)) == "first")
            #expect(try await device.text(.user(ann)) == "second")
        }
    }

    /// What a device asks for that lasts, or that others are told.
    private func asks(_ hall: RoomID, of bob: UserID) -> [(Frame, LaneID)] {
        let block = ConversationChange(request: 2, conversation: .user(bob), setting: .block(true))
        let mark = ReadMark(conversation: .user(bob), position: Position(epoch: 1, offset: 1), isPrivate: false)
        return [
            (.join(RoomRequest(request: 1, room: hall)), .control), (.conversationSet(block), .control),
            (.read(mark), .control), (.ping(Ping(nonce: 1, answerAfter: 0)), .control),
        ]
    }

    private func members(_ store: FaultyStore, _ hall: RoomID) async throws -> [UserID] {
        let list = try await store.members(of: hall, in: TokenIssuer.tenant, for: nil, after: nil, limit: 10)
        return list?.members.map(\.user) ?? []
    }

    private func hasBlocked(_ bob: UserID, _ store: FaultyStore) async throws -> Bool {
        try await store.settings(of: .user(bob), for: ann, in: TokenIssuer.tenant).isBlocked
    }

    @Test func whatIsAskedForWaitsForThePlace() async throws {
        let store = FaultyStore()
        let (hall, bob) = (try RoomID("hall"), try UserID("bob"))
        try await withPolicy(.one, store: store) { server in
            let (gate, open) = AsyncStream<Void>.makeStream()
            defer { open.finish() }
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let device = try await server.device("ann", "new")
            _ = try await device.connect(credential: try await credential(server, "new", login: 5))
            try await device.send(asks(hall, of: bob))
            _ = try await device.next { if case .pong = $0 { true } else { nil } }
            #expect(try await members(store, hall).isEmpty)
            #expect(try await !hasBlocked(bob, store))
            #expect(store.marks.withLock { $0.isEmpty })
            open.finish()
            let joined = try await device.next { if case .roomAnswer(let answer) = $0 { answer } else { nil } }
            #expect(joined.refusal == nil)
            #expect(try await device.settings(2).settings.isBlocked)
            #expect(try await members(store, hall) == [ann])
            while store.marks.withLock({ $0.isEmpty }) { await Task.yield() }
        }
    }

    /// The app decides about a room's requests and publishes in the order in which they came: it is asked about the join first.
    @Test func whatIsPublishedBehindAJoinWaitsBehindItForThePlace() async throws {
        let store = FaultyStore()
        let hall = try RoomID("hall")
        let app = ScriptedPolicy { _ in .allow(for: .zero) }
        app.hold { $0.action == .publish }
        defer { app.release() }
        var authorization = AuthorizationSettings(app)
        authorization.deadline = .seconds(60)
        try await withPolicy(.one, store: store, authorization: authorization) { server in
            let (gate, open) = AsyncStream<Void>.makeStream()
            defer { open.finish() }
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let device = try await server.device("ann", "new")
            _ = try await device.connect(credential: try await credential(server, "new", login: 5))
            var frames: [(Frame, LaneID)] = [(.join(RoomRequest(request: 1, room: hall)), .control)]
            frames += device.publishFrames("hello", to: .room(hall))
            frames.append((.ping(Ping(nonce: 1, answerAfter: 0)), .control))
            try await device.send(frames)
            _ = try await device.next { if case .pong = $0 { true } else { nil } }
            #expect(app.asked.isEmpty)
            open.finish()
            await app.waitUntilHeld()
            try #require(app.asked.map(\.action) == [.join, .publish])
            let joined = try await device.next { if case .roomAnswer(let answer) = $0 { answer } else { nil } }
            #expect(joined.refusal == nil)
            app.release()
            let isPublished = try await device.next { frame -> Bool? in
                switch frame {
                case .published: true
                case .refused: false
                default: nil
                }
            }
            #expect(isPublished)
        }
    }

    @Test func nothingTakesEffectOfALinkThatDoesNotGetThePlace() async throws {
        let store = FaultyStore()
        let (hall, bob) = (try RoomID("hall"), try UserID("bob"))
        try await withPolicy(.one, store: store) { server in
            let (gate, open) = AsyncStream<Void>.makeStream()
            defer { open.finish() }
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let slow = try await server.device("ann", "slow")
            _ = try await slow.connect(credential: try await credential(server, "slow", login: 5))
            try await slow.send([(.logout, .control)])
            try await slow.send(asks(hall, of: bob))
            _ = try await slow.next { if case .pong = $0 { true } else { nil } }
            while store.faults.withLock({ $0.beforePlace != nil }) { await Task.yield() }
            let new = try await placed(server, "new", login: 6, loop: 1)
            #expect(try await slow.closed() == .evicted)
            open.finish()
            // What was asked of the store, and how it was answered.
            let loop = server.runtime.loops[0]
            let (worked, appended) = (
                loop.eventLoop.makePromise(of: Void.self), loop.eventLoop.makePromise(of: Void.self)
            )
            loop.execute { $0.whenAnswered(work: worked, appends: appended) }
            try await worked.futureResult.and(appended.futureResult).map { _, _ in }.get()
            #expect(try await members(store, hall).isEmpty)
            #expect(try await !hasBlocked(bob, store))
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("slow"))
            #expect(try await store.generations(of: device).device == 0)
            #expect(try await new.request(hall, number: 1).refusal == nil)
            #expect(store.marks.withLock { $0.isEmpty })
        }
    }

    /// The session bounds what has an answer; of what has none, only so much waits.
    @Test func ofPlacesReadOnlySoManyWait() throws {
        let mark = ReadMark(
            conversation: .user(ann), position: Position(epoch: 1, offset: 1), isPrivate: false)
        let join = ServerAction.join(RoomRequest(request: 1, room: try RoomID("hall")))
        var held = HeldWork()
        for _ in 1..<HeldWork.requestLimit {
            let isHeld = held.hold(.markRead(mark))
            #expect(isHeld)
        }
        let answers = [held.hold(join), held.hold(.markRead(mark)), held.hold(join)]
        #expect(answers == [true, false, true], "what waits for an answer has one")
        #expect(held.items.count == HeldWork.requestLimit + 1)
    }

    @Test(arguments: 0..<24) func ofTwoLoginsAtOnceTheNewerStays(round: Int) async throws {
        try await withPolicy(.one) { server in
            let devices = [
                try await server.device("ann", "a", loop: round), try await server.device("ann", "b", loop: round / 2),
            ]
            let credentials = [
                try await credential(server, "a", login: 5), try await credential(server, "b", login: 6),
            ]
            let order = round % 4 < 2 ? [0, 1] : [1, 0]
            for index in order {
                try await devices[index].send([(devices[index].connectFrame(credentials[index]), .control)])
            }
            #expect(try await devices[0].closed() == .evicted)
            await settle(server, "b")
            _ = try await devices[1].message("still here", to: ann)
            let held = try await server.store.place(
                of: DeviceLogin(
                    device: DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("b")),
                    platform: phone, number: 6), policy: .one)
            #expect(held == .held)
        }
    }

    @Test func aRefreshFromANewerLoginTakesThePlace() async throws {
        try await withPolicy(.onePerPlatform) { server in
            let first = try await placed(server, "first", login: 5, platform: tablet)
            let second = try await placed(server, "second", login: 4, loop: 1)
            // The same login: nobody goes.
            let same = try await server.issuer.token("ann", "second", login: 4, platform: phone)
            try await second.send([(.refresh(Refresh(token: same)), .control)])
            _ = try await second.next { if case .refreshed = $0 { true } else { nil } }
            try await first.message("still here", to: ann)
            let newer = try await server.issuer.token("ann", "second", login: 6, platform: tablet)
            try await second.send([(.refresh(Refresh(token: newer)), .control)])
            #expect(try await first.closed() == .evicted)
            // A refresh whose place another one has ends the session.
            let third = try await placed(server, "third", login: 7)
            let older = try await server.issuer.token("ann", "third", login: 7, platform: tablet)
            let fourth = try await placed(server, "fourth", login: 8, platform: tablet)
            try await third.send([(.refresh(Refresh(token: older)), .control)])
            #expect(try await third.closed() == .evicted)
            try await fourth.message("still here", to: ann)
        }
    }

    @Test func aRefreshThatComesBeforeThePlaceTakesItForTheNewLogin() async throws {
        let store = FaultyStore()
        try await withPolicy(.one, store: store) { server in
            let (gate, open) = AsyncStream<Void>.makeStream()
            defer { open.finish() }
            store.set { $0.beforePlace = { for await _ in gate {} } }
            let device = try await server.device("ann", "new")
            _ = try await device.connect(credential: try await credential(server, "new", login: 5))
            let token = try await server.issuer.token("ann", "new", login: 7, platform: phone)
            try await device.send([
                (.refresh(Refresh(token: token)), .control), (.ping(Ping(nonce: 1, answerAfter: 0)), .control),
            ])
            _ = try await device.next { if case .pong = $0 { true } else { nil } }
            open.finish()
            _ = try await device.next { if case .refreshed = $0 { true } else { nil } }
            try await device.send([(.ping(Ping(nonce: 2, answerAfter: 0)), .control)])
            let hasTicket = try await device.next { frame -> Bool? in
                switch frame {
                case .ticket: true
                case .pong: false
                default: nil
                }
            }
            #expect(hasTicket)
            let login = DeviceLogin(
                device: DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("new")),
                platform: phone, number: 7)
            while try await store.place(of: login, policy: .one) != .held { await Task.yield() }
            // A login between the two takes nothing.
            let close = try await refusal(server, "other", try await credential(server, "other", login: 6), loop: 1)
            #expect(close.code == .evicted)
        }
    }

    // MARK: What stays

    @Test func anEvictedDevicesCursorsWaitForItsNextLogin() async throws {
        try await withPolicy(.one) { server in
            let writer = try await server.connected("bob")
            let old = try await placed(server, "old", login: 5)
            try await writer.message("one", to: ann)
            let seen = try await old.delivered(.user(ann))
            let epoch = try #require(
                try await server.store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann)))
            ).position.epoch
            try await old.acknowledge(.user(ann), epoch: epoch, offset: seen.entry.offset)
            let new = try await placed(server, "new", login: 6, loop: 1)
            #expect(try await old.closed() == .evicted)
            try await writer.message("two", to: ann)
            #expect(try await new.text(.user(ann)) == "one")
            #expect(try await new.text(.user(ann)) == "two")
            let back = try await placed(server, "old", login: 7)
            let next = try await back.delivered(.user(ann))
            #expect(String(buffer: next.entry.payload) == "two")
            #expect(!next.redelivered)
        }
    }

    @Test func aRevokedHolderKeepsItsMark() async throws {
        try await withPolicy(.one) { server in
            let old = try await placed(server, "old", login: 5)
            let new = try await placed(server, "new", login: 6)
            #expect(try await old.closed() == .evicted)
            let key = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("new"))
            try await server.runtime.revoke(.device(key))
            #expect(try await new.closed() == .credentialRevoked)
            let ticket = try #require(old.ticket).ticket
            #expect(try await refusal(server, "old", .ticket(ticket)).code == .evicted)
        }
    }

    @Test func withoutADurablePlaceNobodyIsEvicted() async throws {
        let store = FaultyStore()
        try await withPolicy(.one, store: store) { server in
            let old = try await placed(server, "old", login: 5)
            store.set { $0.isFull = true }
            #expect(try await refusal(server, "new", try await credential(server, "new", login: 6)).code == .overloaded)
            // Who has a place comes back also on a full disk.
            try await old.drop()
            let back = try await server.device("ann", "old")
            _ = try await back.connect(credential: try await credential(server, "old", login: 5))
            await settle(server, "old")
            store.set { $0.isFull = false }
            try await back.message("still here", to: ann)
        }
    }
}
