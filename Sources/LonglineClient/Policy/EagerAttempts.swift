import NIOCore

/// How often somebody who comes has the next attempt begin at once, whatever back-off says. Reads no clock of its own.
///
/// A user who comes, and comes again, does not meet the limit. A job of the app's does that asks in a loop, which knows no better than
/// back-off: the devices of all users would come back to a service that has just started as often as their loops turn.
struct EagerAttempts: Sendable {
    /// So many begin one after the other.
    static let limit = 5
    /// Then one in so long, or a third longer: those who lost the same node don't come back at the same time.
    static let interval = TimeAmount.seconds(15)

    /// When as many are there as at first; nil: none was taken.
    private var completeAt: NIODeadline?

    /// Takes one.
    /// - Returns: false where none is left.
    mutating func take(now: NIODeadline) -> Bool {
        guard shortage(now: now) <= .zero else { return false }
        completeAt = max(now, completeAt ?? now) + Self.interval
        return true
    }

    /// How long it takes until there is one.
    func wait(now: NIODeadline, random: inout some RandomNumberGenerator) -> TimeAmount {
        let jitter = Int64.random(in: 0...Self.interval.nanoseconds / 3, using: &random)
        return max(.zero, shortage(now: now)) + .nanoseconds(jitter)
    }

    /// The time that is missing for one.
    private func shortage(now: NIODeadline) -> TimeAmount {
        guard let completeAt else { return .zero }
        return (completeAt - now) - Self.interval * (Self.limit - 1)
    }
}
