import LonglineStore
import LonglineWire
import NIOCore

/// What was published to a room since its members were looked up last, and what they confirmed of it meanwhile.
struct RoomNews {
    private var position: Position
    private var sender: UserID
    private var time: UInt64
    private var expiry: UInt64
    private var payload: ByteBuffer?
    /// How many of whose messages: nobody is told of their own.
    private var counts: [UserID: UInt64]
    private var total: UInt64 = 1
    /// How far members' devices came since, the foremost of each, of so many members at most.
    private var confirmed: [UserID: Position] = [:]
    private let mostConfirmed: Int

    /// Senders that are told apart.
    private static let maximumSenders = 64

    init(
        position: Position, sender: UserID, time: UInt64, expiry: UInt64, payload: ByteBuffer?, mostConfirmed: Int
    ) {
        self.position = position
        self.sender = sender
        self.time = time
        self.expiry = expiry
        self.payload = payload
        self.mostConfirmed = mostConfirmed
        counts = [sender: 1]
    }

    /// One more message.
    mutating func add(position: Position, sender: UserID, time: UInt64, expiry: UInt64, payload: ByteBuffer?) {
        self.position = position
        (self.sender, self.time, self.expiry, self.payload) = (sender, time, expiry, payload)
        total += 1
        if counts[sender] != nil || counts.count < Self.maximumSenders { counts[sender, default: 0] += 1 }
    }

    /// A member's device has the room's entries up to here. Another one may be behind it: what one has is read.
    mutating func confirm(_ user: UserID, _ position: Position) {
        // Of another life of the log it says nothing about what is told here.
        guard position.epoch == self.position.epoch else { return }
        if let known = confirmed[user] {
            guard known.epoch != position.epoch || known.offset < position.offset else { return }
        } else {
            guard confirmed.count < mostConfirmed else { return }
        }
        confirmed[user] = position
    }

    /// Whether a member has all of it.
    func isKnown(to user: UserID) -> Bool {
        confirmed[user].map { $0.epoch == position.epoch && $0.offset >= position.offset } ?? false
    }

    /// What there is to tell a member; nil for who wrote all of it.
    func notification(for member: UserID, in room: ChannelKey) -> PendingNotification? {
        let count = total - (counts[member] ?? 0)
        guard count > 0 else { return nil }
        return PendingNotification(
            key: PendingNotification.Key(tenant: room.tenant, user: member, conversation: room.channel),
            channel: room.channel, position: position, sender: sender, count: count, time: time, expiry: expiry,
            payload: payload, since: time, notBefore: time)
    }
}
