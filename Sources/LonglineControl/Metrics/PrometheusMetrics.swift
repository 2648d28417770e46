public import CoreMetrics
import LonglineServer
import Synchronization

/// A swift-metrics backend whose state Prometheus reads as text (format 0.0.4).
///
/// Bootstrap `MetricsSystem` with it once in a process, and hand it to the control layer, whose `/metrics` shows it. At most
/// ``maximumSeries`` label sets are kept; what comes beyond is dropped, and counted in `longline_metrics_dropped_total`.
public final class PrometheusMetrics: MetricsFactory {
    /// The most label sets, all metrics together.
    public static let maximumSeries = 10_000

    private struct State {
        var families: [String: MetricFamily] = [:]
        var series = 0
        var dropped: UInt64 = 0
    }

    private let state = Mutex(State())

    /// An empty state.
    public init() {}

    /// A counter, written with `_total` at its end.
    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        let name = MetricName.clean(label)
        return series(name.hasSuffix("_total") ? name : name + "_total", .counter, dimensions) { CounterSeries() }
    }

    /// A gauge.
    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
        series(MetricName.clean(label), .gauge, dimensions) { GaugeSeries() }
    }

    /// A histogram, or a gauge of the last value.
    public func makeRecorder(
        label: String, dimensions: [(String, String)], aggregate: Bool
    ) -> any RecorderHandler {
        let name = MetricName.clean(label)
        guard aggregate else { return series(name, .gauge, dimensions) { GaugeSeries() } }
        return series(name, .histogram, dimensions) { HistogramSeries(bounds: HistogramSeries.plainBounds) }
    }

    /// A histogram in seconds.
    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
        let name = MetricName.clean(label)
        return series(name.hasSuffix("_seconds") ? name : name + "_seconds", .histogram, dimensions) {
            HistogramSeries(bounds: HistogramSeries.timeBounds)
        }
    }

    /// Forgets it.
    public func destroyCounter(_ handler: any CounterHandler) { remove(handler) }
    /// Forgets it.
    public func destroyMeter(_ handler: any MeterHandler) { remove(handler) }
    /// Forgets it.
    public func destroyRecorder(_ handler: any RecorderHandler) { remove(handler) }
    /// Forgets it.
    public func destroyTimer(_ handler: any TimerHandler) { remove(handler) }

    /// Shows a histogram that was counted elsewhere.
    /// - Parameter unit: of what was counted, in the unit that is shown.
    func set(_ histogram: Histogram, label: String, unit: Double = 1) {
        series(MetricName.clean(label), .histogram, []) { HistogramSeries(bounds: histogram.bounds, unit: unit) }
            .replace(with: histogram)
    }

    /// The text that Prometheus reads.
    public func text() -> String {
        let (families, dropped) = state.withLock { ($0.families, $0.dropped) }
        var text = ""
        for (name, family) in families.sorted(by: { $0.key < $1.key }) {
            if let help = MetricHelp.texts[name] { text += "# HELP \(name) \(help)\n" }
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            for (labels, series) in family.series.sorted(by: { $0.key < $1.key }) {
                series.write(name, labels, to: &text)
            }
        }
        return text + """
            # HELP longline_metrics_dropped_total Label sets that were left out because there were too many.
            # TYPE longline_metrics_dropped_total counter
            longline_metrics_dropped_total \(dropped)

            """
    }

    /// The series of a name and its labels, made when it is new. One that can't be kept works as well, and is seen by nobody.
    private func series<Series: MetricSeries>(
        _ name: String, _ kind: MetricKind, _ dimensions: [(String, String)], _ make: () -> Series
    ) -> Series {
        let labels = MetricName.labels(dimensions)
        return state.withLock { state in
            var family = state.families[name] ?? MetricFamily(kind: kind)
            if let known = family.series[labels] as? Series, family.kind == kind { return known }
            let made = make()
            guard family.kind == kind, family.series[labels] == nil, state.series < Self.maximumSeries else {
                state.dropped += 1
                return made
            }
            family.series[labels] = made
            state.families[name] = family
            state.series += 1
            return made
        }
    }

    private func remove(_ handler: AnyObject) {
        state.withLock { state in
            for (name, family) in state.families {
                guard let labels = family.series.first(where: { $0.value === handler })?.key else { continue }
                state.families[name]?.series[labels] = nil
                if state.families[name]?.series.isEmpty == true { state.families[name] = nil }
                state.series -= 1
                return
            }
        }
    }
}

enum MetricKind: String {
    case counter, gauge, histogram
}

struct MetricFamily {
    let kind: MetricKind
    var series: [String: any MetricSeries] = [:]
}

/// The values under one name with one set of labels.
protocol MetricSeries: AnyObject, Sendable {
    func write(_ name: String, _ labels: String, to text: inout String)
}

/// How names and labels are written.
enum MetricName {
    /// A name with what Prometheus does not allow replaced.
    static func clean(_ text: String) -> String {
        var name = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "a"..."z", "A"..."Z", "_", ":": name.unicodeScalars.append(scalar)
            case "0"..."9": name += name.isEmpty ? "_\(scalar)" : "\(scalar)"
            default: name += "_"
            }
        }
        return name.isEmpty ? "_" : name
    }

    /// `a="1",b="2"`, in the order of the names; nothing without labels.
    static func labels(_ dimensions: [(String, String)]) -> String {
        dimensions.map { name, value in
            var escaped = ""
            // Not its characters: a line feed behind a carriage return is none by itself, nor is a quote with an accent.
            for scalar in value.unicodeScalars {
                switch scalar {
                case "\\": escaped += "\\\\"
                case "\"": escaped += "\\\""
                case "\n": escaped += "\\n"
                default: escaped.unicodeScalars.append(scalar)
                }
            }
            return "\(clean(name))=\"\(escaped)\""
        }.sorted().joined(separator: ",")
    }

    static func braced(_ labels: String) -> String { labels.isEmpty ? "" : "{\(labels)}" }

    static func number(_ value: Double) -> String {
        switch value {
        case .infinity: "+Inf"
        case -.infinity: "-Inf"
        case _ where value.isNaN: "NaN"
        default: value == value.rounded() && abs(value) < 1e15 ? "\(Int64(value))" : "\(value)"
        }
    }
}
