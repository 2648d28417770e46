import Logging
import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

/// How a link ends, and what comes next.
extension ConnectionDriver {
    /// Detaches the current link, which says farewell by itself.
    func endCurrent(farewell: Close) {
        guard let link = current else { return }
        current = nil
        attemptTimer?.cancel()
        if let transport = link.link {
            closing[ObjectIdentifier(link)] = link
            transport.close(farewell.code, reason: farewell.reason)
        } else {
            link.abandon()
        }
        session.linkClosed(now: clock.now())
    }

    /// Detaches the current link without a word.
    func giveUpCurrent() {
        guard let link = current else { return }
        current = nil
        attemptTimer?.cancel()
        link.abandon()
        session.linkClosed(now: clock.now())
    }

    func linkClosed(_ link: DriverLink, reason: LinkCloseReason) {
        if closing.removeValue(forKey: ObjectIdentifier(link)) != nil { return finishDisconnect() }
        guard current === link else { return }
        // What came in the link's last moments counts: an acknowledgement may be among it.
        performActions(of: link)
        guard current === link else { return }
        current = nil
        attemptTimer?.cancel()
        session.linkClosed(now: clock.now())
        // One that never brought a session was no connection to lose: nobody there, or a name that isn't known.
        func lost(_ text: String) -> LinkEnd {
            link.connectedAt == nil ? .failed(ClientError(.connectFailed, message: text)) : .lost(text)
        }
        let end: LinkEnd
        switch reason {
        case .local: end = .lost("closed by this side")
        case .peer(let code, let reason): end = .closed(link.farewell ?? Close(code: code, reason: reason))
        case .idleTimeout: end = lost("nothing came for the idle timeout")
        case .handshakeFailed(let text):
            handshakeFailed(on: link)
            end = .failed(ClientError(.connectFailed, message: text))
        case .handshakeTimeout:
            handshakeTimedOut(on: link)
            end = lost("the handshake took too long")
        case .failed(let text): end = lost(text)
        }
        if link.connectedAt == nil { statistics.failedAttempts += 1 }
        linkEnded(end, link: link)
    }

    /// Decides what comes next. The link is detached already.
    func linkEnded(_ end: LinkEnd, link: DriverLink?) {
        assert(current == nil)
        stopRefreshing()
        pump()
        if case .asked = logout { return logoutAnswered(end) }
        if erasure != nil, erasureEnded(with: end) { return }
        switch phase {
        case .idle, .stopped: return
        case .preparing, .connecting, .connected, .waiting: break
        }
        if erasureWasDone(by: end) { return }
        let lost = ClientError(.notConnected, message: "the connection was lost", advice: "ask again when it is back")
        failHistory(lost)
        failMembers(lost)
        failConversationRequests(lost)
        outlets.presence.connectionLost()
        if case .closed(let close) = end, close.code == .stale { staleRefusals += 1 }
        let uptime = sessionTime(of: link, at: end)
        let step = plan.ended(end, uptime: uptime, usedTicket: link?.usedResumeTicket ?? false, random: &random)
        // What the control layer thinks of a token says nothing about the ticket.
        if step.dropTicket, link != nil { keepResumeTicket(nil) }
        if step.asksAnew { access.doubt(end.isWordOfNode ? .sentAway : .unreached) }
        switch end {
        case .pathGone, .unanswered: isReturn = true
        // Nobody was heard yet on the way back, often for want of a route. Where nobody is in a whole round, that is doubt enough to ask.
        case .failed: break
        case .unread where link == nil: break
        case .closed, .unlocated, .lost, .unread, .renewed: isReturn = false
        }
        let delay = timeToWait(before: step)
        // What follows without a pause still belongs to the attempt that the user came to.
        if step.delay > .zero { isAwaited = false }
        logger.info(
            "link ended", metadata: ["reason": "\(end.reason)", "next": "\(step.kind)", "delay": "\(delay)"])
        switch step.kind {
        case .stop(.replaced) where onReplaced != nil:
            phase = .stopped(.replaced, end.reason)
            let goOn = hop { (driver: ConnectionDriver, reason: String) in
                if !driver.isRetired, case .stopped = driver.phase { driver.stop(.replaced, reason: reason) }
            }
            onReplaced? { [reason = end.reason] in goOn(reason) }
        case .stop(let code): stop(code, reason: end.reason)
        case .reconnect:
            generation += 1
            let cause = end.cause
            outlets.lastFailure.set(cause)
            if delay > .zero { publish(.waiting(delay: delay, cause: cause)) }
            let now = clock.now()
            waitForAttempt(
                at: now + TimeAmount(delay), earliest: now + TimeAmount(step.floor),
                isEager: delay > .zero && delay < step.delay)
            if awayForUnread != nil { outlets.messages.awaitFall(to: unreadMark) }
        }
    }

    /// How long the client waits. Who came during the last attempt, which may have begun hours ago on a device that slept, would have
    /// ended the wait behind it.
    private func timeToWait(before step: NextStep) -> Duration {
        guard isAwaited, step.floor == .zero, plan.target != nil || !access.mustWait(now: clock.now()) else {
            return step.delay
        }
        let now = clock.now()
        if step.delay == .zero || eager.take(now: now) { return .zero }
        return min(step.delay, Duration(eager.wait(now: now, random: &random)))
    }

    /// How long the session of a link was up; nil: it never was.
    private func sessionTime(of link: DriverLink?, at end: LinkEnd) -> Duration? {
        guard let link, let start = link.connectedAt else { return nil }
        // A flow that a firewall lost was good until the last packet, however long it took to notice. On a machine that slept
        // nobody can tell.
        if case .unanswered = end, timeSlept - link.sleptBefore < .seconds(1) {
            return Duration(max(.zero, (link.heardAt ?? start) - start))
        }
        return Duration(clock.now() - start)
    }

    private func waitForAttempt(at time: NIODeadline, earliest: NIODeadline, isEager: Bool) {
        nextAttempt = (time, earliest, isEager)
        let generation = generation
        phase = .waiting(
            schedule(in: max(.zero, time - clock.now())) { driver in
                guard driver.generation == generation else { return }
                if isEager { _ = driver.eager.take(now: driver.clock.now()) }
                driver.beginAttempt()
            })
    }

    /// Stays away until the app acts.
    /// - Parameter cause: what the app is told; nil: what goes with the code.
    func stop(_ code: CloseCode, reason: String, cause: ClientError? = nil) {
        let error = cause ?? ClientError(stoppedBy: code, reason: reason)
        if code == .evicted {
            // The next login comes with a token of its own.
            keepResumeTicket(nil)
            scheduleFlush()
            outlets.notices.send(.evicted(reason: reason, waiting: outbox.count))
        }
        outlets.lastFailure.set(error)
        // Nor does a later turn as the owner of a shared outbox connect by itself.
        core?.sharing?.wantsConnection(false)
        let state: ConnectionState =
            code.policy == .upgrade
            ? .upgradeRequired(code, reason: reason) : .stopped(code, reason: reason)
        becomeIdle(.stopped(code, reason), state, error: error)
    }

    private func noteAwaited() {
        switch phase {
        case .preparing, .connecting:
            if goOnForUser() { return }
            if !isAwaited { goOnForUserInTime() }
            isAwaited = true
        case .idle, .connected, .waiting, .stopped: break
        }
    }

    /// The network came back while the client waited, or its user did: it needn't wait any longer than the service asked for. Of an attempt
    /// that is under way it is noted that somebody waits for it.
    /// - Parameter forUser: the app says so, which it may do in a loop.
    func connectNow(forUser: Bool = false) {
        guard case .waiting(let timer) = phase else { return noteAwaited() }
        let now = clock.now()
        // A control layer that asked to be left alone is, unless there is somewhere to go without it.
        if plan.target == nil, access.mustWait(now: now) { return }
        if let next = nextAttempt {
            var (time, isEager) = (now, false)
            if next.earliest > now {
                time = next.earliest + TimeAmount(plan.spread(random: &random))
            } else if forUser {
                // Its time is drawn already: the least of many draws would be none.
                if next.isEager { return }
                if !eager.take(now: now) { (time, isEager) = (now + eager.wait(now: now, random: &random), true) }
            }
            if time > now {
                guard time < next.at else { return }
                timer.cancel()
                return waitForAttempt(at: time, earliest: next.earliest, isEager: isEager)
            }
        }
        timer.cancel()
        beginAttempt()
    }
}

extension ConnectionState {
    /// One line for logs, without addresses of the peer's view.
    var summary: String {
        switch self {
        case .disconnected: "disconnected"
        case .standby: "standby"
        case .locating(let attempt): "asking the control layer, attempt \(attempt)"
        case .connecting(let attempt, let accessPoint): "connecting to \(accessPoint), attempt \(attempt)"
        case .connected(let info): "connected\(info.resumed ? ", resumed" : "")\(info.earlyData ? ", 0-RTT" : "")"
        case .migrating(let cause): "migrating (\(cause))"
        case .waiting(let delay, let cause): "waiting \(delay): \(cause)"
        case .stopped(let code, let reason): "stopped by \(code.rawValue): \(reason)"
        case .upgradeRequired(let code, let reason): "upgrade required by \(code.rawValue): \(reason)"
        }
    }
}
