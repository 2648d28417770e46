/// Leaves an endpoint alone that does not answer.
///
/// ```
///            `after` failures in a row            `time` is over
///   closed ───────────────────────────▶ open ───────────────────▶ trying: one request
///     ▲                                  ▲                          │     │
///     └───────────── it was told ────────┼──────────────────────────┘     │
///                                        └───────────── it failed ────────┘
/// ```
/// Its times are those of ``WebhookClock/steady``.
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

    /// When the next request may leave, 0 for at once; nil: not before the one that tries is over.
    var opening: UInt64? { isTrying ? nil : openUntil ?? 0 }

    /// Whether a request may leave now, which it then does.
    mutating func admits(now: UInt64) -> Bool {
        guard let opening, now >= opening else { return false }
        isTrying = isOpen
        return true
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
