import NIOCore

/// What of a loop is under way elsewhere, so that somebody can wait for it to be over, whatever begins meanwhile.
struct WorkTracker {
    private var last: UInt64 = 0
    private var underWay: Set<UInt64> = []
    private var waiters: [(left: Set<UInt64>, promise: EventLoopPromise<Void>)] = []

    var isEmpty: Bool { underWay.isEmpty }
    /// Who waits, for tests.
    var waiterCount: Int { waiters.count }

    /// Something begins; its number goes to ``end(_:)``.
    mutating func begin() -> UInt64 {
        last += 1
        underWay.insert(last)
        return last
    }

    mutating func end(_ number: UInt64) {
        underWay.remove(number)
        for index in waiters.indices { waiters[index].left.remove(number) }
        while let index = waiters.firstIndex(where: \.left.isEmpty) { waiters.remove(at: index).promise.succeed() }
    }

    /// Succeeds once everything is over that is under way now.
    mutating func whenOver(_ promise: EventLoopPromise<Void>) {
        if underWay.isEmpty { promise.succeed() } else { waiters.append((underWay, promise)) }
    }
}
