/// When a client speaks up after its server has asked whether it is where it seems to be (PATH_CHALLENGE).
///
/// ```
///            challenge               2 s: PING              8 s: PING
///   (none) ────────────▶ waiting ──────────────▶ waiting ──────────────▶ (none)
///                          ▲  another challenge     │
///                          └────────────────────────┘
/// ```
/// A server of ngtcp2 0.12 gives a path up whose full-sized probes aren't answered within one to seven seconds, lost on a bad network or
/// too large for it, and may have to send something long after that. Ours says nothing then until it hears the client, which
/// it takes for a new path. Without this a NAT's rebinding could have what a server pushes wait for the client's next heartbeat.
struct PathFollowUp {
    /// When it is time; nil: the server has asked nothing that was not followed up.
    private(set) var due: QUICInstant?
    private var second: QUICInstant?
    private var spoke: QUICInstant?
    private var tries: UInt64 = 0

    private static let least: UInt64 = 2_000_000_000
    /// On a path that takes no full-sized packets each new try fails as well: they become rare.
    private static let mostTries: UInt64 = 8

    /// A challenge came.
    /// - Parameter probeTimeout: the present one, in nanoseconds.
    mutating func challenged(now: QUICInstant, probeTimeout: UInt64) {
        let delay = max(Self.least, 4 * probeTimeout)
        if let spoke, now.nanoseconds < spoke.nanoseconds + delay {
            if due == nil || second == nil { tries = min(tries + 1, Self.mostTries) }
        } else if due == nil {
            tries = 0
        }
        due = now.advanced(byNanoseconds: delay << tries)
        second = now.advanced(byNanoseconds: 4 * delay << tries)
    }

    /// - Returns: whether it is time, once.
    mutating func isTime(now: QUICInstant) -> Bool {
        guard let due, due <= now else { return false }
        self.due = second
        second = nil
        spoke = now
        return true
    }
}
