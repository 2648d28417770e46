import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineWire

/// Accounts of users, as an app's server wants them: their end.
struct UserRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate

    /// How long a request waits for an erasure, which may take far longer.
    private static let patience = Duration.seconds(1)

    var routes: [ControlRoute] {
        [
            ControlRoute(.delete, "/v1/users/{id}", on: .service) { request, context in
                try await erase(request, context)
            }
        ]
    }

    private struct UnderWay: Encodable {
        var user: String
    }

    private func erase(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .erase)
        let user = try context.parameter("id", UserID.init)
        let isDone = try await server.erase(user: user, in: caller.tenant, waiting: Self.patience)
        context.audit.notice(
            isDone ? "account erased" : "account is being erased",
            metadata: ["tenant": "\(caller.tenant)", "user": "\(user)", "api_key": "\(caller.key.id)"])
        return isDone ? .noContent : .json(UnderWay(user: user.description), status: .accepted)
    }
}
