import LonglineWire
import NIOCore

/// The publishes of one client in one channel that the store has not answered: their answers leave in their order.
struct PublishGate {
    private struct Pending {
        let id: PublishID
        let cost: Int
        var answer: Frame?
    }

    private var pending = CircularBuffer<Pending>()
    private(set) var bytes = 0

    var count: Int { pending.count }
    var isEmpty: Bool { pending.isEmpty }

    /// A publish was handed to the store (no answer yet) or refused on sight.
    mutating func admit(_ publish: Publish, answer: Frame? = nil) {
        let cost = FrameCost.of(publish.payload)
        pending.append(Pending(id: publish.id, cost: cost, answer: answer))
        bytes += cost
    }

    /// The store answered; false when nothing waits for it.
    mutating func answer(_ id: PublishID, _ frame: Frame) -> Bool {
        guard let index = pending.firstIndex(where: { $0.id == id && $0.answer == nil }) else { return false }
        pending[index].answer = frame
        return true
    }

    /// The next answer whose turn it is.
    mutating func nextAnswer() -> Frame? {
        guard let first = pending.first, let answer = first.answer else { return nil }
        pending.removeFirst()
        bytes -= first.cost
        assert(bytes >= 0)
        return answer
    }
}
