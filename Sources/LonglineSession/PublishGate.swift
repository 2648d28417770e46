import DequeModule
import LonglineWire
import NIOCore

/// The publishes of one client in one channel that the store has not answered: their answers leave in their order.
struct PublishGate {
    /// What the store said. Smaller than a frame: hundreds of publishes may wait.
    enum Answer {
        case published(Published)
        case refused(Refused)

        var frame: Frame {
            switch self {
            case .published(let published): .published(published)
            case .refused(let refused): .refused(refused)
            }
        }
    }

    private struct Pending {
        let id: PublishID
        let cost: Int
        var answer: Answer?
    }

    /// Takes no memory of its own while there is none: most channels are only read.
    private var pending: Deque<Pending> = []
    private(set) var bytes = 0

    var count: Int { pending.count }
    var isEmpty: Bool { pending.isEmpty }

    /// A publish was handed to the store (no answer yet) or refused on sight.
    mutating func admit(_ publish: Publish, answer: Answer? = nil) {
        let cost = FrameCost.of(publish)
        pending.append(Pending(id: publish.id, cost: cost, answer: answer))
        bytes += cost
    }

    /// The store answered; false when nothing waits for it.
    mutating func answer(_ id: PublishID, _ answer: Answer) -> Bool {
        guard let index = pending.firstIndex(where: { $0.id == id && $0.answer == nil }) else { return false }
        pending[index].answer = answer
        return true
    }

    /// The next answer whose turn it is.
    mutating func nextAnswer() -> Frame? {
        guard let first = pending.first, let answer = first.answer else { return nil }
        pending.removeFirst()
        bytes -= first.cost
        assert(bytes >= 0)
        return answer.frame
    }
}
