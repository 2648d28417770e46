internal import Synchronization

/// A wall clock that can be set forward and back.
final class WallTime: Sendable {
    /// A moment, which the clock's time alone would not tell.
    struct Moment: Sendable {
        /// How often the clock had been set back.
        var stretch: Int
        /// What it showed, in milliseconds since 1970.
        var time: UInt64
    }

    private let value = Atomic<UInt64>(0)
    /// The first and the last time of each stretch in which it was not set back.
    private let stretches = Mutex<[ClosedRange<UInt64>]>([0...0])

    /// Milliseconds since 1970.
    var milliseconds: UInt64 { value.load(ordering: .relaxed) }

    /// The present.
    var moment: Moment { Moment(stretch: stretches.withLock { $0.count - 1 }, time: milliseconds) }

    /// The latest time that it showed since a moment.
    func latest(since moment: Moment) -> UInt64 {
        stretches.withLock { $0.dropFirst(moment.stretch).map(\.upperBound).max() ?? 0 }
    }

    /// The earliest time that it showed since a moment.
    func earliest(since moment: Moment) -> UInt64 {
        stretches.withLock { stretches in
            stretches.dropFirst(moment.stretch + 1).map(\.lowerBound).reduce(moment.time) { min($0, $1) }
        }
    }

    func set(_ milliseconds: UInt64) {
        let last = value.exchange(milliseconds, ordering: .relaxed)
        stretches.withLock { stretches in
            if milliseconds < last {
                stretches.append(milliseconds...milliseconds)
            } else {
                stretches[stretches.count - 1] = stretches[stretches.count - 1].lowerBound...milliseconds
            }
        }
    }
}
