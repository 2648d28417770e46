public import LonglineWire

/// A page of a room's members, in the order of their names' bytes.
public struct MemberPage: Sendable {
    /// Members in all.
    public let total: Int
    /// The page.
    public let members: [RoomMember]
    /// Whether there are more behind the last one: ask with its name as `after`.
    public let hasMore: Bool
    /// The room's settings, and what this user is there; nil from an older service, which doesn't tell.
    public let settings: RoomSettings?
}

/// A membership that the service has on its disk.
public struct JoinReceipt: Hashable, Sendable {
    /// The place of the join in the room's log: what comes after it is delivered.
    public let position: Position
    /// The room's settings, and what this user is there; nil without the right to receive the room, and from an older service, which
    /// doesn't tell.
    public let settings: RoomSettings?
}

extension RoomSettings {
    /// Takes in what a message says of the room's settings or of the user's role. So they stay what they are: an app applies each
    /// message as it comes. What is in them already (at or below ``/LonglineWire/RoomSettings/position``) changes nothing, nor
    /// does a message of another channel.
    ///
    /// Two things it can't tell: what lies in a gap (``Message/gapBefore``), and the settings of another stay, after a message by
    /// which this user left or joined. A page of members has the present ones.
    public mutating func apply(_ message: Message, for user: UserID) {
        guard message.channel == .room(room), let change = message.change else { return }
        apply(change, at: message.position, for: user)
    }

    mutating func apply(_ change: RoomAction, at place: Position, for user: UserID?) {
        guard place.epoch == position.epoch, place.offset > position.offset else { return }
        position = place
        switch change {
        case .setJoining(let joining): self.joining = joining
        case .setPublishing(let publishing): self.publishing = publishing
        case .setRole(let role, let member): if member == user { self.role = role }
        case .add, .remove, .delete: break
        }
    }
}

/// What an owner of a room does with it. Each call waits for a connection if there is none, and changes nothing where it is so
/// already. Who is in the room learns of a change by an entry (``Message/change``, ``Message/member``).
///
/// They throw ``ClientError`` of code ``ClientError/Code/refused`` with ``ClientError/refusal``: `unknownChannel` when this user
/// isn't a member of the room, `forbidden` when it isn't an owner of it (or the token lacks `manage`), and what else is named;
/// ``ClientError/Code/notConnected`` before ``LonglineClient/connect()``. They answer the place of the entry that records the
/// change, or of the room's last one where there was nothing to change.
extension LonglineClient {
    /// Makes a user a member, whether it is connected or not: its devices receive the room from now on.
    ///
    /// Refused with `roomFull` or `limitReached` where the room or the user has no place, and with `forbidden` where nobody may
    /// join.
    @discardableResult
    public func add(_ user: UserID, to room: RoomID) async throws -> Position {
        try await request(room, .act(.add(user)))
    }

    /// Ends a user's membership. The user may read up to the entry that says so, and learns by whom; where anyone may join,
    /// it may come again (``setJoining(_:of:)``).
    @discardableResult
    public func remove(_ user: UserID, from room: RoomID) async throws -> Position {
        try await request(room, .act(.remove(user)))
    }

    /// Makes a member an owner, or a member without rights again. The last owner stays one (`forbidden`): it leaves, or makes
    /// another first. Refused with `unknownRecipient` for a user who is no member.
    @discardableResult
    public func setRole(_ role: RoomRole, of user: UserID, in room: RoomID) async throws -> Position {
        try await request(room, .act(.setRole(role, of: user)))
    }

    /// Sets who may join.
    @discardableResult
    public func setJoining(_ joining: RoomJoining, of room: RoomID) async throws -> Position {
        try await request(room, .act(.setJoining(joining)))
    }

    /// Sets who may publish.
    @discardableResult
    public func setPublishing(_ publishing: RoomPublishing, in room: RoomID) async throws -> Position {
        try await request(room, .act(.setPublishing(publishing)))
    }

    /// Ends every membership of a room, the own one too. What its members were entitled to they may still read, until retention
    /// removes it; who joins the room next is its first owner.
    @discardableResult
    public func delete(_ room: RoomID) async throws -> Position { try await request(room, .act(.delete)) }

    /// A page of a room's members, for its members. It needs a connection now, and asks once.
    /// - Parameters:
    ///   - room: the room.
    ///   - user: the page begins behind this name; nil for the first page.
    ///   - limit: the most members, 1 to 100.
    ///   - timeout: how long to wait for the answer.
    /// - Throws: ``ClientError``: ``ClientError/Code/notConnected`` when there is no connection or it is lost meanwhile,
    ///   ``ClientError/Code/timedOut``, ``ClientError/Code/tooManyRequests`` when 64 wait already, and
    ///   ``ClientError/Code/refused`` with ``ClientError/refusal``: `unknownChannel` for a room that this user isn't a member
    ///   of, `forbidden` without the right to receive it. `CancellationError` when the task is cancelled.
    public func members(
        of room: RoomID, after user: UserID? = nil, limit: Int = 100, timeout: Duration = .seconds(30)
    ) async throws -> MemberPage {
        try await members(
            MembersRequest(request: 0, room: room, after: user, limit: UInt64(clamping: limit)), timeout: timeout)
    }
}

extension Message {
    /// The member whom a join, a leave or a change of an owner is about; the sender is who did it.
    public var member: UserID? { entry.member }

    /// What an owner changed, in an entry of kind ``/LonglineWire/EntryKind/changed``; nil for what a later version may record.
    public var change: RoomAction? { entry.change }

    private var entry: Entry {
        Entry(
            offset: position.offset, previous: 0, kind: kind, sender: sender, device: device,
            producer: ProducerID(high: 0, low: 0), publishID: 0, recipient: recipient, origin: origin, time: time,
            expiry: 0, payload: payload)
    }
}
