import HeapModule
import NIOCore

/// The deadlines of all sessions of one event loop, behind one scheduled task.
///
/// A session's deadline moves with nearly every packet, mostly later. So each session has at most one entry that counts:
/// an earlier deadline adds an entry, a later one leaves the entry there is, and when that comes up the session is asked
/// anew. An entry is 16 bytes more than a pointer, where a scheduled task would be an allocation per change.
struct LoopTimers {
    private struct Entry: Comparable {
        let deadline: NIODeadline
        let host: UInt64

        static func < (left: Entry, right: Entry) -> Bool { left.deadline < right.deadline }
        static func == (left: Entry, right: Entry) -> Bool { left.deadline == right.deadline }
    }

    private var heap = Heap<Entry>()
    /// The earliest entry of each session.
    private var armed: [UInt64: NIODeadline] = [:]

    /// Entries kept, those that don't count any more included.
    var count: Int { heap.count }

    /// When ``due(now:)`` has something next.
    var next: NIODeadline? { heap.min?.deadline }

    /// A session wants to be called at `deadline`, or not at all.
    mutating func set(_ host: UInt64, deadline: NIODeadline?) {
        guard let deadline else { return }
        if let armed = armed[host], armed <= deadline { return }
        armed[host] = deadline
        heap.insert(Entry(deadline: deadline, host: host))
        compact()
    }

    /// The session is gone.
    mutating func remove(_ host: UInt64) {
        armed[host] = nil
        compact()
    }

    /// Entries that don't count are dropped when they come up, and all of them when they are most of the heap: a session may
    /// leave one behind with each earlier deadline, and a client can ask for many of those.
    private mutating func compact() {
        guard heap.count > 2 * armed.count + 64 else { return }
        heap = Heap(armed.map { Entry(deadline: $0.value, host: $0.key) })
    }

    /// A session whose time may have come; ask it, and ``set(_:deadline:)`` its next deadline. nil when there is none.
    mutating func due(now: NIODeadline) -> UInt64? {
        while let entry = heap.min, entry.deadline <= now {
            heap.removeMin()
            guard armed[entry.host] == entry.deadline else { continue }
            armed[entry.host] = nil
            return entry.host
        }
        return nil
    }
}
