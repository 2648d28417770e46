import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// What of a session is measured for operators.
struct SessionFigures {
    /// In milliseconds since 1970; 0 before the grant.
    var grantedAt: UInt64 = 0
    /// When the client said last whether it is in the background, in milliseconds since 1970.
    var upToDateAt: UInt64 = 0
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

    func noteFigures(of frame: Frame) {
        switch frame {
        case .ping: noteHeartbeat()
        // What was held meanwhile waited on purpose.
        case .mode: figures.upToDateAt = core.time()
        default: break
        }
    }

    private func noteHeartbeat() {
        let now = self.now
        if let last = figures.lastHeartbeat {
            loop.statistics.heartbeatInterval.record(Double((now - last).nanoseconds) / 1e9)
        }
        figures.lastHeartbeat = now
    }

    /// Notes how long an entry took, if it was delivered as it came: what was entered before the session is caught up with, however
    /// young, and in the background news wait on purpose.
    func noteDelivery(of entry: Entry) {
        guard entry.time > max(figures.grantedAt, figures.upToDateAt), session.mode == .foreground else { return }
        let time = core.time()
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
