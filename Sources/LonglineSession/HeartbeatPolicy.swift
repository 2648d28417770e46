public import NIOCore

/// When a client asks for proof of life. A type of its own, so that a learned interval can take its place.
public struct HeartbeatPolicy: Sendable {
    /// From the last received packet to the next ping, on a quiet link.
    public var interval: TimeAmount
    /// From a sent frame to a received packet; longer means that the path is dead.
    public var answerTimeout: TimeAmount

    /// A policy of fixed times.
    public init(interval: TimeAmount = .seconds(30), answerTimeout: TimeAmount = .seconds(4)) {
        self.interval = interval
        self.answerTimeout = answerTimeout
    }

    /// The first wait on a link: between half the interval and all of it, so that clients that came back together
    /// don't beat together.
    func firstDelay(using random: inout some RandomNumberGenerator) -> TimeAmount {
        let half = max(1, interval.nanoseconds / 2)
        return .nanoseconds(half + Int64.random(in: 0...half, using: &random))
    }
}
