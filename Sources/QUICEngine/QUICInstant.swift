/// A point on a monotonic clock that the engine's owner reads; the engine itself reads no clock.
public struct QUICInstant: Comparable, Hashable, Sendable {
    /// Nanoseconds since an arbitrary start, the same for every call into one endpoint.
    public var nanoseconds: UInt64

    /// Wraps a reading of the owner's clock.
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// The instant a number of nanoseconds later.
    public func advanced(byNanoseconds amount: UInt64) -> QUICInstant {
        let (sum, overflow) = nanoseconds.addingReportingOverflow(amount)
        return QUICInstant(nanoseconds: overflow ? .max : sum)
    }

    public static func < (left: QUICInstant, right: QUICInstant) -> Bool { left.nanoseconds < right.nanoseconds }
}

/// A length of time in nanoseconds.
public struct QUICDuration: Comparable, Hashable, Sendable {
    /// The length in nanoseconds.
    public var nanoseconds: UInt64

    /// Wraps a number of nanoseconds.
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    /// A number of nanoseconds.
    public static func nanoseconds(_ count: UInt64) -> QUICDuration { QUICDuration(nanoseconds: count) }
    /// A number of microseconds; the longest time there is, of 584 years, if it is longer.
    public static func microseconds(_ count: UInt64) -> QUICDuration { of(count, each: 1000) }
    /// A number of milliseconds; the longest time there is, of 584 years, if it is longer.
    public static func milliseconds(_ count: UInt64) -> QUICDuration { of(count, each: 1_000_000) }
    /// A number of seconds; the longest time there is, of 584 years, if it is longer.
    public static func seconds(_ count: UInt64) -> QUICDuration { of(count, each: 1_000_000_000) }

    private static func of(_ count: UInt64, each nanoseconds: UInt64) -> QUICDuration {
        let (product, isTooLong) = count.multipliedReportingOverflow(by: nanoseconds)
        return QUICDuration(nanoseconds: isTooLong ? .max : product)
    }

    /// Nanoseconds that can be added to a clock: ngtcp2 doesn't look for an overflow everywhere.
    var addable: UInt64 { min(nanoseconds, UInt64.max / 2) }

    public static func < (left: QUICDuration, right: QUICDuration) -> Bool { left.nanoseconds < right.nanoseconds }
}
