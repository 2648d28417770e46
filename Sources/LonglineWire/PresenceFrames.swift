import NIOCore

/// Whether a user is there, over all of the user's devices.
public enum PresenceState: UInt8, Hashable, Sendable, CaseIterable {
    /// No device is connected, or the user does not show.
    case offline = 0
    /// A device is connected, and none is in the foreground.
    case away = 1
    /// A device is in the foreground.
    case online = 2
}

/// What of a user's presence others see. It is the user's, whichever device says it, and lasts.
public enum PresenceVisibility: UInt8, Hashable, Sendable, CaseIterable {
    /// The state, and when the user was last seen.
    case everything = 0
    /// The state only.
    case stateOnly = 1
    /// Nothing: to others the user is offline and was never seen.
    case nothing = 2
}

/// A client's wish to be told of users.
public struct PresenceRequest: Hashable, Sendable {
    /// Chosen by the client; the answer names it.
    public var request: UInt64
    /// The users; 1 to ``FrameLimits/maximumPresenceUsers``.
    public var users: [UserID]

    /// A request.
    public init(request: UInt64, users: [UserID]) {
        self.request = request
        self.users = users
    }
}

/// A client's wish to be told no more.
public struct PresenceEnd: Hashable, Sendable {
    /// The users, at most ``FrameLimits/maximumPresenceUsers``; empty for all.
    public var users: [UserID]

    /// An end.
    public init(users: [UserID] = []) { self.users = users }
}

/// Where one user is.
public struct PresenceUpdate: Hashable, Sendable {
    /// The user.
    public var user: UserID
    /// The state.
    public var state: PresenceState
    /// When a device of the user was last in the foreground, in milliseconds since 1970; 0 when one is, when it is not known,
    /// and when the user does not show it.
    public var lastSeen: UInt64

    /// An update.
    public init(user: UserID, state: PresenceState, lastSeen: UInt64) {
        self.user = user
        self.state = state
        self.lastSeen = lastSeen
    }
}

/// The answer to a ``PresenceRequest``.
public struct PresenceAnswer: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why it was refused, or nil.
    public var refusal: RefusalCode?
    /// For refusals that are worth another try: not before this many milliseconds.
    public var retryAfter: UInt64

    /// An answer.
    public init(request: UInt64, refusal: RefusalCode? = nil, retryAfter: UInt64 = 0) {
        self.request = request
        self.refusal = refusal
        self.retryAfter = retryAfter
    }
}

extension PresenceRequest {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard !users.isEmpty else { throw FrameError(.unrepresentable, message: "a request for nobody") }
        sink.fixed(request)
        try sink.users(users)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        request = try reader.fixed("request")
        users = try reader.users("users")
        guard !users.isEmpty else { throw reader.malformed("users", "are none") }
    }
}

extension PresenceEnd {
    func write(to sink: inout some FrameSink) throws(FrameError) { try sink.users(users) }

    init(from reader: inout FrameReader) throws(FrameError) { users = try reader.users("users") }
}

extension PresenceUpdate {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.identifier(user.description)
        sink.byte(state.rawValue)
        try sink.varint(lastSeen, "last seen")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            user: try reader.user("user"), state: try reader.choice("state"), lastSeen: try reader.varint("last seen"))
    }
}

extension PresenceAnswer {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        if let refusal {
            try refusal.write(to: &sink)
        } else {
            sink.uncheckedVarint(0)
        }
        try sink.varint(retryAfter, "retry after")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        request = try reader.fixed("request")
        let code = try reader.varint32("refusal")
        refusal = code == 0 ? nil : RefusalCode(rawValue: code)
        retryAfter = try reader.varint("retry after")
    }
}

extension PresenceVisibility {
    func write(to sink: inout some FrameSink) { sink.byte(rawValue) }

    init(from reader: inout FrameReader) throws(FrameError) { self = try reader.choice("visibility") }
}

extension FrameSink {
    fileprivate mutating func users(_ users: [UserID]) throws(FrameError) {
        try count(users.count, limit: FrameLimits.maximumPresenceUsers, "users")
        for user in users { identifier(user.description) }
    }
}

extension FrameReader {
    fileprivate mutating func users(_ field: StaticString) throws(FrameError) -> [UserID] {
        let count = try count(field, limit: FrameLimits.maximumPresenceUsers)
        var users: [UserID] = []
        users.reserveCapacity(count)
        for _ in 0..<count { users.append(try user(field)) }
        return users
    }
}
