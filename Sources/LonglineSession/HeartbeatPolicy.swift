public import NIOCore

/// When a client asks for proof of life. A type of its own, so that a learned interval can take its place.
public struct HeartbeatPolicy: Sendable {
    /// From the last received packet to the next ping, on a quiet link. The first wait on a link is drawn between half of
    /// it and all of it, so that clients that came back together don't beat together.
    public var interval: TimeAmount
    /// From a sent frame to a received packet; longer means that the path is dead.
    public var answerTimeout: TimeAmount

    /// A policy of fixed times.
    public init(interval: TimeAmount = .seconds(30), answerTimeout: TimeAmount = .seconds(5)) {
        self.interval = interval
        self.answerTimeout = answerTimeout
    }

    /// The interval within what the server serves: not shorter than its minimum, and well within its idle timeout.
    func interval(minimum: UInt64, idleTimeout: UInt64) -> TimeAmount {
        let most = Int64(clamping: min(idleTimeout, 1 << 40)) * 2 / 3
        let least = Int64(clamping: min(minimum, 1 << 40))
        return max(.milliseconds(1), min(max(interval, .milliseconds(least)), .milliseconds(max(1, most))))
    }
}
