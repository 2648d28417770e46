internal import NIOCore

/// What a client takes of all its responses together. As long as that is what it must take of each that waits, one of which it takes
/// nothing may be waiting because of us: behind others, or for room that they fill.
struct ResponsePace {
    private var taken = 0
    /// When the client had last taken enough; nil: it hasn't yet.
    private(set) var since: NIODeadline?

    /// The client took so many bytes more of some response.
    mutating func took(_ bytes: Int) { taken += bytes }

    /// Looks whether that was enough since it last was.
    /// - Parameters:
    ///   - waiting: how many responses wait for the client.
    ///   - least: bytes that it must take of each.
    mutating func look(_ now: NIODeadline, waiting: Int, least: Int) {
        guard taken / max(waiting, 1) >= least else { return }
        taken = 0
        since = now
    }
}
