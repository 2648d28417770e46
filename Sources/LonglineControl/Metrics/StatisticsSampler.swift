import LonglineLinks
import LonglineServer
import LonglineStore
import ServiceLifecycle

/// Takes a server's figures every few seconds: for how busy the node is, for `/metrics`, and for the dashboard, which shows how
/// they moved lately.
actor StatisticsSampler: Service {
    /// Figures of one moment, and what happened since the one before.
    struct Sample: Sendable, Encodable {
        /// In milliseconds since 1970.
        var time: UInt64
        var connections: [String: Int]
        var sessions: Int
        var handshakesFull: Double
        var handshakesResumed: Double
        var handshakesEarly: Double
        var migrations: Double
        var published: Double
        var delivered: Double
        /// In milliseconds; absent when nothing was delivered.
        var latencyP50: Double?
        var latencyP99: Double?
        /// In seconds; absent when no heartbeat came.
        var heartbeatP50: Double?
        var heartbeatP90: Double?
        /// In milliseconds.
        var loopDelay: Double
        /// In bytes.
        var memory: UInt64
    }

    /// Samples that are kept: ten minutes at one every two seconds.
    static let kept = 300

    private let server: LonglineServer
    private let interval: Duration
    private var exporter: StatisticsMetrics
    private var last: (statistics: ServerStatistics, at: ContinuousClock.Instant)?
    private(set) var samples: [Sample] = []
    private(set) var load = NodeLoad()

    init(_ server: LonglineServer, interval: Duration, metrics: PrometheusMetrics) {
        self.server = server
        self.interval = interval
        exporter = StatisticsMetrics(metrics)
    }

    func run() async throws {
        // A server that does not run yet, or any more, has no figures.
        repeat { try? await take() } while await waited()
    }

    private func waited() async -> Bool {
        await cancelWhenGracefulShutdown { [interval] in (try? await Task.sleep(for: interval)) != nil }
    }

    /// Takes a sample now.
    /// - Throws: when the server does not run.
    func take() async throws {
        let statistics = try await server.statistics()
        let delays = try await server.loopDelays()
        let now = ContinuousClock.now
        let before = last ?? (ServerStatistics(), now - interval)
        last = (statistics, now)
        let seconds = max((now - before.at) / .seconds(1), 0.001)
        func rate(_ path: KeyPath<ServerStatistics, UInt64>) -> Double {
            let (new, old) = (statistics[keyPath: path], before.statistics[keyPath: path])
            return Double(new > old ? new - old : 0) / seconds
        }
        let latency = statistics.deliveryLatency.since(before.statistics.deliveryLatency)
        let heartbeat = statistics.heartbeatInterval.since(before.statistics.heartbeatInterval)
        let handshakes = (rate(\.handshakesFull), rate(\.handshakesResumed), rate(\.handshakesEarly))
        load = NodeLoad(
            connections: statistics.connections, handshakesPerSecond: handshakes.0 + handshakes.1 + handshakes.2,
            loopDelay: delays.max() ?? .zero, memory: ProcessMemory.resident())
        exporter.record(statistics, load: load)
        samples.append(
            Sample(
                time: WallClock.milliseconds(),
                connections: Dictionary(
                    uniqueKeysWithValues: statistics.connectionsByTransport.map {
                        ($0.key.rawValue.lowercased(), $0.value)
                    }),
                sessions: statistics.sessions, handshakesFull: handshakes.0, handshakesResumed: handshakes.1,
                handshakesEarly: handshakes.2, migrations: rate(\.migrations), published: rate(\.published),
                delivered: rate(\.delivered), latencyP50: latency.finiteQuantile(0.5),
                latencyP99: latency.finiteQuantile(0.99), heartbeatP50: heartbeat.finiteQuantile(0.5),
                heartbeatP90: heartbeat.finiteQuantile(0.9), loopDelay: load.loopDelay / .milliseconds(1),
                memory: load.memory))
        if samples.count > Self.kept { samples.removeFirst(samples.count - Self.kept) }
    }
}

extension Histogram {
    /// As ``quantile(_:)``, with the last bound where it lies above.
    fileprivate func finiteQuantile(_ share: Double) -> Double? {
        quantile(share).map { $0.isFinite ? $0 : bounds.last ?? 0 }
    }
}
