import LonglineWire
import NIOCore

/// Channels whose news wait, because nobody looks at them and each delivery wakes a radio.
///
/// Only the wake waits: what is delivered, and in which order, is the channel's sender's affair, which reads the log from
/// where it stands. A channel is kept once, however often its log grew; together they wait at most
/// ``ServerSessionConfiguration/backgroundHold`` (or ``ServerSessionConfiguration/lowPowerHold``), or until
/// ``ServerSessionConfiguration/maximumHeldWakes`` wakes.
struct DeliveryHold {
    private(set) var mode = SessionMode.foreground
    /// When what waits goes out; nil: nothing waits.
    private(set) var releaseAt: NIODeadline?
    private var channels: [ChannelID] = []
    private var known: Set<ChannelID> = []
    private var wakes = 0

    /// Changes the mode; what waited so far is to be released.
    mutating func change(to mode: SessionMode) { self.mode = mode }

    /// Keeps a channel's wake.
    /// - Returns: whether there are enough of them now.
    mutating func keep(_ channel: ChannelID, limit: Int, atMost time: TimeAmount, now: NIODeadline) -> Bool {
        if known.insert(channel).inserted { channels.append(channel) }
        wakes += 1
        releaseAt = releaseAt ?? now + time
        return wakes >= limit
    }

    /// The channels that waited, in the order in which they woke.
    mutating func take() -> [ChannelID] {
        defer { self = DeliveryHold(mode: mode) }
        return channels
    }

    init(mode: SessionMode = .foreground) { self.mode = mode }
}
