public import NIOCore

/// When a client asks for proof of life: after a fixed time, or after one that it learns for each network.
public struct HeartbeatPolicy: Sendable {
    /// From the last received packet to the next ping, on a quiet link. The first wait on a link is drawn between half of
    /// it and all of it, so that clients that came back together don't beat together.
    public var interval: TimeAmount
    /// From a sent frame to a received packet; longer means that the path is dead.
    public var answerTimeout: TimeAmount
    /// How the interval is learned; nil: it is ``interval``, always.
    public var search: HeartbeatSearch?

    /// A policy of fixed times.
    public init(interval: TimeAmount = .seconds(30), answerTimeout: TimeAmount = .seconds(5)) {
        self.interval = interval
        self.answerTimeout = answerTimeout
    }

    /// A policy that learns: see ``HeartbeatLearner``.
    public static func learned(
        _ search: HeartbeatSearch = HeartbeatSearch(), answerTimeout: TimeAmount = .seconds(5)
    ) -> HeartbeatPolicy {
        var policy = HeartbeatPolicy(answerTimeout: answerTimeout)
        policy.search = search
        return policy
    }

    /// The interval within what the server serves: not shorter than its minimum, and well within its idle timeout.
    func interval(minimum: UInt64, idleTimeout: UInt64) -> TimeAmount {
        let most = Int64(clamping: min(idleTimeout, 1 << 40)) * 2 / 3
        let least = Int64(clamping: min(minimum, 1 << 40))
        return max(.milliseconds(1), min(max(interval, .milliseconds(least)), .milliseconds(max(1, most))))
    }
}
