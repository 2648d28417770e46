import DequeModule
import LonglineWire

/// What came in a channel on the present link and the app has not confirmed, weighed as the server weighs it.
///
/// The server counts at least as much of each epoch: it learns of a confirmation later than the session does, and counts what it
/// repeats too. So a server that keeps to the window is never over it here.
struct UnconfirmedItems {
    private var items: Deque<(offset: Offset, cost: Int)> = []
    private var epoch: Epoch = 0
    private var cost = 0

    /// Whether the server had to wait before it sent something more of `epoch`.
    func fill(_ window: Int, epoch: Epoch) -> Bool { self.epoch == epoch && cost >= window }

    /// An entry, a range or a gap was taken.
    mutating func took(_ position: Position, cost: Int) {
        if epoch != position.epoch {
            self = UnconfirmedItems()
            epoch = position.epoch
        }
        items.append((position.offset, cost))
        self.cost += cost
    }

    /// The app is done with everything up to `position`.
    mutating func confirmed(_ position: Position) {
        guard position.epoch == epoch else { return }
        while let first = items.first, first.offset <= position.offset {
            cost -= first.cost
            items.removeFirst()
        }
    }
}
