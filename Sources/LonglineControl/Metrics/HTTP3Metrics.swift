import CoreMetrics
import HTTP3
import Metrics

/// Says through swift-metrics what HTTP/3 counts on the server's ports; requests by route are counted wherever they came from.
struct HTTP3Metrics {
    private let factory: PrometheusMetrics
    private var last = HTTP3Statistics()

    init(_ factory: PrometheusMetrics) { self.factory = factory }

    private static let counters: [(String, any KeyPath<HTTP3Statistics, UInt64> & Sendable)] = [
        ("longline_http3_connections_accepted", \.connections),
        ("longline_http3_connections_surplus", \.surplusConnections),
        ("longline_http3_requests", \.requests), ("longline_http3_requests_early", \.earlyRequests),
        ("longline_http3_requests_too_early", \.tooEarly), ("longline_http3_requests_rejected", \.rejected),
        ("longline_http3_requests_cancelled", \.cancelled), ("longline_http3_requests_malformed", \.malformed),
        ("longline_http3_requests_too_slow", \.timeouts), ("longline_http3_protocol_errors", \.protocolErrors),
    ]

    mutating func record(_ now: HTTP3Statistics) {
        for (label, path) in Self.counters {
            let (new, old) = (now[keyPath: path], last[keyPath: path])
            Counter(label: label, dimensions: [], factory: factory).increment(by: Int64(clamping: new - old))
        }
        last = now
    }
}
