import Foundation
import Logging
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// What waits is told in time and with what came meanwhile, and what is over is not, although the clock was ahead for a while. The
/// clocks are the test's own.
@Suite(.timeLimit(.minutes(1))) struct WebhookClockTests {
    private static let start: UInt64 = 1_800_000_000_000
    private static let day: UInt64 = 24 * 3_600 * 1_000

    /// What the clocks say, and what the endpoint answers.
    private final class World: Sendable {
        let wall = Mutex(WebhookClockTests.start)
        let steady = Mutex(WebhookClockTests.start)
        let status = Mutex(HTTPResponseStatus.noContent)

        var clock: WebhookClock {
            WebhookClock(wall: { self.wall.withLock { $0 } }, steady: { self.steady.withLock { $0 } })
        }
    }

    /// A dispatcher without a server, its endpoint, and clocks that go only when they are told to.
    private final class Bench: Sendable {
        let world = World()
        let backend: Backend
        let store: InMemoryStore
        let webhooks: WebhookDispatcher
        private let last = Mutex<UInt64>(0)

        init(_ folder: String, _ change: (inout WebhookSettings) -> Void = { _ in }) async throws {
            let world = world
            backend = try await Backend { _ in
                Backend.Response(status: world.status.withLock { $0 }, body: "")
            }
            var settings = WebhookSettings(
                url: "http://127.0.0.1:\(backend.port)/",
                key: WebhookKey(id: "1", secret: Array(repeating: 7, count: 16)))
            change(&settings)
            store = InMemoryStore(clock: world.clock.wall)
            webhooks = try await WebhookDispatcher(
                WebhookConfiguration(standard: settings, journalPath: folder + "/notifications.db"), store: store,
                cursors: CursorWriter(cursors: store, delay: .seconds(1), onFailure: { _ in }),
                registry: SessionRegistry(limits: ServerLimits()),
                log: EventLog(
                    logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, linesPerSecond: 1, now: .now()),
                clock: world.clock)
        }

        /// Ann says something to Bob, or Bob answers her.
        func enter(
            _ kind: PublishKind = .message, from sender: UserID = ann, to recipient: UserID = bob,
            timeToLive: UInt64 = 0
        ) async throws -> (own: Position, copy: InboxCopy) {
            let number = last.withLock { last in
                last += 1
                return last
            }
            let request = AppendRequest(
                device: DeviceKey(tenant: TokenIssuer.tenant, user: sender, device: try DeviceID("phone")),
                producer: ProducerID(high: number, low: 1), channel: .user(sender),
                publish: Publish(
                    id: 1, tag: number, after: 0, recipient: recipient, kind: kind,
                    timeToLive: timeToLive,
                    payload: ByteBuffer(string: "message \(number)")))
            guard case .entered(let published, _, let expiry, let copy?)? = await store.append([request]).first else {
                throw CancellationError()
            }
            webhooks.entered(request, published, expiry: expiry, copy: copy)
            return (published.position, copy)
        }

        /// Time goes by, and somebody looks what is due.
        func pass(_ milliseconds: UInt64) {
            world.wall.withLock { $0 += milliseconds }
            world.steady.withLock { $0 += milliseconds }
            webhooks.left(UserKey(tenant: TokenIssuer.tenant, user: bob))
        }

        func set(_ time: UInt64) { world.wall.withLock { $0 = time } }

        func answer(_ status: HTTPResponseStatus) { world.status.withLock { $0 = status } }

        /// Runs until it counted this.
        func run(until matches: (WebhookStatistics) -> Bool) async throws {
            let running = Task { await webhooks.run() }
            while !matches(webhooks.statistics) { await Task.yield() }
            running.cancel()
            await running.value
        }
    }

    private func withBench(
        _ change: (inout WebhookSettings) -> Void = { _ in }, _ body: (Bench) async throws -> Void
    ) async throws {
        let folder = try TemporaryFolder()
        let bench = try await Bench(folder.path, change)
        try await body(bench)
        try await bench.backend.stop()
    }

    @Test func whatFailedWhileTheClockWasAheadIsToldSoonAfterItWasSet() async throws {
        try await withBench({ $0.breakAfter = 1 }) { bench in
            bench.answer(.serviceUnavailable)
            _ = try await bench.enter()
            bench.set(Self.start + 90 * Self.day)
            bench.world.steady.withLock { $0 += 60_000 }
            let running = Task { await bench.webhooks.run() }
            defer { running.cancel() }
            while bench.webhooks.statistics.failures + bench.webhooks.statistics.expired == 0 { await Task.yield() }
            bench.set(Self.start + 60_000)
            bench.answer(.noContent)
            let next = try #require(bench.webhooks.nextTime)
            try #require(next <= Self.start + 60_000 + 300_000)
            bench.pass(300_000)
            while bench.webhooks.statistics.sent == 0 { await Task.yield() }
            running.cancel()
            await running.value
        }
    }

    @Test func whatTheDiskHasFromAClockThatWasAheadWaitsNoLongerThanAnything() async throws {
        let folder = try TemporaryFolder()
        let journal = try NotificationJournal(path: folder.path + "/notifications.db")
        let ahead = Self.start + 90 * Self.day
        try await journal.apply(
            keep: [
                PendingNotification(
                    key: PendingNotification.Key(tenant: TokenIssuer.tenant, user: bob, conversation: .user(ann)),
                    channel: .user(bob), position: Position(epoch: 1, offset: 1), sender: ann, count: 1, time: ahead,
                    expiry: 0, payload: nil, since: ahead, notBefore: ahead + 1_000)
            ], forget: [])
        try journal.close()
        let bench = try await Bench(folder.path)
        let next = try #require(bench.webhooks.nextTime)
        try #require(next <= Self.start + 3_600_000)
        // Nor is it told longer than anything, where it can't be.
        bench.answer(.serviceUnavailable)
        bench.pass(2 * Self.day)
        try await bench.run { $0.expired == 1 }
        try await bench.backend.stop()
    }

    @Test func timesAreWrittenByTheWallClockAndReadBackByIt() {
        let news = PendingNotification(
            key: PendingNotification.Key(tenant: TokenIssuer.tenant, user: bob, conversation: .user(ann)),
            channel: .user(bob), position: Position(epoch: 1, offset: 1), sender: ann, count: 1, time: 5, expiry: 0,
            payload: nil, since: 900, notBefore: 1_300)
        let before = WebhookClock(wall: { 50_000 }, steady: { 1_000 })
        let written = before.written(news)
        #expect(written.since == 49_900 && written.notBefore == 50_300 && written.time == 5)
        #expect(before.read(written, longest: 10_000, oldest: 60_000) == news)
        // The next process, a while later, and one whose clock is far behind.
        let after = WebhookClock(wall: { 50_100 }, steady: { 7_000 }).read(written, longest: 10_000, oldest: 60_000)
        #expect(after.since == 6_800 && after.notBefore == 7_200)
        let behind = WebhookClock(wall: { 10 }, steady: { 7_000 }).read(written, longest: 10_000, oldest: 60_000)
        #expect(behind.since == 7_000 && behind.notBefore == 17_000)
        // And one whose clock is far ahead.
        let ahead = WebhookClock(wall: { Self.day }, steady: { 70_000 }).read(written, longest: 10_000, oldest: 60_000)
        #expect(ahead.since == 10_000 && ahead.notBefore == 70_000)
    }

    @Test func whatAnEarlierProcessLeftIsTriedForAnHourAtLeast() {
        var settings = WebhookSettings(
            url: "http://127.0.0.1/", key: WebhookKey(id: "1", secret: Array(repeating: 7, count: 16)))
        #expect(settings.oldestAtStart == Self.day - 3_600_000)
        settings.maximumAge = .seconds(60)
        #expect(settings.oldestAtStart == 0)
    }

    /// A clock may be ahead when a process starts, and all that the one before it left seem too old.
    @Test func whatAnEarlierProcessLeftIsToldHoweverOldTheClockSaysThatItIs() async throws {
        let folder = try TemporaryFolder()
        let journal = try NotificationJournal(path: folder.path + "/notifications.db")
        let before = Self.start - 90 * Self.day
        try await journal.apply(
            keep: [
                PendingNotification(
                    key: PendingNotification.Key(tenant: TokenIssuer.tenant, user: bob, conversation: .user(ann)),
                    channel: .user(bob), position: Position(epoch: 1, offset: 1), sender: ann, count: 1, time: before,
                    expiry: 0, payload: nil, since: before, notBefore: before + 1_000)
            ], forget: [])
        try journal.close()
        let bench = try await Bench(folder.path)
        // Bob has an inbox: where there is none nothing is to be told.
        _ = try await bench.enter(from: identifier { try UserID("eve") })
        bench.pass(5_000)
        try await bench.run { $0.waiting == 0 }
        #expect(bench.webhooks.statistics.sent == 2 && bench.webhooks.statistics.expired == 0)
        try await bench.backend.stop()
    }

    @Test func aClockThatIsAheadMakesNothingTooOldToBeTold() async throws {
        try await withBench { bench in
            _ = try await bench.enter()
            bench.set(Self.start + 90 * Self.day)
            bench.world.steady.withLock { $0 += 2_000 }
            try await bench.run { $0.waiting == 0 }
            #expect(bench.webhooks.statistics.sent == 1 && bench.webhooks.statistics.expired == 0)
        }
    }

    @Test func aMessageBehindOneFromTheFutureIsOverByTheClock() async throws {
        try await withBench { bench in
            bench.set(Self.start + 90 * Self.day)
            _ = try await bench.enter(from: bob, to: ann)
            bench.set(Self.start)
            // Its time is that of the one before it.
            _ = try await bench.enter(timeToLive: 5_000)
            bench.pass(60_000)
            try await bench.run { $0.waiting == 0 }
            #expect(bench.webhooks.statistics.sent == 1 && bench.webhooks.statistics.expired == 1)
        }
    }

    @Test func aReplyIsOverWithItsRequest() async throws {
        try await withBench { bench in
            let request = try await bench.enter(.request, timeToLive: 5_000)
            _ = try await bench.enter(.reply(request.copy.position), from: bob, to: ann)
            bench.pass(60_000)
            try await bench.run { $0.waiting == 0 }
            #expect(bench.webhooks.statistics.expired == 2 && bench.webhooks.statistics.sent == 0)
        }
    }

    // MARK: What waits to be told

    private func news(_ bench: Bench) throws -> [WebhookTests.News] {
        try bench.backend.requests.map { try JSONDecoder().decode(WebhookTests.News.self, from: Data($0.body.utf8)) }
    }

    @Test func messagesOfAConversationAreOneRequestAndConversationsAreTwo() async throws {
        try await withBench({ $0.includesPayload = true }) { bench in
            for _ in 1...3 { _ = try await bench.enter() }
            _ = try await bench.enter(from: identifier { try UserID("eve") })
            bench.pass(5_000)
            let running = Task { await bench.webhooks.run() }
            defer { running.cancel() }
            while bench.webhooks.statistics.sent < 2 { await Task.yield() }
            let all = try news(bench)
            let one = try #require(all.first { $0.conversation == "user/ann" })
            #expect(all.count == 2 && one.count == 3)
            #expect(one.payload.flatMap { Data(base64Encoded: $0) } == Data("message 3".utf8))
            #expect(Set(all.map(\.collapse)).count == 2)
            // Later news of the conversation take the place of the push that was shown.
            _ = try await bench.enter()
            bench.pass(5_000)
            while bench.webhooks.statistics.sent < 3 { await Task.yield() }
            let next = try #require(try news(bench).last)
            #expect(next.collapse == one.collapse && next.id != one.id && next.count == 1)
            running.cancel()
            await running.value
        }
    }

    @Test(arguments: [1, 2]) func whatIsRetractedIsNotTold(messages: UInt64) async throws {
        try await withBench({ $0.includesPayload = true }) { bench in
            var last = try await bench.enter()
            for _ in 1..<messages { last = try await bench.enter() }
            _ = try await bench.enter(.retract(last.own))
            bench.pass(5_000)
            try await bench.run { $0.waiting == 0 }
            if messages == 1 {
                #expect(bench.webhooks.statistics.cancelled == 1 && bench.backend.requests.isEmpty)
            } else {
                let told = try news(bench)
                #expect(told.map(\.count) == [messages - 1] && told.first?.payload == nil)
            }
        }
    }

    @Test func whoIsBlockedMeanwhileIsNotHeardOf() async throws {
        try await withBench { bench in
            _ = try await bench.enter()
            _ = try await bench.store.set(.block(true), of: .user(ann), for: bob, in: TokenIssuer.tenant)
            bench.pass(5_000)
            try await bench.run { $0.waiting == 0 }
            #expect(bench.webhooks.statistics.muted == 1 && bench.backend.requests.isEmpty)
        }
    }

    // MARK: What is taken back

    @Test func whoBlocksTakesBackWithoutAWord() async throws {
        try await withBench({ $0.tellsCancels = true }) { bench in
            _ = try await bench.enter()
            let last = try await bench.enter()
            bench.pass(5_000)
            let running = Task { await bench.webhooks.run() }
            defer { running.cancel() }
            while bench.webhooks.statistics.sent == 0 { await Task.yield() }
            _ = try await bench.store.set(.block(true), of: .user(bob), for: ann, in: TokenIssuer.tenant)
            _ = try await bench.enter(.retract(last.own))
            while bench.webhooks.statistics.sent + bench.webhooks.statistics.cancelsSent == 1 { await Task.yield() }
            #expect(bench.webhooks.statistics.cancelsSent == 1 && bench.webhooks.statistics.waiting == 0)
            running.cancel()
            await running.value
        }
    }

    @Test func whatIsToldWithoutItsLastCountsNoMoreThanThat() async throws {
        try await withBench({ $0.tellsCancels = true }) { bench in
            for _ in 0..<2 { _ = try await bench.enter() }
            var last = try await bench.enter()
            _ = try await bench.enter(.retract(last.own))
            bench.pass(5_000)
            let running = Task { await bench.webhooks.run() }
            defer { running.cancel() }
            while bench.webhooks.statistics.sent < 1 { await Task.yield() }
            last = try await bench.enter()
            bench.pass(5_000)
            while bench.webhooks.statistics.sent < 2 { await Task.yield() }
            _ = try await bench.enter(.retract(last.own))
            while bench.webhooks.statistics.sent < 3 { await Task.yield() }
            let counts = bench.backend.requests.map { request in
                (1...4).filter { request.body.contains("\"count\":\($0),") }
            }
            #expect(counts == [[2], [1], [2]])
            running.cancel()
            await running.value
        }
    }

    // MARK: Who is erased

    @Test func whoIsErasedIsGoneFromTheDiskAndNothingMoreIsNoted() async throws {
        let folder = try TemporaryFolder()
        let user = UserKey(tenant: TokenIssuer.tenant, user: bob)
        let first = try await Bench(folder.path)
        first.answer(.serviceUnavailable)
        for recipient in [bob, ann] { _ = try await first.enter(from: identifier { try UserID("eve") }, to: recipient) }
        first.pass(5_000)
        try await first.run { $0.failures == 2 }
        // Its journal is closed: the erasure has to be tried again.
        await #expect(throws: StoreError.self) { try await first.webhooks.forget(user) }
        try await first.backend.stop()

        let second = try await Bench(folder.path)
        #expect(second.webhooks.statistics.waiting == 2)
        try await second.webhooks.forget(user)
        // As a kill would leave it now.
        let killed = try TemporaryFolder()
        for file in ["notifications.db", "notifications.db-wal"] {
            try FileManager.default.copyItem(atPath: folder.file(file), toPath: killed.file(file))
        }
        let journal = try NotificationJournal(path: killed.file("notifications.db"))
        #expect(try await journal.load().map(\.key.user) == [ann])
        try journal.close()
        _ = try await second.enter()
        #expect(second.webhooks.statistics.waiting == 1)
        second.webhooks.erased(user)
        _ = try await second.enter()
        #expect(second.webhooks.statistics.waiting == 2)
        try await second.backend.stop()
    }
}
