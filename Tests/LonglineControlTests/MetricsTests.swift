import CoreMetrics
import LonglineServer
import LonglineSession
import LonglineStore
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

    @Test("have no label that ends early, whatever its value is")
    func labels() {
        let labels = MetricName.labels([("a", "one\r\ntwo"), ("b", "\"\u{301}} 1"), ("c", "\\\u{301}")])
        #expect(!labels.unicodeScalars.contains("\n"))
        #expect(Array(labels.utf8) == Array("a=\"one\r\\ntwo\",b=\"\\\"\u{301}} 1\",c=\"\\\\\u{301}\"".utf8))
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
        statistics.refusals = [.forbidden: 4]
        statistics.otherRefusals = 3
        exporter.record(statistics, load: NodeLoad())
        exporter.record(statistics, load: NodeLoad())
        statistics.published = 8
        exporter.record(statistics, load: NodeLoad())
        #expect(metrics.text().contains("longline_published_total 8\n"))
        #expect(metrics.text().contains(#"longline_closes_total{code="5005"} 2"#))
        #expect(metrics.text().contains(#"longline_refusals_total{code="5"} 4"#))
        #expect(metrics.text().contains(#"longline_refusals_total{code="other"} 3"#))
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

    @Test("of hooks, keys, certificate, disk and node are what an operator watches")
    func watched() {
        let metrics = PrometheusMetrics()
        var exporter = StatisticsMetrics(metrics)
        var statistics = ServerStatistics()
        statistics.webhooks.sent = 3
        statistics.webhooks.failures = 4
        statistics.webhooks.dropped = 5
        statistics.webhooks.held = 6
        statistics.webhooks.endpointsDown = 1
        statistics.authorization.asked = 7
        statistics.authorization.remembered = 8
        statistics.authorization.failures = 9
        statistics.authorization.late = 2
        statistics.authorization.underWay = 11
        statistics.tokenKeyFailures = 12
        statistics.tokenKeySourcesFailing = 1
        statistics.certificateExpiry = 1_900_000_000
        statistics.disk = StoreDiskUse(used: 4_096, free: 1 << 40)
        statistics.deliveryLatency.record(3)
        statistics.retentionSweeps = 13
        statistics.bytesTrimmed = 14
        statistics.signalsDropped = [.rate: 15]
        exporter.record(statistics, load: NodeLoad())
        exporter.record(
            NodeStatus(
                id: known { try #require(NodeID("n")) }, addresses: [], load: NodeLoad(connections: 5),
                capacity: NodeCapacity(connections: 5), isDraining: true))
        let text = PrometheusText(metrics.text())
        for (name, value) in [
            ("longline_webhook_sent_total", 3.0), ("longline_webhook_failures_total", 4),
            ("longline_webhook_dropped_total", 5), ("longline_webhook_held", 6), ("longline_webhook_endpoints_down", 1),
            ("longline_authorization_asked_total", 7), ("longline_authorization_remembered_total", 8),
            ("longline_authorization_failures_total", 9), ("longline_authorization_late_total", 2),
            ("longline_authorization_under_way", 11), ("longline_token_key_reload_failures_total", 12),
            ("longline_token_key_sources_failing", 1),
            ("longline_certificate_expiry_timestamp_seconds", 1_900_000_000), ("longline_store_size_bytes", 4_096),
            ("longline_store_free_bytes", Double(1 << 40)), ("longline_node_draining", 1), ("longline_node_full", 1),
            (#"longline_delivery_latency_seconds_bucket{le="0.002"}"#, 0),
            (#"longline_delivery_latency_seconds_bucket{le="0.005"}"#, 1),
            ("longline_delivery_latency_seconds_sum", 0.003), ("longline_retention_sweeps_total", 13),
            ("longline_trimmed_bytes_total", 14), (#"longline_signals_dropped_total{reason="rate"}"#, 15),
            (#"longline_signals_dropped_total{reason="link"}"#, 0),
        ] { #expect(text.samples[name] == value, "\(name)") }
        for name in text.kinds.keys { #expect(text.help[name] != nil, "\(name) has no HELP") }
        #expect(text.samples["longline_build_info{version=\"\(LonglineVersion.current)\"}"] == 1)
        #expect(text.samples["longline_start_timestamp_seconds"] ?? 0 > 1_700_000_000)
    }

    @Test("of a server leave out nothing that it counts")
    func complete() {
        let counted = Mirror(reflecting: ServerStatistics()).children.filter { $0.value is UInt64 }
        // Refusals of other codes, and failures of sources of keys, are among those with labels and of hooks.
        #expect(StatisticsMetrics.counters.count + StatisticsMetrics.handshakes.count + 2 == counted.count)
    }

    @Test("quantiles above all that is told apart are said to be above, and not within")
    func above() {
        var histogram = Histogram(bounds: [1, 10])
        #expect(histogram.finiteQuantile(0.5) == nil && histogram.boundBelow(0.5) == nil)
        histogram.record(5)
        #expect(histogram.finiteQuantile(0.99) == 10 && histogram.boundBelow(0.99) == nil)
        histogram.record(60)
        #expect(histogram.finiteQuantile(0.5) == 10 && histogram.boundBelow(0.5) == nil)
        #expect(histogram.finiteQuantile(0.99) == nil && histogram.boundBelow(0.99) == 10)
    }
}
