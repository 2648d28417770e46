import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Asks the policy, and remembers what it said.
///
/// ```
///   question ──cached──▶ decision
///      │ not cached
///      ├──asked already──▶ waits for that answer
///      ├──too many in flight, of all or of the user──▶ refused for now
///      └──▶ policy ──answer, failure, or deadline──▶ cached, told to all who wait
/// ```
/// A policy that ignores its deadline goes on counting as in flight until it returns; its late answer is dropped.
final class AuthorizationGate: Sendable {
    private struct Cached {
        var refusal: RefusalCode?
        var until: NIODeadline
    }
    private struct Asked {
        var number: UInt64
        var waiters: [CheckedContinuation<RefusalCode?, Never>] = []
    }
    private struct State {
        /// Two generations: when the young one has half of the limit, it becomes the old one, and what was old goes.
        var young: [AuthorizationQuestion: Cached] = [:]
        var old: [AuthorizationQuestion: Cached] = [:]
        var asked: [AuthorizationQuestion: Asked] = [:]
        var running = 0
        var runningOfUser: [UserKey: Int] = [:]
        var counts = AuthorizationStatistics()
        var last: UInt64 = 0
    }
    private enum Next {
        case answer(RefusalCode?)
        case wait
        case ask(UInt64)
    }

    let settings: AuthorizationSettings
    private let log: EventLog
    private let now: @Sendable () -> NIODeadline
    private let state = Mutex(State())

    /// - Parameter now: a clock for how long answers are remembered.
    init(_ settings: AuthorizationSettings, log: EventLog, now: @escaping @Sendable () -> NIODeadline = { .now() }) {
        self.settings = settings
        self.log = log
        self.now = now
    }

    /// The answer, when it is remembered: nil inside for "allowed", nil outside for "not known".
    func known(_ question: AuthorizationQuestion) -> RefusalCode?? {
        state.withLock { state in
            let known = Self.known(question, in: &state, now: now())
            if known != nil { state.counts.remembered += 1 }
            return known
        }
    }

    /// Asks, unless the answer is remembered or somebody asks already.
    /// - Returns: why it is refused, or nil.
    func refusal(of question: AuthorizationQuestion) async -> RefusalCode? {
        await withCheckedContinuation { continuation in
            let next: Next = state.withLock { state in
                if let known = Self.known(question, in: &state, now: now()) {
                    state.counts.remembered += 1
                    return .answer(known)
                }
                if state.asked[question] != nil {
                    state.counts.shared += 1
                    state.asked[question]?.waiters.append(continuation)
                    return .wait
                }
                let user = question.device.userKey
                guard state.running < settings.maximumInFlight,
                    state.runningOfUser[user, default: 0] < settings.maximumInFlightPerUser
                else {
                    state.counts.withoutRoom += 1
                    return .answer(.overloaded)
                }
                state.counts.asked += 1
                state.running += 1
                state.runningOfUser[user, default: 0] += 1
                state.last += 1
                state.asked[question] = Asked(number: state.last, waiters: [continuation])
                return .ask(state.last)
            }
            switch next {
            case .answer(let refusal): continuation.resume(returning: refusal)
            case .wait: break
            case .ask(let number): ask(question, number)
            }
        }
    }

    private func ask(_ question: AuthorizationQuestion, _ number: UInt64) {
        let timer = Task {
            guard (try? await Task.sleep(for: settings.deadline)) != nil else { return }
            fail(question, number, "no answer in \(settings.deadline)", isLate: true)
        }
        let work = Task {
            defer { timer.cancel() }
            do {
                let decision = try await settings.policy.decide(question)
                let refusal = checked(decision.refusal, question)
                settle(question, number, refusal, min(decision.timeToLive, settings.maximumTimeToLive))
            } catch {
                fail(question, number, "\(error)")
            }
            returned(question)
        }
        // The deadline ends a policy that listens to cancellation.
        Task {
            await timer.value
            work.cancel()
        }
    }

    /// The policy is done with a question, in time or not.
    private func returned(_ question: AuthorizationQuestion) {
        let user = question.device.userKey
        state.withLock { state in
            state.running -= 1
            let left = state.runningOfUser[user, default: 1] - 1
            state.runningOfUser[user] = left > 0 ? left : nil
        }
    }

    /// A code that is not the policy's to give counts as ``RefusalCode/forbidden``.
    private func checked(_ refusal: RefusalCode?, _ question: AuthorizationQuestion) -> RefusalCode? {
        guard let refusal, Self.reserved.contains(refusal) else { return refusal }
        log.log(
            .error, "the authorization policy gave a refusal code that it may not",
            ["action": "\(question.action)", "code": "\(refusal.rawValue)", "answer": "forbidden"])
        return .forbidden
    }

    /// What only the ledger knows. A client acts on these: it sends the same again for ever, numbers all anew under another
    /// producer, or tells the app that nobody knows. And 0, which means that nothing was refused.
    private static let reserved: Set<RefusalCode> = [
        RefusalCode(rawValue: 0), .outOfOrder, .idReused, .outcomeUnknown, .invalidID, .incomplete,
    ]

    private func fail(
        _ question: AuthorizationQuestion, _ number: UInt64, _ reason: String, isLate: Bool = false
    ) {
        let refusal: RefusalCode? =
            switch settings.onFailure {
            case .refuseForNow: .overloaded
            case .deny: .forbidden
            case .allow: nil
            }
        let timeToLive = settings.failureTimeToLive
        guard settle(question, number, refusal, timeToLive, failed: true, isLate: isLate) else { return }
        log.log(
            .error, "the authorization policy failed",
            ["action": "\(question.action)", "answer": "\(settings.onFailure)", "reason": "\(reason)"])
    }

    /// - Returns: false when the question was answered before.
    @discardableResult
    private func settle(
        _ question: AuthorizationQuestion, _ number: UInt64, _ refusal: RefusalCode?, _ timeToLive: Duration,
        failed: Bool = false, isLate: Bool = false
    ) -> Bool {
        let waiters: [CheckedContinuation<RefusalCode?, Never>]? = state.withLock { state in
            guard let asked = state.asked[question], asked.number == number else { return nil }
            state.asked[question] = nil
            // Before anybody has the answer.
            if failed { state.counts.failures += 1 }
            if isLate { state.counts.late += 1 }
            if timeToLive > .zero, settings.maximumCached > 0 {
                if state.young.count >= max(1, settings.maximumCached / 2) {
                    state.old = state.young
                    state.young = [:]
                }
                state.young[question] = Cached(refusal: refusal, until: now() + TimeAmount(timeToLive))
            }
            return asked.waiters
        }
        guard let waiters else { return false }
        for waiter in waiters { waiter.resume(returning: refusal) }
        return true
    }

    private static func known(
        _ question: AuthorizationQuestion, in state: inout State, now: NIODeadline
    ) -> RefusalCode?? {
        guard let cached = state.young[question] ?? state.old[question] else { return nil }
        guard cached.until > now else {
            state.young[question] = nil
            state.old[question] = nil
            return nil
        }
        return .some(cached.refusal)
    }

    /// What was asked so far.
    var statistics: AuthorizationStatistics {
        state.withLock { state in
            var counts = state.counts
            counts.underWay = state.running
            counts.kept = state.young.count + state.old.count
            return counts
        }
    }

    /// Decisions remembered, for tests.
    var cachedCount: Int { state.withLock { $0.young.count + $0.old.count } }
}
