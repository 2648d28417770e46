import LonglineSession
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

@Suite(.timeLimit(.minutes(1))) struct RetentionTests {
    private func key(_ channel: ChannelID) -> ChannelKey { ChannelKey(tenant: TokenIssuer.tenant, channel: channel) }

    private func note(_ user: String, _ id: PublishID, to channel: ChannelID? = nil) throws -> AppendRequest {
        let user = try UserID(user)
        return AppendRequest(
            device: DeviceKey(tenant: TokenIssuer.tenant, user: user, device: try DeviceID("phone")),
            producer: ProducerID(high: 1, low: 1), channel: channel ?? .user(user),
            publish: Publish(
                id: id, tag: id, after: 0, recipient: nil, timeToLive: 0,
                payload: ByteBuffer(string: "0123456789")))
    }

    private func entries(_ store: any ChannelLog, _ channel: ChannelID) async throws -> Int {
        try await store.read(key(channel), after: 0, upTo: nil, maximumBytes: .max, now: 0).items.count
    }

    private func sweep(
        _ store: any StoreMaintenance, _ policy: RetentionPolicy, rest: @escaping @Sendable () async throws -> Void = {}
    ) async throws -> RetentionReport {
        let pace = UpkeepPace(rest: { _ in try await rest() })
        let sweep = RetentionSweep(store: store, policy: policy, time: WallClock.milliseconds, pace: pace)
        var report = RetentionReport()
        try await sweep.run { report.add($0) }
        return report
    }

    @Test("inboxes and rooms have rules of their own, and everything is kept without one")
    func rulesByKind() async throws {
        let store = InMemoryStore()
        let phone = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("phone"))
        _ = try await store.change(hall, .join(create: true), by: phone)
        for id in 1...20 as ClosedRange<PublishID> {
            _ = await store.append([try note("ann", 2 * id - 1), try note("ann", 2 * id, to: .room(hall))])
        }
        #expect(try await sweep(store, RetentionPolicy()) == RetentionReport())
        let policy = RetentionPolicy(inbox: Retention(entries: 8), room: Retention(bytes: 50))
        let report = try await sweep(store, policy)
        #expect(report.channels == 2 && report.trimmed == 2)
        // The join, and 15 messages of the room.
        #expect(report.entries == 12 + 16 && report.bytes == 120 + 150)
        #expect(try await entries(store, .user(ann)) == 8)
        #expect(try await entries(store, .room(hall)) == 5)
        #expect(try await sweep(store, policy).trimmed == 0)
    }

    @Test("a sweep visits every channel of a long list, and rests after each step")
    func manyChannels() async throws {
        var limits = StoreLimits()
        limits.trimEntries = 2
        let store = InMemoryStore(limits: limits)
        let count = 2 * RetentionSweep.channelsPerTurn + 10
        for index in 0..<count {
            _ = await store.append(try (1...6 as ClosedRange<PublishID>).map { try note("user\(index)", $0) })
        }
        let rests = Mutex(0)
        let report = try await sweep(store, RetentionPolicy(inbox: Retention(entries: 1))) {
            rests.withLock { $0 += 1 }
        }
        #expect(report.channels == count && report.trimmed == count && report.entries == 5 * count)
        // Three pages of the list, and three steps of two for each channel's five.
        #expect(rests.withLock { $0 } == 3 + 3 * count)
    }

    @Test("a rest is as long as its step took, however long, for retention and erasures alike")
    func restsAreAsLongAsSteps() async throws {
        var limits = StoreLimits()
        limits.trimEntries = 2
        let store = InMemoryStore(limits: limits)
        for user in ["ann", "bob"] {
            _ = await store.append(try (1...6 as ClosedRange<PublishID>).map { try note(user, $0) })
        }
        // Each step takes nine seconds of this clock.
        let clock = Mutex(ContinuousClock.now)
        let rests = Mutex<[Duration]>([])
        let pace = UpkeepPace(
            now: {
                clock.withLock { time in
                    time += .seconds(9)
                    return time
                }
            }, rest: { rest in rests.withLock { $0.append(rest) } })
        let policy = RetentionPolicy(inbox: Retention(entries: 1))
        try await RetentionSweep(store: store, policy: policy, time: WallClock.milliseconds, pace: pace).run { _ in }
        // One read of the list, and three steps of two entries for each inbox.
        #expect(rests.withLock { $0 } == Array(repeating: .seconds(9), count: 7))
        rests.withLock { $0 = [] }
        var steps = 0
        try await pace.erase(UserKey(tenant: TokenIssuer.tenant, user: ann), from: store, UpkeepTurns()) { _ in
            steps += 1
        }
        #expect(steps > 2)
        #expect(rests.withLock { $0 } == Array(repeating: .seconds(9), count: steps - 1))
        #expect(try await entries(store, .user(ann)) == 0)
    }

    @Test("what is published during a sweep is kept")
    func publishingGoesOn() async throws {
        var limits = StoreLimits()
        limits.trimEntries = 1
        let store = InMemoryStore(limits: limits)
        for id in 1...10 as ClosedRange<PublishID> { _ = await store.append([try note("ann", id)]) }
        let next = Mutex<PublishID>(10)
        let report = try await sweep(store, RetentionPolicy(inbox: Retention(entries: 4))) {
            // A few more at the first rests, so that the sweep comes to an end.
            let id = next.withLock { next -> PublishID in
                next += 1
                return next
            }
            if id <= 14 { _ = await store.append([try note("ann", id)]) }
        }
        #expect(report.entries == 10)
        let page = try await store.read(key(.user(ann)), after: 0, upTo: nil, maximumBytes: .max, now: 0)
        let kept = page.items.compactMap { if case .entry(let entry) = $0 { entry.publishID } else { nil } }
        #expect(kept == [11, 12, 13, 14])
    }

    @Test("a sweep of what was unseen for long goes on from step to step, and rests after each")
    func aSweepRests() async throws {
        let clock = Mutex(WallClock.milliseconds())
        let store = InMemoryStore(clock: { clock.withLock { $0 } })
        for user in ["ann", "bob"] { _ = await store.append([try note(user, 1)]) }
        clock.withLock { $0 += StoreLimits().unseen + 1 }
        let rests = Mutex(0)
        var report = SweepReport()
        let pace = UpkeepPace(rest: { _ in rests.withLock { $0 += 1 } })
        var isThrough = try await pace.sweep(store, &report)
        #expect(isThrough && report == SweepReport(devices: 2))
        var steps = 0
        var place: SweepPlace?
        repeat {
            place = try await store.sweep(from: place).next
            steps += 1
        } while place != nil
        #expect(steps > 1 && rests.withLock { $0 } == steps)
        let cancelled = UpkeepPace(rest: { _ in throw CancellationError() })
        report = SweepReport()
        isThrough = try await cancelled.sweep(store, &report)
        #expect(!isThrough && report.next != nil)
    }

    @Test("a sweep that is cancelled stops at its next rest")
    func cancelled() async throws {
        let store = InMemoryStore()
        for index in 0..<5 {
            _ = await store.append(try (1...3 as ClosedRange<PublishID>).map { try note("user\(index)", $0) })
        }
        let rests = Mutex(0)
        let report = try await sweep(store, RetentionPolicy(inbox: Retention(entries: 1))) {
            let count = rests.withLock { rests -> Int in
                rests += 1
                return rests
            }
            if count == 3 { throw CancellationError() }
        }
        #expect(report.trimmed == 2)
    }

    /// Real sessions: the cursor of a device that was away lies behind what a sweep removed.
    @Test("a device that comes back behind what was removed is told of the gap, and reads on from what is left")
    func gap() async throws {
        let store = InMemoryStore()
        let lines = RecordedLines()
        let server = try await TestServer(store: store)
        let phone = try await server.connected("ann")
        let other = try await server.connected("bob")
        try await phone.message("read", to: bob)
        let read = try await other.delivered(.user(bob)).entry
        let head = try #require(try await store.head(of: key(.user(bob))))
        try await other.drop()
        for index in 0..<10 { try await phone.message("m\(index)", to: bob) }
        let report = try await server.runtime.core.apply(
            RetentionPolicy(inbox: Retention(entries: 3)), to: store, logger: lines.logger)
        #expect(report.entries == 8 + 8, "of bob's inbox, and of ann's records")

        let back = try await server.device("bob")
        let cursor = Position(epoch: head.position.epoch, offset: read.offset)
        let connected = try await back.connect(cursors: [ChannelPosition(channel: .user(bob), position: cursor)])
        #expect(connected.channels.first { $0.channel == .user(bob) }?.recovery == .gap)
        let gap = try await back.next { if case .gap(let gap) = $0 { gap } else { nil } }
        #expect(gap.from == cursor && gap.first > read.offset)
        for index in 7..<10 { #expect(try await back.text(.user(bob)) == "m\(index)") }
        #expect(back.untaken(.user(bob)).isEmpty)

        let statistics = await server.runtime.statistics()
        #expect(statistics.retentionSweeps == 1 && statistics.channelsTrimmed == 2)
        #expect(statistics.entriesTrimmed == 16 && statistics.bytesTrimmed > 0)
        await server.stop()
        let logged = lines.all
        #expect(logged.count == 1 && logged[0].contains("retention applied") && logged[0].contains("16"))
    }

    private struct BrokenStore: StoreMaintenance {
        func trim(_ channel: ChannelKey, keep: Retention) async throws(StoreError) -> TrimReport {
            throw StoreError(.unavailable, message: "broken")
        }

        func channels(after mark: UInt64, limit: Int) async throws(StoreError) -> ChannelList {
            throw StoreError(.unavailable, message: "broken")
        }

        func sweep(from place: SweepPlace?) async throws(StoreError) -> SweepReport { SweepReport() }
    }

    @Test("a sweep that the store can't serve is counted and told")
    func brokenStore() async throws {
        let server = try await TestServer()
        let error = await #expect(throws: StoreError.self) {
            try await server.runtime.core.apply(
                RetentionPolicy(room: Retention(entries: 3)), to: BrokenStore(), logger: RecordedLines().logger)
        }
        #expect(error?.code == .unavailable)
        #expect(await server.runtime.statistics().storeFailures == 1)
        await server.stop()
    }

    @Test("rules that keep nothing, and a store that can't remove, are refused with advice")
    func validation() throws {
        func error(
            _ policy: RetentionPolicy, store: any MessageStore = InMemoryStore()
        ) -> ServerError? {
            var configuration = LonglineServer.Configuration(
                store: .shared(store),
                certificate: { TLSServerCredentials(certificateChainPEM: "", privateKeyPEM: "") },
                tokenKeys: [], addresses: [])
            configuration.retention = policy
            configuration.addresses = [(try? SocketAddress(ipAddress: "127.0.0.1", port: 0))].compactMap { $0 }
            configuration.tokenKeys = [SigningKey.generate(.edDSA).verificationKey]
            do throws(ServerError) { try configuration.validate() } catch { return error }
            return nil
        }
        #expect(error(RetentionPolicy()) == nil)
        #expect(error(RetentionPolicy(inbox: Retention(age: 1, entries: 1, bytes: 1))) == nil)
        for policy in [
            RetentionPolicy(inbox: Retention(age: 0)), RetentionPolicy(inbox: Retention(entries: 0)),
            RetentionPolicy(room: Retention(bytes: -1)), RetentionPolicy(interval: .milliseconds(999)),
        ] {
            let error = try #require(error(policy))
            #expect(error.code == .invalidConfiguration && !error.advice.isEmpty)
        }
        #expect(error(RetentionPolicy(), store: FaultyStore()) == nil)
        let refused = error(RetentionPolicy(room: Retention(entries: 5)), store: FaultyStore())
        #expect(refused?.code == .invalidConfiguration && refused?.advice.isEmpty == false)
    }
}
