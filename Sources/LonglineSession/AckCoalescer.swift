import LonglineWire
import NIOCore

/// Holds a channel's acknowledgement back until it is worth a frame: after a number of confirmed entries, or a delay.
struct AckCoalescer {
    private(set) var offset: Offset?
    /// The log's life that ``offset`` belongs to: offsets of two lives don't compare.
    private var epoch: Epoch = 0
    private var count = 0
    private(set) var due: NIODeadline?

    /// The app confirmed up to `position`.
    mutating func confirmed(_ position: Position, every: Int, delay: TimeAmount, now: NIODeadline) {
        take(position)
        count += 1
        let latest = now + delay
        due = count >= every ? now : min(due ?? latest, latest)
    }

    /// The server sent what was confirmed before: it has to be told again, at once.
    mutating func repeatNow(_ position: Position, now: NIODeadline) {
        take(position)
        due = now
    }

    /// What waits for its time is sent now.
    mutating func hurry(now: NIODeadline) {
        if due != nil { due = now }
    }

    private mutating func take(_ position: Position) {
        if epoch != position.epoch {
            clear()
            epoch = position.epoch
        }
        offset = max(position.offset, offset ?? 0)
    }

    /// The acknowledgement, when its time has come.
    mutating func take(now: NIODeadline) -> Offset? {
        guard let offset, let due, now >= due else { return nil }
        clear()
        return offset
    }

    mutating func clear() { self = AckCoalescer() }
}
