import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// How long TLS tickets and address tokens stay on the disk, and which attempts go with them.
@Suite("Tickets and address tokens that are kept", .timeLimit(.minutes(1)))
struct TicketTests {
    private static let day: UInt64 = 86_400_000

    private func clock(_ wall: @escaping @Sendable () -> UInt64) -> DriverClock {
        DriverClock(now: DriverClock.system.now, wall: wall)
    }

    @Test("a TLS ticket whose time is over goes from the storage, and the access point's address token with it")
    func expired() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        var state = StoredClientState()
        state.transportTickets = [
            "old:1": StoredSecret(bytes: [1], expiry: 1_700_000_000_000),
            "ageless:1": StoredSecret(bytes: [2], expiry: 0),
        ]
        state.addressTokens = ["old:1": [3], "other:1": [4]]
        let storage = InMemoryClientStorage(state)
        let harness = try ClientHarness(storage: storage, clock: clock { wall.withLock { $0 } })
        try await harness.settle()
        #expect(await Set(storage.load().transportTickets.keys) == ["ageless:1"])
        #expect(await Set(storage.load().addressTokens.keys) == ["other:1"])
        try await harness.client.run { driver in
            let node = AccessPoint(host: "first", port: 1)
            driver.keepTransportTicket([5], for: node)
            driver.keepAddressToken([6], for: node)
        }
        wall.withLock { $0 += 7 * Self.day }
        try await harness.client.run { $0.keepTransportTicket([7], for: AccessPoint(host: "second", port: 1)) }
        try await harness.settle()
        #expect(await Set(storage.load().transportTickets.keys) == ["ageless:1", "second:1"])
        #expect(await Set(storage.load().addressTokens.keys) == ["other:1"])
        // A token that comes before its link's ticket takes the place of the last one.
        wall.withLock { $0 += 7 * Self.day }
        try await harness.client.run { $0.keepAddressToken([8], for: AccessPoint(host: "second", port: 1)) }
        try await harness.settle()
        #expect(await storage.load().addressTokens == ["other:1": [4], "second:1": [8]])
    }

    @Test("of the access points that came and went only the newest are in the storage")
    func capped() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let storage = InMemoryClientStorage()
        let harness = try ClientHarness(storage: storage, clock: clock { wall.withLock { $0 } })
        let limit = ConnectionDriver.rememberedAccessPoints
        for number in 1...limit + 4 {
            wall.withLock { $0 += 1 }
            try await harness.client.run { driver in
                let node = AccessPoint(host: "node", port: number)
                driver.keepAddressToken([1], for: node)
                driver.keepTransportTicket([2], for: node)
            }
        }
        try await harness.settle()
        let newest = Set((5...limit + 4).map { "node:\($0)" })
        #expect(await Set(storage.load().transportTickets.keys) == newest)
        #expect(await Set(storage.load().addressTokens.keys) == newest)
        // One that gives no TLS tickets is an access point too.
        try await harness.client.run { $0.keepAddressToken([3], for: AccessPoint(host: "other", port: 1)) }
        try await harness.settle()
        #expect(await Set(storage.load().transportTickets.keys) == newest.subtracting(["node:5"]))
        #expect(await Set(storage.load().addressTokens.keys) == newest.subtracting(["node:5"]).union(["other:1"]))
    }

    @Test(
        "an attempt that sent nothing is not the one that does without a TLS ticket, nor held against it",
        arguments: [FakeService.Answer.handshakeFailure, .nobody])
    func nothingSent(cause: FakeService.Answer) async throws {
        let virtual = VirtualLoop()
        let harness = try ClientHarness(loop: virtual.loop) {
            $0.accessPoints = [AccessPoint(host: "one", port: 1)]
            $0.connectTimeout = .seconds(20)
        }
        let (client, service) = (harness.client, harness.service)
        try await virtual.running { try await client.start() }
        await harness.connected(on: virtual, by: 1)
        // Each of these waits for its host until its time is over, or has no network.
        let vain: [FakeService.Answer] = [.noHost, .fail(ClientError(.connectFailed, message: "no network")), .noHost]
        service.state.withLock { $0.answers = vain }
        service.cut()
        await harness.connected(on: virtual, by: 5)
        let tls = Array("tls".utf8)
        var expected: [[UInt8]?] = [nil, tls, tls, tls, tls]
        #expect(service.state.withLock { $0.requests.map(\.sessionTicket) } == expected)
        var causes = [cause]
        if case .nobody = cause { causes.append(cause) }
        service.state.withLock { $0.answers = causes + vain }
        service.cut()
        for _ in causes { expected.append(tls) }
        expected += [nil, nil, nil, nil]
        await harness.connected(on: virtual, by: expected.count)
        #expect(service.state.withLock { $0.requests.map(\.sessionTicket) } == expected)
        // It was sent and answered: the next one resumes.
        service.cut()
        await harness.connected(on: virtual, by: expected.count + 1)
        #expect(service.state.withLock { $0.requests.last?.sessionTicket } == tls)
        try await virtual.running { await client.disconnect() }
    }
}
