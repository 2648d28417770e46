import NIOCore

/// Allows a burst, then a steady rate.
struct TokenBucket: Sendable {
    private let perSecond: Double
    private let burst: Double
    private var tokens: Double
    private var filled: NIODeadline

    init(perSecond: Double, burst: Double, now: NIODeadline) {
        self.perSecond = perSecond
        self.burst = burst
        self.tokens = burst
        self.filled = now
    }

    /// Takes one, if there is one.
    mutating func take(now: NIODeadline) -> Bool {
        guard wait(for: 1, now: now) == nil else { return false }
        spend(1)
        return true
    }

    /// - Returns: nil when there are so many tokens; otherwise how long until there are, and some more with them: who waits
    ///   for one at a time would come back for every one.
    mutating func wait(for count: Double, now: NIODeadline) -> TimeAmount? {
        fill(now: now)
        guard tokens < count else { return nil }
        let seconds = (max(count, burst / 4) - tokens) / perSecond
        return .nanoseconds(Int64(min(seconds, 3600) * 1e9))
    }

    /// Takes tokens that ``wait(for:now:)`` found; gives them back when negative.
    mutating func spend(_ count: Double) { tokens = min(burst, tokens - count) }

    func isFull(now: NIODeadline) -> Bool {
        var later = self
        later.fill(now: now)
        return later.tokens >= burst
    }

    private mutating func fill(now: NIODeadline) {
        guard now > filled else { return }
        tokens = min(burst, tokens + Double((now - filled).nanoseconds) / 1e9 * perSecond)
        filled = now
    }
}
