public import NIOCore

/// A clock that only moves when it is told to, and what is to happen at which of its times.
///
/// Events of the same time happen in the order in which they were scheduled. Not `Sendable`: one thread owns it.
public final class VirtualScheduler {
    private struct Event {
        let time: NIODeadline
        let number: UInt64
        let body: () -> Void

        func isBefore(_ other: Event) -> Bool { time == other.time ? number < other.number : time < other.time }
    }

    /// The virtual time.
    public private(set) var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    /// Events that happened so far.
    public private(set) var count: UInt64 = 0
    /// Told when the time has moved.
    var advanced: () -> Void = {}
    private var nextNumber: UInt64 = 0
    /// A binary heap, earliest first.
    private var heap: [Event] = []

    /// A clock at one second.
    public init() {}

    /// Milliseconds since the clock's zero; serves as a wall clock.
    public var milliseconds: UInt64 { now.uptimeNanoseconds / 1_000_000 }

    /// Schedules an event.
    public func after(_ delay: TimeAmount, _ body: @escaping () -> Void) { at(now + delay, body) }

    /// Schedules an event; a time that has passed means now.
    public func at(_ time: NIODeadline, _ body: @escaping () -> Void) {
        heap.append(Event(time: max(time, now), number: nextNumber, body: body))
        nextNumber += 1
        var child = heap.count - 1
        while child > 0, heap[child].isBefore(heap[(child - 1) / 2]) {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    /// Lets everything happen up to a time, and moves the clock there.
    /// - Parameter limit: of events in all; beyond it nothing happens any more.
    /// - Returns: whether the limit was kept.
    @discardableResult
    public func run(until end: NIODeadline, limit: UInt64 = .max) -> Bool {
        while let first = heap.first, first.time <= end {
            guard count < limit else { return false }
            removeFirst()
            if now != first.time {
                now = first.time
                advanced()
            }
            count += 1
            first.body()
        }
        now = max(now, end)
        advanced()
        return true
    }

    private func removeFirst() {
        let last = heap.removeLast()
        guard !heap.isEmpty else { return }
        heap[0] = last
        var parent = 0
        while true {
            let left = 2 * parent + 1
            guard left < heap.count else { return }
            let right = left + 1
            let child = right < heap.count && heap[right].isBefore(heap[left]) ? right : left
            guard heap[child].isBefore(heap[parent]) else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }
}
