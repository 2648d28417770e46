import NIOCore

/// Finds out whether a path outlives a silence: asks the server to answer after it, and listens.
///
/// A `PING` that leaves after a silence would show less: it opens a forgotten path anew, often unnoticed, while what the
/// server sent meanwhile was lost. So the answer has to come by itself.
///
/// ```
///   resting --time to ask: PING(answer after)--> listening --PONG: lived--> resting
///      ^                                             |
///      |                                             | overdue: PING
///      |                                             v
///      '-- PONG: died, confirmed if the address <-- asking --any packet--> answered --a moment later: PING--> comparing
///          is another one, or the path was changed                                                                |
///      ^                                                                                                          |
///      '----------------------------------------------------------------------------------------------------------'
/// ```
///
/// The second question is there because a server believes a new address only once it validated the path (RFC 9000 section
/// 9.3), so that the first answer may name the old one. If the time was not really quiet, what counts is how long it was.
struct SilenceTest {
    enum State: Equatable {
        /// Asks next at this time.
        case resting(until: NIODeadline)
        case listening(nonce: UInt64, Question)
        /// The answer is overdue; the path is asked whether it lives at all.
        case asking(Doubt)
        /// It does; the address is asked for at this time.
        case answered(Doubt, at: NIODeadline)
        case comparing(Doubt, nonce: UInt64, until: NIODeadline)
    }

    struct Question: Equatable {
        /// The silence asked for.
        let silence: TimeAmount
        /// When the answer leaves the server, or a little earlier.
        let due: NIODeadline
        /// How the server saw this client when it was asked.
        let address: String
    }

    struct Doubt: Equatable {
        let silence: TimeAmount
        let address: String
        let askedAt: NIODeadline
        /// Only another path brought an answer.
        var isRepaired = false
    }

    enum Step: Equatable {
        /// Not yet.
        case none
        /// Ask for an answer after a silence.
        case ask
        /// Ask for an answer now.
        case ping
        /// The silence was not survived, as it seems.
        case doubtful(TimeAmount)
    }

    private(set) var state: State
    /// When something was sent or received last.
    private var lastActivity: NIODeadline
    /// The silence that a received packet ended, and when.
    private var silence: (length: TimeAmount, end: NIODeadline)?
    private var isFirst = true
    let answerTimeout: TimeAmount

    /// A link counts as quiet after this long; the first question then leaves while the radio is still awake.
    static let restingTime = TimeAmount.seconds(1)
    /// Behind a change of the path a client of QUIC speaks up once more, to be heard there (`PathFollowUp`): until then it is not quiet.
    static let settlingTime = TimeAmount.milliseconds(2_500)
    /// What arrives within this time belongs together.
    private static let burst = TimeAmount.seconds(1)
    /// A timer that fires so much too late was asleep with its device: what came meanwhile still waits to be read.
    private static let oversleeping = TimeAmount.seconds(2)

    init(answerTimeout: TimeAmount, now: NIODeadline) {
        self.answerTimeout = answerTimeout
        lastActivity = now
        state = .resting(until: now + Self.restingTime)
    }

    /// When ``due(now:nonce:)`` wants to be asked, on a quiet link.
    var deadline: NIODeadline {
        switch state {
        case .resting(let until): until
        case .listening(_, let question): question.due + answerTimeout
        case .asking(let doubt): doubt.askedAt + answerTimeout
        case .answered(_, let at): at
        case .comparing(_, _, let until): until
        }
    }

    mutating func sent(now: NIODeadline) {
        // Whatever comes now may come through what this opened.
        silence = nil
        lastActivity = max(lastActivity, now)
    }

    mutating func received(now: NIODeadline) {
        let length = now - lastActivity
        if length >= Self.burst { silence = (length, now) }
        lastActivity = max(lastActivity, now)
        switch state {
        case .resting(let until): if now < until { state = .resting(until: max(until, now + Self.restingTime)) }
        case .asking(let doubt):
            let roundTrip = now - doubt.askedAt
            state = .answered(doubt, at: now + max(.milliseconds(200), roundTrip * 3))
        case .listening, .answered, .comparing: break
        }
    }

    /// The link runs on another path now.
    mutating func pathChanged(now: NIODeadline) {
        switch state {
        case .listening: state = .resting(until: now + Self.settlingTime)
        case .asking(var doubt):
            doubt.isRepaired = true
            state = .asking(doubt)
        case .answered(let doubt, _), .comparing(let doubt, _, _):
            // From now on another address shows nothing. That only another path answered has been shown, and of that path one
            // may be told twice.
            if !doubt.isRepaired { state = .resting(until: now + Self.settlingTime) }
        case .resting(let until): state = .resting(until: max(until, now + Self.settlingTime))
        }
    }

    /// The link runs in another network now, where everything is to be learned.
    mutating func networkChanged(now: NIODeadline) {
        var until = now + Self.restingTime
        if case .resting(let later) = state { until = max(until, min(later, now + Self.settlingTime)) }
        state = .resting(until: until)
        isFirst = true
    }

    /// The deadline has come, on a quiet link; a ping that leaves for it carries `nonce`.
    mutating func due(now: NIODeadline, nonce: UInt64) -> Step {
        switch state {
        case .resting:
            return .ask
        case .listening(_, let question):
            let quiet = min(question.silence, question.due - lastActivity)
            guard quiet >= Self.burst, now < deadline + Self.oversleeping else {
                state = .resting(until: now + Self.restingTime)
                return .ping
            }
            state = .asking(Doubt(silence: quiet, address: question.address, askedAt: now))
            return .ping
        case .answered(let doubt, _):
            state = .comparing(doubt, nonce: nonce, until: now + answerTimeout)
            return .ping
        case .asking(let doubt), .comparing(let doubt, _, _):
            state = .resting(until: now + Self.restingTime)
            return .doubtful(doubt.silence)
        }
    }

    /// The question of a silence leaves.
    mutating func ask(_ silence: TimeAmount, nonce: UInt64, address: String, now: NIODeadline) {
        isFirst = false
        state = .listening(nonce: nonce, Question(silence: silence, due: now + silence, address: address))
    }

    /// Whether the next question may leave.
    func isDueToAsk(now: NIODeadline) -> Bool {
        if case .resting(let until) = state { now >= until } else { false }
    }

    /// Whether no question was asked on this link yet.
    var asksFirst: Bool { isFirst }

    enum Verdict: Equatable {
        case none
        case lived(TimeAmount)
        case died(TimeAmount, confirmed: Bool)
    }

    /// A `PONG` arrived, and ``received(now:)`` was told before.
    mutating func answered(nonce: UInt64, address: String, now: NIODeadline) -> Verdict {
        switch state {
        case .listening(nonce, let question):
            // The next question leaves with the acknowledgement of this answer; a server that answers too early doesn't
            // make this side ask more often.
            state = .resting(until: max(now, question.due - Self.burst))
            guard let silence, now - silence.end < Self.burst else { return .none }
            return .lived(min(question.silence, silence.length))
        case .comparing(let doubt, nonce, _):
            let isElsewhere = doubt.isRepaired || address != doubt.address
            state = .resting(until: isElsewhere ? now + Self.settlingTime : now)
            return .died(doubt.silence, confirmed: isElsewhere)
        default:
            return .none
        }
    }

    /// What was in doubt when the link died.
    var doubtedSilence: TimeAmount? {
        if case .asking(let doubt) = state { doubt.silence } else { nil }
    }
}
