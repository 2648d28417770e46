public import LonglineWire
public import NIOCore

/// Why a signal was dropped, which nobody is told.
public enum SignalDrop: String, Hashable, Sendable, CaseIterable {
    /// Before the session was up and the handshake complete.
    case early
    /// The credential or the room does not allow it, the user is no member of the room, or was shut out meanwhile.
    case forbidden
    /// Its deadline had passed.
    case expired
    /// One of the two users blocked the other.
    case blocked
    /// The server could not find out whether it may pass it on.
    case failed
    /// More than the session's rate allows.
    case rate
    /// The room has too many devices.
    case audience
    /// The device is in the background or saves power.
    case mode
    /// A newer signal took its place, or a queue was full.
    case replaced
    /// The link had no room for it.
    case link
}

/// Signals: at most once, in no order, neither stored nor acknowledged. Nothing waits for them.
///
/// ```
///   client's SIGNAL --early, right, membership, deadline--> ServerAction.signal --host: rate, room--> other sessions
///   another's signal --relay(): mode, right, membership--> SignalQueue --nextAction()--> ServerAction.sendSignal
/// ```
extension ServerSession {
    /// Signals that wait to be sent to this device; the oldest is dropped beyond it.
    static let maximumSignals = 64

    /// A frame arrived in a datagram, which can only be a signal. Datagrams overtake lanes: what comes before the session is
    /// up is dropped.
    public mutating func receivedDatagram(_ frame: Frame, now: NIODeadline) {
        guard !isClosed else { return }
        lastPacket = max(lastPacket, now)
        guard case .signal(let signal) = frame else {
            return violated(.unexpectedFrame, "a frame that has no place in a datagram", now: now)
        }
        processSignal(signal, now: now)
    }

    /// A `SIGNAL`, from whichever way it came. What is dropped is told to the host only.
    mutating func processSignal(_ signal: Signal, now: NIODeadline) {
        guard case .up = phase, handshakeComplete, let identity else { return drop(.early) }
        guard signal.sender == nil else {
            return violated(.unexpectedFrame, "a signal that names its sender", now: now)
        }
        guard identity.may(.publish, signal.channel), isReachable(signal.channel) else { return drop(.forbidden) }
        guard signal.deadline > 0 else { return drop(.expired) }
        var signal = signal
        signal.sender = SignalSender(user: identity.user, device: identity.device)
        actions.append(.signal(signal, until: signal.expiry(from: now)))
    }

    /// Whether the user may signal there, apart from the credential: a member of the room, or another user's inbox.
    private func isReachable(_ channel: ChannelID) -> Bool {
        guard case .room = channel else { return true }
        return channels[channel]?.isMember == true
    }

    /// A signal of another device is for this one. It never wakes a device that is not in the foreground, and does not wait
    /// for it either: by then something newer counts.
    public mutating func relay(_ signal: Signal, until: NIODeadline, now: NIODeadline) {
        guard case .up = phase, handshakeComplete, let channel = channels[signal.channel], channel.isMember,
            channel.mayReceive
        else { return drop(.forbidden) }
        guard hold.mode == .foreground else { return drop(.mode) }
        guard until > now else { return drop(.expired) }
        if signals.put(RelayedSignal(signal: signal, until: until), for: SignalKey(signal)) > 0 { drop(.replaced) }
    }

    private mutating func drop(_ reason: SignalDrop) {
        if !isClosed { actions.append(.signalDropped(reason)) }
    }

    /// The next signal for the device: behind everything else that is to be done.
    mutating func nextSignal() -> ServerAction? {
        signals.popFirst().map { .sendSignal($0.element.signal, until: $0.element.until) }
    }
}

/// A signal on its way to a device.
struct RelayedSignal: Sendable {
    let signal: Signal
    let until: NIODeadline
}
