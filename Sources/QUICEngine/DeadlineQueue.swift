/// Something with a deadline. Only the engine makes them.
public class DeadlineOwner {
    /// When it wants to be woken; nil: never. Changed through the queue only.
    fileprivate(set) var deadline: QUICInstant?
    /// Where its entry is in the queue; nil: it has none.
    fileprivate var index: Int?

    init() {}
}

/// The deadlines of many owners, earliest first: a heap with one entry for each owner that has a deadline. An owner whose deadline
/// moves later, as happens with every packet, costs nothing: its entry is corrected when it comes to the top.
struct DeadlineQueue {
    private struct Entry: IndexedHeapEntry {
        /// The owner's deadline, or earlier.
        var key: QUICInstant
        var owner: DeadlineOwner

        func stands(at index: Int?) { owner.index = index }
    }

    private var heap = IndexedHeap<Entry>()

    /// Entries held.
    var count: Int { heap.count }

    /// Sets an owner's deadline.
    mutating func set(_ deadline: QUICInstant?, for owner: DeadlineOwner) {
        owner.deadline = deadline
        switch (deadline, owner.index) {
        case (nil, nil): break
        case (nil, let index?): heap.remove(at: index)
        case (let deadline?, nil): heap.append(Entry(key: deadline, owner: owner))
        case (let deadline?, let index?): heap.lower(at: index, to: deadline)
        }
    }

    /// The earliest deadline.
    mutating func next() -> QUICInstant? {
        settleTop()
        return heap.first?.key
    }

    /// Takes an owner whose deadline is due; its deadline is nil afterwards.
    mutating func popDue(now: QUICInstant) -> DeadlineOwner? {
        settleTop()
        guard let top = heap.first, top.key <= now else { return nil }
        heap.remove(at: 0)
        top.owner.deadline = nil
        return top.owner
    }

    /// Moves entries at the top that are too early to where they belong.
    private mutating func settleTop() {
        while let top = heap.first, let deadline = top.owner.deadline, deadline > top.key {
            heap.raiseFirst(to: deadline)
        }
    }
}
