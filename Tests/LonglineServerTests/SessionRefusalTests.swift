import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// What peers, operators and disks can do wrong: a named code, and nothing lost for others.
@Suite(.timeLimit(.minutes(1))) struct SessionRefusalTests {
    private func closeCode(_ device: TestDevice, _ credential: Credential) async throws -> CloseCode {
        try await device.send([(device.connectFrame(credential), .control)])
        return try await device.closed()
    }

    // MARK: Credentials

    @Test func badCredentialsAreNamed() async throws {
        try await withServer { server in
            let good = try await server.issuer.token("ann", "phone")
            let expired = try await server.issuer.token("ann", "phone", lifetime: -60_000)
            let cases: [(Credential, CloseCode)] = [
                (.token("nonsense"), .credentialInvalid),
                (.token(String(good.dropLast(4)) + "AAAA"), .credentialInvalid),
                (.token(expired), .credentialExpired),
                (.ticket(ByteBuffer(string: "forged")), .ticketRejected),
            ]
            for (credential, code) in cases {
                #expect(try await closeCode(try await server.device("ann"), credential) == code)
            }
            // Nobody else notices.
            _ = try await server.connected("ann")
        }
    }

    @Test func scopesLimitWhatASessionMayDo() async throws {
        try await withServer { server in
            let reader = try await server.device("ann")
            _ = try await reader.connect(
                credential: .token(try await server.issuer.token("ann", "phone", scopes: .receive)))
            guard case .refused(let refused) = try await reader.publish("x", to: .user(ann)) else {
                Issue.record("published without the scope")
                return
            }
            #expect(refused.code == .forbidden)
            #expect(try await reader.request(try RoomID("hall"), number: 1).refusal == .forbidden)
        }
    }

    // MARK: Links that find no room

    @Test func whoComesToAServerThatIsDrainedIsToldWhereToGo() async throws {
        try await withServer(loops: 1) { server in
            let close = Close(code: .redirect, reason: "drained", accessPoint: "other.example:443")
            for loop in server.runtime.loops { loop.execute { $0.refuseLinks(close) } }
            let device = try await server.device("ann")
            let told = try await device.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(told.code == .redirect && told.accessPoint == close.accessPoint)
            #expect(try await device.closed() == .redirect)
        }
    }

    // MARK: Sizes

    @Test func payloadsAnnouncedLargerThanCanBeCountedAreRefused() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob", loop: 1)
            let frames = (1...3 as ClosedRange<UInt64>).flatMap { number -> [(Frame, LaneID)] in
                let lane = LaneID(rawValue: number)
                let publish = Publish(
                    id: number, tag: number, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "x"),
                    following: FrameLimits.maximumNumber)
                return [(.lane(LaneHeader(channel: .user(ann), epoch: 0)), lane), (.publish(publish), lane)]
            }
            // One beyond the window is refused by name, more are against the rules.
            try await phone.send(frames)
            #expect(try await phone.closed() == .limitExceeded)
            try await other.message("still here", to: bob)
        }
    }

    // MARK: Order

    /// Time for whatever is on its way to the store to get there.
    private static let pause: @Sendable () async -> Void = { for _ in 0..<1_000 { await Task.yield() } }

    @Test func changesOfOneSessionTakeEffectInTheirOrder() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            let hall = try RoomID("hall")
            store.set { $0.beforeChange = Self.pause }
            try await phone.send([
                (.join(RoomRequest(request: 1, room: hall)), .control),
                (.leave(RoomRequest(request: 2, room: hall)), .control),
            ])
            var answers: [RoomAnswer] = []
            for _ in 0..<2 {
                answers.append(try await phone.next { if case .roomAnswer(let answer) = $0 { answer } else { nil } })
            }
            #expect(answers.map(\.request) == [1, 2] && answers.allSatisfy { $0.refusal == nil })
            let members = try await store.members(of: hall, in: TokenIssuer.tenant, for: nil, after: nil, limit: 10)
            #expect(members?.members.isEmpty == true)

            store.set { $0.beforeChange = Self.pause }
            try await phone.send(
                [true, false].enumerated().map { number, isBlocked in
                    let change = ConversationChange(
                        request: UInt64(number + 1), conversation: .user(bob), setting: .block(isBlocked))
                    return (.conversationSet(change), .control)
                })
            for number in 1...2 as ClosedRange<UInt64> {
                let next = try await phone.next { if case .conversation(let state) = $0 { state } else { nil } }
                #expect(next.request == number && next.refusal == nil)
            }
            #expect(try await store.settings(of: .user(bob), for: ann, in: TokenIssuer.tenant).isBlocked == false)
        }
    }

    // MARK: Revocation

    @Test func revokingAUserEndsAllSessionsAndVoidsTheTickets() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            let other = try await server.connected("bob")
            try await server.runtime.revoke(.user(UserKey(tenant: TokenIssuer.tenant, user: ann)))
            #expect(try await phone.closed() == .credentialRevoked)
            #expect(try await tablet.closed() == .credentialRevoked)
            let ticket = Credential.ticket(try #require(phone.ticket).ticket)
            #expect(try await closeCode(try await server.device("ann"), ticket) == .credentialRevoked)
            try await other.publish("undisturbed", to: .user(bob))
        }
    }

    @Test func revokingADeviceSparesTheOthers() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: phone.device)
            try await server.runtime.revoke(.device(device))
            #expect(try await phone.closed() == .credentialRevoked)
            try await tablet.publish("still here", to: .user(ann))
        }
    }

    @Test func revokingATokenEndsItsSessionOnly() async throws {
        try await withServer { server in
            let phone = try await server.device("ann", "phone")
            _ = try await phone.connect(
                credential: .token(try await server.issuer.token("ann", "phone", id: "lost-one")))
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            try await server.runtime.revoke(
                .token("lost-one", TokenIssuer.tenant), until: WallClock.milliseconds() + 3_600_000)
            #expect(try await phone.closed() == .credentialRevoked)
            try await tablet.publish("still here", to: .user(ann))
        }
    }

    // MARK: Limits

    @Test func linksBeyondTheLimitAreTurnedAway() async throws {
        var limits = ServerLimits()
        limits.maximumConnections = 2
        try await withServer(limits: limits) { server in
            let first = try await server.connected("ann", "a")
            _ = try await server.connected("ann", "b")
            #expect(try await server.device("ann", "c").closed() == .overloaded)
            try await first.drop()
            _ = try await server.connected("ann", "b", loop: 1)
        }
    }

    @Test func strangersAreCountedApart() async throws {
        var limits = ServerLimits()
        limits.maximumUnauthenticated = 1
        try await withServer(limits: limits) { server in
            let silent = try await server.device("ann", "a")
            #expect(try await server.device("ann", "b").closed() == .overloaded)
            _ = try await silent.connect()
            _ = try await server.connected("ann", "c")
        }
    }

    @Test func strangersOfOneAddressAreLimited() async throws {
        var limits = ServerLimits()
        limits.maximumUnauthenticatedPerAddress = 2
        try await withServer(limits: limits) { server in
            let silent = try await server.device("ann", "a")
            let gone = try await server.device("ann", "b", loop: 1)
            #expect(try await server.device("ann", "c").closed() == .overloaded)
            #expect(await server.runtime.statistics().connectionsOverAddressLimit == 1)
            // Another address has room of its own.
            let elsewhere = try await server.device("bob", remoteAddress: "198.51.100.7:4242")
            _ = try await elsewhere.connect()
            // Who is accepted, and who is gone, counts no more.
            _ = try await silent.connect()
            try await gone.drop()
            _ = try await server.connected("ann", "d")
            _ = try await server.connected("ann", "e")
        }
    }

    @Test func aFewAddressesDoNotTakeAllTheRoomOfStrangers() async throws {
        var limits = ServerLimits()
        limits.maximumUnauthenticated = 8
        limits.maximumUnauthenticatedPerAddress = 4
        try await withServer(limits: limits) { server in
            let core = server.runtime.core
            var counts: [Int] = []
            for host in 1...4 {
                var count = 0
                while core.admitLink(from: "192.0.2.\(host):4242").refusal == nil { count += 1 }
                counts.append(count)
            }
            #expect(counts == [4, 2, 1, 1])
            // The first has as many as an address may; the others met a server that was nearly full.
            #expect(await server.runtime.statistics().connectionsOverAddressLimit == 1)
        }
    }

    @Test(arguments: [
        ("192.0.2.1:4242", "192.0.2.1"),
        ("[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:ffff::1]:1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80:0:0:0::/64"),
        ("[::ffff:192.0.2.1]:9", "192.0.2.1"),
        ("", ""),
        ("[nonsense]:1", "nonsense"),
    ])
    func whatCountsAsOneAddress(remote: String, address: String) {
        #expect(StrangerTable.address(of: remote) == address)
    }

    @Test func strangersAreForgottenWhenTheyAreGone() {
        let table = StrangerTable()
        for _ in 0..<3 { #expect(table.add("a", limit: 3)) }
        #expect(!table.add("a", limit: 3))
        #expect(table.add("b", limit: 3))
        for _ in 0..<3 { table.remove("a") }
        table.remove("b")
        #expect(table.addressCount == 0)
    }

    /// An app that draws a new outbox at each start is told to stop, not to try again for ever.
    @Test func outboxesOfADeviceAreLimited() async throws {
        var limits = StoreLimits()
        limits.producersPerDevice = 1
        try await withServer(store: InMemoryStore(limits: limits)) { server in
            let first = try await server.connected("ann")
            try await first.drop()
            let second = try await server.device("ann")
            await #expect(throws: TestDevice.LinkEnded.self) { try await second.connect() }
            #expect(try await second.closed() == .limitExceeded)
        }
    }

    @Test func devicesOfAUserAreLimited() async throws {
        var limits = ServerLimits()
        limits.maximumSessionsPerUser = 2
        try await withServer(limits: limits) { server in
            _ = try await server.connected("ann", "a")
            _ = try await server.connected("ann", "b", loop: 1)
            let third = try await server.device("ann", "c")
            await #expect(throws: TestDevice.LinkEnded.self) { try await third.connect() }
            #expect(try await third.closed() == .limitExceeded)
            // A device that is in comes back all the same.
            _ = try await server.connected("ann", "b")
        }
    }

    @Test func publishesBeyondTheQueueAreRefusedAndCanBeSentAgain() async throws {
        var limits = ServerLimits()
        limits.appendsPerSession = 4
        try await withServer(limits: limits, loops: 1) { server in
            let phone = try await server.connected("ann")
            try await phone.send((0..<10).flatMap { phone.publishFrames("m\($0)", to: .user(ann)) })
            var codes: [RefusalCode] = []
            var entered = 0
            for _ in 0..<10 {
                let refusal = try await phone.next { frame -> RefusalCode?? in
                    switch frame {
                    case .published: .some(nil)
                    case .refused(let refused): .some(refused.code)
                    default: nil
                    }
                }
                if let refusal { codes.append(refusal) } else { entered += 1 }
            }
            #expect(entered == 4)
            #expect(codes.allSatisfy { $0.isTemporary })
        }
    }

    // MARK: Frames

    /// It asks, and does not take the answers: what waits for it is bounded, and nobody else notices.
    @Test func aClientThatTakesNoAnswersIsClosed() async throws {
        try await withServer { server in
            let deaf = try await server.device("ann", drains: false)
            _ = try await deaf.connect()
            let pings = [(Frame, LaneID)](repeating: (.ping(Ping(nonce: 1)), .control), count: 500)
            let pong = 30
            let most = 2 * (512 << 10) / (500 * pong)
            for _ in 0..<most { try await deaf.send(pings) }
            #expect(try await deaf.closed() == .overloaded)
            let other = try await server.connected("bob")
            try await other.send([(.ping(Ping(nonce: 2)), .control)])
            _ = try await other.next { if case .pong(let pong) = $0 { pong } else { nil } }
        }
    }

    @Test func brokenBytesCloseWithTheirCode() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            try await phone.sendInvalid(FrameError(.tooLarge, message: "too large"))
            #expect(try await phone.closed() == .frameTooLarge)
            try await other.publish("undisturbed", to: .user(bob))
            let statistics = await server.runtime.statistics()
            #expect(statistics.framesInvalid == 1)
            #expect(statistics.closes[.frameTooLarge] == 1)
        }
    }

    @Test func whatCameOfUnfinishedFramesIsBoundedUntilTheConnectIsAccepted() async throws {
        try await withServer { server in
            func link(_ name: String) async throws -> (wire: FakeWire, device: TestDevice) {
                let (said, continuation) = AsyncStream.makeStream(of: ServerSaid.self)
                let wire = try await FakeWire(
                    runtime: server.runtime, loop: server.runtime.loops[0], early: false,
                    remoteAddress: "192.0.2.1:4242", said: continuation)
                let device = TestDevice(
                    user: ann, device: try DeviceID(name), issuer: server.issuer, wire: wire, said: said)
                return (wire, device)
            }
            let flood = try await link("flood")
            try await flood.wire.holdBack((128 << 10) + 1)
            #expect(try await flood.device.closed() == .limitExceeded)
            // As much as that is no wrong, and who is accepted may have a frame under way on each lane.
            let phone = try await link("phone")
            try await phone.wire.holdBack(128 << 10)
            _ = try await phone.device.connect()
            try await phone.wire.holdBack(1 << 20)
            try await phone.device.publish("hi", to: .user(ann))
        }
    }

    @Test func nothingIsReadBeforeTheConnect() async throws {
        try await withServer { server in
            let phone = try await server.device("ann")
            try await phone.send([(.ping(Ping(nonce: 1)), .control)])
            #expect(try await phone.closed() == .unexpectedFrame)
        }
    }

    @Test func anAnswerAfterASilenceComesByItself() async throws {
        try await withServer { server in
            let phone = try await server.connected("ann")
            try await phone.send([
                (.mode(.background), .control), (.ping(Ping(nonce: 1, answerAfter: 20)), .control),
                (.ping(Ping(nonce: 2)), .control),
            ])
            var answers: [UInt64] = []
            while answers.count < 2 {
                answers.append(try await phone.next { if case .pong(let pong) = $0 { pong.nonce } else { nil } })
            }
            #expect(answers == [2, 1])
            try await phone.send([(.ping(Ping(nonce: 3, answerAfter: 100_000_000)), .control)])
            #expect(try await phone.closed() == .limitExceeded)
        }
    }

    // MARK: The store

    @Test func aFullStoreRefusesPublishesAndServesWhatItHas() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            try await phone.message("before", to: bob)
            store.set { $0.isFull = true }
            guard case .refused(let refused) = try await phone.message("no room", to: bob) else {
                Issue.record("entered into a full store")
                return
            }
            #expect(refused.code == .storageFull)
            #expect(refused.retryAfter > 0)
            #expect(try await phone.request(try RoomID("hall"), number: 1).refusal == .storageFull)
            // Who comes now is served, though neither connect number nor cursors can be stored.
            let other = try await server.connected("bob", loop: 1)
            #expect(try await other.text(.user(bob)) == "before")
            store.set { $0.isFull = false }
            try await phone.publish("again", to: .user(ann))
        }
    }

    @Test func whatWasConfirmedWaitsOnWhenAConnectFindsTheStoreOverloaded() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            try await phone.message("read", to: ann)
            let entry = try await phone.delivered(.user(ann)).entry
            let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann))
            let head = try #require(try await store.head(of: inbox)).position
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: phone.device)
            let place = Position(epoch: head.epoch, offset: entry.offset)
            store.set { $0.cursors = StoreError(.overloaded, message: "busy") }
            server.runtime.core.cursors.put(device, [ChannelPosition(channel: .user(ann), position: place)])
            let second = try await server.device("ann")
            await #expect(throws: TestDevice.LinkEnded.self) { try await second.connect() }
            #expect(try await second.closed() == .overloaded)
            store.set { $0.cursors = nil }
            let third = try await server.device("ann")
            _ = try await third.connect()
            #expect(try await store.advance(device, to: []).cursors == [.user(ann): place])
        }
    }

    @Test func aStoreThatFailsClosesTheSessionAndTheServerStaysUp() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            store.set { $0.reads = StoreError(.unavailable, message: "gone") }
            try await phone.publish("x", to: .user(ann))
            #expect(try await phone.closed() == .internalError)
            store.set {
                $0.reads = nil
                $0.entitlements = StoreError(.overloaded, message: "busy")
            }
            let second = try await server.device("ann")
            await #expect(throws: TestDevice.LinkEnded.self) { try await second.connect() }
            #expect(try await second.closed() == .overloaded)
            store.set { $0.entitlements = nil }
            let third = try await server.connected("ann")
            #expect(try await third.text(.user(ann)) == "x")
        }
    }

    /// The sweep took it, as nothing was left.
    @Test func whatIsLeftToReadOfALogThatIsGoneIsToldToBeLost() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            store.set { $0.reads = StoreError(.unknownChannel, message: "gone") }
            guard case .published(let published) = try await phone.publish("x", to: .user(ann)) else {
                Issue.record("it was not entered")
                return
            }
            let gap = try await phone.next { if case .gap(let gap) = $0 { gap } else { nil } }
            #expect(gap.first == published.position.offset)
            // The session goes on.
            store.set { $0.reads = nil }
            try await phone.publish("y", to: .user(ann))
            #expect(try await phone.text(.user(ann)) == "y")
        }
    }

    // MARK: The end

    @Test func drainingTellsEveryClientToComeBackAtATimeOfItsOwn() async throws {
        try await withServer { server in
            var devices: [TestDevice] = []
            for index in 0..<20 { devices.append(try await server.connected("user\(index)", loop: index)) }
            server.runtime.drain()
            var delays: Set<UInt64> = []
            for device in devices {
                let close = try await device.next { if case .close(let close) = $0 { close } else { nil } }
                #expect(close.code == .shuttingDown)
                delays.insert(close.retryAfter)
            }
            #expect(delays.count > 1, "all clients come back at once")
            #expect(try await server.device("late").closed() == .shuttingDown)
        }
    }

    @Test func nothingIsLeftBehind() async throws {
        try await withServer { server in
            for index in 0..<10 {
                let device = try await server.connected("user\(index)", loop: index)
                _ = try await device.request(try RoomID("hall"), number: 1)
                try await device.drop()
            }
            let statistics = await server.runtime.statistics()
            #expect(statistics.connections == 0)
            #expect(statistics.sessions == 0)
            #expect(statistics.subscriptions == 0)
            #expect(statistics.detachedSessions == 10)
            #expect(await server.runtime.waitUntilIdle(timeout: .seconds(5)) == 0)
        }
    }
}
