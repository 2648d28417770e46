/// Connections that wait for room in their address's share, the one with the fewest bytes to send first. A connection that has more than
/// when it came costs nothing until it is first; one that has fewer has to be set again.
struct SendWaiters {
    private struct Entry: IndexedHeapEntry {
        /// Bytes that the connection has to send, or less.
        var key: Int
        /// It leaves before it is gone, and holds the memory that this is part of.
        unowned var connection: QUICEngineConnection

        func stands(at index: Int?) { connection.sendWaiterIndex = index }
    }

    private var heap = IndexedHeap<Entry>()

    var isEmpty: Bool { heap.isEmpty }

    /// Lets a connection wait, with the bytes that it has now.
    mutating func set(_ connection: QUICEngineConnection) {
        let bytes = connection.sendBufferBytes
        guard let index = connection.sendWaiterIndex else {
            return heap.append(Entry(key: bytes, connection: connection))
        }
        heap.lower(at: index, to: bytes)
    }

    /// The one with the fewest bytes.
    var first: QUICEngineConnection? {
        mutating get {
            while let top = heap.first, top.connection.sendBufferBytes > top.key {
                heap.raiseFirst(to: top.connection.sendBufferBytes)
            }
            return heap.first?.connection
        }
    }

    /// It waits no more, if it did.
    mutating func remove(_ connection: QUICEngineConnection) {
        if let index = connection.sendWaiterIndex { heap.remove(at: index) }
    }
}
