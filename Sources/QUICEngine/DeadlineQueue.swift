/// Something with a deadline. Only the engine makes them.
public class DeadlineOwner {
    /// When it wants to be woken; nil: never. Changed through the queue only.
    fileprivate(set) var deadline: QUICInstant?
    /// The earliest entry for it that the queue holds.
    fileprivate var queued: QUICInstant?

    init() {}
}

/// The deadlines of many owners, earliest first: a binary heap. An owner whose deadline moves later, as happens with every
/// packet, costs nothing: its earlier entry is corrected when it comes to the top.
struct DeadlineQueue {
    private struct Entry {
        var instant: QUICInstant
        var owner: DeadlineOwner
    }

    private var heap: [Entry] = []

    /// Sets an owner's deadline.
    mutating func set(_ deadline: QUICInstant?, for owner: DeadlineOwner) {
        owner.deadline = deadline
        guard let deadline else { return }
        if let queued = owner.queued, queued <= deadline { return }
        push(Entry(instant: deadline, owner: owner))
    }

    /// The earliest deadline.
    mutating func next() -> QUICInstant? {
        settleTop()
        return heap.first?.instant
    }

    /// Takes an owner whose deadline is due; its deadline is nil afterwards.
    mutating func popDue(now: QUICInstant) -> DeadlineOwner? {
        settleTop()
        guard let top = heap.first, top.instant <= now else { return nil }
        removeTop()
        top.owner.queued = nil
        top.owner.deadline = nil
        return top.owner
    }

    /// Drops entries at the top that are stale or too early.
    private mutating func settleTop() {
        while let top = heap.first {
            let owner = top.owner
            guard owner.queued == top.instant else {
                removeTop()
                continue
            }
            if owner.deadline == top.instant { return }
            removeTop()
            owner.queued = nil
            if let deadline = owner.deadline { push(Entry(instant: deadline, owner: owner)) }
        }
    }

    private mutating func push(_ entry: Entry) {
        entry.owner.queued = entry.instant
        heap.append(entry)
        var index = heap.count - 1
        while index > 0, heap[index].instant < heap[(index - 1) / 2].instant {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func removeTop() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var index = 0
        while true {
            var smallest = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < heap.count && heap[child].instant < heap[smallest].instant {
                smallest = child
            }
            if smallest == index { return }
            heap.swapAt(index, smallest)
            index = smallest
        }
    }
}
