internal import NIOCore

/// How often a peer may do something: so many times at once, and as many in the course of each half minute from then on.
struct RateLimit {
    private static let period = TimeAmount.seconds(30)

    private let cost: TimeAmount
    /// When everything that happened will be forgotten.
    private var clear = NIODeadline.uptimeNanoseconds(0)

    /// - Parameter count: how many times; at least one.
    init(_ count: Int) { cost = .nanoseconds(Self.period.nanoseconds / Int64(max(count, 1))) }

    /// It happens once more.
    /// - Returns: whether it may.
    mutating func admits(_ now: NIODeadline) -> Bool {
        clear = max(clear, now) + cost
        return clear - now <= Self.period
    }

    /// Something good makes up for once.
    mutating func forgive() {
        let start = NIODeadline.uptimeNanoseconds(0)
        clear = clear - start > cost ? clear - cost : start
    }
}
