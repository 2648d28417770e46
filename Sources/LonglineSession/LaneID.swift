/// A lane's number on one link: 0 is control; others are drawn by their sender, from 1, never used again on that link.
///
/// Each direction has its own numbers. On QUIC a lane but 0 is a unidirectional stream (lane n is the sender's n-th);
/// lane 0 is the client's first bidirectional stream. On TCP and WebSocket frames carry the number.
public struct LaneID: Hashable, Sendable, Comparable {
    /// The number.
    public let rawValue: UInt64

    /// Wraps a number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The control lane.
    public static let control = LaneID(rawValue: 0)

    public static func < (left: LaneID, right: LaneID) -> Bool { left.rawValue < right.rawValue }
}
