import NIOCore

/// Tells a dead path from a quiet one. Only received, authenticated packets prove life; anything sent starts a deadline.
///
/// ```
///            beat due: PING, or a frame sent
///   quiet ----------------------------------> waiting --no answer owed, time over: PING--> waiting
///     ^ ^                                      |  |
///     | '--------------- received -------------'  | time over
///     |                                           v
///     '---- received ---- probing <---- probe, when the link can change its path (else dead)
///                            '------------ time over --> dead
/// ```
///
/// Where the interval is learned, a ``SilenceTest`` says when a quiet link is asked, and what.
struct Heartbeat {
    enum State: Equatable {
        /// Nothing is owed. The next ping leaves at the time, unless something else happens before.
        case quiet(beat: NIODeadline)
        /// Something was sent; `owed`: the peer answers it by itself.
        case waiting(until: NIODeadline, owed: Bool)
        /// Another path is tried.
        case probing(until: NIODeadline)
        case dead
    }

    enum Event: Equatable {
        case none
        case ping
        /// Ask for an answer after a silence; see ``asked(_:nonce:address:now:)``.
        case ask
        /// The path lives, but what was sent after this silence seems to be lost.
        case doubtful(TimeAmount)
        case probe
        case dead
    }

    let policy: HeartbeatPolicy
    let canProbe: Bool
    private(set) var state: State
    /// Between pings, as narrowed by the server's limits.
    private let interval: TimeAmount
    private var isFirst = true
    /// What is waited for has not left the session: nothing that arrives can be an answer to it.
    private var isUnsent = false
    /// Where the interval is learned.
    private var test: SilenceTest?

    init(policy: HeartbeatPolicy, interval: TimeAmount, canProbe: Bool, now: NIODeadline) {
        self.policy = policy
        self.interval = interval
        self.canProbe = canProbe
        // The first beat is drawn when half the interval is over, where random numbers are at hand.
        state = .quiet(beat: now + Self.half(of: interval))
        if policy.search != nil { test = SilenceTest(answerTimeout: policy.answerTimeout, now: now) }
    }

    var deadline: NIODeadline? {
        switch state {
        case .quiet(let beat): test?.deadline ?? beat
        case .waiting(let until, _), .probing(let until): until
        case .dead: nil
        }
    }

    /// A frame was sent; `owed`: one that the peer answers.
    mutating func sent(owed: Bool, now: NIODeadline) {
        test?.sent(now: now)
        switch state {
        case .quiet: wait(owed: owed, now: now)
        case .waiting(let until, false) where owed: state = .waiting(until: until, owed: true)
        case .waiting, .probing, .dead: break
        }
    }

    private mutating func wait(owed: Bool, now: NIODeadline) {
        state = .waiting(until: now + policy.answerTimeout, owed: owed)
        isUnsent = true
    }

    /// The host took everything that was to be sent.
    mutating func allTaken() { isUnsent = false }

    /// An authenticated packet arrived.
    mutating func received(now: NIODeadline) {
        test?.received(now: now)
        switch state {
        case .dead:
            break
        case .quiet where isFirst && test == nil:
            break
        case .waiting where isUnsent:
            // It came with the frame that led to what is waited for.
            break
        case .quiet, .waiting, .probing:
            state = .quiet(beat: now + (isFirst ? half : interval))
        }
    }

    private var half: TimeAmount { Self.half(of: interval) }

    private static func half(of interval: TimeAmount) -> TimeAmount { .nanoseconds(max(1, interval.nanoseconds / 2)) }

    /// The path is another one: it has to prove itself. The caller sends a ping.
    mutating func pathChanged(now: NIODeadline) {
        if case .dead = state { return }
        test?.pathChanged(now: now)
        wait(owed: true, now: now)
    }

    /// What was learned belongs to another network.
    mutating func networkChanged(now: NIODeadline) { test?.networkChanged(now: now) }

    /// Whether no silence was asked for on this link.
    var asksFirst: Bool { test?.asksFirst ?? false }

    /// Whether a silence is to be asked for without delay.
    func asksNow(now: NIODeadline) -> Bool {
        if case .quiet = state, let test { test.isDueToAsk(now: now) } else { false }
    }

    /// A `PING` leaves that is answered after a silence. Links whose every packet is seen acknowledge it at once.
    mutating func asked(_ silence: TimeAmount, nonce: UInt64, address: String, now: NIODeadline) {
        test?.sent(now: now)
        test?.ask(silence, nonce: nonce, address: address, now: now)
        if canProbe, case .quiet = state { wait(owed: true, now: now) }
    }

    /// A `PONG` arrived, which also counts as received.
    mutating func answered(nonce: UInt64, address: String, now: NIODeadline) -> SilenceTest.Verdict {
        received(now: now)
        return test?.answered(nonce: nonce, address: address, now: now) ?? .none
    }

    /// The silence that the path did not survive, as far as is known when the link dies.
    var doubtedSilence: TimeAmount? { test?.doubtedSilence }

    /// The deadline has come. `.ping`: send one now, with this nonce; `.probe`: and look for another path.
    mutating func deadlineReached(
        now: NIODeadline, nonce: UInt64, random: inout some RandomNumberGenerator
    ) -> Event {
        guard let deadline, now >= deadline else { return .none }
        switch state {
        case .quiet:
            if let step = test?.due(now: now, nonce: nonce) { return take(step, now: now) }
            if isFirst {
                isFirst = false
                state = .quiet(beat: now + .nanoseconds(Int64.random(in: 0...half.nanoseconds, using: &random)))
                return .none
            }
            state = .waiting(until: now + policy.answerTimeout, owed: true)
            return .ping
        case .waiting(_, false):
            state = .waiting(until: now + policy.answerTimeout, owed: true)
            return .ping
        case .waiting(_, true):
            guard canProbe else {
                state = .dead
                return .dead
            }
            state = .probing(until: now + policy.answerTimeout)
            return .probe
        case .probing:
            state = .dead
            return .dead
        case .dead:
            return .none
        }
    }

    private mutating func take(_ step: SilenceTest.Step, now: NIODeadline) -> Event {
        switch step {
        case .none: return .none
        case .ask: return .ask
        case .doubtful(let silence): return .doubtful(silence)
        case .ping:
            state = .waiting(until: now + policy.answerTimeout, owed: true)
            return .ping
        }
    }
}
