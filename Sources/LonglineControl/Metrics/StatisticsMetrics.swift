import CoreMetrics
import LonglineLinks
import LonglineServer
import LonglineSession
import LonglineStore
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
    /// In seconds since 1970.
    private let startedAt = Double(WallClock.milliseconds()) / 1_000
    /// How far each counter is. As many as there are codes.
    private var counted: [Series: UInt64] = [:]

    init(_ metrics: PrometheusMetrics) { self.metrics = metrics }

    static let counters: [(String, any KeyPath<ServerStatistics, UInt64> & Sendable)] = [
        ("longline_connections_accepted", \.connectionsAccepted),
        ("longline_connections_over_address_limit", \.connectionsOverAddressLimit),
        ("longline_connects_over_rate", \.connectsOverRate), ("longline_migrations", \.migrations),
        ("longline_sessions_granted", \.sessionsGranted), ("longline_sessions_resumed", \.sessionsResumed),
        ("longline_early_connects_deferred", \.earlyConnectsDeferred),
        ("longline_takeovers", \.takeovers), ("longline_frames_received", \.framesReceived),
        ("longline_frames_invalid", \.framesInvalid), ("longline_frames_sent", \.framesSent),
        ("longline_published", \.published), ("longline_publishes_over_rate", \.publishesOverRate),
        ("longline_publishes_without_room", \.publishesWithoutRoom),
        ("longline_publish_duplicates", \.duplicates), ("longline_delivered", \.delivered),
        ("longline_batches", \.batches),
        ("longline_batch_bytes_saved", \.batchBytesSaved), ("longline_slow_consumers", \.slowConsumers),
        ("longline_history_pages", \.historyPages),
        ("longline_signals_relayed", \.signalsRelayed), ("longline_signal_datagrams", \.signalDatagrams),
        ("longline_signals_on_lane", \.signalsOnLane), ("longline_presence_changes", \.presenceChanges),
        ("longline_presence_sent", \.presenceSent), ("longline_reads", \.reads),
        ("longline_reads_shared", \.readsShared), ("longline_reads_dropped", \.readsDropped),
        ("longline_store_failures", \.storeFailures), ("longline_retention_sweeps", \.retentionSweeps),
        ("longline_channels_trimmed", \.channelsTrimmed), ("longline_entries_trimmed", \.entriesTrimmed),
        ("longline_trimmed_bytes", \.bytesTrimmed),
        ("longline_log_lines_dropped", \.logLinesDropped), ("longline_links_closed_by_peer", \.closedByPeer),
    ]

    private static let gauges: [(String, any KeyPath<ServerStatistics, Int> & Sendable)] = [
        ("longline_connections_unauthenticated", \.unauthenticated), ("longline_sessions", \.sessions),
        ("longline_sessions_detached", \.detachedSessions), ("longline_subscriptions", \.subscriptions),
        ("longline_presence_watches", \.presenceWatches), ("longline_present_users", \.presentUsers),
    ]

    private static let hooks: [(String, any KeyPath<ServerStatistics, UInt64> & Sendable)] = [
        ("longline_webhook_sent", \.webhooks.sent), ("longline_webhook_failures", \.webhooks.failures),
        ("longline_webhook_rejected", \.webhooks.rejected), ("longline_webhook_cancelled", \.webhooks.cancelled),
        ("longline_webhook_muted", \.webhooks.muted), ("longline_webhook_expired", \.webhooks.expired),
        ("longline_webhook_dropped", \.webhooks.dropped), ("longline_webhook_cancels_sent", \.webhooks.cancelsSent),
        ("longline_authorization_asked", \.authorization.asked),
        ("longline_authorization_remembered", \.authorization.remembered),
        ("longline_authorization_shared", \.authorization.shared),
        ("longline_authorization_failures", \.authorization.failures),
        ("longline_authorization_late", \.authorization.late),
        ("longline_authorization_without_room", \.authorization.withoutRoom),
        ("longline_token_key_reload_failures", \.tokenKeyFailures),
    ]

    private static let hookGauges: [(String, any KeyPath<ServerStatistics, Int> & Sendable)] = [
        ("longline_webhook_waiting", \.webhooks.waiting), ("longline_webhook_held", \.webhooks.held),
        ("longline_webhook_endpoints_down", \.webhooks.endpointsDown),
        ("longline_authorization_under_way", \.authorization.underWay),
        ("longline_authorization_kept", \.authorization.kept),
        ("longline_token_key_sources_failing", \.tokenKeySourcesFailing),
    ]

    static let handshakes: [(String, any KeyPath<ServerStatistics, UInt64> & Sendable)] = [
        ("full", \.handshakesFull), ("resumed", \.handshakesResumed), ("early", \.handshakesEarly),
    ]

    mutating func record(_ now: ServerStatistics, load: NodeLoad) {
        for (label, path) in Self.counters + Self.hooks { count(label, nil, now[keyPath: path]) }
        for (kind, path) in Self.handshakes { count("longline_handshakes", ("kind", kind), now[keyPath: path]) }
        for (code, closes) in now.closes { count("longline_closes", ("code", "\(code.rawValue)"), closes) }
        for (code, refusals) in now.refusals {
            count("longline_refusals", ("code", "\(code.rawValue)"), refusals)
        }
        count("longline_refusals", ("code", "other"), now.otherRefusals)
        // With those that are 0: of a series that is new, `rate()` doesn't see what it begins with.
        for reason in SignalDrop.allCases {
            count("longline_signals_dropped", ("reason", "\(reason)"), now.signalsDropped[reason] ?? 0)
        }
        gauge("longline_build_info", [("version", LonglineVersion.current)], 1)
        gauge("longline_start_timestamp_seconds", [], startedAt)
        for (label, path) in Self.gauges + Self.hookGauges { gauge(label, [], Double(now[keyPath: path])) }
        if let expiry = now.certificateExpiry {
            gauge("longline_certificate_expiry_timestamp_seconds", [], Double(expiry))
        }
        if let disk = now.disk {
            gauge("longline_store_size_bytes", [], Double(disk.used))
            gauge("longline_store_free_bytes", [], Double(disk.free))
        }
        for transport in NodeAddress.Transport.allCases {
            let links =
                now.connectionsByTransport.first { $0.key.rawValue.lowercased() == transport.rawValue }?.value ?? 0
            gauge("longline_connections", [("transport", transport.rawValue)], Double(links))
        }
        gauge("longline_loop_delay_seconds", [], load.loopDelay / .seconds(1))
        gauge("longline_memory_bytes", [], Double(load.memory))
        gauge("longline_handshakes_per_second", [], load.handshakesPerSecond)
        metrics.set(now.deliveryLatency, label: "longline_delivery_latency_seconds", unit: 0.001)
        metrics.set(now.heartbeatInterval, label: "longline_heartbeat_interval_seconds")
    }

    /// Whether clients are sent to this node, and what its process has open.
    func record(_ node: NodeStatus) {
        gauge("longline_node_draining", [], node.isDraining ? 1 : 0)
        gauge("longline_node_full", [], node.isFull ? 1 : 0)
        gauge("longline_node_utilization_ratio", [], node.utilization)
        gauge("longline_loop_delay_seconds", [], node.load.loopDelay / .seconds(1))
        if let open = ProcessFiles.open() { gauge("longline_open_files", [], Double(open)) }
        if let limit = ProcessFiles.limit() { gauge("longline_open_files_limit", [], Double(limit)) }
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
