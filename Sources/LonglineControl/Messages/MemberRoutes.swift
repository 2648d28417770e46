import HTTPTypes
import Hummingbird
import LonglineServer
import LonglineStore
import LonglineWire

/// Members of rooms, as an app's server wants them.
struct MemberRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate
    let reader: RequestReader

    private static let path = "/v1/rooms/{id}/members/{user}"

    var routes: [ControlRoute] {
        [
            ControlRoute(.put, Self.path, on: .service) { request, context in try await put(request, context) },
            ControlRoute(.delete, Self.path, on: .service) { request, context in try await remove(request, context) },
        ]
    }

    private struct Order: RequestBodyMembers, Sendable {
        static let members: Set = ["role"]

        enum Role: String, Decodable, Sendable {
            case owner, member
        }

        var role: Role?
    }

    private struct Membership: Encodable {
        var room: String
        var user: String
        /// Where the log was when it was so.
        var epoch: String
        var offset: UInt64
    }

    private func put(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .rooms)
        let room = try context.parameter("id", RoomID.init)
        let user = try context.parameter("user", UserID.init)
        let order = try await reader.optionalJSON(Order.self, request)
        let role: RoomRole? = order?.role.map { $0 == .owner ? .owner : .member }
        let outcome = try await server.setUnlessErasing(.member(role), of: user, in: room, tenant: caller.tenant)
        guard let outcome else { throw Problem.beingErased }
        switch outcome {
        case .done(let receipt):
            return .json(
                Membership(
                    room: room.description, user: user.description, epoch: "\(receipt.position.epoch)",
                    offset: receipt.position.offset))
        case .refused(let code): throw Self.problem(code)
        }
    }

    private func remove(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .rooms)
        let room = try context.parameter("id", RoomID.init)
        let user = try context.parameter("user", UserID.init)
        switch try await server.set(.none, of: user, in: room, tenant: caller.tenant) {
        case .done: return .noContent
        // Who is no member is none afterwards, either.
        case .refused(.unknownChannel): return .noContent
        case .refused(let code): throw Self.problem(code)
        }
    }

    private static func problem(_ code: RefusalCode) -> Problem {
        switch code {
        case .roomFull: Problem(.limitReached, "the room has as many members as it may have")
        case .limitReached: Problem(.limitReached, "the user is in as many rooms as one may be")
        case .forbidden: Problem(.limitReached, "a room needs an owner")
        default: Problem(.invalidRequest, "it was refused with code \(code.rawValue)")
        }
    }
}
