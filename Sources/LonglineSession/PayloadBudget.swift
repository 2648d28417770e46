import Synchronization

/// Memory for payloads that are arriving in parts, which all sessions of a process share. Thread-safe.
public final class PayloadBudget: Sendable {
    /// Bytes at most.
    public let limit: Int
    private let taken = Atomic<Int>(0)

    /// A budget of so many bytes.
    public init(limit: Int) { self.limit = limit }

    /// Bytes taken now.
    public var used: Int { taken.load(ordering: .relaxed) }

    /// Takes bytes until the reservation is let go of; nil when there are not so many left.
    func reserve(_ bytes: Int) -> PayloadReservation? {
        let now = taken.wrappingAdd(bytes, ordering: .relaxed).newValue
        guard now <= limit else {
            taken.wrappingSubtract(bytes, ordering: .relaxed)
            return nil
        }
        return PayloadReservation(budget: self, bytes: bytes)
    }

    fileprivate func release(_ bytes: Int) { taken.wrappingSubtract(bytes, ordering: .relaxed) }
}

/// Bytes of a ``PayloadBudget``, given back when nobody refers to it any more.
final class PayloadReservation: Sendable {
    private let budget: PayloadBudget
    private let bytes: Int

    fileprivate init(budget: PayloadBudget, bytes: Int) {
        self.budget = budget
        self.bytes = bytes
    }

    deinit { budget.release(bytes) }
}
