/// How often something happened of late: in the present second and the one before it.
struct RecentCount {
    private var second: UInt64 = 0
    private var current = 0
    private var previous = 0

    mutating func add(now: QUICInstant) {
        advance(to: now)
        current += 1
    }

    mutating func count(now: QUICInstant) -> Int {
        advance(to: now)
        return previous + current
    }

    private mutating func advance(to now: QUICInstant) {
        let present = now.nanoseconds / 1_000_000_000
        guard present > second else { return }
        previous = present == second + 1 ? current : 0
        current = 0
        second = present
    }
}
