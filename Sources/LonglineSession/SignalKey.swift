package import LonglineWire
package import NIOCore

/// What a newer signal takes the place of: the older one of the same sender, channel and kind.
package struct SignalKey: Hashable, Sendable {
    package let channel: ChannelID
    package let sender: SignalSender?
    package let kind: SignalKind

    package init(_ signal: Signal) {
        channel = signal.channel
        sender = signal.sender
        kind = signal.kind
    }
}

extension Signal {
    /// Until when it is worth delivering, counted from `now`.
    package func expiry(from now: NIODeadline) -> NIODeadline {
        now + .milliseconds(Int64(min(deadline, FrameLimits.maximumSignalDeadline)))
    }

    /// The same with the time that is left, or nil when it is too late.
    package func remaining(until: NIODeadline, now: NIODeadline) -> Signal? {
        let milliseconds = (until - now).nanoseconds / 1_000_000
        guard milliseconds > 0 else { return nil }
        var signal = self
        signal.deadline = UInt64(milliseconds)
        return signal
    }
}
