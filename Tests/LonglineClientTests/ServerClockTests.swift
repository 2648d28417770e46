import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A wall clock that is set while there is a connection, as a phone's is by its network.
@Suite("The service's clock", .timeLimit(.minutes(1)))
struct ServerClockTests {
    private static let hour: UInt64 = 3_600_000

    @Test("a request keeps its deadline when the wall clock is set")
    func deadline() async throws {
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(now: DriverClock.system.now, wall: { wall.withLock { $0 } })
        let harness = try ClientHarness(clock: clock)
        try await harness.client.connect()
        wall.withLock { $0 += Self.hour }
        let entry = Entry(
            offset: 1, previous: 0, kind: .request, sender: try UserID("zoe"), device: try DeviceID("d"),
            producer: ProducerID(high: 9, low: 9), publishID: 1, recipient: nil, origin: Position(epoch: 5, offset: 1),
            time: 0, expiry: Self.hour / 2, payload: ByteBuffer(string: "?"))
        harness.service.send(.deliver(Deliver(entry: entry, redelivered: false)), in: .user(try UserID("alice")))
        let request = try #require(await harness.client.core.outlets.requests.next(since: 0))
        let deadline = try #require(request.deadline)
        #expect(deadline > .now && deadline <= .now + .milliseconds(Self.hour / 2))
        await harness.client.disconnect()
    }

    @Test("a token is not renewed before its time when the wall clock is set")
    func refresh() async throws {
        let virtual = VirtualLoop()
        let wall = Mutex<UInt64>(1_700_000_000_000)
        let clock = DriverClock(
            now: { NIODeadline.uptimeNanoseconds(300_000_000_000) }, wall: { wall.withLock { $0 } })
        let harness = try ClientHarness(clock: clock, loop: virtual.loop)
        harness.service.state.withLock { $0.credentialExpiry = Self.hour }
        try await virtual.running { try await harness.client.connect() }
        wall.withLock { $0 += Self.hour }
        harness.service.send(.refreshed(Refreshed(credentialExpiry: Self.hour)))
        // Four fifths of the hour.
        await virtual.pass(.minutes(47))
        #expect(harness.tokens.count == 1)
        try await virtual.pass(.minutes(1)) { harness.tokens.count == 2 }
        try await virtual.running { await harness.client.disconnect() }
    }
}
