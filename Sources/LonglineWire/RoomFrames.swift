/// Who may join a room by their own request. Owners may always add members, unless nobody may join.
public enum RoomJoining: UInt8, Hashable, Sendable, CaseIterable {
    /// Whoever the token allows to.
    case anyone = 0
    /// Nobody: only whom an owner adds.
    case byOwners = 1
    /// Nobody, not even whom an owner would add.
    case nobody = 2
}

/// Who may publish into a room.
public enum RoomPublishing: UInt8, Hashable, Sendable, CaseIterable {
    /// Every member.
    case members = 0
    /// Owners only.
    case owners = 1
}

/// What a member of a room is.
public enum RoomRole: UInt8, Hashable, Sendable, CaseIterable {
    /// A member without rights over the room.
    case member = 0
    /// A member who may add and remove others, make owners, change the settings and delete the room.
    case owner = 1
}

/// What an owner does with a room.
public enum RoomAction: Hashable, Sendable {
    /// Makes a user a member, connected or not.
    case add(UserID)
    /// Ends a user's membership.
    case remove(UserID)
    /// Makes a member an owner, or a member without rights again.
    case setRole(RoomRole, of: UserID)
    /// Sets who may join.
    case setJoining(RoomJoining)
    /// Sets who may publish.
    case setPublishing(RoomPublishing)
    /// Ends every membership.
    case delete

    /// Its number on the wire, in `ROOM` and in the payload of an entry that records it.
    var number: UInt8 {
        switch self {
        case .add: 0
        case .remove: 1
        case .setRole: 2
        case .setJoining: 3
        case .setPublishing: 4
        case .delete: 5
        }
    }

    /// The value that goes with the number; 0 where there is none.
    var value: UInt8 {
        switch self {
        case .setRole(let role, _): role.rawValue
        case .setJoining(let joining): joining.rawValue
        case .setPublishing(let publishing): publishing.rawValue
        case .add, .remove, .delete: 0
        }
    }

    /// The user whom it is about, where it is about one.
    public var user: UserID? {
        switch self {
        case .add(let user), .remove(let user), .setRole(_, let user): user
        case .setJoining, .setPublishing, .delete: nil
        }
    }

    /// Whether the action of a number names a user; nil for a number that means nothing.
    static func namesUser(_ number: UInt8) -> Bool? {
        switch number {
        case 0...2: true
        case 3...5: false
        default: nil
        }
    }

    /// Puts an action together again; nil when the parts don't fit.
    init?(number: UInt8, user: UserID?, value: UInt8) {
        switch (number, user) {
        case (0, let user?) where value == 0: self = .add(user)
        case (1, let user?) where value == 0: self = .remove(user)
        case (2, let user?):
            guard let role = RoomRole(rawValue: value) else { return nil }
            self = .setRole(role, of: user)
        case (3, nil):
            guard let joining = RoomJoining(rawValue: value) else { return nil }
            self = .setJoining(joining)
        case (4, nil):
            guard let publishing = RoomPublishing(rawValue: value) else { return nil }
            self = .setPublishing(publishing)
        case (5, nil) where value == 0: self = .delete
        default: return nil
        }
    }
}

/// An owner's request to change a room.
public struct RoomCommand: Hashable, Sendable {
    /// Chosen by the client; the ``RoomAnswer`` names it.
    public var request: UInt64
    /// The room.
    public var room: RoomID
    /// What to do.
    public var action: RoomAction

    /// A request.
    public init(request: UInt64, room: RoomID, action: RoomAction) {
        self.request = request
        self.room = room
        self.action = action
    }
}

extension RoomCommand {
    func write(to sink: inout some FrameSink) {
        sink.fixed(request)
        sink.identifier(room.description)
        sink.byte(action.number)
        if let user = action.user { sink.identifier(user.description) }
        sink.byte(action.value)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        let request = try reader.fixed("request")
        let room = try reader.room("room")
        let number = try reader.byte("action")
        guard let namesUser = RoomAction.namesUser(number) else {
            throw reader.malformed("action", "has an unknown value")
        }
        let user = namesUser ? try reader.user("user") : nil
        let value = try reader.byte("value")
        guard let action = RoomAction(number: number, user: user, value: value) else {
            throw reader.malformed("value", "has a value that means nothing with the action")
        }
        self.init(request: request, room: room, action: action)
    }
}
