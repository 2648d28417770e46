import CoreMetrics
import HTTPTypes
import Metrics

/// Counts the control layer's own requests, by route and status.
struct RequestCounters: Sendable {
    /// The status of a request whose caller went away before it was answered.
    static let cancelled = "cancelled"

    let factory: any MetricsFactory

    func count(_ method: HTTPRequest.Method, _ path: String?, status: String, _ duration: Duration) {
        // A route's own path, not the one that was asked for: whoever asks must not make new series.
        let route = path ?? "none"
        let method = path == nil ? "" : method.rawValue
        Counter(
            label: "longline_control_requests",
            dimensions: [("method", method), ("route", route), ("status", status)], factory: factory
        ).increment()
        Timer(label: "longline_control_request", dimensions: [("route", route)], factory: factory)
            .recordNanoseconds(
                duration.components.seconds * 1_000_000_000 + duration.components.attoseconds / 1_000_000_000)
    }
}
