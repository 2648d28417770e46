import LonglineStore

/// The clocks that what waits is reckoned by, in milliseconds.
///
/// How long something waits, and has waited, is time that went by: a wall clock that is set must not put it off, nor make it old. So
/// ``/LonglineStore/PendingNotification/since`` and ``/LonglineStore/PendingNotification/notBefore`` are ``steady`` times in memory. On
/// disk they are the wall clock's, as a process after this one knows no other.
struct WebhookClock: Sendable {
    /// Since 1970. It may be set.
    let wall: @Sendable () -> UInt64
    /// Goes on evenly, from what the wall clock had at the start.
    let steady: @Sendable () -> UInt64

    init(wall: @escaping @Sendable () -> UInt64, steady: @escaping @Sendable () -> UInt64) {
        self.wall = wall
        self.steady = steady
    }

    init(wall: @escaping @Sendable () -> UInt64) {
        let (origin, start) = (wall(), ContinuousClock.now)
        self.init(wall: wall, steady: { origin + (ContinuousClock.now - start).wholeMilliseconds })
    }

    /// As it goes to the disk.
    func written(_ notification: PendingNotification) -> PendingNotification {
        let (wall, steady) = (wall(), steady())
        var notification = notification
        let (age, rest) = (
            steady - min(steady, notification.since), notification.notBefore - min(steady, notification.notBefore)
        )
        notification.since = wall - min(wall, age)
        notification.notBefore = wall + rest
        return notification
    }

    /// As it came from the disk. The clock may have been ahead when it was written: it waits no longer than anything is put off. It may be
    /// ahead now: it is no older than what is tried for a while yet.
    /// - Parameters:
    ///   - longest: the longest time that something is put off.
    ///   - oldest: the age that it has at most.
    func read(_ notification: PendingNotification, longest: UInt64, oldest: UInt64) -> PendingNotification {
        let (wall, steady) = (wall(), steady())
        var notification = notification
        let (age, rest) = (
            wall - min(wall, notification.since), notification.notBefore - min(wall, notification.notBefore)
        )
        notification.since = steady - min(steady, age, oldest)
        notification.notBefore = steady + min(rest, longest)
        return notification
    }
}
