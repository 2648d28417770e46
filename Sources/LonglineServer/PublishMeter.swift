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
