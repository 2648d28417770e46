/// What the app's own decision was asked since the server's start, and how that went.
public struct AuthorizationStatistics: Hashable, Sendable {
    /// Questions that were asked.
    public var asked: UInt64 = 0
    /// Questions whose answer was remembered.
    public var remembered: UInt64 = 0
    /// Questions that waited for the answer to an equal one.
    public var shared: UInt64 = 0
    /// Questions that got no answer of use: they had that of ``AuthorizationSettings/onFailure``.
    public var failures: UInt64 = 0
    /// Of these, those without an answer by the deadline.
    public var late: UInt64 = 0
    /// Questions that were not asked, because too many were under way.
    public var withoutRoom: UInt64 = 0
    /// Questions under way now, those among them that are late.
    public var underWay = 0
    /// Answers remembered now, those among them that are over.
    public var kept = 0

    /// All zero.
    public init() {}
}
