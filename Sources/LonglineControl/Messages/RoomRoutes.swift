import HTTPTypes
import Hummingbird
import Logging
import LonglineServer
import LonglineStore
import LonglineWire

/// Rooms, as an app's server sees and ends them.
struct RoomRoutes: Sendable {
    let server: LonglineServer
    let gate: APIKeyGate

    var routes: [ControlRoute] {
        [
            ControlRoute(.get, "/v1/rooms/{id}/members", on: .service) { request, context in
                try await list(request, context)
            },
            ControlRoute(.delete, "/v1/rooms/{id}", on: .service) { request, context in
                try await delete(request, context)
            },
        ]
    }

    private struct Member: Encodable {
        var user: String
        var role: String
    }

    private struct Page: Encodable {
        var room: String
        var joining: String
        var publishing: String
        /// Members in all.
        var total: Int
        var members: [Member]
        /// For the next page; absent on the last.
        var cursor: String?
    }

    /// The most members of a page.
    private static let maximumPage = 1_000

    private func list(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .rooms)
        let room = try context.parameter("id", RoomID.init)
        let limit = try request.query("limit", in: 1...Self.maximumPage, standard: 100)
        let after = try request.queryName("cursor").map { name throws(Problem) in
            guard let user = try? UserID(name) else { throw Problem(.notFound, "'cursor' is none that a page gave") }
            return user
        }
        let read: MemberList?
        do {
            read = try await server.openStore().members(
                of: room, in: caller.tenant, for: nil, after: after, limit: limit)
        } catch let error as StoreError {
            throw Problem(reading: error)
        }
        // One that everybody left, or that was deleted, belongs to whoever joins it next.
        guard let found = read, found.total > 0 else { throw Problem(.notFound, "there is no such room") }
        return .json(
            Page(
                room: room.description, joining: Self.name(found.joining), publishing: Self.name(found.publishing),
                total: found.total,
                members: found.members.map {
                    Member(user: $0.user.description, role: $0.role == .owner ? "owner" : "member")
                }, cursor: found.more ? found.members.last?.user.description : nil))
    }

    private static func name(_ joining: RoomJoining) -> String {
        switch joining {
        case .anyone: "anyone"
        case .byOwners: "owners"
        case .nobody: "nobody"
        }
    }

    private static func name(_ publishing: RoomPublishing) -> String {
        switch publishing {
        case .members: "members"
        case .owners: "owners"
        }
    }

    private func delete(_ request: Request, _ context: ControlContext) async throws -> Response {
        let caller = try await gate.caller(request, .rooms)
        let room = try context.parameter("id", RoomID.init)
        let name = try request.queryName("sender") ?? Self.standardSender
        let sender = try checked("sender", name, UserID.init)
        switch try await server.delete(room, in: caller.tenant, as: sender) {
        case .done(let receipt):
            if receipt.isNew {
                context.audit.notice(
                    "room deleted",
                    metadata: ["tenant": "\(caller.tenant)", "room": "\(room)", "api_key": "\(caller.key.id)"])
            }
            return .noContent
        // What is not there is gone.
        case .refused(.unknownChannel): return .noContent
        case .refused(let code): throw Problem(.invalidRequest, "it was refused with code \(code.rawValue)")
        }
    }

    /// Who an entry says did what nobody is named for.
    static let standardSender = "app-server"
}
