import Crypto
import Foundation
import LonglineHTTP
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import NIOHTTP1
import NIOPosix
import QUICEngine
import Synchronization
import Testing

@testable import LonglineServer

private let ann = identifier { try UserID("ann") }
private let bob = identifier { try UserID("bob") }
private let hall = identifier { try RoomID("hall") }

/// Users without a connection are told over HTTP.
@Suite(.timeLimit(.minutes(1))) struct WebhookTests {
    private static let key = WebhookKey(id: "2026-11", secret: Array("0123456789abcdef".utf8))

    struct News: Decodable {
        var id: String
        var collapse: String
        var tenant: String
        var user: String
        var conversation: String
        var channel: String
        var offset: UInt64
        var sender: String
        var count: UInt64
        var payload: String?
    }

    private func settings(_ port: Int, scheme: String = "http") -> WebhookSettings {
        var settings = WebhookSettings(url: "\(scheme)://127.0.0.1:\(port)/push", key: Self.key)
        settings.delay = .milliseconds(10)
        settings.backOff = .milliseconds(10)
        settings.maximumBackOff = .milliseconds(40)
        settings.deadline = .seconds(5)
        return settings
    }

    /// A server with a webhook, and the endpoint.
    func withWebhook(
        store: any MessageStore = InMemoryStore(),
        answer: @escaping Backend.Answer = { _ in Backend.Response(status: .noContent, body: "") },
        _ change: (inout WebhookSettings, inout WebhookConfiguration) -> Void = { _, _ in },
        _ body: (TestServer, Backend) async throws -> Void
    ) async throws {
        let backend = try await Backend(answer)
        var endpoint = settings(backend.port)
        var configuration = WebhookConfiguration()
        change(&endpoint, &configuration)
        configuration.tenants[TokenIssuer.tenant] = endpoint
        try await TestServer(store: store, webhooks: configuration).use { server in try await body(server, backend) }
        try await backend.stop()
    }

    func news(_ request: Backend.Request) throws -> News {
        try JSONDecoder().decode(News.self, from: Data(request.body.utf8))
    }

    func requests(_ backend: Backend, _ count: Int) async throws -> [Backend.Request] {
        while backend.requests.count < count { try await Task.sleep(for: .milliseconds(2)) }
        return backend.requests
    }

    func statistics(
        _ server: TestServer, _ matches: (WebhookStatistics) -> Bool
    ) async throws -> WebhookStatistics {
        while true {
            let statistics = try #require(server.runtime.core.webhooks).statistics
            if matches(statistics) { return statistics }
            try await Task.sleep(for: .milliseconds(2))
        }
    }

    // MARK: Who is told, and what

    @Test func aRecipientWithoutAConnectionIsToldAndTheRequestIsSigned() async throws {
        try await withWebhook { server, backend in
            let phone = try await server.connected("ann")
            let other = try await server.connected("eve")
            try await phone.message("connected", to: other.user)
            guard case .published(let published) = try await phone.message("are you there?", to: bob) else {
                return #expect(Bool(false), "not entered")
            }
            let request = try await requests(backend, 1)[0]
            #expect(request.uri == "/push" && request.method == .POST)
            let news = try news(request)
            #expect(news.tenant == "acme" && news.user == "bob" && news.sender == "ann" && news.count == 1)
            #expect(news.conversation == "user/ann" && news.channel == "user/bob" && news.payload == nil)
            #expect(news.offset > published.position.offset, "the place is that of the recipient's copy")
            #expect(!request.body.contains("there?"))
            #expect(news.id.utf8.count == 32 && news.collapse.utf8.count == 32 && news.id != news.collapse)
            // The signature is the sender's word: computed here by another way than there.
            let timestamp = try #require(request.headers.first(name: "longline-timestamp"))
            let code = HMAC<SHA256>.authenticationCode(
                for: Data("\(timestamp).\(request.body)".utf8), using: SymmetricKey(data: Self.key.secret))
            let expected = "v1=" + code.map { String(format: "%02x", $0) }.joined()
            #expect(
                request.headers["longline-signature"] == [expected] && request.headers["longline-key"] == ["2026-11"])
            let age = Int64(WallClock.milliseconds() / 1_000) - (Int64(timestamp) ?? 0)
            #expect(age >= 0 && age < 60)
            #expect(backend.requests.count == 1, "who is connected is told nothing")
        }
    }

    @Test func membersOfARoomAreToldWhoHaveNoConnection() async throws {
        try await withWebhook({ endpoint, _ in endpoint.maximumRoomMembers = 3 }) { server, backend in
            let phone = try await server.connected("ann")
            let away = try await server.connected("bob")
            let here = try await server.connected("eve")
            for (number, device) in [phone, away, here].enumerated() {
                _ = try await device.request(hall, number: UInt64(number))
            }
            try await away.drop()
            while server.runtime.core.registry.isOnline(UserKey(tenant: TokenIssuer.tenant, user: bob)) {
                await Task.yield()
            }
            try await phone.publish("in the hall", to: .room(hall))
            let news = try news(try await requests(backend, 1)[0])
            #expect(news.user == "bob" && news.conversation == "room/hall" && news.channel == "room/hall")
            // One more member, and the room is too large.
            _ = try await (try await server.connected("joe")).request(hall, number: 9)
            try await phone.publish("again", to: .room(hall))
            try await phone.message("to see the end", to: bob)
            let last = try self.news(try await requests(backend, 2)[1])
            #expect(last.conversation == "user/ann")
        }
    }

    @Test func membersAreToldAlthoughTheyCouldNotBeLookedUpAtFirst() async throws {
        let store = FaultyStore()
        try await withWebhook(store: store) { server, backend in
            let phone = try await server.connected("ann")
            let away = try await server.connected("bob")
            for (number, device) in [phone, away].enumerated() {
                _ = try await device.request(hall, number: UInt64(number))
            }
            try await away.drop()
            while server.runtime.core.registry.isOnline(UserKey(tenant: TokenIssuer.tenant, user: bob)) {
                await Task.yield()
            }
            store.set { $0.members = StoreError(.unavailable, message: "unreadable", advice: "") }
            try await phone.publish("one", to: .room(hall))
            while store.faults.withLock({ $0.members }) != nil { await Task.yield() }
            try await phone.publish("two", to: .room(hall))
            let news = try news(try await requests(backend, 1)[0])
            #expect(news.user == "bob" && news.count == 2)
        }
    }

    @Test(arguments: [true, false]) func appsInTheBackgroundCountAsConnectedUnlessTheTenantSaysOtherwise(
        told: Bool
    ) async throws {
        try await withWebhook({ endpoint, _ in endpoint.notifiesBackground = told }) { server, backend in
            let phone = try await server.connected("ann")
            let away = try await server.connected("bob")
            let key = UserKey(tenant: TokenIssuer.tenant, user: bob)
            try await away.send([(.mode(.background), .control)])
            while server.runtime.core.registry.isReachable(key, inBackground: false) { await Task.yield() }
            #expect(server.runtime.core.registry.isReachable(key, inBackground: true))
            try await phone.message("one", to: bob)
            if told {
                _ = try await requests(backend, 1)
            } else {
                #expect(server.runtime.core.webhooks?.statistics.waiting == 0)
            }
            try await away.send([(.mode(.foreground), .control)])
            while !server.runtime.core.registry.isReachable(key, inBackground: false) { await Task.yield() }
        }
    }

    @Test func withoutAJournalNothingWaitsToBeWritten() async throws {
        try await withWebhook { server, _ in
            let phone = try await server.connected("ann")
            for index in 0..<5 { try await phone.message("one", to: identifier { try UserID("u\(index)") }) }
            #expect(try await statistics(server) { $0.sent == 5 }.waiting == 0)
            #expect(server.runtime.core.webhooks?.unwritten == 0)
        }
    }

    @Test func aTenantWithoutAWebhookIsToldNothing() async throws {
        let backend = try await Backend { _ in .json("") }
        let other = identifier { try TenantID("other") }
        let configuration = WebhookConfiguration(tenants: [other: settings(backend.port)])
        try await TestServer(webhooks: configuration).use { server in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            #expect(server.runtime.core.webhooks?.statistics == WebhookStatistics())
        }
        try await backend.stop()
    }

    // MARK: Who is not told after all

    @Test func aDeviceThatReadsItFirstCancelsIt() async throws {
        let isUp = Mutex(false)
        try await withWebhook(answer: { _ in
            Backend.Response(status: isUp.withLock { $0 } ? .noContent : .serviceUnavailable, body: "")
        }) { server, backend in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            _ = try await requests(backend, 2)
            // It comes back and reads, while the request is being repeated.
            let back = try await server.connected("bob")
            let delivered = try await back.delivered(.user(bob))
            let inbox = ChannelKey(tenant: TokenIssuer.tenant, channel: .user(bob))
            let epoch = try #require(try await server.store.head(of: inbox)).position.epoch
            try await back.acknowledge(.user(bob), epoch: epoch, offset: delivered.entry.offset)
            let statistics = try await statistics(server) { $0.waiting == 0 }
            #expect(statistics.cancelled == 1 && statistics.sent == 0)
            isUp.withLock { $0 = true }
        }
    }

    private struct Muting: ConversationMuting {
        func isMuted(_ user: UserID, _ conversation: ChannelID, in tenant: TenantID) async throws -> Bool {
            conversation == .user(ann)
        }
    }

    @Test func mutedAndExpiredNewsAreLeftOut() async throws {
        try await withWebhook({ endpoint, configuration in
            endpoint.delay = .milliseconds(60)
            configuration.muting = Muting()
        }) { server, backend in
            let phone = try await server.connected("ann")
            let other = try await server.connected("eve")
            try await phone.message("muted", to: bob)
            try await other.send(other.publishFrames("short", to: .user(other.user), recipient: bob, timeToLive: 5))
            let statistics = try await statistics(server) { $0.muted == 1 && $0.expired == 1 }
            #expect(statistics.waiting == 0 && statistics.sent == 0 && backend.requests.isEmpty)
        }
    }

    // MARK: Endpoints that fail

    @Test func aFailureIsRepeatedUntilItIsTold() async throws {
        let failures = Mutex(3)
        try await withWebhook(answer: { _ in
            let fails = failures.withLock { left in
                defer { left -= 1 }
                return left > 0
            }
            return Backend.Response(status: fails ? .internalServerError : .ok, body: "")
        }) { server, backend in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            let statistics = try await statistics(server) { $0.sent == 1 }
            #expect(statistics.failures == 3 && statistics.waiting == 0)
            let names = Set(try backend.requests.map { try news($0).id })
            #expect(names.count == 1, "the receiver can tell a repetition")
        }
    }

    @Test func whatTheEndpointWillNeverTakeIsGivenUp() async throws {
        try await withWebhook(answer: { _ in Backend.Response(status: .badRequest, body: "") }) { server, backend in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            let statistics = try await statistics(server) { $0.rejected == 1 }
            #expect(statistics.waiting == 0 && statistics.failures == 0)
            #expect(backend.requests.count == 1)
        }
    }

    @Test(
        arguments: [
            ["retry-after": "3600"],
            // A date is by the endpoint's own clock, where that is known.
            ["retry-after": "Sun, 06 Nov 1994 09:49:37 GMT", "date": "Sun, 06 Nov 1994 08:49:37 GMT"],
            ["retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"],
        ] as [HTTPHeaders]) func anEndpointMayAskForTime(_ headers: HTTPHeaders) async throws
    {
        let hasAnswered = Mutex(false)
        try await withWebhook(answer: { _ in
            let isFirst = hasAnswered.withLock { answered in
                defer { answered = true }
                return !answered
            }
            guard isFirst else { return Backend.Response(status: .ok, body: "") }
            return Backend.Response(status: .tooManyRequests, body: "", headers: headers)
        }) { server, _ in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            let statistics = try await statistics(server) { $0.failures == 1 }
            #expect(statistics.waiting == 1)
            let next = try #require(server.runtime.core.webhooks?.nextTime)
            #expect(next > WallClock.milliseconds() + 3_500_000)
        }
    }

    @Test func aDeadEndpointCostsNothing() async throws {
        let gone = try await Backend { _ in .json("") }
        let port = gone.port
        try await gone.stop()
        var endpoint = settings(port)
        endpoint.breakAfter = 2
        endpoint.breakTime = .seconds(600)
        let configuration = WebhookConfiguration(standard: endpoint)
        try await TestServer(webhooks: configuration).use { server in
            let phone = try await server.connected("ann")
            for index in 0..<20 { try await phone.message("\(index)", to: identifier { try UserID("u\(index)") }) }
            let down = try await statistics(server) { $0.endpointsDown == 1 }
            #expect(down.failures >= 2)
            let webhooks = try #require(server.runtime.core.webhooks)
            // Nothing is due until the break is over, whatever comes.
            while try #require(webhooks.nextTime) < WallClock.milliseconds() + 500_000 { await Task.yield() }
            for index in 20..<40 { try await phone.message("\(index)", to: identifier { try UserID("u\(index)") }) }
            while try #require(webhooks.nextTime) < WallClock.milliseconds() + 500_000 { await Task.yield() }
            let later = webhooks.statistics
            #expect(later.failures <= UInt64(endpoint.breakAfter + endpoint.maximumInFlight))
            #expect(later.waiting == 40)
        }
    }

    @Test func whatWaitsSurvivesTheServer() async throws {
        try await withTemporaryDirectory { folder in
            let store = InMemoryStore()
            let gone = try await Backend { _ in .json("") }
            let port = gone.port
            try await gone.stop()
            let configuration = WebhookConfiguration(
                standard: settings(port), journalPath: folder + "/notifications.db")
            try await TestServer(store: store, webhooks: configuration).use { server in
                let phone = try await server.connected("ann")
                try await phone.message("one", to: bob)
                try await phone.message("two", to: bob)
                _ = try await statistics(server) { $0.failures > 0 }
            }
            let backend = try await Backend(port: port) { _ in Backend.Response(status: .ok, body: "") }
            try await TestServer(store: store, webhooks: configuration).use { server in
                let news = try news(try await requests(backend, 1)[0])
                #expect(news.user == "bob" && news.count == 2)
                _ = try await statistics(server) { $0.waiting == 0 }
            }
            try await TestServer(store: store, webhooks: configuration).use { server in
                #expect(server.runtime.core.webhooks?.statistics.waiting == 0)
            }
            #expect(backend.requests.count == 1)
            try await backend.stop()
        }
    }

    @Test func whatWaitedForATenantThatHasNoWebhookAnyMoreIsForgotten() async throws {
        try await withTemporaryDirectory { folder in
            let path = folder + "/notifications.db"
            let tenants = [TokenIssuer.tenant, identifier { try TenantID("other") }]
            let now = WallClock.milliseconds()
            let journal = try NotificationJournal(path: path)
            try await journal.apply(
                keep: tenants.map { tenant in
                    PendingNotification(
                        key: PendingNotification.Key(tenant: tenant, user: bob, conversation: .user(ann)),
                        channel: .user(bob), position: Position(epoch: 1, offset: 1), sender: ann, count: 1, time: 1,
                        expiry: 0, payload: nil, since: now, notBefore: now + 600_000)
                }, forget: [])
            try journal.close()
            let configuration = WebhookConfiguration(tenants: [TokenIssuer.tenant: settings(1)], journalPath: path)
            try await TestServer(webhooks: configuration).use { server in
                #expect(server.runtime.core.webhooks?.statistics.waiting == 1)
            }
            let after = try NotificationJournal(path: path)
            #expect(try await after.load().map(\.key.tenant) == [TokenIssuer.tenant])
            try after.close()
        }
    }

    @Test func overTLSTheEndpointProvesWhoItIs() async throws {
        let identity = try DevelopmentCertificate.generate(
            names: ["127.0.0.1"], now: WallClock.milliseconds() / 1_000)
        let backend = try await Backend(identity: identity.credentials) { _ in Backend.Response(status: .ok, body: "") }
        for trust in [HTTPTrust.systemRoots, .authorities(pem: identity.certificatePEM)] {
            var endpoint = settings(backend.port, scheme: "https")
            endpoint.trust = trust
            try await TestServer(webhooks: WebhookConfiguration(standard: endpoint)).use { server in
                let phone = try await server.connected("ann")
                try await phone.message("one", to: bob)
                let statistics = try await statistics(server) { $0.sent + $0.failures > 0 }
                #expect((statistics.sent == 1) == (trust != .systemRoots))
            }
        }
        #expect(backend.requests.count == 1)
        try await backend.stop()
    }

    // MARK: The example

    @Test func theExampleReceiverTellsAGenuineRequestFromOthers() async throws {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let script = tests.deletingLastPathComponent().appendingPathComponent("docs/examples/webhook-receiver.py")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["python3", script.path, "0"]
        process.environment = ProcessInfo.processInfo.environment.merging([
            "WEBHOOK_SECRET": Self.key.secret.map { String(format: "%02x", $0) }.joined(), "WEBHOOK_KEY": Self.key.id,
        ]) { $1 }
        let output = Pipe()
        process.standardOutput = output
        // What might be left of it must not hold the runner's pipes.
        process.standardInput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        // SIGTERM is blocked in what a thread of the runner started.
        defer { kill(process.processIdentifier, SIGKILL) }
        let lines = LineReader(output.fileHandleForReading)
        let port = try #require(await lines.next()?.split(separator: " ").last.flatMap { Int($0) })
        try await TestServer(webhooks: WebhookConfiguration(standard: settings(port))).use { server in
            let phone = try await server.connected("ann")
            try await phone.message("one", to: bob)
            #expect(await lines.next() == "bob has 1 new in user/ann")
            _ = try await statistics(server) { $0.sent == 1 }
        }
        let client = try HTTPClient(
            endpoint: try HTTPEndpoint("http://127.0.0.1:\(port)/"), group: MultiThreadedEventLoopGroup.singleton)
        let body = Array(#"{"user":"bob","count":1,"conversation":"user/eve"}"#.utf8)
        let now = WallClock.milliseconds()
        func status(_ headers: HTTPHeaders, _ body: [UInt8]) async throws -> UInt {
            try await client.post(ByteBuffer(bytes: body), headers: headers).status
        }
        let good = WebhookRequest.headers(body, key: Self.key, time: now)
        #expect(try await status(good, body) == 204)
        #expect(try await status(good, body + [UInt8(ascii: " ")]) == 401)
        #expect(try await status(WebhookRequest.headers(body, key: Self.key, time: now - 400_000), body) == 401)
        let stranger = WebhookKey(id: Self.key.id, secret: Array(repeating: 7, count: 16))
        #expect(try await status(WebhookRequest.headers(body, key: stranger, time: now), body) == 401)
        #expect(try await status([:], body) == 401)
        // Neither ends it without an answer.
        let odd = [("Longline-Signature", "v1=é"), ("Longline-Timestamp", String(repeating: "9", count: 5_000))]
        for (name, value) in odd {
            var headers = good
            headers.replaceOrAdd(name: name, value: value)
            #expect(try await status(headers, body) == 401, "\(name)")
        }
    }
}

/// Reads a process's lines, away from the tests' threads.
private final class LineReader: Sendable {
    private let lines: AsyncStream<String>

    init(_ handle: FileHandle) {
        let (stream, continuation) = AsyncStream.makeStream(of: String.self)
        lines = stream
        Thread.detachNewThread {
            var rest = Data()
            while true {
                let more = handle.availableData
                guard !more.isEmpty else { break }
                rest += more
                while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                    continuation.yield(String(decoding: rest[rest.startIndex..<end], as: UTF8.self))
                    rest = Data(rest[(end + 1)...])
                }
            }
            continuation.finish()
        }
    }

    func next() async -> String? {
        for await line in lines { return line }
        return nil
    }
}
