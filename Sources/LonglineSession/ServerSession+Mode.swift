import LonglineWire
import NIOCore

/// When a client hears of news: at once, or together with other things.
extension ServerSession {
    mutating func processMode(_ mode: SessionMode, now: NIODeadline) {
        hold.change(to: mode)
        releaseHeld(now: now)
        releasePresence()
    }

    /// Answers a `PING`, now or after the silence it asks for. Of the later answers one waits at a time: a new question
    /// takes the place of the last.
    mutating func processPing(_ ping: Ping, now: NIODeadline) {
        guard ping.answerAfter > 0 else { return answer(nonce: ping.nonce, now: now) }
        guard ping.answerAfter <= configuration.limits.idleTimeout else {
            return violated(.limitExceeded, "an answer later than the idle timeout", now: now)
        }
        pendingPong = PendingPong(nonce: ping.nonce, at: now + .milliseconds(Int64(clamping: ping.answerAfter)))
    }

    /// The silence is over.
    mutating func answerPending(now: NIODeadline) {
        guard let pong = pendingPong, now >= pong.at else { return }
        pendingPong = nil
        answer(nonce: pong.nonce, now: now)
    }

    private mutating func answer(nonce: UInt64, now: NIODeadline) {
        actions.append(.send(.pong(Pong(nonce: nonce, observedAddress: observedAddress)), lane: .control))
        // The radio is awake now.
        releaseHeld(now: now)
        releasePresence()
    }

    /// Tells a channel's sender that there is more to read, now or later.
    mutating func wake(_ channel: ChannelID, now: NIODeadline) {
        guard isHeldBack(channel) else {
            advance(channel, now: now)
            releaseHeld(now: now)
            return
        }
        let time = hold.mode == .lowPower ? configuration.lowPowerHold : configuration.backgroundHold
        if hold.keep(channel, limit: configuration.maximumHeldWakes, atMost: time, now: now) { releaseHeld(now: now) }
    }

    mutating func releaseHeld(now: NIODeadline) {
        sendReceipts()
        guard hold.releaseAt != nil else { return }
        for channel in hold.take() { advance(channel, now: now) }
    }

    func isHeldBack(_ channel: ChannelID) -> Bool {
        switch hold.mode {
        case .foreground: false
        case .background: !isUrgent(channel)
        case .lowPower: !channel.isInbox
        }
    }

    /// Whether a channel's news are worth waking a device for.
    private func isUrgent(_ channel: ChannelID) -> Bool { channel.isInbox || urgency(of: channel) == .control }
}

extension ChannelID {
    fileprivate var isInbox: Bool {
        if case .user = self { true } else { false }
    }
}

/// A `PONG` that leaves later.
struct PendingPong {
    let nonce: UInt64
    let at: NIODeadline
}
