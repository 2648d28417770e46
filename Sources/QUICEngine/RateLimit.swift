/// At most so many in a second.
struct RateLimit {
    private let perSecond: Int
    private var second: UInt64 = 0
    private var used = 0

    init(perSecond: Int) { self.perSecond = perSecond }

    mutating func allows(now: QUICInstant) -> Bool {
        let current = now.nanoseconds / 1_000_000_000
        if current != second {
            second = current
            used = 0
        }
        guard used < perSecond else { return false }
        used += 1
        return true
    }
}
