import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

@Suite("Publish rates", .timeLimit(.minutes(1)))
struct PublishRateTests {
    private static let acme = TokenIssuer.tenant
    private static let other = identifier { try TenantID("other") }
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    private func user(_ name: String, _ tenant: TenantID = Self.acme) -> UserKey {
        UserKey(tenant: tenant, user: identifier { try UserID(name) })
    }

    private func meter(_ change: (inout ServerLimits) -> Void) -> PublishMeter {
        var limits = ServerLimits()
        change(&limits)
        return PublishMeter(limits: limits)
    }

    // MARK: The meter

    @Test("A burst goes at once, then the rate; the wait that is told is long enough")
    func burstAndRate() throws {
        let meter = meter { $0.publishRatePerUser = PublishRate(messagesPerSecond: 10, messageBurst: 20) }
        for _ in 0..<20 { #expect(meter.wait(for: user("ann"), bytes: 1, now: start) == nil) }
        let wait = try #require(meter.wait(for: user("ann"), bytes: 1, now: start))
        // A quarter of the burst, so that a client does not come back for each.
        #expect(wait == .milliseconds(500))
        #expect(meter.wait(for: user("bob"), bytes: 1, now: start) == nil, "nobody else waits")
        let later = start + wait
        for _ in 0..<5 { #expect(meter.wait(for: user("ann"), bytes: 1, now: later) == nil) }
        #expect(meter.wait(for: user("ann"), bytes: 1, now: later) != nil)
    }

    @Test("Bytes are counted too, and a payload beyond the burst still goes, alone")
    func bytes() {
        let meter = meter {
            $0.publishRatePerUser = PublishRate(
                messagesPerSecond: 1000, messageBurst: 1000, bytesPerSecond: 100, byteBurst: 1000)
        }
        #expect(meter.wait(for: user("ann"), bytes: 5000, now: start) == nil)
        #expect(meter.wait(for: user("ann"), bytes: 1, now: start) != nil)
        #expect(meter.wait(for: user("ann"), bytes: 900, now: start + .seconds(9)) == nil)
        #expect(meter.wait(for: user("ann"), bytes: 0, now: start + .seconds(9)) == nil)
        #expect(meter.wait(for: user("ann"), bytes: 100, now: start + .seconds(9)) != nil)
    }

    @Test("A tenant's rate holds for its users together, costs a refused user nothing, and no other tenant")
    func tenants() {
        let meter = meter {
            $0.publishRatePerUser = PublishRate(messagesPerSecond: 0.001, messageBurst: 3)
            $0.tenants[Self.acme, default: TenantLimits()].publishRate = PublishRate(
                messagesPerSecond: 1, messageBurst: 2)
        }
        #expect(meter.wait(for: user("ann"), bytes: 1, now: start) == nil)
        #expect(meter.wait(for: user("bob"), bytes: 1, now: start) == nil)
        for _ in 0..<10 { #expect(meter.wait(for: user("eve"), bytes: 1, now: start) != nil) }
        // Eve's own three are all there still.
        for second in 1...3 {
            #expect(meter.wait(for: user("eve"), bytes: 1, now: start + .seconds(Int64(second))) == nil)
        }
        #expect(meter.wait(for: user("eve"), bytes: 1, now: start + .seconds(9)) != nil)
        #expect(meter.wait(for: user("eve", Self.other), bytes: 1, now: start) == nil)
    }

    @Test("A tenant's own rate goes before the one for all")
    func ownRate() {
        let meter = meter {
            $0.publishRatePerUser = PublishRate(messagesPerSecond: 1, messageBurst: 1)
            $0.tenants[Self.acme, default: TenantLimits()].publishRatePerUser = PublishRate(
                messagesPerSecond: 1, messageBurst: 3)
        }
        #expect(
            (0..<4).map { _ in meter.wait(for: user("ann"), bytes: 1, now: start) == nil } == [true, true, true, false])
        #expect(
            (0..<2).map { _ in meter.wait(for: user("ann", Self.other), bytes: 1, now: start) == nil } == [true, false])
    }

    @Test("Who has been quiet is forgotten, who is limited is not")
    func bounded() {
        let meter = meter { $0.publishRatePerUser = PublishRate(messagesPerSecond: 1, messageBurst: 2) }
        for _ in 0..<3 { _ = meter.wait(for: user("eve"), bytes: 1, now: start + .seconds(5_000)) }
        for index in 0..<20_000 {
            _ = meter.wait(for: user("user\(index)"), bytes: 1, now: start + .seconds(Int64(index / 5)))
        }
        #expect(meter.count <= 16 * 257)
        #expect(meter.wait(for: user("eve"), bytes: 1, now: start + .seconds(5_000)) != nil)
    }

    // MARK: The server

    @Test("Beyond the rate a publish is refused for now, on every device of the user, and others go on")
    func refused() async throws {
        var limits = ServerLimits()
        limits.publishRatePerUser = PublishRate(messagesPerSecond: 0.01, messageBurst: 3)
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann", "phone")
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            for _ in 0..<2 {
                guard case .published = try await phone.publish("x", to: .user(ann)) else {
                    Issue.record("refused within the burst")
                    return
                }
            }
            guard case .published = try await tablet.publish("x", to: .user(ann)) else {
                Issue.record("refused within the burst")
                return
            }
            for device in [phone, tablet] {
                guard case .refused(let refused) = try await device.publish("x", to: .user(ann)) else {
                    Issue.record("published beyond the rate")
                    return
                }
                #expect(refused.code == .overloaded)
                #expect(refused.retryAfter > 50_000)
            }
            let other = try await server.connected("bob")
            guard case .published = try await other.publish("x", to: .user(bob)) else {
                Issue.record("somebody else was limited")
                return
            }
        }
    }

    @Test("Joins, leaves and changes of rooms count as publishes")
    func rooms() async throws {
        var limits = ServerLimits()
        limits.publishRatePerUser = PublishRate(messagesPerSecond: 0.01, messageBurst: 3)
        try await withServer(limits: limits) { server in
            let hall = try RoomID("hall")
            let phone = try await server.connected("ann", "phone")
            #expect(try await phone.request(hall, number: 1).refusal == nil)
            let command = RoomCommand(request: 2, room: hall, action: .setJoining(.nobody))
            try await phone.send([(.room(command), .control)])
            let changed = try await phone.next { if case .roomAnswer(let answer) = $0 { answer } else { nil } }
            #expect(changed.request == 2 && changed.refusal == nil)
            #expect(try await phone.request(hall, number: 3, leave: true).refusal == nil)
            #expect(try await phone.request(hall, number: 4).refusal == .overloaded)
            guard case .refused(let refused) = try await phone.publish("x", to: .user(ann)) else {
                Issue.record("published beyond the rate")
                return
            }
            #expect(refused.code == .overloaded)
            #expect(await server.runtime.statistics().publishesOverRate == 2)
            #expect(try await server.connected("bob").request(hall, number: 1).refusal == nil)
        }
    }

    @Test("A tenant's largest payload is told and enforced")
    func payload() async throws {
        var limits = ServerLimits()
        limits.tenants[Self.acme, default: TenantLimits()].maximumPayload = 100
        try await withServer(limits: limits) { server in
            let phone = try await server.device("ann", "phone")
            #expect(try await phone.connect().limits.maximumPayload == 100)
            guard case .published = try await phone.publish(String(repeating: "x", count: 100), to: .user(ann)),
                case .refused(let refused) = try await phone.publish(String(repeating: "x", count: 101), to: .user(ann))
            else {
                Issue.record("the limit is another")
                return
            }
            #expect(refused.code == .payloadTooLarge)
        }
    }

    @Test("A tenant's sessions have their own limit")
    func sessions() async throws {
        var limits = ServerLimits()
        limits.tenants[Self.acme, default: TenantLimits()].maximumSessions = 1
        try await withServer(limits: limits) { server in
            _ = try await server.connected("ann", "phone")
            let second = try await server.device("bob")
            try await second.send([
                (second.connectFrame(.token(try await server.issuer.token("bob", "phone"))), .control)
            ])
            #expect(try await second.closed() == .overloaded)
        }
    }
}
