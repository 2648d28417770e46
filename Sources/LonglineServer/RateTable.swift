import NIOCore
import Synchronization

/// A ``RateTable`` with its lock, which can't stand in an array itself.
final class LockedRates<Subject: Hashable & Sendable>: Sendable {
    let table: Mutex<RateTable<Subject>>

    init(_ limits: ServerLimits) { table = Mutex(RateTable(limits: limits)) }
}

/// The buckets of those who were counted lately. Whose buckets are full again is forgotten.
struct RateTable<Subject: Hashable & Sendable>: Sendable {
    private struct Buckets {
        var messages: TokenBucket
        var bytes: TokenBucket?

        /// Whether nothing tells it from the buckets of somebody who is seen for the first time.
        func isFull(now: NIODeadline) -> Bool { messages.isFull(now: now) && bytes?.isFull(now: now) ?? true }
    }

    /// The rates, which each table has for itself: looking them up takes no other lock.
    let limits: ServerLimits
    private var buckets: [Subject: Buckets] = [:]
    /// Beyond so many the full ones are looked for and dropped; twice what such a search left.
    private var sweepAt = 256

    init(limits: ServerLimits) { self.limits = limits }

    var count: Int { buckets.count }

    /// Counts one of a size.
    /// - Returns: nil when it may go on; otherwise, with nothing counted, when another try is worth it.
    mutating func take(_ subject: Subject, _ size: Int, _ rate: PublishRate, now: NIODeadline) -> TimeAmount? {
        if buckets[subject] == nil { add(subject, rate, now: now) }
        let cost = rate.cost(of: size)
        return modify(subject) { entry in
            if let wait = entry.messages.wait(for: 1, now: now) { return wait }
            if let wait = entry.bytes?.wait(for: cost, now: now) { return wait }
            entry.messages.spend(1)
            entry.bytes?.spend(cost)
            return nil
        }
    }

    mutating func giveBack(_ subject: Subject, _ size: Int, _ rate: PublishRate) {
        _ = modify(subject) { entry in
            entry.messages.spend(-1)
            entry.bytes?.spend(-rate.cost(of: size))
            return nil
        }
    }

    private mutating func add(_ subject: Subject, _ rate: PublishRate, now: NIODeadline) {
        if buckets.count >= sweepAt {
            buckets = buckets.filter { !$0.value.isFull(now: now) }
            sweepAt = max(256, buckets.count * 2)
        }
        buckets[subject] = Buckets(
            messages: TokenBucket(perSecond: rate.messagesPerSecond, burst: Double(rate.messageBurst), now: now),
            bytes: rate.bytesPerSecond.map { TokenBucket(perSecond: $0, burst: Double(rate.byteBurst), now: now) })
    }

    private mutating func modify(_ subject: Subject, _ body: (inout Buckets) -> TimeAmount?) -> TimeAmount? {
        guard let index = buckets.index(forKey: subject) else { return nil }
        return body(&buckets.values[index])
    }
}

extension PublishRate {
    /// A payload larger than the burst takes all of it, or it could never go.
    fileprivate func cost(of size: Int) -> Double { Double(min(size, byteBurst)) }
}
