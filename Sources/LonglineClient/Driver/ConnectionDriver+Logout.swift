import LonglineSession
import LonglineWire
import NIOCore

/// Where a logout stands.
enum LogoutState {
    case none
    /// The service was told, and has not answered yet.
    case asked(DriverTimer, [(LogoutResult) -> Void])
    /// Nothing is written any more; what is told from now on is this.
    case over(LogoutResult)

    var isOver: Bool { if case .over = self { true } else { false } }
}

extension ConnectionDriver {
    /// Tells the service, if there is a session, then ends the client for good. `done` is called when nothing is being
    /// written any more, so that the storage can be wiped.
    func logOut(_ done: @escaping (LogoutResult) -> Void) {
        switch logout {
        case .over(let result): return done(result)
        case .asked(let timer, let waiters): logout = .asked(timer, waiters + [done])
        case .none:
            guard session.logOut(now: clock.now()) else {
                return endForGood(
                    .localOnly(
                        ClientError(
                            .notConnected, message: "the service was not told: there was no connection",
                            advice: "have the backend revoke the device")), [done])
            }
            let timer = schedule(in: TimeAmount(configuration.closeTimeout)) { driver in
                driver.logoutAnswered(.lost("no answer in \(driver.configuration.closeTimeout)"))
            }
            logout = .asked(timer, [done])
            pump()
        }
    }

    /// The link ended after LOGOUT, or nothing came in time.
    func logoutAnswered(_ end: LinkEnd) {
        guard case .asked(let timer, let waiters) = logout else { return }
        timer.cancel()
        if case .closed(let close) = end, close.code == .loggedOut { return endForGood(.acknowledged, waiters) }
        endForGood(
            .localOnly(
                ClientError(
                    .outcomeUnknown, message: "it is not known whether the service took the logout: \(end.reason)",
                    advice: "have the backend revoke the device")), waiters)
    }

    static var loggedOut: ClientError {
        ClientError(
            .loggedOut, message: "the device was logged out", advice: "make another client for the next login",
            closeCode: .loggedOut)
    }

    func endForGood(_ result: LogoutResult, _ waiters: [(LogoutResult) -> Void]) {
        logout = .over(result)
        generation += 1
        question?.cancel()
        if case .waiting(let timer) = phase { timer.cancel() }
        let reason = "logged out"
        phase = .stopped(.loggedOut, reason)
        endCurrent(farewell: Close(code: .normal))
        let error = Self.loggedOut
        answerErasure(error)
        becomeIdle(.stopped(.loggedOut, reason), .stopped(.loggedOut, reason: reason), error: error)
        forgetEverything(error)
        outlets.finish()
        guard isFlushing else { return waiters.forEach { $0(result) } }
        afterFlush.append { _ in waiters.forEach { $0(result) } }
    }

    /// What waited is told that it waits for nothing, and no secret stays in memory.
    private func forgetEverything(_ error: ClientError) {
        sessionTimer?.task.cancel()
        sessionTimer = nil
        for (_, done) in sends.values { done(.failure(error)) }
        sends = [:]
        endTrackers(error)
        resolveUserWaiters(error)
        outcomes.removeAll()
        unwritten = []
        unmarked = []
        pending = PendingWrites()
        outlets.presence.forget(presence.accepted)
        presence = PresenceWishes()
        resumeTicket = nil
        transportTickets = [:]
        addressTokens = [:]
        attemptToken = nil
        access.forget()
    }
}
