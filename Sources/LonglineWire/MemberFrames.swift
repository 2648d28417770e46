/// One member of a room.
public struct RoomMember: Hashable, Sendable {
    /// Who it is.
    public var user: UserID
    /// What the user is there.
    public var role: RoomRole

    /// A member.
    public init(user: UserID, role: RoomRole) {
        self.user = user
        self.role = role
    }
}

/// A request for one page of a room's members.
public struct MembersRequest: Hashable, Sendable {
    /// Chosen by the client; the answer names it.
    public var request: UInt64
    /// The room.
    public var room: RoomID
    /// The page begins behind this name; nil for the first.
    public var after: UserID?
    /// The most members in the page: 1 to ``FrameLimits/maximumMembers``, or the request is refused.
    public var limit: UInt64

    /// A request.
    public init(request: UInt64, room: RoomID, after: UserID?, limit: UInt64) {
        self.request = request
        self.room = room
        self.after = after
        self.limit = limit
    }
}

/// The answer to a ``MembersRequest``.
public struct MembersPage: Hashable, Sendable {
    /// The request it answers.
    public var request: UInt64
    /// Why there is no page, or nil.
    public var refusal: RefusalCode?
    /// Members in all.
    public var total: UInt64
    /// The members, in the order of their names' bytes; at most ``FrameLimits/maximumMembers``.
    public var members: [RoomMember]
    /// Whether there are more behind the last one.
    public var more: Bool

    /// A page.
    public init(request: UInt64, total: UInt64, members: [RoomMember], more: Bool) {
        self.request = request
        refusal = nil
        self.total = total
        self.members = members
        self.more = more
    }

    /// A refusal.
    public init(request: UInt64, refusal: RefusalCode) {
        self.init(request: request, total: 0, members: [], more: false)
        self.refusal = refusal
    }
}

extension MembersRequest {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        sink.fixed(request)
        sink.identifier(room.description)
        sink.identifier(after?.description ?? "")
        try sink.varint(limit, "limit")
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        self.init(
            request: try reader.fixed("request"), room: try reader.room("room"), after: try reader.userOrNone("after"),
            limit: try reader.varint("limit"))
    }
}

extension MembersPage {
    func write(to sink: inout some FrameSink) throws(FrameError) {
        guard refusal == nil || members.isEmpty else {
            throw FrameError(.unrepresentable, message: "a refusal with members")
        }
        sink.fixed(request)
        if let refusal {
            try refusal.write(to: &sink)
        } else {
            sink.uncheckedVarint(0)
        }
        try sink.varint(total, "total")
        try sink.count(members.count, limit: FrameLimits.maximumMembers, "members")
        for member in members {
            sink.identifier(member.user.description)
            sink.byte(member.role.rawValue)
        }
        sink.byte(more ? 1 : 0)
    }

    init(from reader: inout FrameReader) throws(FrameError) {
        request = try reader.fixed("request")
        let code = try reader.varint32("refusal")
        refusal = code == 0 ? nil : RefusalCode(rawValue: code)
        total = try reader.varint("total")
        let count = try reader.count("members", limit: FrameLimits.maximumMembers)
        guard refusal == nil || count == 0 else { throw reader.malformed("members", "are more than none in a refusal") }
        members = []
        members.reserveCapacity(count)
        for _ in 0..<count {
            members.append(RoomMember(user: try reader.user("members"), role: try reader.choice("members")))
        }
        more = try reader.flags("more", known: 1) == 1
    }
}

extension FrameReader {
    /// A name, or an empty string for none.
    fileprivate mutating func userOrNone(_ field: StaticString) throws(FrameError) -> UserID? {
        let text = try string(field, limit: IdentifierRule.limit)
        guard !text.isEmpty else { return nil }
        do { return try UserID(text) } catch { throw malformed(field, "is no name", cause: error) }
    }
}
