import LonglineWire
import NIOCore

/// Holds a channel's acknowledgement back until it is worth a frame: after a number of confirmed entries, or a delay.
struct AckCoalescer {
    private(set) var offset: Offset?
    private var count = 0
    private(set) var due: NIODeadline?

    /// The app confirmed up to `offset`.
    mutating func confirmed(_ offset: Offset, every: Int, delay: TimeAmount, now: NIODeadline) {
        self.offset = max(offset, self.offset ?? 0)
        count += 1
        let latest = now + delay
        due = count >= every ? now : min(due ?? latest, latest)
    }

    /// The server sent what was confirmed before: it has to be told again, at once.
    mutating func repeatNow(_ offset: Offset, now: NIODeadline) {
        self.offset = max(offset, self.offset ?? 0)
        due = now
    }

    /// The acknowledgement, when its time has come.
    mutating func take(now: NIODeadline) -> Offset? {
        guard let offset, let due, now >= due else { return nil }
        clear()
        return offset
    }

    mutating func clear() { self = AckCoalescer() }
}
