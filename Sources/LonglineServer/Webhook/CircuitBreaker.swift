/// Leaves an endpoint alone that does not answer.
///
/// ```
///            `after` failures in a row            `time` is over
///   closed ───────────────────────────▶ open ───────────────────▶ trying: one request
///     ▲                                  ▲                          │     │
///     └───────────── it was told ────────┼──────────────────────────┘     │
///                                        └───────────── it failed ────────┘
/// ```
struct CircuitBreaker {
    let after: Int
    /// In milliseconds.
    let time: UInt64
    private(set) var failures = 0
    private(set) var openUntil: UInt64?
    private var isTrying = false

    init(after: Int, time: UInt64) {
        self.after = after
        self.time = time
    }

    var isOpen: Bool { openUntil != nil }

    /// Whether a request may leave now, and if not, when to ask again.
    mutating func admits(now: UInt64) -> (admits: Bool, until: UInt64) {
        guard let openUntil else { return (true, now) }
        guard now >= openUntil, !isTrying else { return (false, max(openUntil, now + 100)) }
        isTrying = true
        return (true, now)
    }

    mutating func succeeded() {
        failures = 0
        openUntil = nil
        isTrying = false
    }

    mutating func failed(now: UInt64) {
        failures += 1
        isTrying = false
        if failures >= after { openUntil = now + time }
    }

    /// A request that was admitted never left.
    mutating func withdrew() { isTrying = false }
}
