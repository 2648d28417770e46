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
        private let rests = Mutex<[@Sendable () -> Void]>([])
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

        /// What happens in the rests to come, one after another.
        func resting(_ happens: [@Sendable () -> Void]) { rests.withLock { $0 = happens } }

        private func rest() {
            let happens = rests.withLock { rests -> (@Sendable () -> Void)? in
                rests.isEmpty ? nil : rests.removeFirst()
            }
            happens?()
        }

        func upkeep(
            _ store: InMemoryStore, _ retention: RetentionPolicy = RetentionPolicy()
        ) async throws -> StoreUpkeep {
            let core = try await ServerCore(
                limits: ServerLimits(), store: store,
                verifier: await TokenVerifier(keys: [SigningKey.generate(.edDSA).verificationKey], tenants: nil),
                tickets: ResumeTicketSealer(keys: ResumeTicketKeys(now: wall)), logger: lines.logger,
                upkeep: UpkeepPace(now: { self.instant }, rest: { _ in self.rest() }), time: { self.wall })
            return StoreUpkeep(core: core, store: store, own: store, retention: retention, logger: lines.logger)
        }

        var sawItSet: Bool { lines.lines.contains { $0.message.hasPrefix("the clock was set: ") } }
    }

    private func note(_ id: PublishID, of user: UserID, to store: InMemoryStore) async throws {
        let phone = DeviceKey(tenant: TokenIssuer.tenant, user: user, device: try DeviceID("phone"))
        let publish = Publish(
            id: id, tag: id, after: 0, recipient: nil, timeToLive: 0, payload: ByteBuffer(string: "0123456789"))
        _ = await store.append([
            AppendRequest(
                device: phone, producer: ProducerID(high: 1, low: 1), channel: .user(user), publish: publish)
        ])
    }

    private func entries(of user: UserID, in store: InMemoryStore) async throws -> Int {
        let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(user))
        return try await store.read(inbox, after: 0, upTo: nil, maximumBytes: .max, now: 0).items.count
    }

    @Test("retention removes nothing by age while the clock was ahead at the start, nor soon after it was set")
    func retention() async throws {
        let fixture = Fixture()
        let store = InMemoryStore(clock: { fixture.wall })
        for id in 1...4 as ClosedRange<PublishID> { try await note(id, of: ann, to: store) }
        func entries() async throws -> Int { try await self.entries(of: ann, in: store) }
        let upkeep = try await fixture.upkeep(
            store, RetentionPolicy(inbox: Retention(age: 2 * Self.day, entries: 3), interval: .hours(24)))
        var steadiness = ClockSteadiness()
        func turn() async -> Duration { await upkeep.retain(&steadiness) }

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
        func turn() async -> Duration { await upkeep.sweep(&steadiness) }

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

    /// The first rest is the one behind the list of channels, the second behind the first entry that is removed.
    @Test("retention removes nothing more by age once the clock is set in the middle of a walk", arguments: [1, 2])
    func retentionSetMeanwhile(rest: Int) async throws {
        let fixture = Fixture()
        var limits = StoreLimits()
        limits.trimEntries = 1
        let store = InMemoryStore(limits: limits, clock: { fixture.wall })
        let bob = try UserID("bob")
        for id in 1...3 as ClosedRange<PublishID> { try await note(id, of: ann, to: store) }
        let upkeep = try await fixture.upkeep(
            store,
            RetentionPolicy(
                inbox: Retention(age: 2 * Self.day), room: Retention(entries: 1), interval: .hours(24)))
        var steadiness = ClockSteadiness()
        _ = await upkeep.retain(&steadiness)
        fixture.pass(.seconds(3 * 24 * 3_600))
        try await note(1, of: bob, to: store)
        var happens: [@Sendable () -> Void] = []
        if rest == 2 { happens.append({}) }
        happens.append({ fixture.set { $0 += Self.year } })
        fixture.resting(happens)
        let wait = await upkeep.retain(&steadiness)
        #expect(try await entries(of: ann, in: store) == 4 - rest)
        #expect(try await entries(of: bob, in: store) == 1, "it is live")
        #expect(wait == StoreUpkeep.steadyTime && fixture.sawItSet)
        // It was right, and is set back: all that is old goes in the end.
        fixture.set { $0 -= Self.year }
        _ = await upkeep.retain(&steadiness)
        fixture.pass(StoreUpkeep.steadyTime)
        _ = await upkeep.retain(&steadiness)
        #expect(try await entries(of: ann, in: store) == 0)
        #expect(try await entries(of: bob, in: store) == 1)
    }

    @Test("a sweep ends at the step at which the clock was set, and comes again an hour later")
    func sweepSetMeanwhile() async throws {
        let fixture = Fixture()
        let store = InMemoryStore(clock: { fixture.wall })
        let tenant = TokenIssuer.tenant
        try await store.revoke(token: "stolen", in: tenant, until: fixture.wall + Self.day)
        let upkeep = try await fixture.upkeep(store)
        var steadiness = ClockSteadiness()
        fixture.pass(await upkeep.sweep(&steadiness))
        fixture.resting([{ fixture.set { $0 += Self.year } }])
        let wait = await upkeep.sweep(&steadiness)
        #expect(try await store.isRevoked(token: "stolen", in: tenant), "its time is not over")
        #expect(wait == .seconds(3_600) && fixture.sawItSet)
    }

    /// The first rest is the one behind presence, the second behind devices.
    @Test("a sweep that ends before its time says what it did until then")
    func sweepSaysWhatItDid() async throws {
        let fixture = Fixture()
        let store = InMemoryStore(clock: { fixture.wall })
        try await note(1, of: ann, to: store)
        let upkeep = try await fixture.upkeep(store)
        var steadiness = ClockSteadiness()
        _ = await upkeep.sweep(&steadiness)
        fixture.pass(Duration.milliseconds(StoreLimits().unseen) + .seconds(1))
        fixture.resting([{}, { fixture.set { $0 += Self.year } }])
        _ = await upkeep.sweep(&steadiness)
        let lines = fixture.lines.lines.filter { $0.message.hasPrefix("store swept") }
        #expect(lines.map(\.message) == ["store swept in part"])
        #expect(lines.first?.metadata["devices"].map { "\($0)" } == "1")
    }
}
