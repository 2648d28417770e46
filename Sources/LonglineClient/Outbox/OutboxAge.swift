import NIOCore

/// How long a message has waited. Time before this process saw it is told by the wall clock, the only one that outlives a
/// process; from then on by a clock that nobody sets.
struct OutboxAge: Sendable {
    /// When this process saw it first.
    let seen: NIODeadline
    /// Milliseconds that it had waited by then. A wall clock that was set back counts as no wait.
    let before: UInt64

    /// A message that this process saw as soon as there was one.
    init(seen: NIODeadline) {
        self.seen = seen
        before = 0
    }

    init(queuedAt: UInt64, clock: DriverClock) {
        let wall = clock.wall()
        seen = clock.now()
        before = wall > queuedAt ? wall - queuedAt : 0
    }

    /// What is left of a time to live at ``seen``: 1 ms of one that is over, as 0 is for ever and only the service knows
    /// whether an earlier attempt was entered.
    func left(of timeToLive: UInt64) -> UInt64 {
        guard timeToLive > 0 else { return 0 }
        return timeToLive > before ? timeToLive - before : 1
    }
}
