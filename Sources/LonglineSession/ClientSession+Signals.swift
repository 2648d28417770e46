public import LonglineWire
public import NIOCore

/// Signals: sent now or never, and told to the app while they are worth it.
extension ClientSession {
    /// Sends a signal; it waits nowhere for a connection.
    /// - Returns: false while not connected, or when its deadline is 0: it was dropped.
    public mutating func signal(_ signal: Signal, now: NIODeadline) -> Bool {
        guard phase == .connected, signal.deadline > 0 else { return false }
        actions.append(.sendSignal(signal, until: signal.expiry(from: now)))
        heartbeat?.sent(owed: false, now: now)
        return true
    }

    /// A frame arrived in a datagram, which can only be a signal. One that overtook `CONNECTED` is dropped.
    public mutating func receivedDatagram(_ frame: Frame, now: NIODeadline) {
        guard phase == .connected || phase == .connecting else { return }
        guard case .signal(let signal) = frame else {
            return violated(.unexpectedFrame, "a frame that has no place in a datagram", now: now)
        }
        if phase == .connected { processSignal(signal, now: now) }
        heartbeat?.received(now: now)
    }

    mutating func processSignal(_ signal: Signal, now: NIODeadline) {
        guard signal.sender != nil else {
            return violated(.unexpectedFrame, "a signal without a sender", now: now)
        }
        guard signal.deadline > 0 else { return }
        actions.append(.signal(signal, until: signal.expiry(from: now)))
    }
}
