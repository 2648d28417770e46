import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = ChannelID.room(identifier { try RoomID("hall") })

/// Signals between the sessions of a server, over links without datagrams.
@Suite("Signals between sessions", .timeLimit(.minutes(1))) struct SignalTests {
    private func frame(_ channel: ChannelID, _ text: String, kind: SignalKind = .app(1)) -> (Frame, LaneID) {
        (
            .signal(Signal(channel: channel, kind: kind, deadline: 60_000, payload: ByteBuffer(string: text))),
            .control
        )
    }

    private func signal(_ device: TestDevice) async throws -> (text: String, signal: Signal) {
        let signal = try await device.next { if case .signal(let signal) = $0 { signal } else { nil } }
        return (String(buffer: signal.payload), signal)
    }

    /// Devices in the room, each on the next loop.
    private func members(_ server: TestServer, _ names: [(String, String)]) async throws -> [TestDevice] {
        var devices: [TestDevice] = []
        for (index, (user, name)) in names.enumerated() {
            let device = try await server.connected(user, name, loop: index)
            if !devices.contains(where: { $0.user.description == user }) {
                _ = try await device.request(identifier { try RoomID("hall") }, number: 1)
            }
            devices.append(device)
        }
        // Every loop knows of every stay once each device was sent the last join.
        let last = names.last?.0
        for device in devices {
            while try await device.delivered(hall, kind: .joined).entry.sender.description != last {}
        }
        return devices
    }

    private func drops(_ server: TestServer) async throws -> [SignalDrop: UInt64] {
        var all = ServerStatistics()
        for loop in server.runtime.loops { all.add(try await loop.submit { $0.snapshot() }) }
        return all.signalsDropped
    }

    @Test func aRoomHearsASignalOnEveryLoopButTheSendersDevicesDoNot() async throws {
        try await withServer(loops: 3) { server in
            let devices = try await members(
                server, [("ann", "phone"), ("ann", "tablet"), ("bob", "phone"), ("eve", "phone"), ("joe", "phone")])
            try await devices[0].send([frame(hall, "typing")])
            for device in devices[2...] {
                let (text, signal) = try await signal(device)
                #expect(text == "typing" && signal.channel == hall && signal.kind == .app(1))
                #expect(signal.sender == SignalSender(user: ann, device: devices[0].device))
                #expect((1...60_000).contains(signal.deadline))
            }
            // Had the sender's devices got it, it would come before bob's.
            try await devices[2].send([frame(hall, "from bob")])
            #expect(try await self.signal(devices[0]).text == "from bob")
            #expect(try await self.signal(devices[1]).text == "from bob")
        }
    }

    @Test(arguments: [0, 1]) func aUserIsSignalledDirectlyAndOnesOwnInboxReachesTheOtherDevice(loop: Int) async throws {
        try await withServer { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: loop)
            let other = try await server.connected("bob", loop: loop)
            try await phone.send([frame(.user(bob), "to bob"), frame(.user(ann), "to myself")])
            #expect(try await signal(other).text == "to bob")
            let (text, own) = try await signal(tablet)
            #expect(text == "to myself" && own.channel == .user(ann))
            try await other.send([frame(.user(ann), "back")])
            #expect(try await signal(phone).text == "back")
            #expect(try await signal(tablet).text == "back")
        }
    }

    @Test func nothingIsKeptForADeviceThatIsAwayAndNothingEntersTheLog() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            for index in 0..<5 { try await phone.send([frame(.user(bob), "\(index)")]) }
            try await phone.message("a message", to: bob)
            let other = try await server.connected("bob", loop: 1)
            #expect(try await other.text(.user(bob)) == "a message")
            try await phone.send([frame(.user(bob), "now")])
            #expect(try await signal(other).text == "now")
            #expect(store.batches.withLock { $0 } == [1])
        }
    }

    @Test func whoIsNoMemberOrMayNotIsNotHeardAndStaysConnected() async throws {
        try await withServer(loops: 1) { server in
            let devices = try await members(server, [("ann", "phone"), ("bob", "phone")])
            let stranger = try await server.connected("eve")
            let silent = try await server.device("ann", "watch")
            _ = try await silent.connect(
                credential: .token(try await server.issuer.token("ann", "watch", scopes: [.receive])))
            try await stranger.send([frame(hall, "from a stranger")])
            try await silent.send([frame(hall, "without the right")])
            try await devices[0].send([frame(hall, "fine")])
            #expect(try await signal(devices[1]).text == "fine")
            #expect(try await drops(server) == [.forbidden: 2])
            try await stranger.message("still here", to: bob)
            #expect(try await devices[1].text(.user(bob)) == "still here")
        }
    }

    @Test(arguments: [true, false]) func whoeverBlocksTheOtherNeitherHearsTheOtherDirectly(senderBlocks: Bool)
        async throws
    {
        try await withServer(loops: 2) { server in
            let devices = try await members(server, [("ann", "phone"), ("bob", "phone")])
            let (phone, other) = (devices[0], devices[1])
            // Both loops know that the two are in touch, and have to learn that they are no more.
            try await phone.send([frame(.user(bob), "before")])
            #expect(try await signal(other).text == "before")
            try await other.send([frame(.user(ann), "before")])
            #expect(try await signal(phone).text == "before")
            let (blocker, blocked) = senderBlocks ? (phone, bob) : (other, ann)
            _ = try await blocker.change(1, .user(blocked), .block(true))
            try await phone.send([frame(.user(bob), "blocked")])
            try await other.send([frame(.user(ann), "blocked")])
            // The loops may have to ask first.
            while try await drops(server)[.blocked] != 2 { await Task.yield() }
            // A room hears all its members.
            try await phone.send([frame(hall, "in the room")])
            try await other.send([frame(hall, "in the room")])
            #expect(try await signal(other).text == "in the room")
            #expect(try await signal(phone).text == "in the room")
            _ = try await blocker.change(2, .user(blocked), .block(false))
            try await phone.send([frame(.user(bob), "after")])
            try await other.send([frame(.user(ann), "after")])
            #expect(try await signal(other).text == "after")
            #expect(try await signal(phone).text == "after")
            #expect(try await drops(server) == [.blocked: 2])
        }
    }

    @Test func withoutAnAnswerWhetherAUserIsBlockedNothingIsPassedOn() async throws {
        let store = FaultyStore()
        store.set { $0.touch = StoreError(.unavailable, message: "not now", advice: "later") }
        try await withServer(store: store, loops: 1) { server in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            try await phone.send([frame(.user(bob), "lost")])
            while try await drops(server)[.failed] != 1 {}
            store.set { $0.touch = nil }
            try await phone.send([frame(.user(bob), "found out")])
            #expect(try await signal(other).text == "found out")
        }
    }

    @Test func whoLeavesWhileTheStoreIsAskedIsHeard() async throws {
        let store = FaultyStore()
        let (asked, asks) = AsyncStream.makeStream(of: Void.self)
        let (answered, answers) = AsyncStream.makeStream(of: Void.self)
        try await withServer(store: store, loops: 1) { server in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            store.set { faults in
                faults.beforeTouch = {
                    asks.yield()
                    for await _ in answered { break }
                }
            }
            try await phone.send([frame(.user(bob), "goodbye")])
            for await _ in asked { break }
            try await phone.drop()
            answers.yield()
            #expect(try await signal(other).text == "goodbye")
            #expect(try await drops(server) == [:])
        }
    }

    @Test func whoIsBlockedAfterLeavingIsNotHeardThoughTheAppStillDecides() async throws {
        let policy = ScriptedPolicy { _ in .allow(for: .zero) }
        var settings = AuthorizationSettings(policy)
        settings.deadline = .seconds(600)
        try await TestServer(loops: 1, authorization: settings).use { server in
            let phone = try await server.connected("ann")
            let other = try await server.connected("bob")
            // That the two are in touch is known from here on.
            try await phone.send([frame(.user(bob), "before")])
            #expect(try await signal(other).text == "before")
            policy.hold { _ in true }
            try await phone.send([frame(.user(bob), "goodbye")])
            await policy.waitUntilHeld()
            try await phone.drop()
            while try await server.runtime.loops[0].submit({ $0.snapshot().connections }) != 1 { await Task.yield() }
            policy.stopHolding()
            _ = try await other.change(1, .user(ann), .block(true))
            policy.release()
            let decided: @Sendable (ServerLoop) -> UInt64 = { loop in
                loop.statistics.signalsRelayed + loop.statistics.signalsDropped.values.reduce(0, +)
            }
            while try await server.runtime.loops[0].submit(decided) < 2 { await Task.yield() }
            #expect(try await drops(server) == [.blocked: 1])
        }
    }

    @Test func beyondItsRateASessionIsNotHeard() async throws {
        var limits = ServerLimits()
        limits.signalsPerSecond = 0.001
        limits.signalBurst = 3
        try await withServer(limits: limits, loops: 1) { server in
            let devices = try await members(server, [("ann", "phone"), ("bob", "phone"), ("eve", "phone")])
            let burst = (1...9).map { frame(hall, "\($0)", kind: .app(UInt8($0))) }
            try await devices[0].send(burst)
            try await devices[2].send([frame(hall, "another's")])
            var seen: [String] = []
            for _ in 0..<4 { seen.append(try await signal(devices[1]).text) }
            #expect(seen == ["1", "2", "3", "another's"])
            #expect(try await drops(server) == [.rate: 6])
        }
    }

    @Test func ofOneSenderAndKindTheNewestOfATickIsPassedOn() async throws {
        try await withServer { server in
            let devices = try await members(server, [("ann", "phone"), ("bob", "phone")])
            try await devices[0].send((1...9).map { frame(hall, "\($0)") } + [frame(hall, "other", kind: .app(2))])
            #expect(try await signal(devices[1]).text == "9")
            #expect(try await signal(devices[1]).text == "other")
        }
    }

    @Test func aRoomWithTooManyDevicesHearsNoSignalsUntilThereAreFewer() async throws {
        var limits = ServerLimits()
        limits.signalAudience = 3
        try await withServer(limits: limits, loops: 3) { server in
            let devices = try await members(
                server, [("ann", "phone"), ("bob", "phone"), ("eve", "phone"), ("joe", "phone")])
            try await devices[0].send([frame(hall, "to too many")])
            // Behind it on the same loop: when this was answered, that was dropped.
            try await devices[0].send([(.ping(Ping(nonce: 1)), .control)])
            _ = try await devices[0].next { if case .pong(let pong) = $0 { pong } else { nil } }
            #expect(try await drops(server) == [.audience: 1])
            try await devices[3].drop()
            try await devices[0].send([frame(hall, "to three")])
            #expect(try await signal(devices[1]).text == "to three")
            // A user's own inbox has no audience.
            try await devices[0].send([frame(.user(bob), "directly")])
            #expect(try await signal(devices[1]).text == "directly")
        }
    }

    @Test func aDeviceInTheBackgroundIsLeftAlone() async throws {
        try await withServer(loops: 1) { server in
            let devices = try await members(server, [("ann", "phone"), ("bob", "phone"), ("bob", "tablet")])
            try await devices[1].send([(.mode(.background), .control)])
            try await devices[0].send([frame(hall, "1")])
            #expect(try await signal(devices[2]).text == "1")
            try await devices[1].send([(.mode(.foreground), .control)])
            try await devices[0].send([frame(hall, "2")])
            #expect(try await signal(devices[1]).text == "2", "the first did not wait for it")
            #expect(try await drops(server) == [.mode: 1])
        }
    }

    @Test func beforeItsHandshakeIsCompleteADeviceNeitherSignalsNorHears() async throws {
        try await withServer(loops: 1) { server in
            let first = try await server.connected("ann")
            let ticket = try #require(first.ticket)
            let other = try await server.connected("bob")
            // That nobody is blocked is known from here on, and nothing waits for it.
            try await other.send([frame(.user(ann), "known")])
            #expect(try await signal(first).text == "known")
            try await first.drop()
            let early = try await server.device("ann", early: true)
            early.producer = first.producer
            early.connectNumber = 2
            _ = try await early.connect(
                credential: .ticket(ticket.ticket), early: true, with: [frame(.user(bob), "a replay?")])
            try await other.send([frame(.user(ann), "too early")])
            try await early.completeHandshake()
            try await early.send([frame(.user(bob), "now")])
            #expect(try await signal(other).text == "now")
            try await other.send([frame(.user(ann), "hello")])
            #expect(try await signal(early).text == "hello")
        }
    }
}
