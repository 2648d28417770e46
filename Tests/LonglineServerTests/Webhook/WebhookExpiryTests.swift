import Logging
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }

/// Of messages whose time to live is over nobody is told; of those that came with them they are. The clock is the test's own.
@Suite(.timeLimit(.minutes(1))) struct WebhookExpiryTests {
    private static let start: UInt64 = 1_800_000_000_000

    /// What is told, and what became of all of it, when messages with these times to live came at once, and then nothing
    /// for a minute.
    private func told(_ timesToLive: [UInt64]) async throws -> (body: String?, statistics: WebhookStatistics) {
        let now = Mutex(Self.start)
        let time: @Sendable () -> UInt64 = { now.withLock { $0 } }
        let backend = try await Backend { _ in Backend.Response(status: .noContent, body: "") }
        var settings = WebhookSettings(
            url: "http://127.0.0.1:\(backend.port)/", key: WebhookKey(id: "1", secret: Array(repeating: 7, count: 16)))
        settings.includesPayload = true
        let store = InMemoryStore(clock: time)
        let webhooks = try await WebhookDispatcher(
            WebhookConfiguration(standard: settings), store: store,
            cursors: CursorWriter(cursors: store, delay: .seconds(1), onFailure: { _ in }),
            registry: SessionRegistry(limits: ServerLimits()),
            log: EventLog(
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, linesPerSecond: 1, now: .now()),
            clock: WebhookClock(wall: time, steady: time))
        let device = DeviceKey(tenant: TokenIssuer.tenant, user: ann, device: try DeviceID("phone"))
        for (index, timeToLive) in timesToLive.enumerated() {
            let number = UInt64(index + 1)
            let request = AppendRequest(
                device: device, producer: ProducerID(high: 1, low: 1), channel: .user(ann),
                publish: Publish(
                    id: number, tag: number, after: number - 1, recipient: bob, timeToLive: timeToLive,
                    payload: ByteBuffer(string: "message \(number)")))
            guard case .entered(let published, _, let expiry, let copy)? = await store.append([request]).first else {
                throw CancellationError()
            }
            webhooks.entered(request, published, expiry: expiry, copy: copy)
        }
        now.withLock { $0 += 60_000 }
        let running = Task { await webhooks.run() }
        while webhooks.statistics.waiting > 0 { await Task.yield() }
        running.cancel()
        await running.value
        try await backend.stop()
        return (backend.requests.first?.body, webhooks.statistics)
    }

    @Test func aShortLivedMessageTakesNoLastingOneWithIt() async throws {
        let (body, statistics) = try await told([0, 5_000])
        let told = try #require(body)
        #expect(told.contains(#""count":1,"#) && !told.contains("payload") && !told.contains("expiry"))
        #expect(statistics.sent == 1 && statistics.expired == 0)
        // One that lives on behind one that is over is told as it is.
        let last = try await self.told([5_000, 600_000])
        #expect(last.body?.contains("payload") == true && last.body?.contains("expiry") == true)
        // Nor does the last to come say for how long those before it are worth telling.
        #expect(try await self.told([600_000, 5_000]).statistics.sent == 1)
    }

    @Test func newsThatAreAllOverAreNotTold() async throws {
        for times in [[5_000], [5_000, 5_000], [9_000, 5_000]] as [[UInt64]] {
            let (body, statistics) = try await told(times)
            #expect(body == nil && statistics.sent == 0 && statistics.expired == 1)
        }
    }
}
