import LonglineWire
import NIOCore

/// A payload that arrives in parts.
///
/// Its buffer grows with what came, not with what was announced, and to twice its size each time, so that each byte is
/// copied a bounded number of times and a peer makes us hold no more than it sent, twice over.
struct PayloadAssembly {
    enum Problem: Error {
        /// A part that does not begin where the one before it ended, or goes beyond the payload's end.
        case place
        /// No memory for it now.
        case noRoom
    }

    /// What the buffer begins with when the payload is that large.
    private static let leastCapacity = 64 << 10

    /// The whole payload's bytes.
    let length: Int
    private(set) var bytes = ByteBuffer()
    private var capacity = 0
    /// Where memory is taken from; nil: its bounds are somebody else's affair.
    private let account: Account?
    private var reservations: [PayloadReservation] = []

    /// Who pays.
    struct Account {
        let budget: PayloadBudget
        let owner: PayloadBudget.Owner
    }

    /// - Parameter length: at most ``LonglineWire/FrameLimits/maximumWholePayload``.
    init(head: ByteBuffer, length: Int, account: Account?) throws(Problem) {
        self.length = length
        self.account = account
        try append(head)
    }

    var received: Int { bytes.readableBytes }
    var isWhole: Bool { received == length }

    mutating func append(_ part: Part) throws(Problem) {
        guard part.offset == UInt64(received) else { throw .place }
        try append(part.bytes)
    }

    private mutating func append(_ part: ByteBuffer) throws(Problem) {
        let end = received + part.readableBytes
        guard end <= length else { throw .place }
        if end > capacity {
            let wanted = min(length, max(end, 2 * capacity, Self.leastCapacity))
            if let account {
                guard let reservation = account.budget.reserve(wanted - capacity, for: account.owner) else {
                    throw .noRoom
                }
                reservations.append(reservation)
            }
            capacity = wanted
            bytes.reserveCapacity(wanted)
        }
        bytes.writeImmutableBuffer(part)
    }
}
