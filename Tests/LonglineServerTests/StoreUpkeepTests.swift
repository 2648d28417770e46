import LonglineSession
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }

/// What removes by age, by a wall clock that can't always be believed.
@Suite(.timeLimit(.minutes(1))) struct StoreUpkeepTests {
    private static let minute: UInt64 = 60 * 1_000
    private static let day: UInt64 = 24 * 60 * minute
    private static let year: UInt64 = 365 * day

    /// A server's core over a store in memory, by clocks that a test moves.
    private final class Fixture: Sendable {
        private let clocks = Mutex((wall: UInt64(1_800_000_000_000), instant: ContinuousClock.now))
        let lines = RecordedLines()

        var wall: UInt64 { clocks.withLock { $0.wall } }
        var instant: ContinuousClock.Instant { clocks.withLock { $0.instant } }

        /// Time goes by.
        func pass(_ time: Duration) {
            clocks.withLock { clocks in
                clocks.wall += UInt64(time.components.seconds) * 1_000
                clocks.instant += time
            }
        }

        /// Somebody sets the wall clock.
        func set(_ change: (inout UInt64) -> Void) { clocks.withLock { change(&$0.wall) } }

        func upkeep(
            _ store: InMemoryStore, _ retention: RetentionPolicy = RetentionPolicy()
        ) async throws -> StoreUpkeep {
            let core = try await ServerCore(
                limits: ServerLimits(), store: store,
                verifier: await TokenVerifier(keys: [SigningKey.generate(.edDSA).verificationKey], tenants: nil),
                tickets: ResumeTicketSealer(keys: ResumeTicketKeys(now: wall)), logger: lines.logger,
                upkeep: UpkeepPace(rest: { _ in }), time: { self.wall })
            return StoreUpkeep(core: core, store: store, own: store, retention: retention, logger: lines.logger)
        }

        var sawItSet: Bool { lines.lines.contains { $0.message.hasPrefix("the clock was set: ") } }
    }

    @Test("retention removes nothing by age while the clock was ahead at the start, nor soon after it was set")
    func retention() async throws {
        let fixture = Fixture()
        let store = InMemoryStore(clock: { fixture.wall })
        let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(ann))
        let phone = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("phone"))
        for id in 1...4 as ClosedRange<PublishID> {
            let publish = Publish(
                id: id, tag: id, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "0123456789"))
            _ = await store.append([
                AppendRequest(
                    device: phone, producer: ProducerID(high: 1, low: 1), channel: inbox.channel, publish: publish)
            ])
        }
        func entries() async throws -> Int {
            try await store.read(inbox, after: 0, upTo: nil, maximumBytes: .max, now: 0).items.count
        }
        let upkeep = try await fixture.upkeep(
            store, RetentionPolicy(inbox: Retention(age: 2 * Self.day, entries: 3), interval: .hours(24)))
        var steadiness = ClockSteadiness()
        func turn() async -> Duration { await upkeep.retain(&steadiness, at: fixture.instant) }

        fixture.set { $0 += Self.year }
        var wait = await turn()
        #expect(try await entries() == 4)
        fixture.pass(wait)
        wait = await turn()
        // Numbers need no clock.
        #expect(try await entries() == 3)
        fixture.pass(wait - .seconds(1))
        fixture.set { $0 -= Self.year }
        wait = await turn()
        #expect(try await entries() == 3 && fixture.sawItSet)
        fixture.pass(wait)
        wait = await turn()
        #expect(try await entries() == 3)
        // From here on it goes evenly.
        for _ in 0..<3 {
            fixture.pass(wait)
            wait = await turn()
        }
        #expect(try await entries() == 0)
        fixture.set { $0 += Self.year }
        fixture.pass(wait)
        wait = await turn()
        #expect(wait == StoreUpkeep.steadyTime, "it does not wait for a day to look again")
    }

    @Test("the sweep forgets no revoked token while the clock was ahead at the start, nor soon after it was set")
    func sweep() async throws {
        let fixture = Fixture()
        let store = InMemoryStore(clock: { fixture.wall })
        let tenant = TokenIssuer.tenant
        try await store.revoke(token: "stolen", in: tenant, until: fixture.wall + Self.day)
        let upkeep = try await fixture.upkeep(store)
        var steadiness = ClockSteadiness()
        func turn() async -> Duration { await upkeep.sweep(&steadiness, at: fixture.instant) }

        fixture.set { $0 += Self.year }
        var wait = await turn()
        fixture.pass(wait - .seconds(1))
        fixture.set { $0 -= Self.year }
        wait = await turn()
        #expect(try await store.isRevoked(token: "stolen", in: tenant) && fixture.sawItSet)
        fixture.pass(wait)
        wait = await turn()
        #expect(try await store.isRevoked(token: "stolen", in: tenant), "its time is not over")
        for _ in 0..<2 {
            fixture.pass(wait)
            wait = await turn()
        }
        #expect(try await !store.isRevoked(token: "stolen", in: tenant))
    }
}
