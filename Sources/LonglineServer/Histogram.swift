/// How often values fell into which range. The bounds are given once, so that a value costs a search and an addition.
public struct Histogram: Hashable, Sendable {
    /// The upper bound of each range, which belongs to it; ascending. What is above the last one has a range of its own.
    public let bounds: [Double]
    /// Values in each range, and above the last bound.
    public private(set) var counts: [UInt64]
    /// All values together.
    public private(set) var sum: Double = 0

    /// A histogram without values.
    /// - Parameter bounds: ascending.
    public init(bounds: [Double]) {
        self.bounds = bounds
        counts = Array(repeating: 0, count: bounds.count + 1)
    }

    /// Values in all.
    public var count: UInt64 { counts.reduce(0, +) }

    /// Counts a value.
    public mutating func record(_ value: Double) {
        let index = bounds.firstIndex { value <= $0 } ?? bounds.count
        counts[index] += 1
        sum += value
    }

    /// Adds what another one with the same bounds counted.
    mutating func add(_ other: Histogram) {
        guard other.bounds == bounds else { return }
        for index in counts.indices { counts[index] += other.counts[index] }
        sum += other.sum
    }

    /// The bound below which a share of the values lies; nil without values, infinity above the last bound.
    /// - Parameter share: 0.5 for the median.
    public func quantile(_ share: Double) -> Double? {
        let count = count
        guard count > 0 else { return nil }
        var seen: UInt64 = 0
        for (index, some) in counts.enumerated() {
            seen += some
            if Double(seen) >= share * Double(count) { return index < bounds.count ? bounds[index] : .infinity }
        }
        return .infinity
    }

    /// What was counted since an earlier state of the same histogram.
    public func since(_ earlier: Histogram) -> Histogram {
        guard earlier.bounds == bounds else { return self }
        var result = Histogram(bounds: bounds)
        for index in counts.indices {
            result.counts[index] = counts[index] &- min(earlier.counts[index], counts[index])
        }
        result.sum = sum - earlier.sum
        return result
    }
}
