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
        if now > filled {
            tokens = min(burst, tokens + Double((now - filled).nanoseconds) / 1e9 * perSecond)
            filled = now
        }
        guard tokens >= 1 else { return false }
        tokens -= 1
        return true
    }
}
