import Histogram
import Synchronization

/// Collects times and tells their percentiles, to three digits, up to a minute.
public struct Latencies: Sendable {
    private var histogram = Histogram<UInt64>(
        highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)

    /// No times yet.
    public init() {}

    /// Takes a time. Longer than a minute counts as a minute.
    public mutating func record(_ time: Duration) {
        let nanoseconds = max(0, time.inSeconds * 1e9)
        histogram.record(UInt64(min(nanoseconds, 60_000_000_000)))
    }

    /// How many were recorded.
    public var count: UInt64 { histogram.totalCount }

    /// The time that `percent` per cent of all were no longer than, in milliseconds.
    public func milliseconds(percentile percent: Double) -> Double {
        Double(histogram.valueAtPercentile(percent)) / 1e6
    }
}

/// Times that many tasks collect.
public final class SharedLatencies: Sendable {
    private let collected = Mutex(Latencies())

    /// No times yet.
    public init() {}

    /// Takes a time.
    public func record(_ time: Duration) { collected.withLock { $0.record(time) } }

    /// What was collected so far.
    public var all: Latencies { collected.withLock { $0 } }
}
