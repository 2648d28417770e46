/// When a stream may send, among the streams of its connection that have something to send: the scheme of RFC 9218,
/// section 4. It is local: the peer isn't told.
///
/// A stream of lower urgency number goes first, always: one of a higher number sends only when those below have nothing
/// to send or may not send. Within an urgency incremental streams take turns, a packet each; the others are sent one
/// after the other, in the order of their numbers, and take turns as a whole with the incremental ones.
public struct StreamPriority: Sendable, Hashable {
    /// From 0, the most urgent, to 7.
    public let urgency: UInt8
    /// Whether the stream's bytes are of use before all of them are there.
    public let isIncremental: Bool

    /// The least urgent level.
    public static let leastUrgent: UInt8 = 7

    /// A priority.
    /// - Parameters:
    ///   - urgency: from 0 to 7; larger numbers count as 7.
    ///   - isIncremental: whether its bytes are of use before all are there.
    public init(urgency: UInt8 = 3, isIncremental: Bool = true) {
        self.urgency = min(urgency, Self.leastUrgent)
        self.isIncremental = isIncremental
    }

    /// What a stream has until it is given another: urgency 3, incremental, so that streams share the path.
    public static let standard = StreamPriority()
}
