/// What stands in an ``IndexedHeap``.
protocol IndexedHeapEntry {
    associatedtype Key: Comparable
    /// What it is ordered by. Only the heap changes it.
    var key: Key { get set }
    /// It stands at this index from now on; nil: nowhere any more.
    func stands(at index: Int?)
}

/// A binary heap, the smallest key first, whose entries are told where they stand: by that any of them is moved or removed.
struct IndexedHeap<Entry: IndexedHeapEntry> {
    private var entries: [Entry] = []

    var count: Int { entries.count }
    var isEmpty: Bool { entries.isEmpty }
    /// The one with the smallest key.
    var first: Entry? { entries.first }

    mutating func append(_ entry: Entry) {
        entries.append(entry)
        entry.stands(at: entries.count - 1)
        siftUp(entries.count - 1)
    }

    /// Gives an entry a smaller key. One that isn't smaller changes nothing.
    mutating func lower(at index: Int, to key: Entry.Key) {
        guard key < entries[index].key else { return }
        entries[index].key = key
        siftUp(index)
    }

    /// Gives the first entry a larger key.
    mutating func raiseFirst(to key: Entry.Key) {
        entries[0].key = key
        siftDown(0)
    }

    mutating func remove(at index: Int) {
        let last = entries.count - 1
        if index != last { swap(index, last) }
        entries.removeLast().stands(at: nil)
        guard index < entries.count else { return }
        siftDown(index)
        siftUp(index)
    }

    private mutating func swap(_ first: Int, _ second: Int) {
        entries.swapAt(first, second)
        entries[first].stands(at: first)
        entries[second].stands(at: second)
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0, entries[index].key < entries[(index - 1) / 2].key {
            swap(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var smallest = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < entries.count && entries[child].key < entries[smallest].key {
                smallest = child
            }
            if smallest == index { return }
            swap(index, smallest)
            index = smallest
        }
    }
}
