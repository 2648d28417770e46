/// When a client speaks up after its server has asked whether it is where it seems to be (PATH_CHALLENGE).
///
/// ```
///            challenge            2 s: PING
///   (none) ────────────▶ waiting ───────────▶ (none)
///                          ▲  │ another challenge
///                          └──┘ from then on
/// ```
/// A server of ngtcp2 0.12 gives a path up whose full-sized probes aren't answered, on a bad network after a second already, and may
/// have to send something long after that. Ours says nothing then until it hears the client, which it takes for a new path. Without
/// this a NAT's rebinding could have what a server pushes wait for the client's next heartbeat.
struct PathFollowUp {
    /// When it is time; nil: the server has asked nothing that was not followed up.
    private(set) var due: QUICInstant?
    private var spoke: QUICInstant?
    private var tries: UInt64 = 0

    private static let least: UInt64 = 2_000_000_000
    /// On a path that takes no full-sized packets each new try fails as well: they become rare.
    private static let mostTries: UInt64 = 8

    /// A challenge came.
    /// - Parameter probeTimeout: the present one, in nanoseconds.
    mutating func challenged(now: QUICInstant, probeTimeout: UInt64) {
        let delay = max(Self.least, 4 * probeTimeout)
        if due == nil {
            let isAnotherTry = spoke.map { now.nanoseconds < $0.nanoseconds + delay } ?? false
            tries = isAnotherTry ? min(tries + 1, Self.mostTries) : 0
        }
        due = now.advanced(byNanoseconds: delay << tries)
    }

    /// - Returns: whether it is time, once.
    mutating func isTime(now: QUICInstant) -> Bool {
        guard let due, due <= now else { return false }
        self.due = nil
        spoke = now
        return true
    }
}
