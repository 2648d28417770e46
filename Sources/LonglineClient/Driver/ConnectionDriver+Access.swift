import Logging
import LonglineSession
import LonglineWire
import NIOCore

/// Where to connect and how, which the control layer says.
extension ConnectionDriver {
    /// How a question to the control layer ended.
    private enum Finding: Sendable {
        case found(FetchedAccess, token: String)
        case refusedToken(untrusted: Int)
        case failed(AccessFailure)
        case noToken(any Error)
    }

    /// With an answer at hand nobody waits long for a newer one.
    private static let patienceWithAnswer = Duration.seconds(3)

    /// Whether the control layer is asked before the next attempt.
    func mustLocate(isReturn: Bool) -> Bool {
        guard fetcher != nil, !plan.isRedirected else { return false }
        return access.isDue(
            now: clock.now(), hasOther: !configuration.accessPoints.isEmpty, isReturn: isReturn)
    }

    /// Asks the control layer, then goes on with the attempt: by its answer, or by the last one.
    func locate(_ generation: UInt64) {
        guard let fetcher else { return prepare(generation) }
        publish(.locating(attempt: attempts))
        let found = hop { (driver: ConnectionDriver, finding: Finding) in
            guard driver.generation == generation else { return }
            driver.question = nil
            driver.located(finding, generation)
        }
        let provider = boundedTokenProvider
        let routes = access.routes
        let wall = clock.wall()
        let hasOther = access.answer != nil || !configuration.accessPoints.isEmpty
        let patience =
            hasOther ? min(Self.patienceWithAnswer, configuration.connectTimeout) : configuration.connectTimeout
        // Without a ticket the attempt waits for a token in any case, and for as long as one takes where the ticket has led nowhere yet:
        // who gives none within this time would have the client try dead access points for as long as the ticket is good.
        let mayGoByTicket = hasOther && usableTicket != nil && attempts <= 1
        let deadline = mayGoByTicket ? clock.now() + TimeAmount(patience) : nil
        let now = clock.now
        question?.cancel()
        question = Task {
            let finding = await ConnectionDriver.ask(
                fetcher, provider, routes: routes, wall: wall, patience: patience
            ) { deadline.map { max(.zero, $0 - now()) } }
            found(finding)
        }
    }

    /// A token that is refused is worth one other.
    /// - Parameters:
    ///   - patience: how long the control layer has for one answer.
    ///   - left: how long all of it may take from now on, the app's tokens too; nil: as long as these take.
    private static func ask(
        _ fetcher: AccessFetcher, _ provider: @Sendable (TimeAmount) async throws -> String,
        routes: [StoredControlRoute], wall: UInt64, patience: Duration, left: @Sendable () -> TimeAmount?
    ) async -> Finding {
        var untrusted = 0
        for isLast in [false, true] {
            let token: String
            do { token = try await provider(left() ?? tokenPatience) } catch { return .noToken(error) }
            do throws(AccessFailure) {
                let patience = left().map { min(patience, Duration($0)) } ?? patience
                var fetched = try await fetcher.fetch(token: token, routes: routes, wall: wall, patience: patience)
                fetched.untrusted += untrusted
                return .found(fetched, token: token)
            } catch {
                untrusted += error.untrusted
                if error.isAnotherTokenWorthIt, !isLast { continue }
                if error.isTokenRefused { break }
                var failure = error
                failure.untrusted = untrusted
                return .failed(failure)
            }
        }
        return .refusedToken(untrusted: untrusted)
    }

    /// The network changed while the control layer is asked, or the app for a token: the attempt starts again on the new one.
    func askAnew() {
        guard question != nil else { return }
        attempts -= 1
        tokens.beginAnew()
        beginAttempt()
    }

    /// The user came while the control layer is asked, or the app for a token for it. Where a ticket does without, that has had time enough:
    /// what it waits for may be a network that is gone, or was asleep.
    /// - Returns: whether the attempt went on.
    func goOnForUser() -> Bool {
        guard case .preparing = phase, question != nil, usableTicket != nil, plan.target != nil,
            clock.now() - attemptBeganAt >= TimeAmount(Self.patienceWithAnswer)
        else { return false }
        question?.cancel()
        question = nil
        // What the question still brings is nobody's.
        generation += 1
        access.failed(retryAfter: .zero, now: clock.now(), random: &random)
        goOn(without: "the user waits", generation)
        return true
    }

    /// The same for a user who came before that time is over.
    func goOnForUserInTime() {
        guard case .preparing = phase else { return }
        let (generation, due) = (generation, attemptBeganAt + TimeAmount(Self.patienceWithAnswer))
        _ = schedule(in: max(.zero, due - clock.now())) { driver in
            if driver.generation == generation { _ = driver.goOnForUser() }
        }
    }

    private func located(_ finding: Finding, _ generation: UInt64) {
        switch finding {
        case .found(let fetched, let token): found(fetched, token, generation)
        case .refusedToken(let untrusted):
            statistics.failedAccessQuestions += 1
            statistics.untrustedAccessAnswers += untrusted
            access.failed(retryAfter: .zero, now: clock.now(), random: &random)
            // The service decides by the ticket, as long as there is one and a place to go to.
            if usableTicket != nil, plan.target != nil {
                return goOn(without: "the control layer refused the token", generation)
            }
            statistics.failedAttempts += 1
            linkEnded(
                .closed(Close(code: .credentialInvalid, reason: "the control layer refused the token")), link: nil)
        case .noToken(let error):
            if usableTicket != nil, plan.target != nil {
                // A provider that gives none now is not waited for at each attempt either.
                access.failed(retryAfter: .zero, now: clock.now(), random: &random)
                return goOn(without: "no token: \(error)", generation)
            }
            attemptFailed(Self.noToken(error))
        case .failed(let failure):
            statistics.failedAccessQuestions += 1
            statistics.untrustedAccessAnswers += failure.untrusted
            access.failed(retryAfter: failure.retryAfter, now: clock.now(), random: &random)
            if plan.target != nil { return goOn(without: "\(failure.error)", generation) }
            statistics.failedAttempts += 1
            logger.warning(
                "no answer of the control layer, and nowhere else to go", metadata: ["reason": "\(failure.error)"])
            linkEnded(.unlocated(failure.error, retryAfter: failure.retryAfter), link: nil)
        }
    }

    private func found(_ fetched: FetchedAccess, _ token: String, _ generation: UInt64) {
        if stopsForOtherUser(token: token) { return }
        statistics.accessAnswers += 1
        statistics.untrustedAccessAnswers += fetched.untrusted
        learnUser(fromToken: token)
        let stored = access.received(
            fetched, user: TokenSubject.read(from: token), now: clock.now(), wall: clock.wall())
        pending.access = .some(stored)
        pending.controlRoutes = access.routes
        scheduleFlush()
        attemptToken = token
        applyAccess()
        logger.info(
            "the control layer said where to connect",
            metadata: [
                "over": "\(fetched.way.transport.rawValue)", "access-points": "\(fetched.answer.points.count)",
                "lifetime": "\(fetched.answer.lifetime)",
            ])
        prepare(generation)
    }

    /// The last answer does, however old, and the configuration's own access points without one.
    private func goOn(without reason: String, _ generation: UInt64) {
        let age = access.age(wall: clock.wall()).map { "\($0)" } ?? "none"
        logger.warning(
            "no answer of the control layer: the client connects by what it has",
            metadata: ["reason": "\(reason)", "last-answer": "\(age)"])
        prepare(generation)
    }

    /// What the control layer said last counts from now on: for the next attempt, and for the link that it brings.
    func applyAccess() {
        guard let answer = access.answer else { return }
        let ranked = answer.points.map(\.accessPoint)
        plan.rank(
            ranked + configuration.accessPoints.filter { !ranked.contains($0) },
            policy: configuration.setsBackOff ? configuration.backOff : answer.backOff ?? configuration.backOff)
        guard !configuration.setsHeartbeat, let said = answer.heartbeat else { return }
        var heartbeat = configuration.heartbeat
        heartbeat.interval = said.initial
        heartbeat.answerTimeout = said.answerTimeout
        heartbeat.search?.start = said.initial
        session.setHeartbeat(heartbeat)
    }

    /// Whether a connection to an access point can move; what nobody named can.
    func isMigrationSafe(_ accessPoint: AccessPoint) -> Bool {
        access.answer?.points.first { $0.accessPoint == accessPoint }?.isMigrationSafe ?? true
    }

    /// The answer that is kept is of no use to another user.
    /// - Returns: whether the control layer has to be asked for this one.
    func forgetAccess(unlessFor token: String) -> Bool {
        guard access.isForAnother(than: token) else { return false }
        logger.notice("the control layer's last answer was for another user or device")
        access.forget()
        pending.access = .some(nil)
        scheduleFlush()
        plan = Self.plan(configuration)
        return true
    }

    /// Notes by what the attempt goes, for statistics.
    func noteAccessSource() {
        let isNamed = access.answer?.points.contains { $0.accessPoint == plan.target } ?? false
        statistics.accessSource =
            !isNamed ? .fixed : access.isWithinLifetime(now: clock.now()) ? .answer : .lastAnswer
    }
}
