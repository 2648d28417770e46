import CoreMetrics
import LonglineServer
import Synchronization

/// A number that only grows.
final class CounterSeries: CounterHandler, MetricSeries {
    private let value = Atomic<Int64>(0)

    func increment(by amount: Int64) { value.wrappingAdd(max(amount, 0), ordering: .relaxed) }
    func reset() { value.store(0, ordering: .relaxed) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += "\(name)\(MetricName.braced(labels)) \(value.load(ordering: .relaxed))\n"
    }
}

/// A number that goes up and down.
final class GaugeSeries: MeterHandler, RecorderHandler, MetricSeries {
    private let value = Mutex(0.0)

    func set(_ value: Int64) { set(Double(value)) }
    func set(_ value: Double) { self.value.withLock { $0 = value } }
    func increment(by amount: Double) { value.withLock { $0 += amount } }
    func decrement(by amount: Double) { value.withLock { $0 -= amount } }
    func record(_ value: Int64) { set(Double(value)) }
    func record(_ value: Double) { set(value) }

    func write(_ name: String, _ labels: String, to text: inout String) {
        text += "\(name)\(MetricName.braced(labels)) \(MetricName.number(value.withLock { $0 }))\n"
    }
}

/// How values are spread.
final class HistogramSeries: RecorderHandler, TimerHandler, MetricSeries {
    static let plainBounds = [1.0, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000, 1_000_000]
    /// In seconds.
    static let timeBounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

    private let values: Mutex<Histogram>
    /// Of the values, in the unit that is shown.
    private let unit: Double

    init(bounds: [Double], unit: Double = 1) {
        values = Mutex(Histogram(bounds: bounds))
        self.unit = unit
    }

    func record(_ value: Int64) { record(Double(value)) }
    func record(_ value: Double) { values.withLock { $0.record(value) } }
    func recordNanoseconds(_ duration: Int64) { record(Double(duration) / 1e9) }
    func replace(with histogram: Histogram) { values.withLock { $0 = histogram } }

    func write(_ name: String, _ labels: String, to text: inout String) {
        let histogram = values.withLock { $0 }
        let more = labels.isEmpty ? "" : labels + ","
        var below: UInt64 = 0
        for (index, count) in histogram.counts.enumerated() {
            below += count
            let bound = index < histogram.bounds.count ? histogram.bounds[index] * unit : .infinity
            text += "\(name)_bucket{\(more)le=\"\(MetricName.number(bound))\"} \(below)\n"
        }
        text += "\(name)_sum\(MetricName.braced(labels)) \(MetricName.number(histogram.sum * unit))\n"
        text += "\(name)_count\(MetricName.braced(labels)) \(below)\n"
    }
}
