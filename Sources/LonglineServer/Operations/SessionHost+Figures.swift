import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// What of a session is measured for operators.
struct SessionFigures {
    /// In milliseconds since 1970; 0 before the grant.
    var grantedAt: UInt64 = 0
    /// When the last heartbeat came.
    var lastHeartbeat: NIODeadline?
}

extension SessionHost {
    /// What an operator sees of it; nil before the grant and after the end.
    var info: SessionInfo? {
        guard phase == .granted || phase == .established, let identity, let link else { return nil }
        return SessionInfo(
            session: sessionNumber, device: identity.device, platform: identity.platform,
            loginEpoch: identity.loginEpoch, transport: link.kind, remoteAddress: link.remoteAddress,
            connectedAt: figures.grantedAt, agent: connect?.agent ?? "")
    }

    func noteHeartbeat() {
        let now = self.now
        if let last = figures.lastHeartbeat {
            loop.statistics.heartbeatInterval.record(Double((now - last).nanoseconds) / 1e9)
        }
        figures.lastHeartbeat = now
    }

    /// Beyond this an entry is caught up with, not delivered as it comes.
    private static let latestDelivery: UInt64 = 60_000

    func noteDelivery(of entry: Entry) {
        let time = core.time()
        guard time <= entry.time + Self.latestDelivery else { return }
        loop.statistics.deliveryLatency.record(Double(time > entry.time ? time - entry.time : 0))
    }
}

extension ServerLoop {
    /// Counts a handshake that came to its end, whatever the connection is for.
    func noteHandshake(resumed: Bool, earlyDataAccepted: Bool) {
        if earlyDataAccepted {
            statistics.handshakesEarly += 1
        } else if resumed {
            statistics.handshakesResumed += 1
        } else {
            statistics.handshakesFull += 1
        }
    }
}
