/// Connections that wait for room in their address's share, the one with the fewest bytes to send first: a binary heap. A connection that
/// has more than when it came costs nothing until it is first; one that has fewer has to be set again.
struct SendWaiters {
    private struct Entry {
        /// What the connection has to send, or less.
        var bytes: Int
        /// It leaves before it is gone, and holds the memory that this is part of.
        unowned var connection: QUICEngineConnection
    }

    private var heap: [Entry] = []

    var isEmpty: Bool { heap.isEmpty }

    /// Lets a connection wait, with the bytes that it has now.
    mutating func set(_ connection: QUICEngineConnection) {
        let bytes = connection.sendBufferBytes
        guard let index = connection.sendWaiterIndex else {
            connection.sendWaiterIndex = heap.count
            heap.append(Entry(bytes: bytes, connection: connection))
            return siftUp(heap.count - 1)
        }
        guard bytes < heap[index].bytes else { return }
        heap[index].bytes = bytes
        siftUp(index)
    }

    /// The one with the fewest bytes.
    var first: QUICEngineConnection? {
        mutating get {
            while let top = heap.first, top.connection.sendBufferBytes > top.bytes {
                heap[0].bytes = top.connection.sendBufferBytes
                siftDown(0)
            }
            return heap.first?.connection
        }
    }

    /// It waits no more, if it did.
    mutating func remove(_ connection: QUICEngineConnection) {
        guard let index = connection.sendWaiterIndex else { return }
        let last = heap.count - 1
        if index != last { swap(index, last) }
        heap.removeLast()
        connection.sendWaiterIndex = nil
        guard index < heap.count else { return }
        siftDown(index)
        siftUp(index)
    }

    private mutating func swap(_ first: Int, _ second: Int) {
        heap.swapAt(first, second)
        heap[first].connection.sendWaiterIndex = first
        heap[second].connection.sendWaiterIndex = second
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        while index > 0, heap[index].bytes < heap[(index - 1) / 2].bytes {
            swap(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var smallest = index
            for child in [2 * index + 1, 2 * index + 2]
            where child < heap.count && heap[child].bytes < heap[smallest].bytes {
                smallest = child
            }
            if smallest == index { return }
            swap(index, smallest)
            index = smallest
        }
    }
}
