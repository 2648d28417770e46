/// How long a client waits before it connects again: exponential, with full jitter.
///
/// Before attempt `n` (from 0) the delay is drawn evenly from `0...min(maximum, base * 2^n)`. Full jitter spreads the
/// clients of a node that died over the whole interval, so they don't come back in waves.
public struct BackOffPolicy: Hashable, Sendable {
    /// The upper bound before the first attempt.
    public var base: Duration
    /// The upper bound that later attempts grow to.
    public var maximum: Duration
    /// A session that stayed up for this long counts as a success: the next loss starts from ``base`` again.
    public var resetAfter: Duration

    /// A policy.
    /// - Parameters:
    ///   - base: more than zero.
    ///   - maximum: at least `base`.
    ///   - resetAfter: how long a session must have been up to count as a success.
    public init(
        base: Duration = .milliseconds(250), maximum: Duration = .seconds(60), resetAfter: Duration = .seconds(5)
    ) {
        self.base = base
        self.maximum = maximum
        self.resetAfter = resetAfter
    }

    /// The longest delay before attempt `attempt` (from 0).
    public func bound(attempt: Int) -> Duration {
        var bound = base
        for _ in 0..<max(0, attempt) {
            if bound >= maximum { break }
            bound = bound * 2
        }
        return min(bound, maximum)
    }

    /// Draws the delay before attempt `attempt` (from 0), at least `floor`.
    /// - Parameters:
    ///   - attempt: from 0, the first after a loss.
    ///   - floor: what the service asked for; it is added below the jitter, so that a herd told the same time
    ///     still spreads.
    ///   - random: where the jitter comes from.
    public func delay(
        attempt: Int, floor: Duration = .zero, using random: inout some RandomNumberGenerator
    ) -> Duration {
        let bound = bound(attempt: attempt).nanoseconds
        return floor + .nanoseconds(bound > 0 ? Int64.random(in: 0...bound, using: &random) : 0)
    }
}

extension Duration {
    /// The whole nanoseconds, held within 64 bits.
    var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return seconds < 0 ? .min : .max }
        let (sum, sumOverflow) = scaled.addingReportingOverflow(attoseconds / 1_000_000_000)
        return sumOverflow ? .max : sum
    }

    /// The whole milliseconds, held within 64 bits.
    var milliseconds: Int64 { nanoseconds / 1_000_000 }

    /// As long as a task may sleep: more than a century is for ever, and `Duration` can say more than a clock has seconds.
    var sleepable: Duration { min(self, .seconds(100 * 366 * 86_400)) }
}
