import HTTP3
import HTTPTypes
import LonglineServer
import NIOCore
import QUICTransport
import ServiceLifecycle

/// The routes for clients and app servers over HTTP/3, on the server's own QUIC ports.
///
/// As a `Service` it ends with a graceful shutdown: clients are told (GOAWAY), and requests under way are answered.
final class HTTP3Front: Service {
    private let service: HTTP3Service
    private let responder: ControlResponder
    private let grace: Duration
    private let metrics: PrometheusMetrics
    private let interval: Duration

    /// - Throws: ``ControlError/Code/invalidConfiguration`` for a server that was started.
    init(
        _ server: LonglineServer, responder: ControlResponder, configuration: LonglineControl.Configuration,
        metrics: PrometheusMetrics
    ) throws(ControlError) {
        let limits = configuration.limits
        var options = HTTP3ServerOptions()
        options.connections = limits.connections
        options.limits.fieldSectionSize = limits.headerBytes
        options.limits.idleTimeout = .init(limits.idleTimeout)
        options.limits.openRequests = UInt64(limits.openRequests)
        // The routes' own deadline comes first, and says so.
        options.limits.bodyTimeout = .init(limits.bodyTimeout) + .seconds(1)
        options.limits.writeTimeout = .init(limits.idleTimeout)
        options.logger = server.configuration.logger
        options.refusal = { [responder] in responder.refusal($0, after: $1) }
        service = HTTP3Service(options: options)
        self.responder = responder
        grace = limits.closeTimeout
        self.metrics = metrics
        interval = configuration.sampleInterval
        do {
            // The routes hold the server: it doesn't hold them as well.
            try server.serve(HTTP3Service.applicationProtocol) { [weak self] in self?.session($0) }
        } catch {
            throw ControlError(
                .invalidConfiguration, message: "HTTP/3 can't be added to the server's port", cause: error,
                advice: "make the control layer before the server starts, or set servesHTTP3 to false")
        }
    }

    func run() async throws {
        var figures = HTTP3Metrics(metrics)
        repeat { figures.record(service.statistics) } while await waited()
        await service.drain(grace: grace)
    }

    private func waited() async -> Bool {
        await cancelWhenGracefulShutdown { [interval] in (try? await Task.sleep(for: interval)) != nil }
    }

    private func session(_ connection: QUICLoopConnection) -> HTTP3ServerSession {
        HTTP3ServerSession(connection, service: service) { [responder] request, body, answer in
            // Signatures, hashes and databases are not for a loop that carries sessions.
            try await withTaskExecutorPreference(globalConcurrentExecutor) {
                let response = await responder.respond(
                    to: request, body: body, from: answer.remoteAddress, on: .service)
                let parts = ResponseParts(response.head, answer)
                let trailers = try await response.writeBody { try await parts.add($0) }
                try await parts.finish(trailers)
            }
        }
    }
}

/// Sends an answer. One of a single part, as most are, leaves as a whole.
private actor ResponseParts {
    private let head: HTTPResponse
    private let answer: HTTP3Responder
    private var held: ByteBuffer?
    private var writer: HTTP3BodyWriter?

    init(_ head: HTTPResponse, _ answer: HTTP3Responder) {
        self.head = head
        self.answer = answer
    }

    func add(_ part: ByteBuffer) async throws {
        guard let before = held else {
            held = part
            return
        }
        held = part
        if writer == nil { writer = try await answer.start(head) }
        try await writer?.write(before)
    }

    func finish(_ trailers: HTTPFields?) async throws {
        if let writer {
            try await writer.finish(held, trailers: trailers)
        } else {
            try await answer.respond(head, body: held, trailers: trailers)
        }
    }
}
