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
        case probe
        case dead
    }

    let policy: HeartbeatPolicy
    let canProbe: Bool
    private(set) var state: State
    /// Between pings, as narrowed by the server's limits.
    private let interval: TimeAmount
    private var isFirst = true

    init(policy: HeartbeatPolicy, interval: TimeAmount, canProbe: Bool, now: NIODeadline) {
        self.policy = policy
        self.interval = interval
        self.canProbe = canProbe
        // The first beat is drawn when half the interval is over, where random numbers are at hand.
        state = .quiet(beat: now + Self.half(of: interval))
    }

    var deadline: NIODeadline? {
        switch state {
        case .quiet(let beat): beat
        case .waiting(let until, _), .probing(let until): until
        case .dead: nil
        }
    }

    /// A frame was sent; `owed`: one that the peer answers.
    mutating func sent(owed: Bool, now: NIODeadline) {
        switch state {
        case .quiet: state = .waiting(until: now + policy.answerTimeout, owed: owed)
        case .waiting(let until, false) where owed: state = .waiting(until: until, owed: true)
        case .waiting, .probing, .dead: break
        }
    }

    /// An authenticated packet arrived.
    mutating func received(now: NIODeadline) {
        switch state {
        case .dead:
            break
        case .quiet where isFirst:
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
        state = .waiting(until: now + policy.answerTimeout, owed: true)
    }

    /// The deadline has come. `.ping`: send one now; `.probe`: and look for another path.
    mutating func deadlineReached(now: NIODeadline, random: inout some RandomNumberGenerator) -> Event {
        guard let deadline, now >= deadline else { return .none }
        switch state {
        case .quiet:
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
}
