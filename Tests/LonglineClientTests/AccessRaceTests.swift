import Logging
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineClient

/// A control layer in memory: answers as a test says, or when the test lets it.
final class FakeControl: ControlAsker {
    enum Answer: Sendable {
        case reply(ControlReply)
        /// Made for the question's nonce.
        case made(@Sendable (String?) -> ControlReply)
        case failure
        /// Nothing comes until the question is taken back.
        case silence
    }

    struct State: Sendable {
        var asked: [ControlWay] = []
        var tokens: [String] = []
        var nonces: [String?] = []
        var cancelled: [ControlTransport] = []
    }

    let state = Mutex(State())
    private let answer: Mutex<@Sendable (ControlWay, String) -> Answer>

    init(_ answer: @escaping @Sendable (ControlWay, String) -> Answer) { self.answer = Mutex(answer) }

    func answer(_ answer: @escaping @Sendable (ControlWay, String) -> Answer) { self.answer.withLock { $0 = answer } }

    var asked: Int { state.withLock { $0.asked.count } }

    func ask(_ way: ControlWay, token: String, nonce: String?) async throws -> ControlReply {
        state.withLock {
            $0.asked.append(way)
            $0.tokens.append(token)
            $0.nonces.append(nonce)
        }
        switch answer.withLock({ $0 })(way, token) {
        case .reply(let reply): return reply
        case .made(let make): return make(nonce)
        case .failure: throw ClientError(.connectFailed, message: "refused")
        case .silence:
            do { try await Task.sleep(for: .seconds(3_600)) } catch {
                state.withLock { $0.cancelled.append(way.transport) }
                throw error
            }
            throw CancellationError()
        }
    }

    static func points(_ names: [String], lifetime: Int = 300_000, safe: Bool = true, more: String = "") -> Answer {
        let points = names.map {
            #"{"host":"\#($0)","port":1,"transports":["quic"],"migration_safe":\#(safe)}"#
        }.joined(separator: ",")
        return .reply(
            ControlReply(
                status: 200,
                body: AccessAnswerTests.json(points: points, issued: "0", expires: "\(lifetime)", more: more)))
    }
}

@Suite("Asking the control layer", .timeLimit(.minutes(1))) struct AccessRaceTests {
    private let first = ControlService(url: "https://one.example:8443")
    private let second = ControlService(url: "https://two.example", http3Port: 4433)
    private let wall: UInt64 = 1_700_000_000_000

    private func fetch(
        _ control: FakeControl, _ services: [ControlService], routes: [StoredControlRoute] = [],
        sleep: @escaping @Sendable (Duration) async throws -> Void = { _ in try await Task.sleep(for: .seconds(3_600)) }
    ) async throws -> FetchedAccess {
        var fetcher = AccessFetcher(
            controls: try services.map { try ControlEndpoint($0) }, asker: control, logger: Logger(label: "test"))
        fetcher.sleep = sleep
        return try await fetcher.fetch(token: "t", routes: routes, wall: wall, patience: .seconds(10))
    }

    @Test("HTTP/3 is asked first, and HTTPS not at all when it answers within its head start")
    func http3First() async throws {
        let control = FakeControl { _, _ in FakeControl.points(["one"]) }
        let fetched = try await fetch(control, [first])
        #expect(fetched.way.transport == .http3 && fetched.way.port == 8443)
        #expect(control.asked == 1)
    }

    @Test("where HTTP/3 says nothing HTTPS starts beside it after 250 ms, wins, and HTTP/3 is cancelled")
    func blockedUDP() async throws {
        let control = FakeControl { way, _ in way.transport == .http3 ? .silence : FakeControl.points(["one"]) }
        let slept = Mutex<[Duration]>([])
        let fetched = try await fetch(control, [first]) { time in
            slept.withLock { $0.append(time) }
            if time > .seconds(1) { try await Task.sleep(for: .seconds(3_600)) }
            // In 250 ms the first question has left.
            while control.asked == 0 { await Task.yield() }
        }
        #expect(fetched.way.transport == .https)
        #expect(slept.withLock { Set($0) } == [.seconds(10), .milliseconds(250)])
        #expect(control.state.withLock { $0.cancelled } == [.http3])
        #expect(control.state.withLock { $0.asked.map(\.transport) } == [.http3, .https])
    }

    @Test("where HTTP/3 fails HTTPS starts at once, and the other way round")
    func failing() async throws {
        let control = FakeControl { way, _ in way.transport == .http3 ? .failure : FakeControl.points(["one"]) }
        #expect(try await fetch(control, [first]).way.transport == .https)
        let other = FakeControl { way, _ in way.transport == .https ? .failure : FakeControl.points(["one"]) }
        let route = StoredControlRoute(url: first.url, httpsFirstUntil: wall + 1)
        #expect(try await fetch(other, [first], routes: [route]).way.transport == .http3)
    }

    @Test("what worked is remembered for an hour: HTTPS first where HTTP/3 did not get through")
    func memory() async throws {
        let control = FakeControl { way, _ in
            way.transport == .http3
                ? .failure
                : .reply(
                    ControlReply(status: 200, alternatives: [#"h3=":8443"; ma=86400"#], body: AccessAnswerTests.json()))
        }
        let route = StoredControlRoute(url: first.url)
        let learned = route.learned(from: try await fetch(control, [first]), wall: wall)
        #expect(learned == StoredControlRoute(url: first.url, http3Port: 8443, httpsFirstUntil: wall + 3_600_000))
        _ = try await fetch(control, [first], routes: [learned])
        #expect(control.state.withLock { $0.asked.map(\.transport) } == [.http3, .https, .https])
        // Later, and after the clock was set back, HTTP/3 gets another try.
        #expect(learned.prefersHTTPS(at: wall) && !learned.prefersHTTPS(at: wall + 3_600_000))
        #expect(!learned.prefersHTTPS(at: wall - 1))
    }

    @Test("the port that the answer announces is tried next, unless the app set one")
    func announced() async throws {
        let control = FakeControl { way, _ in
            way.transport == .http3
                ? .failure
                : .reply(
                    ControlReply(
                        status: 200, alternatives: [#"h2=":1", h3=":4434";ma=1"#], body: AccessAnswerTests.json()))
        }
        let learned = StoredControlRoute(url: first.url).learned(from: try await fetch(control, [first]), wall: wall)
        #expect(learned == StoredControlRoute(url: first.url, http3Port: 4434), "what failed was another port")
        let ways = AccessFetcher.ways(
            [try ControlEndpoint(first), try ControlEndpoint(second)],
            routes: [learned, StoredControlRoute(url: second.url, http3Port: 9)], wall: wall)
        #expect(ways.map(\.port) == [4434, 8443, 4433, 443])
        for text in [#"h3="other:1""#, #"h3=":0""#, "h3=:1", "clear", #"h3-29=":1""#] {
            #expect(ControlReply(status: 200, alternatives: [text]).http3Port == nil, "\(text)")
        }
    }

    @Test("another service is asked when the first has failed, and its answer counts")
    func several() async throws {
        let control = FakeControl { way, _ in
            way.control.url == "https://one.example:8443"
                ? .reply(ControlReply(status: 500)) : FakeControl.points(["two"])
        }
        let fetched = try await fetch(control, [first, second])
        #expect(fetched.way.control.url == second.url && fetched.way.port == 4433)
        #expect(control.asked == 3)
    }

    @Test(
        "what is no answer fails by name, with all that happened in words",
        arguments: [
            (ControlReply(status: 503, retryAfter: "7"), ClientError.Code.controlUnavailable, Duration.seconds(7)),
            (ControlReply(status: 503, retryAfter: "99999999999"), .controlUnavailable, .seconds(3_600)),
            (ControlReply(status: 503, retryAfter: "-1"), .controlUnavailable, .zero),
            (ControlReply(status: 301), .controlUnavailable, .zero),
            (ControlReply(status: 404), .controlUnavailable, .zero),
            (ControlReply(status: 200, body: [1]), .controlAnswerInvalid, .zero),
            (ControlReply(status: 200, body: AccessAnswerTests.json(version: "2")), .controlVersionUnsupported, .zero),
        ])
    func noAnswer(reply: ControlReply, code: ClientError.Code, retryAfter: Duration) async throws {
        let control = FakeControl { _, _ in .reply(reply) }
        let failure = await #expect(throws: AccessFailure.self) { try await fetch(control, [first]) }
        #expect(failure?.error.code == code && failure?.retryAfter == retryAfter && failure?.isTokenRefused == false)
        let text = failure?.error.description ?? ""
        #expect(text.contains("https://one.example:8443 over http3") && text.contains("over https"))
        #expect(control.asked == 2)
    }

    @Test("a token that every service refuses is refused, whatever became of another way there; each is asked once")
    func refusedToken() async throws {
        let control = FakeControl { _, _ in .reply(ControlReply(status: 401)) }
        let failure = await #expect(throws: AccessFailure.self) { try await fetch(control, [first, second]) }
        #expect(failure?.isTokenRefused == true)
        #expect(control.state.withLock { $0.asked.map(\.control.url) } == [first.url, second.url])
        let blocked = FakeControl { way, _ in way.transport == .http3 ? .failure : .reply(ControlReply(status: 401)) }
        let other = await #expect(throws: AccessFailure.self) { try await fetch(blocked, [first, second]) }
        #expect(other?.isTokenRefused == true && blocked.asked == 4)
    }

    @Test("a service that refuses the token is not the last word: the next one is asked, and decides")
    func refusedByOne() async throws {
        let (one, two) = (first.url, second.url)
        let healthy = FakeControl { way, _ in
            way.control.url == one ? .reply(ControlReply(status: 401)) : FakeControl.points(["two"])
        }
        #expect(try await fetch(healthy, [first, second]).way.control.url == two)
        #expect(healthy.state.withLock { $0.asked.map(\.control.url) } == [one, two])
        // In either order, one that does not answer leaves open whether the token is good.
        for refusing in [one, two] {
            let control = FakeControl { way, _ in
                way.control.url == refusing ? .reply(ControlReply(status: 401)) : .failure
            }
            let failure = await #expect(throws: AccessFailure.self) { try await fetch(control, [first, second]) }
            #expect(failure?.isTokenRefused == false && failure?.isAnotherTokenWorthIt == true)
            #expect(control.asked == 3)
            #expect(failure?.error.description.contains("status 401") == true)
        }
    }

    @Test("with no answer at all the question ends when its time is over, or when it is taken back")
    func timeOver() async throws {
        let control = FakeControl { _, _ in .silence }
        let failure = await #expect(throws: AccessFailure.self) { try await fetch(control, [first]) { _ in } }
        #expect(failure?.error.code == .controlUnavailable)
        let task = Task { try await fetch(control, [first]) }
        task.cancel()
        await #expect(throws: AccessFailure.self) { try await task.value }
    }
}
