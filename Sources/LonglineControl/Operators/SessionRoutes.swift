import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineWire

/// Sessions of a user, for operators: who is connected, from where, over what; and their end.
struct SessionRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let node: NodeID

    private static let path = "/v1/users/{id}/sessions"

    var routes: [ControlRoute] {
        [
            ControlRoute(.get, Self.path, on: .admin) { request, context in try await list(request, context) },
            ControlRoute(.delete, Self.path, on: .admin) { request, context in try await end(request, context) },
        ]
    }

    private struct Sessions: Encodable {
        var user: String
        var tenant: String
        var sessions: [SessionRecord]
    }

    private struct Ended: Encodable {
        var ended: Int
    }

    private func list(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.tenantOperator(request)
        let user = try context.parameter("id", UserID.init)
        let sessions = try await server.sessions(of: user, in: caller.tenant).map {
            SessionRecord($0, node: node.description)
        }
        return .json(
            Sessions(user: user.description, tenant: caller.tenant.description, sessions: sessions))
    }

    private func end(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.tenantOperator(request)
        // Without 'device' it is every session of the user.
        try request.requireQuery(only: ["tenant", "device", "code", "reason"])
        let user = try context.parameter("id", UserID.init)
        let device = try request.queryName("device").map { name throws(Problem) in
            try checked("device", name, DeviceID.init)
        }
        let code = try request.query("code", in: OperatorClose.codes, standard: Int(CloseCode.normal.rawValue))
        let reason = try request.query("reason") ?? OperatorClose.standardReason
        if let objection = OperatorClose.objection(toReason: reason) {
            throw Problem(.invalidRequest, "'reason' \(objection)")
        }
        let close = Close(code: CloseCode(rawValue: UInt32(code)), reason: reason)
        let ended = try await server.disconnect(user: user, device: device, in: caller.tenant, close: close)
        var metadata: Logger.Metadata = [
            "tenant": "\(caller.tenant)", "user": "\(user)", "code": "\(code)", "ended": "\(ended)",
            "api_key": "\(caller.key.id)",
        ]
        if let device { metadata["device"] = "\(device)" }
        context.audit.notice("sessions ended", metadata: metadata)
        return .json(Ended(ended: ended))
    }
}
