import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// Signals go through the session to the link of the moment; none waits for another.
extension ConnectionDriver {
    /// - Returns: false when it was dropped.
    func signal(_ signal: Signal) -> Bool {
        guard case .connected = phase, session.signal(signal, now: clock.now()) else {
            statistics.signalsDropped += 1
            return false
        }
        let dropped = statistics.signalsDropped
        pump()
        return statistics.signalsDropped == dropped
    }

    func sendSignal(_ signal: Signal, until: NIODeadline, on link: DriverLink?) {
        // The link's clock does not count sleep; what matters is the time that is left.
        switch link?.link?.sendSignal(signal, until: .now() + (until - clock.now())) ?? .dropped {
        case .datagram, .lane: statistics.signalsSent += 1
        case .dropped: statistics.signalsDropped += 1
        }
    }

    func signalArrived(_ signal: Signal, until: NIODeadline) {
        guard let sender = signal.sender else { return }
        statistics.signalsReceived += 1
        outlets.signals.send(
            ReceivedSignal(
                channel: signal.channel, sender: sender.user, device: sender.device, kind: signal.kind,
                payload: signal.payload, lifetime: Duration(until - clock.now()), until: until),
            for: SignalKey(signal))
    }
}
