import NIOCore
import Synchronization

/// What users may do at a rate only.
enum RatedRequest: Hashable, Sendable, CaseIterable {
    case connect, room, members, conversation, read, signal, presence
}

/// Holds users to the rates of what their sessions ask for, on all devices, links and loops together: who connects anew has what
/// was left, and no full burst.
///
/// The locks are held for one look-up each, and spread over users. Whose bursts are there again is forgotten.
final class RequestMeter: Sendable {
    private struct Subject: Hashable {
        let user: UserKey
        let request: RatedRequest
    }

    private let shards: [LockedRates<Subject>]

    init(limits: ServerLimits) { shards = (0..<16).map { _ in LockedRates(limits) } }

    /// Goes by other rates from now on. Where one differs, everybody's bursts are full then, as after a quiet time.
    func update(_ limits: ServerLimits) {
        for shard in shards {
            shard.table.withLock { table in
                guard !table.limits.hasSameRequestRates(as: limits) else { return }
                table = RateTable(limits: limits)
            }
        }
    }

    /// Counts one request.
    /// - Returns: nil when it may go on; otherwise, with nothing counted, when another try is worth it.
    func wait(for request: RatedRequest, of user: UserKey, now: NIODeadline) -> TimeAmount? {
        let shard = shards[Int(UInt(bitPattern: user.hashValue) % UInt(shards.count))]
        return shard.table.withLock { table in
            table.take(Subject(user: user, request: request), 0, table.limits.rate(of: request), now: now)
        }
    }

    /// Bursts that are remembered because they are not full.
    var count: Int { shards.reduce(0) { sum, shard in sum + shard.table.withLock { $0.count } } }
}

extension ServerLimits {
    fileprivate func rate(of request: RatedRequest) -> PublishRate {
        let (perSecond, burst) =
            switch request {
            case .connect: (connectsPerSecond, connectBurst)
            case .room: (roomRequestsPerSecond, roomRequestBurst)
            case .members: (memberRequestsPerSecond, memberRequestBurst)
            case .conversation: (conversationRequestsPerSecond, conversationRequestBurst)
            case .read: (readsPerSecond, readBurst)
            case .signal: (signalsPerSecond, signalBurst)
            case .presence: (presenceRequestsPerSecond, presenceRequestBurst)
            }
        return PublishRate(messagesPerSecond: perSecond, messageBurst: burst)
    }

    fileprivate func hasSameRequestRates(as other: ServerLimits) -> Bool {
        RatedRequest.allCases.allSatisfy { rate(of: $0) == other.rate(of: $0) }
    }
}

extension SessionHost {
    /// Counts a request of this session's user.
    /// - Returns: whether it keeps to the rate.
    func takes(_ request: RatedRequest) -> Bool {
        guard let user = device?.userKey else { return false }
        return core.requestMeter.wait(for: request, of: user, now: now) == nil
    }
}
