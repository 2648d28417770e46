import CoreMetrics
import LonglineLinks
import LonglineServer
import LonglineWire
import Metrics

/// Says through swift-metrics what a server counts.
///
/// A server's counters grow from its start; what they grew since the last time is added to those of swift-metrics. Figures that are
/// older than those before add nothing.
struct StatisticsMetrics {
    private struct Series: Hashable {
        var label: String
        var value: String
    }

    private let metrics: PrometheusMetrics
    /// How far each counter is. As many as there are codes.
    private var counted: [Series: UInt64] = [:]

    init(_ metrics: PrometheusMetrics) { self.metrics = metrics }

    private static let counters: [(String, any KeyPath<ServerStatistics, UInt64> & Sendable)] = [
        ("longline_connections_accepted", \.connectionsAccepted),
        ("longline_connections_over_address_limit", \.connectionsOverAddressLimit),
        ("longline_migrations", \.migrations),
        ("longline_sessions_granted", \.sessionsGranted), ("longline_sessions_resumed", \.sessionsResumed),
        ("longline_takeovers", \.takeovers), ("longline_frames_received", \.framesReceived),
        ("longline_frames_invalid", \.framesInvalid), ("longline_frames_sent", \.framesSent),
        ("longline_published", \.published), ("longline_publishes_over_rate", \.publishesOverRate),
        ("longline_publishes_without_room", \.publishesWithoutRoom),
        ("longline_publish_duplicates", \.duplicates), ("longline_delivered", \.delivered),
        ("longline_batches", \.batches),
        ("longline_batch_bytes_saved", \.batchBytesSaved), ("longline_slow_consumers", \.slowConsumers),
        ("longline_history_pages", \.historyPages),
        ("longline_signals_relayed", \.signalsRelayed), ("longline_presence_changes", \.presenceChanges),
        ("longline_presence_sent", \.presenceSent), ("longline_reads", \.reads),
        ("longline_store_failures", \.storeFailures), ("longline_entries_trimmed", \.entriesTrimmed),
        ("longline_log_lines_dropped", \.logLinesDropped), ("longline_links_closed_by_peer", \.closedByPeer),
    ]

    private static let gauges: [(String, any KeyPath<ServerStatistics, Int> & Sendable)] = [
        ("longline_connections_unauthenticated", \.unauthenticated), ("longline_sessions", \.sessions),
        ("longline_sessions_detached", \.detachedSessions), ("longline_subscriptions", \.subscriptions),
        ("longline_presence_watches", \.presenceWatches), ("longline_present_users", \.presentUsers),
    ]

    private static let handshakes: [(String, any KeyPath<ServerStatistics, UInt64> & Sendable)] = [
        ("full", \.handshakesFull), ("resumed", \.handshakesResumed), ("early", \.handshakesEarly),
    ]

    mutating func record(_ now: ServerStatistics, load: NodeLoad) {
        for (label, path) in Self.counters { count(label, nil, now[keyPath: path]) }
        for (kind, path) in Self.handshakes { count("longline_handshakes", ("kind", kind), now[keyPath: path]) }
        for (code, closes) in now.closes { count("longline_closes", ("code", "\(code.rawValue)"), closes) }
        for (code, refusals) in now.refusals {
            count("longline_refusals", ("code", "\(code.rawValue)"), refusals)
        }
        for (label, path) in Self.gauges { gauge(label, [], Double(now[keyPath: path])) }
        for transport in NodeAddress.Transport.allCases {
            let links =
                now.connectionsByTransport.first { $0.key.rawValue.lowercased() == transport.rawValue }?.value ?? 0
            gauge("longline_connections", [("transport", transport.rawValue)], Double(links))
        }
        gauge("longline_loop_delay_seconds", [], load.loopDelay / .seconds(1))
        gauge("longline_memory_bytes", [], Double(load.memory))
        gauge("longline_handshakes_per_second", [], load.handshakesPerSecond)
        metrics.set(now.deliveryLatency, label: "longline_delivery_latency_milliseconds")
        metrics.set(now.heartbeatInterval, label: "longline_heartbeat_interval_seconds")
    }

    private mutating func count(_ label: String, _ dimension: (String, String)?, _ now: UInt64) {
        let series = Series(label: label, value: dimension?.1 ?? "")
        let before = counted[series] ?? 0
        let counter = Counter(label: label, dimensions: dimension.map { [$0] } ?? [], factory: metrics)
        counter.increment(by: Int64(clamping: now > before ? now - before : 0))
        counted[series] = max(now, before)
    }

    private func gauge(_ label: String, _ dimensions: [(String, String)], _ value: Double) {
        Meter(label: label, dimensions: dimensions, factory: metrics).set(value)
    }
}
