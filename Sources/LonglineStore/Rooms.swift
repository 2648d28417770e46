public import LonglineWire

/// The rooms' members and settings, which follow from the entries of their logs.
///
/// Who joins a room without members is its first owner, and its settings are the first ones: anyone may join, members may
/// publish. A room with members always has an owner: when the last one's membership ends, the member who has been there
/// longest becomes one. Every change is an entry of the room's log, in one transaction with what it changes, and costs the
/// same in a room of ten members and in one of 100,000.
public protocol Rooms: Sendable {
    /// Changes a room, on behalf of a device's user. What is so already stays, and enters nothing.
    ///
    /// Refused are, with a code: ``/LonglineWire/RefusalCode/unknownChannel`` (no such room, or the user isn't a member of
    /// it), ``/LonglineWire/RefusalCode/forbidden`` (not an owner; the room's settings don't allow it; it would be left
    /// without an owner), ``/LonglineWire/RefusalCode/unknownRecipient`` (who is to become an owner is no member),
    /// ``/LonglineWire/RefusalCode/roomFull`` (``StoreLimits/roomMembers``) and
    /// ``/LonglineWire/RefusalCode/limitReached`` (``StoreLimits/roomsPerUser``).
    func change(_ room: RoomID, _ change: RoomChange, by device: DeviceKey) async throws(StoreError) -> RoomOutcome

    /// A page of a room's members, in the order of their names' bytes.
    /// - Parameters:
    ///   - room: the room.
    ///   - tenant: its tenant.
    ///   - reader: who asks; nil for an operator.
    ///   - after: the page begins behind this name; nil for the first.
    ///   - limit: the most members in the page, 1 or more.
    /// - Returns: nil when the room does not exist, or the reader isn't a member of it.
    func members(of room: RoomID, in tenant: TenantID, for reader: UserID?, after: UserID?, limit: Int)
        async throws(StoreError) -> MemberList?
}

/// What is to become of a room.
public enum RoomChange: Hashable, Sendable {
    /// The device's user becomes a member. A room that does not exist is made when `create`.
    ///
    /// A join after a leave begins a new stint: entitlement is the range of the last stint only.
    case join(create: Bool)
    /// For the app's own server: the device's user becomes a member, and gets the role where one is named, whatever the room's
    /// settings say. A room that does not exist is made, with this user as its owner.
    case appoint(RoomRole?)
    /// For the app's own server: every membership ends, as by an owner's ``/LonglineWire/RoomAction/delete``. The device's user,
    /// who need not be a member, is the entry's sender. A room without members stays as it is.
    case dissolve
    /// The user's membership ends.
    case leave
    /// What only an owner may do.
    case act(RoomAction)
}

/// What became of a ``RoomChange``.
public enum RoomOutcome: Hashable, Sendable {
    /// It is so, and durable.
    case done(RoomReceipt)
    /// Nothing changed.
    case refused(RefusalCode)

    /// What was done, if it was.
    public var receipt: RoomReceipt? { if case .done(let receipt) = self { receipt } else { nil } }
}

/// What was done to a room.
public struct RoomReceipt: Hashable, Sendable {
    /// The entry that records it; where nothing had to change, the join entry of a member, else the log's last entry.
    public var position: Position
    /// The log's last entry now.
    public var head: Position
    /// Whether something was entered.
    public var isNew: Bool
    /// Whose right to the room this is about: who joined, left, was added or removed.
    public var user: UserID?
    /// What that user may read from now on.
    public var entitlement: Entitlement?
    /// The room's settings and that user's role, as of ``head``; nil where the user is no member now.
    public var settings: RoomSettings?
    /// Whether every membership ended with ``position``.
    public var isDeleted = false

    /// A receipt.
    public init(
        position: Position, head: Position, isNew: Bool, user: UserID? = nil, entitlement: Entitlement? = nil,
        settings: RoomSettings? = nil
    ) {
        self.position = position
        self.head = head
        self.isNew = isNew
        self.user = user
        self.entitlement = entitlement
        self.settings = settings
    }
}

/// A page of a room's members.
public struct MemberList: Hashable, Sendable {
    /// Members in all.
    public var total: Int
    /// The page.
    public var members: [RoomMember]
    /// Whether there are more behind the last one.
    public var more: Bool
    /// Who may join by their own request.
    public var joining: RoomJoining
    /// Who may publish.
    public var publishing: RoomPublishing
    /// The log's last entry when it was so.
    public var head: Position
    /// The same as a member is told it, with the reader's own role; nil for an operator.
    public var settings: RoomSettings?

    /// A page.
    public init(
        total: Int, members: [RoomMember], more: Bool, joining: RoomJoining, publishing: RoomPublishing,
        head: Position, settings: RoomSettings?
    ) {
        self.total = total
        self.members = members
        self.more = more
        self.joining = joining
        self.publishing = publishing
        self.head = head
        self.settings = settings
    }
}
