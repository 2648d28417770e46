/// Whether a wall clock goes on as time does.
package struct ClockSteadiness: Sendable {
    /// What it may be off by: clocks are slewed, and set by little.
    package static let tolerance = Duration.seconds(300)

    /// The first look, or the one that found it set.
    private var start: (wall: UInt64, instant: ContinuousClock.Instant)?

    /// Of a clock that nobody looked at yet.
    package init() {}

    /// - Parameters:
    ///   - wall: in milliseconds since 1970.
    ///   - instant: of the same moment, by a clock that nobody sets.
    /// - Returns: for how long it did; zero where it was set since the last look, nil for the first one.
    package mutating func look(at wall: UInt64, _ instant: ContinuousClock.Instant) -> Duration? {
        guard let start else {
            self.start = (wall, instant)
            return nil
        }
        let went = Duration.milliseconds(Int64(clamping: wall)) - .milliseconds(Int64(clamping: start.wall))
        let passed = instant - start.instant
        guard went - passed <= Self.tolerance, passed - went <= Self.tolerance else {
            self.start = (wall, instant)
            return .zero
        }
        return passed
    }
}
