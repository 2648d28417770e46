import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let bob = identifier { try UserID("bob") }
private let room = identifier { try RoomID("hall") }
private let hall = ChannelID.room(room)

extension TestDevice {
    fileprivate func act(_ action: RoomAction, number: UInt64) async throws -> RefusalCode? {
        try await send([(.room(RoomCommand(request: number, room: room, action: action)), .control)])
        return try await next { frame -> RoomAnswer? in
            if case .roomAnswer(let answer) = frame, answer.request == number { answer } else { nil }
        }.refusal
    }

    fileprivate func signal(_ kind: SignalKind, _ text: String = "") async throws {
        let signal = Signal(channel: hall, kind: kind, deadline: 60_000, payload: ByteBuffer(string: text))
        try await send([(.signal(signal), .control)])
    }

    fileprivate func heard() async throws -> SignalKind {
        try await next { if case .signal(let signal) = $0 { signal.kind } else { nil } }
    }
}

/// Signals into rooms where not everybody may publish.
@Suite("Signals of who may not publish in a room", .timeLimit(.minutes(1))) struct RoomVoiceTests {
    private func drops(_ server: TestServer) async throws -> [SignalDrop: UInt64] {
        var all = ServerStatistics()
        for loop in server.runtime.loops { all.add(try await loop.submit { $0.snapshot() }) }
        return all.signalsDropped
    }

    /// Waits until so many signals were dropped for a reason.
    private func drops(_ count: UInt64, _ reason: SignalDrop, _ server: TestServer) async throws {
        while try await drops(server)[reason] != count { await Task.yield() }
    }

    @Test func whereOnlyOwnersPublishAMemberSignalsWhatIsAboutOneselfOnly() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            _ = try await owner.request(room, number: 1)
            _ = try await member.request(room, number: 1)
            try await member.signal(.typing)
            #expect(try await owner.heard() == .typing)

            #expect(try await owner.act(.setPublishing(.owners), number: 2) == nil)
            for kind in [SignalKind.typing, .app(1), SignalKind(rawValue: 5)] { try await member.signal(kind) }
            try await member.signal(.readPosition, String(repeating: "x", count: 65))
            try await member.signal(.presenceHint, String(repeating: "x", count: 64))
            try await member.signal(.readPosition)
            #expect(try await owner.heard() == .presenceHint)
            #expect(try await owner.heard() == .readPosition)
            try await drops(4, .forbidden, server)
            try await owner.signal(.app(2))
            #expect(try await member.heard() == .app(2))

            #expect(try await owner.act(.setRole(.owner, of: bob), number: 3) == nil)
            try await member.signal(.app(3))
            #expect(try await owner.heard() == .app(3))
            #expect(try await drops(server) == [.forbidden: 4])
        }
    }

    @Test func whoInheritsARoomIsHeard() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let heir = try await server.connected("bob", loop: 1)
            let other = try await server.connected("eve")
            for device in [owner, heir, other] { _ = try await device.request(room, number: 1) }
            #expect(try await owner.act(.setPublishing(.owners), number: 2) == nil)
            try await heir.signal(.app(1))
            try await drops(1, .forbidden, server)
            _ = try await owner.request(room, number: 3, leave: true)
            try await heir.signal(.app(2))
            #expect(try await other.heard() == .app(2))
        }
    }

    @Test func aRoleThatTheAppGivesCountsAtOnce() async throws {
        try await withServer { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            _ = try await owner.request(room, number: 1)
            _ = try await member.request(room, number: 1)
            #expect(try await owner.act(.setPublishing(.owners), number: 2) == nil)
            try await member.signal(.app(1))
            try await drops(1, .forbidden, server)
            let device = DeviceKey(tenant: TokenIssuer.tenant, user: bob, device: member.device)
            _ = try await server.runtime.set(.member(.owner), of: device, in: room)
            try await member.signal(.app(2))
            #expect(try await owner.heard() == .app(2))
        }
    }

    @Test func aDeviceThatDidNotJoinItselfIsHeardInOrderOnceTheRoomIsKnown() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(room, number: 1)
            let phone = try await server.connected("bob", loop: 1)
            _ = try await phone.request(room, number: 1)
            let tablet = try await server.connected("bob", "tablet", loop: 1)
            store.set { $0.members = StoreError(.unavailable, message: "not now", advice: "later") }
            try await tablet.signal(.app(0))
            try await drops(1, .failed, server)
            for number in 1...9 { try await tablet.signal(.app(UInt8(number))) }
            for number in 1...9 { #expect(try await owner.heard() == .app(UInt8(number))) }
            #expect(try await drops(server) == [.failed: 1])
        }
    }

    @Test(arguments: [true, false]) func aChangeWhoseAnswerFailsCountsAllTheSame(isOfTheApp: Bool) async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let owner = try await server.connected("ann")
            let member = try await server.connected("bob", loop: 1)
            _ = try await owner.request(room, number: 1)
            _ = try await member.request(room, number: 1)
            try await member.signal(.typing)
            #expect(try await owner.heard() == .typing)
            store.set { $0.changeAnswer = StoreError(.storageFull, message: "no room", advice: "make some") }
            if isOfTheApp {
                let device = DeviceKey(
                    tenant: TokenIssuer.tenant, user: identifier { try UserID("ann") }, device: owner.device)
                await #expect(throws: ServerError.self) {
                    _ = try await server.runtime.change(room, .act(.setPublishing(.owners)), by: device)
                }
            } else {
                #expect(try await owner.act(.setPublishing(.owners), number: 2) != nil)
            }
            try await member.signal(.app(1))
            try await drops(1, .forbidden, server)
        }
    }

    @Test func aSignalThatWaitsWhenItsSessionEndsIsHeardOrCountedAsForbidden() async throws {
        let store = FaultyStore()
        let (asked, asks) = AsyncStream.makeStream(of: Void.self)
        let (answered, answers) = AsyncStream.makeStream(of: Void.self)
        try await withServer(store: store) { server in
            let owner = try await server.connected("ann")
            _ = try await owner.request(room, number: 1)
            let phone = try await server.connected("bob", loop: 1)
            _ = try await phone.request(room, number: 1)
            for number in 1...2 {
                let tablet = try await server.connected("bob", "tablet\(number)", loop: 1)
                store.set { faults in
                    faults.beforeMembers = {
                        asks.yield()
                        for await _ in answered { break }
                    }
                }
                try await tablet.signal(.app(UInt8(number)))
                for await _ in asked { break }
                try await tablet.drop()
                answers.yield()
                guard number == 1 else { break }
                #expect(try await owner.heard() == .app(1))
                #expect(try await owner.act(.setPublishing(.owners), number: 2) == nil)
            }
            try await drops(1, .forbidden, server)
            #expect(try await drops(server) == [.forbidden: 1])
        }
    }

    @Test func whatIsKnownOfARoomIsAskedAboutAnewAfterAMinute() {
        var voices = RoomVoices()
        let start = NIODeadline.uptimeNanoseconds(1)
        voices.learn(true, in: room, asOf: 0, now: start)
        let end = start + RoomVoices.lifetime
        #expect(voices.mayPublish(in: room, now: end - .nanoseconds(1), isCurrent: { _ in true }) == true)
        #expect(voices.mayPublish(in: room, now: end, isCurrent: { _ in true }) == nil)
    }

    @Test func aFullListOfChangesHasEveryRoomAskedAboutOnceMore() throws {
        let log = RoomRuleLog()
        func key(_ name: String) throws -> ChannelKey {
            ChannelKey(tenant: TokenIssuer.tenant, channel: .room(try RoomID(name)))
        }
        let (changed, other) = (try key("changed"), try key("other"))
        log.changed(changed)
        #expect(!log.isCurrent(changed, asOf: 0) && log.isCurrent(changed, asOf: 1) && log.isCurrent(other, asOf: 0))
        for number in 1..<RoomRuleLog.limit { log.changed(try key("room-\(number)")) }
        let before = log.count
        log.changed(try key("one-more"))
        #expect(!log.isCurrent(other, asOf: before - 1) && log.isCurrent(other, asOf: before))
        #expect(!log.isCurrent(changed, asOf: 1) && log.isCurrent(changed, asOf: before))
    }
}
