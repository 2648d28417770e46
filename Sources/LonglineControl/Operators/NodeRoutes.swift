import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineWire

/// Nodes, for operators: whether they live and take clients, and how they are emptied.
struct NodeRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let nodes: any NodeDirectory
    let database: ControlDatabase
    let reader: RequestReader

    var routes: [ControlRoute] {
        [
            ControlRoute(.post, "/v1/nodes/{id}/drain", on: .admin) { request, context in
                try await drain(request, context)
            },
            ControlRoute(.get, "/healthz", on: .admin) { _, _ in .json(Health(status: "alive")) },
            ControlRoute(.get, "/readyz", on: .admin) { _, _ in try await readiness() },
        ]
    }

    private struct Order: RequestBodyMembers, Sendable {
        static let members: Set = ["rate"]

        var rate: Int?
    }

    private struct Progress: Encodable {
        var node: String
        /// Clients moved away each second.
        var rate: Int
        /// Connections that are left.
        var remaining: Int
    }

    private struct Health: Encodable {
        var status: String
    }

    private static let standardRate = 100

    private func drain(_ request: Request, _ context: ControlContext) async throws -> Response {
        let key = try await gate.nodeOperator(request)
        guard let node = NodeID(try context.parameter("id", UserID.init).description) else { throw Problem(.notFound) }
        let rate = try await reader.optionalJSON(Order.self, request)?.rate ?? Self.standardRate
        guard LonglineServer.drainRates.contains(rate) else {
            throw Problem(
                .invalidRequest, "'rate' has to be 1 to \(LonglineServer.drainRates.upperBound) clients a second")
        }
        guard let status = try await nodes.drain(node, rate: rate) else {
            throw Problem(.notFound, "there is no such node")
        }
        context.audit.notice("node drained", metadata: ["node": "\(node)", "rate": "\(rate)", "api_key": "\(key.id)"])
        return .json(
            Progress(node: node.description, rate: status.rate, remaining: status.remaining), status: .accepted)
    }

    /// A drained node takes nobody until it was started again, so that asking soon is worth nothing.
    private static let drainedRetry = 30

    /// Whether clients may be sent here.
    private func readiness() async throws -> Response {
        try server.requireRunning()
        guard !server.isDraining else {
            throw Problem(.unavailable, "the node is drained", retryAfter: Self.drainedRetry)
        }
        do { try await database.check() } catch {
            throw Problem(.unavailable, "the control database does not answer", retryAfter: 1, cause: error)
        }
        // Without it nobody who is sent here gets a session.
        do { try await server.checkStore() } catch {
            throw Problem(.unavailable, "the store does not answer", retryAfter: 1, cause: error)
        }
        return .json(Health(status: "ready"))
    }
}
