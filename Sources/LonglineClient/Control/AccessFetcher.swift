import Logging
import LonglineHTTP
import NIOCore

/// An answer that came, and how.
struct FetchedAccess: Sendable {
    var answer: AccessAnswer
    /// For whom the service said it; nil where that wasn't verified.
    var holder: TokenHolder?
    var bytes: [UInt8]
    var way: ControlWay
    /// The port of HTTP/3 that the answer announced.
    var http3Port: Int?
    /// Ways of the same service that had a start and did not win.
    var overtaken: [ControlWay]
    /// Answers before it that could not be trusted.
    var untrusted = 0
}

/// Why none came.
struct AccessFailure: Error, Sendable {
    var error: ClientError
    /// Every service says that it doesn't take the token.
    var isTokenRefused = false
    /// A service says so: another token may be all that is missing.
    var isAnotherTokenWorthIt = false
    /// How long the control layer asked to be left alone.
    var retryAfter: Duration = .zero
    /// Answers that could not be trusted.
    var untrusted = 0
}

/// Asks the control layer: one way first, the next when that failed or had its head start; the first good answer wins.
///
/// ```
///   HTTP/3 ----------------------------> answer: the others are cancelled
///      '- 250 ms -> HTTPS -------------> or this one
///                     '- 1 s -> the next service's HTTP/3 ...
/// ```
struct AccessFetcher: Sendable {
    let controls: [ControlEndpoint]
    let asker: any ControlAsker
    /// nil: whatever came from a trusted place is believed.
    var verifier: AccessVerifier?
    let logger: Logger
    /// What head starts and patience are measured by.
    var sleep: @Sendable (Duration) async throws -> Void = { try await Task.sleep(for: $0.sleepable) }

    /// What HTTP/3 has before HTTPS starts beside it, and the other way round.
    static let headStart = Duration.milliseconds(250)
    /// What one service has before the next is asked as well.
    static let serviceHeadStart = Duration.seconds(1)

    /// Asks until an answer comes, every way has failed, or `patience` is over. Ends promptly when the task is cancelled.
    func fetch(
        token: String, routes: [StoredControlRoute], wall: UInt64, patience: Duration
    ) async throws(AccessFailure) -> FetchedAccess {
        let question: AccessVerifier.Question?
        do throws(ClientError) {
            var random = SystemRandomNumberGenerator()
            question = verifier == nil ? nil : try AccessVerifier.question(for: token, random: &random)
        } catch {
            throw AccessFailure(error: error)
        }
        var race = AccessRace(
            ways: Self.ways(controls, routes: routes, wall: wall), verifier: verifier, question: question)
        let outcome = await withTaskGroup(of: AccessRace.Event.self) { group in
            defer { group.cancelAll() }
            group.addTask { await self.pause(patience, then: .patienceOver) }
            self.startNext(&race, token: token, nonce: question?.nonce, in: &group)
            while let event = await group.next() {
                let step = race.happened(event)
                self.report(race.takeUntrusted())
                switch step {
                case .wait: continue
                case .startNext: self.startNext(&race, token: token, nonce: question?.nonce, in: &group)
                case .end(let result): return result
                }
            }
            return .failure(race.failure(of: "nothing was asked"))
        }
        let fetched = try outcome.get()
        if fetched.answer.leftOut > 0 {
            logger.warning(
                "access points without a host or a port were left out of the control layer's answer",
                metadata: ["control": "\(fetched.way.control.url)", "count": "\(fetched.answer.leftOut)"])
        }
        return fetched
    }

    /// Somebody on the way, or a key that the app doesn't have yet: both are worth knowing.
    private func report(_ untrusted: [AccessRace.Failure]) {
        for failure in untrusted {
            logger.warning(
                "an answer of the control layer was refused",
                metadata: [
                    "control": "\(failure.way.control.url)", "over": "\(failure.way.transport.rawValue)",
                    "error": "\(failure.error)",
                ])
        }
    }

    private func startNext(
        _ race: inout AccessRace, token: String, nonce: String?, in group: inout TaskGroup<AccessRace.Event>
    ) {
        guard let start = race.startNext() else { return }
        let (asker, logger) = (asker, logger)
        group.addTask {
            do {
                return .answered(start.way, .success(try await asker.ask(start.way, token: token, nonce: nonce)))
            } catch {
                if !Task.isCancelled {
                    logger.debug(
                        "the control layer was not reached",
                        metadata: ["over": "\(start.way.transport.rawValue)", "error": "\(error)"])
                }
                return .answered(start.way, .failure(error))
            }
        }
        if let head = start.head { group.addTask { await self.pause(head, then: .headStartOver(start.number)) } }
    }

    private func pause(_ time: Duration, then event: AccessRace.Event) async -> AccessRace.Event {
        do { try await sleep(time) } catch { return .cancelled }
        return event
    }

    /// The ways in their order. Where HTTP/3 did not get through lately, HTTPS has the head start.
    static func ways(_ controls: [ControlEndpoint], routes: [StoredControlRoute], wall: UInt64) -> [ControlWay] {
        controls.flatMap { control in
            let route = routes.first { $0.url == control.url }
            let http3 = ControlWay(
                control: control, transport: .http3,
                port: control.http3Port ?? route?.http3Port ?? control.endpoint.port)
            let https = ControlWay(control: control, transport: .https, port: control.endpoint.port)
            return route?.prefersHTTPS(at: wall) == true ? [https, http3] : [http3, https]
        }
    }
}

extension StoredControlRoute {
    /// For how long HTTPS has the head start once HTTP/3 did not get through: milliseconds.
    static let memory: UInt64 = 3_600_000

    /// A clock that was set back doesn't prolong it.
    func prefersHTTPS(at wall: UInt64) -> Bool { httpsFirstUntil > wall && httpsFirstUntil - wall <= Self.memory }

    /// What is known of the way once an answer came.
    func learned(from fetched: FetchedAccess, wall: UInt64) -> StoredControlRoute {
        var route = self
        switch fetched.way.transport {
        case .http3: route = StoredControlRoute(url: url, http3Port: fetched.way.port)
        case .https:
            route.http3Port = fetched.http3Port
            let tried = fetched.overtaken.first { $0.transport == .http3 }
            guard let tried else { break }
            // One that was tried at another port than the announced says nothing about that.
            let isElsewhere = tried.control.http3Port == nil && fetched.http3Port.map { $0 != tried.port } ?? false
            route.httpsFirstUntil = isElsewhere ? 0 : wall + Self.memory
        }
        return route
    }
}

/// Who runs, who failed, and who won. Knows no clock.
struct AccessRace {
    enum Event: Sendable {
        case answered(ControlWay, Result<ControlReply, any Error>)
        /// The way with this number has run alone for long enough.
        case headStartOver(Int)
        case patienceOver
        /// The question was taken back.
        case cancelled
    }

    enum Step {
        case wait
        case startNext
        case end(Result<FetchedAccess, AccessFailure>)
    }

    struct Failure {
        var way: ControlWay
        var error: any Error
    }

    private let ways: [ControlWay]
    private let verifier: AccessVerifier?
    private let question: AccessVerifier.Question?
    private var started = 0
    /// Started and not ended.
    private var running: [ControlWay] = []
    /// The services that don't take the token: one may have a wrong clock or an old key set, so the others are asked as well.
    private var refusing: Set<ControlEndpoint> = []
    private var failures: [Failure] = []
    private var untrusted = 0
    private var unreported: [Failure] = []
    private var retryAfter = Duration.zero

    /// - Parameters:
    ///   - ways: in their order.
    ///   - verifier: judges answers; nil: none is verified.
    ///   - question: what they have to answer; there is one if there is a verifier.
    init(ways: [ControlWay], verifier: AccessVerifier?, question: AccessVerifier.Question?) {
        self.ways = ways
        self.verifier = verifier
        self.question = question
    }

    /// Answers that could not be trusted, since it was called last.
    mutating func takeUntrusted() -> [Failure] {
        defer { unreported = [] }
        return unreported
    }

    /// The next way, and how long it runs before the one behind it starts as well.
    mutating func startNext() -> (way: ControlWay, number: Int, head: Duration?)? {
        passOverRefusing()
        guard started < ways.count else { return nil }
        let way = ways[started]
        running.append(way)
        started += 1
        guard started < ways.count else { return (way, started, nil) }
        let isSameService = ways[started].control == way.control
        return (way, started, isSameService ? AccessFetcher.headStart : AccessFetcher.serviceHeadStart)
    }

    /// The other way to a service leads to the same answer.
    private mutating func passOverRefusing() {
        while started < ways.count, refusing.contains(ways[started].control) { started += 1 }
    }

    mutating func happened(_ event: Event) -> Step {
        switch event {
        case .patienceOver: return .end(.failure(failure(of: "no answer in time")))
        case .cancelled: return .end(.failure(failure(of: "the question was taken back")))
        case .headStartOver(let number): return number == started ? .startNext : .wait
        case .answered(let way, .success(let reply)): return judge(reply, of: way)
        case .answered(let way, .failure(let error)): return failed(way, error)
        }
    }

    private mutating func judge(_ reply: ControlReply, of way: ControlWay) -> Step {
        switch reply.status {
        case 200:
            do throws(ClientError) {
                let answer = try read(reply.body)
                return .end(
                    .success(
                        FetchedAccess(
                            answer: answer, holder: question?.holder, bytes: reply.body, way: way,
                            http3Port: reply.http3Port,
                            overtaken: ways[..<started].filter { $0.control == way.control && $0 != way },
                            untrusted: untrusted)))
            } catch {
                return failed(way, error)
            }
        case 401:
            refusing.insert(way.control)
            return failed(way, ControlStatus(code: reply.status))
        default:
            retryAfter = max(retryAfter, reply.retryAfter ?? .zero)
            return failed(way, ControlStatus(code: reply.status))
        }
    }

    private func read(_ bytes: [UInt8]) throws(ClientError) -> AccessAnswer {
        guard let verifier, let question else { return try AccessAnswer(parsing: bytes) }
        return try verifier.read(bytes, to: question)
    }

    private mutating func failed(_ way: ControlWay, _ error: any Error) -> Step {
        let happened = Failure(way: way, error: error)
        failures.append(happened)
        if (error as? ClientError)?.code == .controlAnswerUntrusted {
            untrusted += 1
            unreported.append(happened)
        }
        if let index = running.firstIndex(of: way) { running.remove(at: index) }
        passOverRefusing()
        if started < ways.count { return .startNext }
        let isOver = running.allSatisfy { refusing.contains($0.control) }
        return isOver ? .end(.failure(failure(of: "no good answer"))) : .wait
    }

    /// What went wrong on every way; an answer that makes no sense tells more than one that didn't come.
    func failure(of reason: String) -> AccessFailure {
        if !ways.isEmpty, ways.allSatisfy({ refusing.contains($0.control) }) {
            let error = ClientError(
                .controlUnavailable, message: "the control layer refused the token", advice: "get another token")
            return AccessFailure(error: error, isTokenRefused: true, isAnotherTokenWorthIt: true, untrusted: untrusted)
        }
        let telling: [ClientError.Code] = [.controlAnswerUntrusted, .controlAnswerInvalid, .controlVersionUnsupported]
        let answers = failures.compactMap { $0.error as? ClientError }.filter { telling.contains($0.code) }
        // What is wrong with that answer, whatever happened on the other ways.
        var cause = failures.first?.error
        if let answer = answers.first { cause = answer.cause ?? answer }
        let all = failures.map { "\($0.way.control.url) over \($0.way.transport.rawValue): \($0.error)" }
        return AccessFailure(
            error: ClientError(
                answers.first?.code ?? .controlUnavailable,
                message: (["the control layer gave no access configuration: \(reason)"] + all).joined(separator: "; "),
                cause: cause,
                advice: answers.first?.advice ?? "check the control layer's address, its certificate and the network",
                retryAfter: retryAfter > .zero ? retryAfter : nil),
            isAnotherTokenWorthIt: !refusing.isEmpty, retryAfter: retryAfter, untrusted: untrusted)
    }
}

/// A status that is no answer; redirects are not followed.
private struct ControlStatus: Error, CustomStringConvertible {
    var code: Int
    var description: String { "status \(code)" }
}
