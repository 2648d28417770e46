import LonglineStore
import LonglineWire
import NIOCore

/// What was published to a room since its members were looked up last, and what they confirmed of it meanwhile.
struct RoomNews {
    /// One message, as far as it is told.
    struct Message {
        var position: Position
        var sender: UserID
        var time: UInt64
        /// When it came, by ``WebhookClock/steady``: its time may be one that the clock has not reached.
        var since: UInt64
        var expiry: UInt64
        var payload: ByteBuffer?
    }

    /// How many messages, and until when any of them is worth telling.
    private struct Tally {
        var count: UInt64
        var until: UInt64

        init(_ message: Message) { (count, until) = (1, message.expiry) }

        mutating func add(_ other: Tally) {
            count += other.count
            until = PendingNotification.later(until, other.until)
        }
    }

    private var last: Message
    /// The newest that is not of whom ``last`` is from: what that one is told of.
    private var lastOfAnother: Message?
    /// By sender: nobody is told of their own.
    private var tallies: [UserID: Tally]
    /// Of senders that aren't told apart.
    private var others: Tally?
    private var all: Tally
    /// How far members' devices came since, the foremost of each, of so many members at most.
    private var confirmed: [UserID: Position] = [:]
    private let mostConfirmed: Int

    /// Senders that are told apart.
    private static let maximumSenders = 64

    init(_ message: Message, mostConfirmed: Int) {
        last = message
        self.mostConfirmed = mostConfirmed
        all = Tally(message)
        tallies = [message.sender: all]
    }

    /// One more message.
    mutating func add(_ message: Message) {
        if last.sender != message.sender { lastOfAnother = last }
        last = message
        let tally = Tally(message)
        all.add(tally)
        count(tally, of: message.sender)
    }

    private mutating func count(_ tally: Tally, of sender: UserID) {
        if tallies[sender] == nil, tallies.count >= Self.maximumSenders {
            others = Self.sum(others, tally)
        } else {
            tallies[sender] = Self.sum(tallies[sender], tally)
        }
    }

    /// News that came later.
    mutating func add(_ later: RoomNews) {
        if let another = later.lastOfAnother {
            lastOfAnother = another
        } else if last.sender != later.last.sender {
            lastOfAnother = last
        }
        last = later.last
        all.add(later.all)
        for (sender, tally) in later.tallies { count(tally, of: sender) }
        if let tally = later.others { others = Self.sum(others, tally) }
        for (user, position) in later.confirmed { confirm(user, position) }
    }

    /// A member's device has the room's entries up to here. Another one may be behind it: what one has is read.
    mutating func confirm(_ user: UserID, _ position: Position) {
        // Of another life of the log it says nothing about what is told here.
        guard position.epoch == last.position.epoch else { return }
        if let known = confirmed[user] {
            guard known.epoch != position.epoch || known.offset < position.offset else { return }
        } else {
            guard confirmed.count < mostConfirmed else { return }
        }
        confirmed[user] = position
    }

    private static func sum(_ one: Tally?, _ other: Tally) -> Tally {
        var sum = other
        if let one { sum.add(one) }
        return sum
    }

    /// What others than the member wrote.
    private func tally(for member: UserID) -> Tally? {
        guard tallies[member] != nil else { return all }
        return tallies.reduce(others) { $1.key == member ? $0 : Self.sum($0, $1.value) }
    }

    /// The newest message that isn't the member's own.
    private func newest(for member: UserID) -> Message? { member == last.sender ? lastOfAnother : last }

    /// Whether a member has all of it that is another's.
    func isKnown(to user: UserID) -> Bool {
        guard let position = newest(for: user)?.position else { return true }
        return confirmed[user].map { $0.epoch == position.epoch && $0.offset >= position.offset } ?? false
    }

    /// What there is to tell a member; nil for who wrote all of it.
    func notification(for member: UserID, in room: ChannelKey) -> PendingNotification? {
        guard let tally = tally(for: member), let newest = newest(for: member) else { return nil }
        return PendingNotification(
            key: PendingNotification.Key(tenant: room.tenant, user: member, conversation: room.channel),
            channel: room.channel, position: newest.position, sender: newest.sender, count: tally.count,
            time: newest.time, expiry: newest.expiry, until: tally.until, payload: newest.payload,
            since: newest.since, notBefore: newest.since)
    }
}
