/// Something with a deadline. Only the engine makes them.
public class DeadlineOwner {
    /// When it wants to be woken; nil: never. Changed through the queue only.
    fileprivate(set) var deadline: QUICInstant?
    /// Where its entry is in the queue; nil: it has none.
    fileprivate var index: Int?

    init() {}
}

/// The deadlines of many owners, earliest first: a binary heap with one entry for each owner that has a deadline. An owner
/// whose deadline moves later, as happens with every packet, costs nothing: its entry is corrected when it comes to the
/// top.
struct DeadlineQueue {
    private struct Entry {
        /// The owner's deadline, or earlier.
        var instant: QUICInstant
        var owner: DeadlineOwner
    }

    private var heap: [Entry] = []

    /// Entries held.
    var count: Int { heap.count }

    /// Sets an owner's deadline.
    mutating func set(_ deadline: QUICInstant?, for owner: DeadlineOwner) {
        owner.deadline = deadline
        switch (deadline, owner.index) {
        case (nil, nil):
            break
        case (nil, let index?):
            remove(at: index)
        case (let deadline?, nil):
            heap.append(Entry(instant: deadline, owner: owner))
            owner.index = heap.count - 1
            siftUp(heap.count - 1)
        case (let deadline?, let index?):
            guard deadline < heap[index].instant else { return }
            heap[index].instant = deadline
            siftUp(index)
        }
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
        remove(at: 0)
        top.owner.deadline = nil
        return top.owner
    }

    /// Moves entries at the top that are too early to where they belong.
    private mutating func settleTop() {
        while let top = heap.first, let deadline = top.owner.deadline, deadline > top.instant {
            heap[0].instant = deadline
            siftDown(0)
        }
    }

    private mutating func remove(at index: Int) {
        let last = heap.count - 1
        if index != last { swap(index, last) }
        heap.removeLast().owner.index = nil
        guard index < heap.count else { return }
        siftDown(index)
        siftUp(index)
    }

    private mutating func swap(_ first: Int, _ second: Int) {
        heap.swapAt(first, second)
        heap[first].owner.index = first
        heap[second].owner.index = second
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0, heap[index].instant < heap[(index - 1) / 2].instant {
            swap(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var smallest = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < heap.count && heap[child].instant < heap[smallest].instant {
                smallest = child
            }
            if smallest == index { return }
            swap(index, smallest)
            index = smallest
        }
    }
}
