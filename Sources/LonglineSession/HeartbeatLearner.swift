public import LonglineWire
public import NIOCore

/// What is known of how long one network keeps a quiet path open.
public struct HeartbeatKnowledge: Hashable, Sendable {
    /// The longest silence after which what the server sent still came through; nil before the first.
    public var lived: TimeAmount?
    /// The shortest silence after which it did not; nil when none was found.
    public var died: TimeAmount?

    /// Knowledge; by default none.
    public init(lived: TimeAmount? = nil, died: TimeAmount? = nil) {
        self.lived = lived
        self.died = died
    }
}

/// How a ``HeartbeatLearner`` looks for the longest interval.
public struct HeartbeatSearch: Hashable, Sendable {
    /// The first interval on a network nobody knows, and the one to go back to: shorter than any usual NAT's timeout.
    public var start: TimeAmount = .seconds(10)
    /// While nothing died the next interval is so many times the last that lived.
    public var growth: Int64 = 3
    /// The search ends when the shortest that died is at most so many times the longest that lived.
    public var precision = 1.1
    /// What is used of the longest that lived; the rest is kept in hand.
    public var share = 0.9
    /// The same in ``LonglineWire/SessionMode/lowPower``.
    public var lowPowerShare = 0.95
    /// The longest interval; the server's idle timeout bounds it further.
    public var maximum: TimeAmount = .hours(1)
    /// After so many beats that lived a longer interval is tried again: networks change.
    public var beatsUntilRetry = 100

    /// The values above.
    public init() {}
}

/// Learns for one network how long it may be quiet: NATs and firewalls forget a path after 15 seconds to several minutes.
///
/// ```
///                 .-- longer lived --.                        .-- beat lived --.
///                 v                  |    bracket is narrow   v                |
///   start --> searching -------------'----------------------> steady ----------'
///                 ^  |                                        |  |  ^
///                 |  '-- died, in doubt: the same again       |  |  |
///                 '------------- died: back to the start -----'  |  | died
///                 ^                                              v  |
///                 '------------------ lived ------------------ retrying: what died before
/// ```
///
/// Searching grows by ``HeartbeatSearch/growth`` until an interval dies, then goes on with the geometric mean of the
/// longest that lived and the shortest that died. A value; it knows no clock.
public struct HeartbeatLearner: Hashable, Sendable {
    private enum Phase: Hashable {
        /// `doubted`: the silence that died last, once, and something else may have been the reason.
        case searching(doubted: TimeAmount?)
        case steady(beats: Int)
        case retrying(TimeAmount)
    }

    /// What was learned so far.
    public private(set) var knowledge: HeartbeatKnowledge
    /// What the app is to its user: see ``HeartbeatSearch/lowPowerShare``.
    public var mode = SessionMode.foreground
    private let search: HeartbeatSearch
    private var phase = Phase.searching(doubted: nil)
    private var minimum = TimeAmount.milliseconds(1)
    private var maximum: TimeAmount

    /// A learner that goes on from what an earlier one knew; contradictions in it are dropped.
    public init(search: HeartbeatSearch = HeartbeatSearch(), knowledge: HeartbeatKnowledge = HeartbeatKnowledge()) {
        self.search = search
        self.knowledge = knowledge
        maximum = search.maximum
        if let lived = knowledge.lived, lived <= .zero { self.knowledge = HeartbeatKnowledge() }
        if let died = self.knowledge.died, died <= self.knowledge.lived ?? .zero { self.knowledge.died = nil }
        settle()
    }

    /// Bounds intervals by what a server allows: not below `minimum`, and at most two thirds of `idleTimeout`, both in
    /// milliseconds.
    public mutating func bound(minimum: UInt64, idleTimeout: UInt64) {
        let most = TimeAmount.milliseconds(max(1, Int64(clamping: min(idleTimeout, 1 << 40)) * 2 / 3))
        maximum = min(search.maximum, most)
        self.minimum = min(maximum, .milliseconds(max(1, Int64(clamping: min(minimum, 1 << 40)))))
        settle()
    }

    /// Whether the search is over, for now.
    public var isSettled: Bool {
        if case .searching = phase { false } else { true }
    }

    /// The interval that is safe by what is known: a share of the longest that lived.
    public var interval: TimeAmount {
        let share = mode == .lowPower ? search.lowPowerShare : search.share
        return knowledge.lived.map { bounded($0.scaled(by: share)) } ?? candidate
    }

    /// The next silence to ask for. On a network that is known it is drawn a little below ``interval``, never above; before,
    /// and when a longer one is tried, it is the one to try.
    /// - Parameter isFirst: the first on a link: where it is drawn, then between half and all of it, so that clients that came
    ///   back together don't beat together.
    public func next(isFirst: Bool, random: inout some RandomNumberGenerator) -> TimeAmount {
        next(isFirst: isFirst, draw: Double.random(in: 0...1, using: &random))
    }

    /// The same, with a number from 0 to 1 that was drawn before.
    func next(isFirst: Bool, draw: Double) -> TimeAmount {
        switch phase {
        case .searching: return candidate
        case .steady: return interval.scaled(by: 1 - draw * (isFirst ? 0.5 : 0.05))
        case .retrying(let longer): return bounded(longer)
        }
    }

    /// What the server sent came through after so long a silence.
    public mutating func lived(_ silence: TimeAmount) {
        if silence > knowledge.lived ?? .zero {
            knowledge.lived = silence
            if let died = knowledge.died, died <= silence { knowledge.died = nil }
        }
        switch phase {
        case .searching(let doubted):
            // That a shorter one lives says nothing of the one in doubt.
            if let doubted, Self.reaches(silence, doubted) { phase = .searching(doubted: nil) }
            settle()
        case .steady(let beats):
            phase = .steady(beats: beats + 1)
            if beats + 1 >= search.beatsUntilRetry, retries, let longer { phase = .retrying(longer) }
        case .retrying(let longer):
            // It was quiet for less than asked: that shows nothing new.
            guard Self.reaches(silence, bounded(longer)) else { return }
            knowledge.died = nil
            phase = .searching(doubted: nil)
            settle()
        }
    }

    /// What the server sent after so long a silence did not come through, but what was asked right after it did.
    /// - Parameter confirmed: nothing but a forgotten path explains it: the server sees another address now.
    public mutating func died(_ silence: TimeAmount, confirmed: Bool) {
        switch phase {
        case .searching(let doubted):
            if confirmed {
                noteDeath(silence)
            } else if let doubted, Self.reaches(silence, doubted) {
                noteDeath(max(silence, doubted))
            } else {
                // A shorter one takes the other's place: if it dies once more, it is the one that counts.
                return phase = .searching(doubted: silence)
            }
            phase = .searching(doubted: nil)
            settle()
        case .steady:
            // Whatever the reason: the safe interval first, and from there up again.
            knowledge.lived = nil
            knowledge.died = confirmed ? silence : nil
            phase = .searching(doubted: nil)
            settle()
        case .retrying(let longer):
            // It was quiet for less than asked, and something else may have been the reason: that shows nothing.
            guard confirmed || Self.reaches(silence, bounded(longer)) else { return }
            noteDeath(silence)
            phase = knowledge.lived == nil ? .searching(doubted: nil) : .steady(beats: 0)
        }
    }

    /// Whether a silence was as long as another one, or hardly shorter: what came right behind the question cut it.
    private static func reaches(_ silence: TimeAmount, _ other: TimeAmount) -> Bool {
        silence >= other.scaled(by: 0.95)
    }

    private mutating func noteDeath(_ silence: TimeAmount) {
        knowledge.died = min(knowledge.died ?? silence, silence)
        if let lived = knowledge.lived, lived >= silence { knowledge.lived = nil }
    }

    /// Whether longer intervals are tried at all. In low power a try costs more than it may bring, unless beats are closer together than
    /// on a network that nobody knows: then it is the beats that the battery is spent on.
    private var retries: Bool { mode != .lowPower || interval < search.start }

    /// What to try after a long time of peace, if there is anything.
    private var longer: TimeAmount? {
        guard let lived = knowledge.lived, lived < maximum.scaled(by: 0.99) else { return nil }
        return min(maximum, max(knowledge.died ?? .zero, lived.scaled(by: search.precision)))
    }

    /// What the search asks for.
    private var candidate: TimeAmount {
        switch (knowledge.lived, knowledge.died) {
        case (nil, nil): bounded(search.start)
        case (nil, let died?): bounded(min(search.start, died.scaled(by: 0.5)))
        case (let lived?, nil): bounded(lived.multiplied(by: search.growth))
        case (let lived?, let died?):
            bounded(
                .nanoseconds(Int64((Double(lived.nanoseconds) * Double(min(died, maximum).nanoseconds)).squareRoot())))
        }
    }

    /// Ends the search when nothing is left to find, or goes on with it when the bounds moved.
    private mutating func settle() {
        let isDone: Bool
        switch (knowledge.lived, knowledge.died) {
        case (nil, nil): isDone = false
        case (nil, let died?): isDone = died <= minimum.scaled(by: search.precision)
        case (let lived?, let died?) where died < maximum: isDone = lived.scaled(by: search.precision) >= died
        case (let lived?, _): isDone = lived >= maximum.scaled(by: 0.99)
        }
        switch (phase, isDone) {
        case (.searching, true): phase = .steady(beats: 0)
        case (.steady, false): phase = .searching(doubted: nil)
        default: break
        }
    }

    private func bounded(_ time: TimeAmount) -> TimeAmount { max(minimum, min(time, maximum)) }
}

extension TimeAmount {
    /// So many times as long; what doesn't fit is the longest there is.
    fileprivate func scaled(by factor: Double) -> TimeAmount {
        let product = Double(nanoseconds) * factor
        return product < 0x1p62 ? .nanoseconds(Int64(product)) : .nanoseconds(1 << 62)
    }

    fileprivate func multiplied(by factor: Int64) -> TimeAmount { scaled(by: Double(factor)) }
}
