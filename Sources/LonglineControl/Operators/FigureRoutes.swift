import Hummingbird
import NIOCore

/// Figures for operators: as Prometheus reads them, and as the dashboard does.
struct FigureRoutes: Sendable {
    let sampler: StatisticsSampler
    let metrics: PrometheusMetrics
    let nodes: any NodeDirectory
    /// This one, whatever others there are.
    let local: LocalNode
    let gate: APIKeyGate
    /// How long figures may take to come from the server: less than Prometheus waits for an answer.
    let patience: Duration

    var routes: [ControlRoute] {
        [
            ControlRoute(.get, "/metrics", on: .admin) { request, context in
                try await gate.reader(request, context)
                return try await prometheus()
            },
            ControlRoute(.get, "/v1/statistics", on: .admin) { request, context in
                try await gate.reader(request, context)
                return try await statistics(request)
            },
        ]
    }

    private func prometheus() async throws -> Response {
        await sampler.export(within: patience)
        if let node = await local.nodes().first { await sampler.export(node) }
        return Response(
            status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
            body: ResponseBody(byteBuffer: ByteBuffer(string: metrics.text())))
    }

    private struct Node: Encodable {
        var id: String
        var accessPoints: [String]
        var connections: Int
        var handshakesPerSecond: Double
        /// In milliseconds.
        var loopDelay: Double
        /// In bytes.
        var memory: UInt64
        var utilization: Double
        var draining: Bool
        var full: Bool
    }

    private struct Statistics: Encodable {
        var nodes: [Node]
        var samples: [StatisticsSampler.Sample]
    }

    private func statistics(_ request: Request) async throws -> Response {
        let after = try request.query("after", in: 0...Int(maximumNumber), standard: 0)
        let known: [NodeStatus]
        do { known = try await nodes.nodes() } catch { throw Problem(.unavailable, retryAfter: 1, cause: error) }
        let samples = await sampler.samples(after: UInt64(after))
        return .json(
            Statistics(
                nodes: known.map {
                    Node(
                        id: $0.id.description, accessPoints: $0.addresses.map(\.text),
                        connections: $0.load.connections,
                        handshakesPerSecond: $0.load.handshakesPerSecond.inJSON,
                        loopDelay: $0.load.loopDelay / .milliseconds(1), memory: $0.load.memory,
                        utilization: $0.utilization.inJSON, draining: $0.isDraining, full: $0.isFull)
                }, samples: samples))
    }
}

extension Double {
    /// A directory of nodes is the embedder's own, and JSON has no word for what is no number or has no end.
    fileprivate var inJSON: Double { isNaN ? 0 : min(max(self, -.greatestFiniteMagnitude), .greatestFiniteMagnitude) }
}
