import LonglineWire
import Synchronization

/// Memory for payloads that are arriving in parts, which all sessions of a process share. Thread-safe.
///
/// Users have a share each: one that begins many payloads, on however many devices, leaves the others theirs.
public final class PayloadBudget: Sendable {
    /// Whose bytes they are.
    struct Owner: Hashable {
        let tenant: TenantID
        let user: UserID
    }

    private struct Taken {
        var bytes = 0
        /// Those who hold something now.
        var byOwner: [Owner: Int] = [:]
    }

    /// Bytes at most, all users together.
    public let limit: Int
    /// Bytes at most of one user, all sessions together.
    public let limitPerUser: Int
    private let taken = Mutex(Taken())

    /// A budget of so many bytes.
    public init(limit: Int, limitPerUser: Int) {
        self.limit = limit
        self.limitPerUser = limitPerUser
    }

    /// Bytes taken now.
    public var used: Int { taken.withLock { $0.bytes } }

    /// Users who hold some now.
    var owners: Int { taken.withLock { $0.byOwner.count } }

    /// Takes bytes until the reservation is let go of; nil when there are not so many left.
    func reserve(_ bytes: Int, for owner: Owner) -> PayloadReservation? {
        let hasRoom = taken.withLock { taken in
            let own = taken.byOwner[owner, default: 0]
            guard bytes <= limit - taken.bytes, bytes <= limitPerUser - own else { return false }
            taken.bytes += bytes
            taken.byOwner[owner] = own + bytes
            return true
        }
        return hasRoom ? PayloadReservation(budget: self, owner: owner, bytes: bytes) : nil
    }

    fileprivate func release(_ bytes: Int, of owner: Owner) {
        taken.withLock { taken in
            taken.bytes -= bytes
            let left = taken.byOwner[owner, default: 0] - bytes
            assert(taken.bytes >= 0 && left >= 0)
            taken.byOwner[owner] = left > 0 ? left : nil
        }
    }
}

/// Bytes of a ``PayloadBudget``, given back when nobody refers to it any more.
final class PayloadReservation: Sendable {
    private let budget: PayloadBudget
    private let owner: PayloadBudget.Owner
    private let bytes: Int

    fileprivate init(budget: PayloadBudget, owner: PayloadBudget.Owner, bytes: Int) {
        self.budget = budget
        self.owner = owner
        self.bytes = bytes
    }

    deinit { budget.release(bytes, of: owner) }
}
