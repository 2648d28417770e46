/// A stream's number within its connection (RFC 9000 section 2.1).
public struct QUICStreamID: Hashable, Sendable, Comparable, CustomStringConvertible {
    /// The 62-bit number.
    public let rawValue: UInt64

    /// Wraps a number.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Whether both sides may send on it.
    public var isBidirectional: Bool { rawValue & 2 == 0 }
    /// Whether the client opened it.
    public var isClientInitiated: Bool { rawValue & 1 == 0 }
    /// Its place among the streams of its kind and initiator, from 0.
    public var ordinal: UInt64 { rawValue >> 2 }

    public var description: String { "stream \(rawValue)" }

    public static func < (left: QUICStreamID, right: QUICStreamID) -> Bool { left.rawValue < right.rawValue }
}

/// A connection's number within its endpoint; never used again there.
public struct ConnectionHandle: Hashable, Sendable, CustomStringConvertible {
    /// The number.
    public let rawValue: UInt64

    init(rawValue: UInt64) { self.rawValue = rawValue }

    public var description: String { "connection \(rawValue)" }
}
