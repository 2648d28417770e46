import CoreMetrics
import LonglineServer
import LonglineWire
import Metrics
import Testing

@testable import LonglineControl

@Suite("Metrics") struct MetricsTests {
    @Test("are written as Prometheus reads them")
    func text() {
        let metrics = PrometheusMetrics()
        Counter(label: "quic.packets", dimensions: [("role", "server"), ("a\"b", "x\\y\n\"")], factory: metrics)
            .increment(by: 3)
        Counter(label: "quic.packets", dimensions: [("a\"b", "x\\y\n\""), ("role", "server")], factory: metrics)
            .increment(by: 4)
        Meter(label: "9lives", factory: metrics).set(2.5)
        Gauge(label: "level", factory: metrics).record(7)
        Metrics.Timer(label: "wait", factory: metrics).recordNanoseconds(3_000_000)
        let lines = metrics.text().split(separator: "\n").map(String.init)
        #expect(lines.contains("# TYPE quic_packets_total counter"))
        #expect(lines.contains(#"quic_packets_total{a_b="x\\y\n\"",role="server"} 7"#))
        #expect(lines.contains("_9lives 2.5") && lines.contains("level 7"))
        #expect(
            lines.contains(#"wait_seconds_bucket{le="0.0025"} 0"#)
                && lines.contains(#"wait_seconds_bucket{le="0.005"} 1"#))
        #expect(lines.contains(#"wait_seconds_bucket{le="+Inf"} 1"#) && lines.contains("wait_seconds_count 1"))
    }

    @Test("are forgotten with their handler, and bounded")
    func bounded() {
        let metrics = PrometheusMetrics()
        let counter = Counter(label: "once", factory: metrics)
        counter.increment()
        #expect(metrics.text().contains("once_total 1"))
        counter.destroy()
        #expect(!metrics.text().contains("once_total"))
        for index in 0...PrometheusMetrics.maximumSeries {
            Counter(label: "many", dimensions: [("n", "\(index)")], factory: metrics).increment()
        }
        #expect(metrics.text().contains("longline_metrics_dropped_total 1\n"))
        // One name is of one kind.
        Meter(label: "many_total", factory: metrics).set(1)
        #expect(metrics.text().contains("longline_metrics_dropped_total 2\n"))
    }

    @Test("of a server are what it counted, once")
    func server() {
        let metrics = PrometheusMetrics()
        var exporter = StatisticsMetrics(metrics)
        var statistics = ServerStatistics()
        statistics.published = 5
        statistics.closes = [.replaced: 2]
        exporter.record(statistics, load: NodeLoad())
        exporter.record(statistics, load: NodeLoad())
        statistics.published = 8
        exporter.record(statistics, load: NodeLoad())
        #expect(metrics.text().contains("longline_published_total 8\n"))
        #expect(metrics.text().contains(#"longline_closes_total{code="5005"} 2"#))
    }

    @Test("of a server that come in another order are not counted twice")
    func order() {
        let metrics = PrometheusMetrics()
        var exporter = StatisticsMetrics(metrics)
        for count: UInt64 in [10, 20, 10, 30] {
            var statistics = ServerStatistics()
            statistics.published = count
            statistics.closes = [.replaced: count]
            exporter.record(statistics, load: NodeLoad())
        }
        #expect(metrics.text().contains("longline_published_total 30\n"))
        #expect(metrics.text().contains(#"longline_closes_total{code="5005"} 30"#))
    }

    @Test("one stall of an event loop is not a node that has too much to do")
    func delays() {
        var delays = RecentDelays()
        #expect(delays.lasting == .zero)
        delays.add(.seconds(1))
        delays.add(.milliseconds(1))
        #expect(delays.lasting == .milliseconds(1))
        delays.add(.milliseconds(2))
        delays.add(.seconds(1))
        #expect(delays.lasting == .milliseconds(2))
        delays.add(.seconds(1))
        #expect(delays.lasting == .seconds(1))
    }

    @Test("histograms tell quantiles, and what was counted since")
    func histogram() {
        var histogram = Histogram(bounds: [1, 10, 100])
        #expect(histogram.quantile(0.5) == nil)
        for value in [0.5, 5, 5, 50] { histogram.record(value) }
        #expect(histogram.quantile(0.5) == 10 && histogram.quantile(0.99) == 100 && histogram.count == 4)
        let before = histogram
        histogram.record(1_000)
        #expect(histogram.quantile(1) == .infinity)
        #expect(histogram.since(before).counts == [0, 0, 0, 1] && histogram.since(before).sum == 1_000)
    }
}
