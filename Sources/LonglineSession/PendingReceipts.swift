import DequeModule
import LonglineWire
import NIOCore

/// Receipts on their way to a client: of each conversation, user and kind the newest place only, all together in one go.
///
/// ```
///            add                        due, or something else goes out
///   empty ----------> gathering ------------------------------------------> empty
///                      |     ^ add
///                      '-----'
/// ```
/// Bounded: beyond ``limit`` the one that waited longest goes, and the client learns it with the list of conversations.
struct PendingReceipts {
    private struct Key: Hashable {
        let conversation: ChannelID
        let user: UserID
        let kind: ReceiptKind
    }

    /// Receipts that wait at most.
    static let limit = 256

    private var places: [Key: Position] = [:]
    /// In the order in which they came; the oldest first.
    private var order = Deque<Key>()
    /// When what waits goes out; nil: nothing waits.
    private(set) var dueAt: NIODeadline?

    /// Takes a receipt in.
    /// - Parameter due: when the first that waits goes out.
    mutating func add(_ receipt: Receipt, due: NIODeadline) {
        let key = Key(conversation: receipt.conversation, user: receipt.user, kind: receipt.kind)
        if let known = places[key] {
            // Another epoch replaces the one before it.
            if known.epoch != receipt.position.epoch || known.offset < receipt.position.offset {
                places[key] = receipt.position
            }
            return
        }
        if order.count >= Self.limit, let oldest = order.popFirst() { places[oldest] = nil }
        places[key] = receipt.position
        order.append(key)
        dueAt = dueAt ?? due
        assert(order.count == places.count)
    }

    /// Everything that waits.
    mutating func take() -> [Receipt] {
        defer { self = PendingReceipts() }
        return order.compactMap { key in
            places[key].map { Receipt(conversation: key.conversation, user: key.user, kind: key.kind, position: $0) }
        }
    }
}
