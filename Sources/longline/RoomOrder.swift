import ArgumentParser
import LonglineClient
import LonglineWire

/// What an owner says about a room on the command line or in a chat.
struct RoomOrder: Sendable {
    enum Verb: String, CaseIterable, ExpressibleByArgument, Sendable {
        case add, remove, owner, member, joining, publishing, delete
    }

    let action: RoomAction

    /// - Throws: `ValidationError` for a verb without what belongs to it.
    init(_ verb: Verb, _ argument: String?) throws {
        func user() throws -> UserID { try Name.parse("the user", argument ?? "", UserID.init) }
        switch verb {
        case .add: action = .add(try user())
        case .remove: action = .remove(try user())
        case .owner: action = .setRole(.owner, of: try user())
        case .member: action = .setRole(.member, of: try user())
        case .joining:
            let choices = ["anyone": RoomJoining.anyone, "owners": .byOwners, "nobody": .nobody]
            guard let joining = choices[argument ?? ""] else {
                throw ValidationError("joining takes anyone, owners (whom an owner adds) or nobody.")
            }
            action = .setJoining(joining)
        case .publishing:
            let choices = ["members": RoomPublishing.members, "owners": .owners]
            guard let publishing = choices[argument ?? ""] else {
                throw ValidationError("publishing takes members or owners.")
            }
            action = .setPublishing(publishing)
        case .delete:
            guard argument == nil else { throw ValidationError("delete takes nothing but the room.") }
            action = .delete
        }
    }

    /// Has it done.
    func perform(_ client: LonglineClient, in room: RoomID) async throws {
        switch action {
        case .add(let user): try await client.add(user, to: room)
        case .remove(let user): try await client.remove(user, from: room)
        case .setRole(let role, let user): try await client.setRole(role, of: user, in: room)
        case .setJoining(let joining): try await client.setJoining(joining, of: room)
        case .setPublishing(let publishing): try await client.setPublishing(publishing, in: room)
        case .delete: try await client.delete(room)
        }
    }
}

extension Terminal {
    /// What an entry of a room's log that is no message says.
    static func describe(_ change: RoomAction?) -> String {
        switch change {
        case .add(let user): "added \(user)"
        case .remove(let user): "removed \(user)"
        case .setRole(.owner, let user): "made \(user) an owner"
        case .setRole(.member, let user): "made \(user) an owner no more"
        case .setJoining(.anyone): "lets anyone join"
        case .setJoining(.byOwners): "lets owners add members"
        case .setJoining(.nobody): "lets nobody join"
        case .setPublishing(.members): "lets members publish"
        case .setPublishing(.owners): "lets owners publish"
        case .delete: "deleted the room"
        case nil: "changed the room"
        }
    }

    /// The same for programs, in the words of `longline room`; nil for what a later version may record.
    ///
    /// Whom it is about is the entry's recipient.
    static func words(_ change: RoomAction?) -> String? {
        switch change {
        case .add: "add"
        case .remove: "remove"
        case .setRole(.owner, _): "owner"
        case .setRole(.member, _): "member"
        case .setJoining(.anyone): "joining anyone"
        case .setJoining(.byOwners): "joining owners"
        case .setJoining(.nobody): "joining nobody"
        case .setPublishing(.members): "publishing members"
        case .setPublishing(.owners): "publishing owners"
        case .delete: "delete"
        case nil: nil
        }
    }

    /// What a room's settings allow.
    static func describe(_ settings: RoomSettings) -> String {
        let joining =
            switch settings.joining {
            case .anyone: "anyone may join"
            case .byOwners: "owners add members"
            case .nobody: "nobody may join"
            }
        let publishing =
            switch settings.publishing {
            case .members: "members may publish"
            case .owners: "only owners may publish"
            }
        return "\(joining), \(publishing), you are \(settings.role == .owner ? "an owner" : "a member")"
    }

    /// Everybody who is in a room, a line each; on standard error before them what its settings allow.
    static func members(of room: RoomID, _ client: LonglineClient, _ line: (String) throws -> Void) async throws {
        var last: UserID?
        var hasMore = true
        while hasMore {
            let page = try await client.members(of: room, after: last)
            if last == nil, let settings = page.settings { Output.report("* \(describe(settings))") }
            for member in page.members { try line("\(member.user)\(member.role == .owner ? " (owner)" : "")") }
            last = page.members.last?.user
            hasMore = page.hasMore && last != nil
        }
    }
}
