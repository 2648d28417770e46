/// The frame types of version 1. Odd: whoever does not know it closes the session. Even: whoever does not know it skips it.
enum FrameType: UInt64, CaseIterable {
    case connect = 0x01
    case connected = 0x03
    case cursors = 0x56
    case ahead = 0x58
    case roomSettings = 0x5a
    case close = 0x05
    case ping = 0x07
    case pong = 0x09
    case ticket = 0x0b
    case refresh = 0x0d
    case refreshed = 0x0f
    case lane = 0x11
    case publish = 0x13
    case published = 0x15
    case refused = 0x17
    case deliver = 0x19
    case skip = 0x1b
    case gap = 0x1d
    case acknowledge = 0x1f
    case join = 0x21
    case leave = 0x23
    case roomAnswer = 0x25
    case mode = 0x27
    case history = 0x29
    case historyPage = 0x2b
    case room = 0x2d
    case members = 0x2f
    case membersPage = 0x31
    case logout = 0x37
    case eraseAccount = 0x53
    case erasureRefused = 0x54
    case stopped = 0x38
    case behind = 0x52
    case conversations = 0x33
    case conversationsPage = 0x35
    case read = 0x39
    case conversationSet = 0x3b
    case receipt = 0x3c
    case conversation = 0x3e
    case signal = 0x47
    case subscribe = 0x49
    case presence = 0x4a
    case unsubscribe = 0x4b
    case presenceAnswer = 0x4c
    case visibility = 0x4d
    case urgency = 0x3d
    case part = 0x41
    case batch = 0x43
    case encodings = 0x44

    /// The name in `docs/protocol.md`.
    var name: String {
        switch self {
        case .connect: "CONNECT"
        case .connected: "CONNECTED"
        case .cursors: "CURSORS"
        case .ahead: "AHEAD"
        case .close: "CLOSE"
        case .ping: "PING"
        case .pong: "PONG"
        case .ticket: "TICKET"
        case .refresh: "REFRESH"
        case .refreshed: "REFRESHED"
        case .lane: "LANE"
        case .publish: "PUBLISH"
        case .published: "PUBLISHED"
        case .refused: "REFUSED"
        case .deliver: "DELIVER"
        case .skip: "SKIP"
        case .gap: "GAP"
        case .acknowledge: "ACK"
        case .join: "JOIN"
        case .leave: "LEAVE"
        case .roomSettings: "ROOM_SETTINGS"
        case .roomAnswer: "ROOM_ANSWER"
        case .mode: "MODE"
        case .history: "HISTORY"
        case .historyPage: "HISTORY_PAGE"
        case .room: "ROOM"
        case .members: "MEMBERS"
        case .membersPage: "MEMBERS_PAGE"
        case .logout: "LOGOUT"
        case .eraseAccount: "ERASE_ACCOUNT"
        case .erasureRefused: "ERASURE_REFUSED"
        case .stopped: "STOPPED"
        case .behind: "BEHIND"
        case .conversations: "CONVERSATIONS"
        case .conversationsPage: "CONVERSATIONS_PAGE"
        case .read: "READ"
        case .conversationSet: "CONVERSATION_SET"
        case .receipt: "RECEIPT"
        case .conversation: "CONVERSATION"
        case .signal: "SIGNAL"
        case .subscribe: "SUBSCRIBE"
        case .presence: "PRESENCE"
        case .unsubscribe: "UNSUBSCRIBE"
        case .presenceAnswer: "PRESENCE_ANSWER"
        case .visibility: "VISIBILITY"
        case .urgency: "URGENCY"
        case .part: "PART"
        case .batch: "BATCH"
        case .encodings: "ENCODINGS"
        }
    }

    /// Whether a type is one that senders use to keep receivers in the habit of skipping (`0x40 n + 0x2a`).
    static func isGrease(_ type: UInt64) -> Bool { type % 0x40 == 0x2a }
}

extension Frame {
    var type: FrameType {
        switch self {
        case .connect: .connect
        case .connected: .connected
        case .cursors: .cursors
        case .ahead: .ahead
        case .close: .close
        case .ping: .ping
        case .pong: .pong
        case .ticket: .ticket
        case .refresh: .refresh
        case .refreshed: .refreshed
        case .join: .join
        case .leave: .leave
        case .roomSettings: .roomSettings
        case .roomAnswer: .roomAnswer
        case .mode: .mode
        case .history: .history
        case .historyPage: .historyPage
        case .room: .room
        case .members: .members
        case .membersPage: .membersPage
        case .logout: .logout
        case .eraseAccount: .eraseAccount
        case .erasureRefused: .erasureRefused
        case .stopped: .stopped
        case .behind: .behind
        case .conversations: .conversations
        case .conversationsPage: .conversationsPage
        case .read: .read
        case .conversationSet: .conversationSet
        case .receipt: .receipt
        case .conversation: .conversation
        case .signal: .signal
        case .subscribe: .subscribe
        case .unsubscribe: .unsubscribe
        case .presence: .presence
        case .presenceAnswer: .presenceAnswer
        case .visibility: .visibility
        case .urgency: .urgency
        case .part: .part
        case .batch: .batch
        case .encodings: .encodings
        case .lane: .lane
        case .publish: .publish
        case .published: .published
        case .refused: .refused
        case .deliver: .deliver
        case .skip: .skip
        case .gap: .gap
        case .acknowledge: .acknowledge
        }
    }

    /// The type's number on the wire.
    public var typeNumber: UInt64 { type.rawValue }

    /// The type's name in `docs/protocol.md`, such as `PUBLISH`, for logs and metrics.
    public var name: String { type.name }
}
