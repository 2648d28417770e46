import ArgumentParser
import LonglineClient
import LonglineWire

/// Shows who is in a room, and does what its owners may.
struct RoomCommandLine: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "room", abstract: "Show a room's members, or change a room that you own.",
        discussion: """
              longline room members ROOM              who is in it, and who may join and publish; you have to be a member
              longline room join ROOM                 join it; who joins a room without members is its owner
              longline room leave ROOM
              longline room add ROOM USER             make a user a member
              longline room remove ROOM USER
              longline room owner ROOM USER           make a member an owner
              longline room member ROOM USER          make an owner a member again
              longline room joining ROOM WHO          who may join: anyone, owners (whom an owner adds), nobody
              longline room publishing ROOM WHO       who may publish: members, owners
              longline room delete ROOM               end every membership

            Changes need a token with the scope manage. It connects as the token's device: another connection of the same \
            device ends.
            """)

    @OptionGroup var options: ClientOptions

    @OptionGroup var patience: PatienceOptions

    @Argument(help: "members, join, leave, add, remove, owner, member, joining, publishing or delete.")
    var verb: String

    @Argument(help: "The room.")
    var room: String

    @Argument(help: "The user, or the value.")
    var argument: String?

    func validate() throws {
        _ = try Name.parse("the room", room, RoomID.init)
        if !["members", "join", "leave"].contains(verb) { _ = try order() }
    }

    private func order() throws -> RoomOrder {
        guard let known = RoomOrder.Verb(rawValue: verb) else {
            throw ValidationError("'\(verb)' is none of members, join, leave, \(RoomOrder.Verb.list).")
        }
        return try RoomOrder(known, argument)
    }

    func run() async throws {
        let client = try options.makeClient()
        let room = try Name.parse("the room", room, RoomID.init)
        try await patience.ask(client) { try await perform($0, in: room) }
    }

    private func perform(_ client: LonglineClient, in room: RoomID) async throws {
        switch verb {
        case "members": try await Terminal.members(of: room, client) { try Terminal.say($0) }
        case "join": try await client.join(room)
        case "leave": try await client.leave(room)
        default: try await order().perform(client, in: room)
        }
    }
}

extension RoomOrder.Verb {
    static var list: String { allCases.map(\.rawValue).joined(separator: ", ") }
}
