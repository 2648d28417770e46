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
        /// In milliseconds; absent when nothing was delivered, or where it lies above all that is told apart:
        var latencyP50: Double?
        var latencyP99: Double?
        /// then it is more than this.
        var latencyP50Above: Double?
        var latencyP99Above: Double?
        /// In seconds; the same.
        var heartbeatP50: Double?
        var heartbeatP90: Double?
        var heartbeatP50Above: Double?
        var heartbeatP90Above: Double?
        /// In milliseconds.
        var loopDelay: Double
        /// In bytes.
        var memory: UInt64
    }

    /// Samples that are kept: ten minutes at one every two seconds.
    static let kept = 300

    /// What a server says of itself at a moment.
    private struct Reading: Sendable {
        /// Counts them: the next one is later.
        var number: UInt64
        var at: ContinuousClock.Instant
        var statistics: ServerStatistics
        var delays: [Duration]
    }

    private let server: LonglineServer
    /// The control layer's own, whose lines left out count with the server's.
    private let log: EventLog
    private let interval: Duration
    private var exporter: StatisticsMetrics
    /// The reading under way, for all who ask meanwhile.
    private var reading: (task: Task<Reading, any Error>, since: ContinuousClock.Instant)?
    private var readings: UInt64 = 0
    private var lastExported: UInt64 = 0
    /// Of the last sample.
    private var last: Reading?
    private var delays = RecentDelays()
    private(set) var samples: [Sample] = []
    /// As of the last sample.
    private var sampledLoad = NodeLoad()

    init(_ server: LonglineServer, log: EventLog, interval: Duration, metrics: PrometheusMetrics) {
        self.server = server
        self.log = log
        self.interval = interval
        exporter = StatisticsMetrics(metrics)
    }

    /// How busy the node is now: while an event loop answers nothing, no sample would tell.
    var load: NodeLoad {
        var present = sampledLoad
        let waited = reading.map { ContinuousClock.now - $0.since } ?? .zero
        // One stall does not count. This one lasts as long as those that do.
        if waited >= max(interval * RecentDelays.majority, .seconds(1)) {
            present.loopDelay = max(present.loopDelay, waited)
        }
        return present
    }

    /// What was taken behind the sample with a time; all, where that was at a time that the clock has not reached again since.
    func samples(after time: UInt64) -> [Sample] { Self.rest(of: samples, after: time) }

    static func rest(of samples: [Sample], after time: UInt64) -> [Sample] {
        if let place = samples.lastIndex(where: { $0.time == time }) { return Array(samples[(place + 1)...]) }
        guard let last = samples.last, last.time > time else { return samples }
        return samples.filter { $0.time > time }
    }

    func run() async throws {
        // A server that does not run yet, or any more, has no figures.
        repeat { try? await take() } while await waited()
    }

    private func waited() async -> Bool {
        await cancelWhenGracefulShutdown { [interval] in (try? await Task.sleep(for: interval)) != nil }
    }

    /// Says through swift-metrics what the server counted so far. What is over time, load and samples, is left to the timer: its spans
    /// are of some length. Without a server that runs, and answers in time, there are the figures that there were.
    /// - Parameter patience: how long to wait for it.
    func export(within patience: Duration) async {
        // Where one waited in vain the next one would: nobody more waits behind a loop that answers nothing.
        if let reading, ContinuousClock.now - reading.since >= patience { return }
        let task = Task { export(try await read()) }
        _ = try? await task.value(within: patience)
    }

    private func read() async throws -> Reading {
        if let reading { return try await reading.task.value }
        readings += 1
        let task = Task { [server, log, number = readings] in
            // First: it waits for each event loop, so that the figures of all are of now.
            let delays = try await server.loopDelays()
            var statistics = try await server.statistics()
            statistics.logLinesDropped += log.dropped
            return Reading(number: number, at: .now, statistics: statistics, delays: delays)
        }
        reading = (task, .now)
        defer { reading = nil }
        return try await task.value
    }

    /// Says through swift-metrics how the node is.
    func export(_ node: NodeStatus) { exporter.record(node) }

    private func export(_ now: Reading) {
        // Who shared an earlier reading may go on after who made a later one.
        guard now.number > lastExported else { return }
        lastExported = now.number
        exporter.record(now.statistics, load: sampledLoad)
    }

    /// Takes a sample now. One after the other: the timer's alone.
    /// - Throws: when the server does not run.
    func take() async throws {
        let now = try await read()
        // The first has nothing to compare with.
        let before = last ?? now
        guard now.number > before.number || last == nil else { return }
        last = now
        let statistics = now.statistics
        let seconds = max((now.at - before.at) / .seconds(1), 0.001)
        func rate(_ path: KeyPath<ServerStatistics, UInt64>) -> Double {
            let (new, old) = (statistics[keyPath: path], before.statistics[keyPath: path])
            return Double(new > old ? new - old : 0) / seconds
        }
        let latency = statistics.deliveryLatency.since(before.statistics.deliveryLatency)
        let heartbeat = statistics.heartbeatInterval.since(before.statistics.heartbeatInterval)
        let handshakes = (rate(\.handshakesFull), rate(\.handshakesResumed), rate(\.handshakesEarly))
        let delay = now.delays.max() ?? .zero
        delays.add(delay)
        sampledLoad = NodeLoad(
            connections: statistics.connections, handshakesPerSecond: handshakes.0 + handshakes.1 + handshakes.2,
            loopDelay: delays.lasting, memory: ProcessMemory.resident())
        export(now)
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
                latencyP99: latency.finiteQuantile(0.99), latencyP50Above: latency.boundBelow(0.5),
                latencyP99Above: latency.boundBelow(0.99), heartbeatP50: heartbeat.finiteQuantile(0.5),
                heartbeatP90: heartbeat.finiteQuantile(0.9), heartbeatP50Above: heartbeat.boundBelow(0.5),
                heartbeatP90Above: heartbeat.boundBelow(0.9), loopDelay: delay / .milliseconds(1),
                memory: sampledLoad.memory))
        if samples.count > Self.kept { samples.removeFirst(samples.count - Self.kept) }
    }
}

/// The delays that were measured last: one that is long tells of a moment, several of a node that has too much to do.
struct RecentDelays {
    private var last: [Duration] = []
    private static let kept = 5
    /// As many are no moment any more.
    static let majority = (kept + 1) / 2

    mutating func add(_ delay: Duration) {
        last.append(delay)
        if last.count > Self.kept { last.removeFirst() }
    }

    /// The one in the middle; of a few, the shorter one.
    var lasting: Duration { last.isEmpty ? .zero : last.sorted()[(last.count - 1) / 2] }
}

extension Histogram {
    /// As ``quantile(_:)``; nil where it lies above the last bound.
    func finiteQuantile(_ share: Double) -> Double? { quantile(share).flatMap { $0.isFinite ? $0 : nil } }

    /// The last bound, where a quantile lies above it.
    func boundBelow(_ share: Double) -> Double? { quantile(share).flatMap { $0.isFinite ? nil : bounds.last } }
}
