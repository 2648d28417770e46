import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }
private let inbox = ChannelID.user(ann)

/// Rates hold for a user, however often the user's devices connect.
@Suite(.timeLimit(.minutes(1))) struct RequestRateTests {
    private func user(_ name: String) -> UserKey {
        UserKey(tenant: TokenIssuer.tenant, user: identifier { try UserID(name) })
    }

    private func connect(_ device: TestDevice, _ server: TestServer, cursors: [ChannelPosition] = []) async throws {
        let token = try await server.issuer.token(device.user.description, device.device.description)
        try await device.send([(device.connectFrame(.token(token), cursors: cursors), .control)])
    }

    // MARK: The meter

    @Test func eachKindHasItsRateAndWhoIsQuietIsForgotten() {
        var limits = ServerLimits()
        (limits.connectBurst, limits.connectsPerSecond) = (2, 1)
        let meter = RequestMeter(limits: limits)
        let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
        for _ in 0..<2 { #expect(meter.wait(for: .connect, of: user("ann"), now: start) == nil) }
        #expect(meter.wait(for: .connect, of: user("ann"), now: start) == .seconds(1))
        #expect(meter.wait(for: .room, of: user("ann"), now: start) == nil, "of another kind")
        #expect(meter.wait(for: .connect, of: user("bob"), now: start) == nil)
        #expect(meter.wait(for: .connect, of: user("ann"), now: start + .seconds(1)) == nil)
        for index in 0..<20_000 {
            _ = meter.wait(for: .connect, of: user("user\(index)"), now: start + .seconds(Int64(index / 5)))
        }
        #expect(meter.count <= 16 * 257)
    }

    // MARK: The server

    @Test func anotherLinkBringsNoNewBurst() async throws {
        var limits = ServerLimits()
        (limits.roomRequestBurst, limits.roomRequestsPerSecond) = (2, 0.001)
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann")
            for number in 1...2 as ClosedRange<UInt64> {
                #expect(try await phone.request(try RoomID("r\(number)"), number: number).refusal == nil)
            }
            // The same device, which takes over, and one on another loop.
            for (name, loop) in [("phone", 0), ("tablet", 1)] {
                let other = try await server.device("ann", name, loop: loop)
                (other.producer, other.connectNumber) = (phone.producer, 2)
                _ = try await other.connect()
                #expect(try await other.request(hall, number: 1).refusal == .overloaded)
            }
            #expect(try await server.connected("bob").request(hall, number: 1).refusal == nil)
        }
    }

    @Test func pagesOfMembersHaveARate() async throws {
        var limits = ServerLimits()
        (limits.memberRequestBurst, limits.memberRequestsPerSecond) = (2, 0.001)
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            #expect(try await phone.request(hall, number: 1).refusal == nil)
            func page(_ number: UInt64, _ device: TestDevice) async throws -> MembersPage {
                let request = MembersRequest(request: number, room: hall, after: nil, limit: 10)
                try await device.send([(.members(request), .control)])
                return try await device.next { if case .membersPage(let page) = $0 { page } else { nil } }
            }
            #expect(try await page(1, phone).members.map(\.user) == [ann])
            #expect(try await page(2, tablet).members.map(\.user) == [ann])
            for number in 3...4 as ClosedRange<UInt64> {
                let refused = try await page(number, phone)
                #expect(refused.request == number && refused.refusal == .overloaded)
            }
            #expect(await server.runtime.statistics().refusals[.overloaded] == 2)
        }
    }

    @Test func aUserThatConnectsTooFastComesAgainAndNobodyElseWaits() async throws {
        var limits = ServerLimits()
        (limits.connectBurst, limits.connectsPerSecond) = (3, 0.01)
        try await withServer(limits: limits) { server in
            for number in 1...3 as ClosedRange<UInt64> {
                let phone = try await server.device("ann", "phone", loop: Int(number))
                phone.connectNumber = number
                _ = try await phone.connect()
            }
            let phone = try await server.device("ann")
            try await connect(phone, server)
            let close = try await phone.next { if case .close(let close) = $0 { close } else { nil } }
            #expect(close.code == .overloaded && close.retryAfter > 50_000)
            #expect(await server.runtime.statistics().connectsOverRate == 1)
            _ = try await server.connected("bob")
            // Who has no credential takes nothing of it.
            let stranger = try await server.device("carol")
            try await stranger.send([(stranger.connectFrame(.token("no token")), .control)])
            #expect(try await stranger.closed() != .overloaded)
        }
    }

    @Test func aConnectThatMovesNoCursorWritesNone() async throws {
        let store = FaultyStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann")
            try await phone.message("note", to: ann)
            let head = try #require(
                try await store.head(of: ChannelKey(tenant: TokenIssuer.tenant, channel: inbox)))
            let place = ChannelPosition(channel: inbox, position: head.position)
            let before = store.cursorWrites.withLock { $0 }
            func comeBack(_ number: UInt64, _ cursors: [ChannelPosition]) async throws -> Connected {
                let again = try await server.device("ann")
                (again.producer, again.connectNumber) = (phone.producer, number)
                return try await again.connect(cursors: cursors)
            }
            #expect(try await comeBack(2, []).cursorVersion == 0)
            #expect(store.cursorWrites.withLock { $0 } == before)
            #expect(try await comeBack(3, [place]).cursorVersion == 1)
            #expect(store.cursorWrites.withLock { $0 } == before + 1)
            for number in 4...5 as ClosedRange<UInt64> {
                #expect(try await comeBack(number, [place]).cursorVersion == 1)
            }
            #expect(store.cursorWrites.withLock { $0 } == before + 1)
        }
    }
}
