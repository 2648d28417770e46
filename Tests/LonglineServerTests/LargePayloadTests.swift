import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }

@Suite("Large payloads at a server", .timeLimit(.minutes(1)))
struct LargePayloadServerTests {
    /// The frames of a publish with as many bytes, in parts behind its first 15,000.
    private func frames(_ device: TestDevice, bytes: Int, recipient: UserID? = nil) -> [(Frame, LaneID)] {
        var frames = device.publishFrames(String(repeating: "x", count: 15_000), to: .user(ann), recipient: recipient)
        guard let (last, lane) = frames.popLast(), case .publish(var publish) = last else { return [] }
        publish.following = UInt64(bytes - 15_000)
        frames.append((.publish(publish), lane))
        for start in stride(from: 15_000, to: bytes, by: 15_000) {
            let part = ByteBuffer(repeating: 0x78, count: min(15_000, bytes - start))
            frames.append((.part(Part(offset: UInt64(start), bytes: part)), lane))
        }
        return frames
    }

    private func answer(_ device: TestDevice) async throws -> RefusalCode? {
        try await device.next { frame -> RefusalCode?? in
            switch frame {
            case .published: .some(nil)
            case .refused(let refused): .some(refused.code)
            default: nil
            }
        }
    }

    @Test("A device that vanishes inside a payload leaves nothing, in memory or in the log")
    func vanishes() async throws {
        let store = InMemoryStore()
        try await withServer(store: store) { server in
            let phone = try await server.connected("ann", "phone")
            let budget = server.runtime.core.sessionConfiguration.payloadBudget
            let frames = frames(phone, bytes: 300_000)
            try await phone.send(Array(frames.dropLast()))
            #expect(budget.used > 200_000)
            try await phone.drop()
            #expect(budget.used == 0)
            let tablet = try await server.connected("ann", "tablet")
            try await tablet.send(self.frames(tablet, bytes: 20_000))
            #expect(try await answer(tablet) == nil)
            let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann))
            let page = try await store.read(inbox, after: 0, upTo: nil, maximumBytes: 1 << 20, now: 0)
            let lengths = page.items.map { item -> UInt64 in
                if case .entry(let entry) = item { entry.length } else { 0 }
            }
            #expect(lengths == [20_000])
        }
    }

    @Test("A tenant's largest payload counts all parts")
    func tenant() async throws {
        var limits = ServerLimits()
        limits.tenants[TokenIssuer.tenant, default: TenantLimits()].maximumPayload = 50_000
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann", "phone")
            try await phone.send(frames(phone, bytes: 50_001))
            #expect(try await answer(phone) == .payloadTooLarge)
            let tablet = try await server.connected("ann", "tablet")
            try await tablet.send(frames(tablet, bytes: 50_000))
            #expect(try await answer(tablet) == nil)
        }
    }

    @Test("One user's devices take their share of the memory, and no more")
    func share() async throws {
        var limits = ServerLimits()
        limits.maximumPayload = 200_000
        limits.arrivingPayloadBytesPerUser = 200_000
        try await withServer(limits: limits) { server in
            let phone = try await server.connected("ann", "phone")
            try await phone.send(Array(frames(phone, bytes: 200_000).dropLast()))
            let tablet = try await server.connected("ann", "tablet", loop: 1)
            try await tablet.send(frames(tablet, bytes: 20_000))
            #expect(try await answer(tablet) == .overloaded)
            try await phone.drop()
            let laptop = try await server.connected("ann", "laptop", loop: 1)
            try await laptop.send(frames(laptop, bytes: 200_000))
            #expect(try await answer(laptop) == nil)
        }
    }
}
