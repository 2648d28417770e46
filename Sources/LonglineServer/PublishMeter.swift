import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// Holds users and tenants to their ``PublishRate``, whatever loop their devices are on.
///
/// The locks are held for one look-up each, and spread over users. Who published nothing for so long that the whole burst
/// is there again is forgotten: the tables hold who published lately.
final class PublishMeter: Sendable {
    private let users: [LockedRates<UserKey>]
    private let tenants: LockedRates<TenantID>
    /// Whether anybody is held to a rate: who isn't takes no lock.
    private let isLimiting: Atomic<Bool>

    init(limits: ServerLimits) {
        users = (0..<16).map { _ in LockedRates(limits) }
        tenants = LockedRates(limits)
        isLimiting = Atomic(limits.hasPublishRates)
    }

    /// Goes by other rates from now on. Everybody's burst is full then, as after a quiet time.
    func update(_ limits: ServerLimits) {
        for shard in users { shard.table.withLock { $0 = RateTable(limits: limits) } }
        tenants.table.withLock { $0 = RateTable(limits: limits) }
        isLimiting.store(limits.hasPublishRates, ordering: .relaxed)
    }

    /// Counts one publish.
    /// - Returns: nil when it may go on; otherwise, with nothing counted, when another try is worth it.
    func wait(for user: UserKey, bytes: Int, now: NIODeadline) -> TimeAmount? {
        guard isLimiting.load(ordering: .relaxed) else { return nil }
        let shard = users[Int(UInt(bitPattern: user.hashValue) % UInt(users.count))]
        let refused = shard.table.withLock { table -> TimeAmount? in
            guard let rate = table.limits.publishRatePerUser(in: user.tenant) else { return nil }
            return table.take(user, bytes, rate, now: now)
        }
        if let refused { return refused }
        let wait = tenants.table.withLock { table -> TimeAmount? in
            guard let rate = table.limits.publishRate(of: user.tenant) else { return nil }
            return table.take(user.tenant, bytes, rate, now: now)
        }
        if wait != nil {
            shard.table.withLock { table in
                guard let rate = table.limits.publishRatePerUser(in: user.tenant) else { return }
                table.giveBack(user, bytes, rate)
            }
        }
        return wait
    }

    /// Users and tenants that are remembered.
    var count: Int {
        users.reduce(tenants.table.withLock { $0.count }) { sum, shard in sum + shard.table.withLock { $0.count } }
    }
}

/// A table with its lock, which can't stand in an array itself.
private final class LockedRates<Subject: Hashable & Sendable>: Sendable {
    let table: Mutex<RateTable<Subject>>

    init(_ limits: ServerLimits) { table = Mutex(RateTable(limits: limits)) }
}

/// The buckets of those who published lately.
private struct RateTable<Subject: Hashable & Sendable>: Sendable {
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
