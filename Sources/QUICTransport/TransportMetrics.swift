internal import Metrics
internal import QUICEngine

/// Gives one loop's counters to swift-metrics, as what they grew by since the last time. All loops of a process share the
/// handlers; `role` tells servers from clients.
///
/// The names are part of the API: docs/quic.md lists them.
final class TransportMetrics {
    private struct Entry {
        let counter: Counter
        let value: (QUICTransportCounters) -> UInt64
    }

    private let entries: [Entry]
    private let connections: Meter
    private let bufferedBytes: Meter
    private var last = QUICTransportCounters()

    init(isServer: Bool, factory: any MetricsFactory) {
        let role = [("role", isServer ? "server" : "client")]
        func entry(_ name: String, _ value: @escaping (QUICTransportCounters) -> UInt64) -> Entry {
            Entry(counter: Counter(label: "quic_\(name)", dimensions: role, factory: factory), value: value)
        }
        connections = Meter(label: "quic_connections", dimensions: role, factory: factory)
        bufferedBytes = Meter(label: "quic_buffered_bytes", dimensions: role, factory: factory)
        entries = [
            entry("datagrams_received", { $0.sockets.datagramsReceived }),
            entry("datagrams_sent", { $0.sockets.datagramsSent }),
            entry("reads_without_sleep", { $0.sockets.readsWithoutSleep }),
            entry("bytes_received", { $0.engine.bytesReceived }),
            entry("bytes_sent", { $0.engine.bytesSent }),
            entry("datagrams_dropped", { $0.sockets.unanswerableDropped + $0.sockets.handoverDropped }),
            entry("datagrams_handed_over", { $0.sockets.handedOver }),
            entry("garbage_datagrams", { $0.engine.garbageDatagrams + $0.engine.unknownConnectionIDs }),
            entry("socket_failures", { $0.sockets.socketFailures }),
            entry("sockets_rebound", { $0.sockets.socketsRebound }),
            entry("send_errors", { $0.sockets.sendErrors }),
            entry("minimum_size_errors", { $0.sockets.minimumSizeErrors }),
            entry("runs_dropped", { $0.sockets.blockedRuns + $0.sockets.unroutableRuns }),
            entry("datagrams_from_refused_paths", { $0.engine.datagramsFromRefusedPaths }),
            entry("handshakes_completed", { $0.engine.handshakesCompleted }),
            entry("handshakes_failed", { $0.engine.handshakesFailed }),
            entry("handshakes_resumed", { $0.engine.handshakesResumed }),
            entry("early_data_accepted", { $0.engine.earlyDataAccepted }),
            entry("early_data_rejected", { $0.engine.earlyDataRejected }),
            entry("retries_sent", { $0.engine.retriesSent }),
            entry("version_negotiations_sent", { $0.engine.versionNegotiationsSent }),
            entry("connections_refused", { $0.engine.connectionsRefused }),
            entry("connections_refused_for_memory", { $0.engine.connectionsRefusedForMemory }),
            entry("connections_ended_for_memory", { $0.engine.connectionsEndedForMemory }),
            entry("windows_withheld", { $0.engine.windowsWithheld }),
            entry("writes_withheld", { $0.engine.writesWithheld }),
            entry("stateless_resets_sent", { $0.engine.statelessResetsSent }),
            entry("stateless_resets_received", { $0.engine.statelessResetsReceived }),
            entry("protocol_errors", { $0.engine.protocolErrors }),
            entry(
                "datagram_frames_dropped",
                { $0.engine.datagramFramesDropped + $0.engine.datagramFramesExpired + $0.datagramsNotTaken }),
        ]
    }

    func report(_ now: QUICTransportCounters) {
        for entry in entries {
            let (before, after) = (entry.value(last), entry.value(now))
            if after > before { entry.counter.increment(by: Int64(clamping: after - before)) }
        }
        Self.move(connections, from: last.connections, to: now.connections)
        Self.move(bufferedBytes, from: last.bufferedBytes, to: now.bufferedBytes)
        last = now
    }

    /// The loops of a process share a meter: each adds its change.
    private static func move(_ meter: Meter, from before: Int, to after: Int) {
        if after > before { meter.increment(by: Double(after - before)) }
        if after < before { meter.decrement(by: Double(before - after)) }
    }
}
