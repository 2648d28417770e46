import LonglineWire

/// What a store keeps about a conversation of one user. Of a room only what the user did: its log says the rest.
struct ConversationRecord: Hashable, Sendable {
    /// The user's inbox.
    let owner: Int64
    let name: ChannelID
    /// The last entry of a direct conversation in the user's inbox, and its time; 0 for none.
    var last: Offset = 0
    var time: UInt64 = 0
    /// The last message of the user's own, or request; 0 for none, and for one from before that was noted.
    var sent: Offset = 0
    /// The last message of the other side's.
    var incoming: Offset = 0
    /// Messages of the other side's above `read`.
    var unread = 0
    /// Up to where the user read; and where others are told that.
    var read: Offset = 0
    var shared: Offset = 0
    var mutedUntil: UInt64 = 0
    /// The end of the user's inbox when the other side was blocked, at least 1; 0 when it isn't.
    var blocked: Offset = 0

    init(owner: Int64, name: ChannelID) {
        self.owner = owner
        self.name = name
    }

    var settings: ConversationSettings { ConversationSettings(mutedUntil: mutedUntil, isBlocked: blocked != 0) }
    var hasSettings: Bool { mutedUntil != 0 || blocked != 0 }
    var place: ConversationPlace { ConversationPlace(time: time, conversation: name) }
}

extension Authors {
    func includes(_ user: UserID) -> Bool {
        switch self {
        case .only(let one): user == one
        case .allBut(let one): user != one
        }
    }
}

/// Which entries count.
enum Counted: Hashable, Sendable {
    /// Messages.
    case messages
    /// What users are told of: requests and replies, too.
    case news

    func includes(_ kind: EntryKind) -> Bool { self == .news ? kind.isNews : kind == .message }
}

extension ConversationPlace {
    /// Whether this place comes before another in a list: later ones first, equal times by name.
    static func comesBefore(_ one: ConversationPlace, _ other: ConversationPlace) -> Bool {
        one.time != other.time
            ? one.time > other.time : one.conversation.description > other.conversation.description
    }
}
