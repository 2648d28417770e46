import Logging
import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

extension ConnectionDriver {
    // MARK: Driving the session

    /// Performs what the session wants after an input, then arms its timer.
    func pump() {
        if let current { performActions(of: current) } else { performActions(of: nil) }
        armSessionTimer()
        scheduleFlush()
    }

    /// Performs the session's actions. A link that ended meanwhile takes none of them.
    func performActions(of link: DriverLink?) {
        // An action can lead back here through the link (a close is one); the outer loop goes on then.
        guard !isPumping else { return }
        isPumping = true
        defer { isPumping = false }
        var end: SessionEnd?
        while let action = session.nextAction() {
            if case .end(let sessionEnd) = action {
                end = sessionEnd
                continue
            }
            perform(action, link: link)
        }
        if let end, let link, current === link {
            isPumping = false
            sessionEnded(end, link: link)
        }
    }

    private func perform(_ action: ClientAction, link: DriverLink?) {
        switch action {
        case .openLane(let lane): link?.link?.openLane(lane)
        case .prioritize(let lane, let urgency): link?.link?.prioritize(lane, urgency)
        case .send(let frame, let lane):
            if case .publish(let publish) = frame, link?.link != nil { left(publish.id) }
            link?.link?.send(frame, lane: lane)
        case .finishLane(let lane): link?.link?.finishLane(lane)
        case .awaitRoom(let lane): link?.link?.reportWhenDrained(lane)
        case .connected(let connected): if let link { accepted(connected, on: link) }
        case .storeTicket(let ticket):
            keepResumeTicket(StoredSecret(bytes: Array(ticket.ticket.readableBytesView), expiry: ticket.expiry))
        case .published(let channel, let published): acknowledged(channel, published)
        case .refused(let channel, let refused): self.refused(refused, in: channel)
        case .renewProducer: needsNewProducer = true
        case .deliver(let channel, let epoch, let deliver): delivered(channel, epoch, deliver)
        case .skipped(let channel, let epoch, let skip):
            outlets.notices.send(.skipped(channel, skip))
            let end = Position(epoch: epoch, offset: skip.to)
            noteNews(upTo: end, in: channel)
            passed(end, in: channel)
            // The session confirms a range by itself, and where the app owes nothing it did already.
            keepCursor(of: channel)
        case .gap(let channel, let epoch, let gap):
            statistics.gaps += 1
            let lost = MessageGap(from: gap.from, upTo: Position(epoch: epoch, offset: gap.first))
            noteNews(upTo: lost.upTo, in: channel)
            gapsBefore[channel] = lost
            hiddenBehindGaps[channel] = nil
            let lostEnd = gap.from.epoch == epoch && gap.first < gap.from.offset
            if lostEnd { noteEnd(lost.upTo, of: channel) }
            ledger.lost(lost, in: channel)
            // A log that lost its end takes the cursor back with it. What the app keeps itself nobody takes back.
            keepCursor(of: channel)
            if lostEnd, configuration.cursorStore == nil { setBack.insert(channel) }
            outlets.notices.send(.gap(channel, lost))
        case .roomAnswered(let answer, let settings): roomAnswered(answer, settings)
        case .members(let page, let settings): membersArrived(page, settings)
        case .presence(let update): presenceArrived(update)
        case .presenceAnswered(let answer): presenceAnswered(answer)
        case .erasureRefused(let refusal): erasureRefused(refusal)
        case .sendSignal(let signal, let until): sendSignal(signal, until: until, on: link)
        case .signal(let signal, let until): signalArrived(signal, until: until)
        case .history(let result): historyArrived(result)
        case .conversations(let page): conversationsArrived(page)
        case .conversationState(let state): conversationStateArrived(state)
        case .receipt(let receipt): receiptArrived(receipt)
        case .refreshed(let expiry): scheduleRefresh(expiry: expiry)
        case .stopped(let channel): outlets.notices.send(.stopped(channel))
        case .behind(let lag): outlets.notices.send(.behind(lag))
        case .observedAddress(let address):
            outlets.notices.send(.observedAddress(address))
            link?.info?.observedAddress = address
            if let link, let info = link.info, case .connected = outlets.states.latest {
                link.announced = info
                publish(.connected(info))
            }
        case .heartbeatLearned(let knowledge): keep(knowledge)
        case .probePath: if let link { probePath(of: link) }
        case .end: assertionFailure("handled by the caller")
        }
    }

    func armSessionTimer() {
        guard let deadline = session.nextDeadline else {
            sessionTimer?.task.cancel()
            sessionTimer = nil
            return
        }
        if let sessionTimer, sessionTimer.deadline == deadline { return }
        sessionTimer?.task.cancel()
        let task = schedule(in: max(.zero, deadline - clock.now())) { driver in
            driver.sessionTimer = nil
            driver.session.deadlineReached(now: driver.clock.now(), random: &driver.random)
            driver.pump()
        }
        sessionTimer = (deadline, task)
    }

    // MARK: A link's life

    func linkEstablished(_ link: DriverLink) {
        enterNetwork(of: link)
        // What was not known to leave follows once that is durable, as a message does that comes now.
        attemptAll()
        if let limit = link.link?.laneLimit { session.lanesAllowed(limit) }
        session.linkOpened(
            credential: link.credential, connectNumber: connectNumber,
            supportsPathChange: link.mobile != nil && link.isMigrationSafe,
            outbox: outbox.inOrder.filter { !unwritten.contains($0.id) && !unmarked.contains($0.id) }.map(outboxRow),
            now: clock.now())
        pump()
    }

    private func accepted(_ connected: Connected, on link: DriverLink) {
        attemptTimer?.cancel()
        link.connectedAt = clock.now()
        link.sleptBefore = timeSlept
        // A link that came up with early data had no address yet.
        enterNetwork(of: link)
        staleRefusals = 0
        plan.connected()
        statistics.connects += 1
        if connected.resumed { statistics.resumedSessions += 1 }
        if link.handshake?.earlyDataAccepted == true { statistics.earlyDataAccepted += 1 }
        for answer in connected.channels { learnUser(fromChannel: answer.channel) }
        keepDevice(of: link.credential)
        noteHeads(connected.channels)
        forgetEndedStays(version: connected.cursorVersion)
        serverClock = (connected.serverTime, clock.now())
        hiddenLimit = Int(clamping: connected.limits.channelWindow / 4)
        // The session has ended it already, to say its own cursors on the next one for instance: nothing can be asked over it.
        guard session.isConnected else { return }
        phase = .connected
        attempts = 0
        isAwaited = false
        let info = ConnectionInfo(
            session: connected.session, resumed: connected.resumed,
            earlyData: link.handshake?.earlyDataAccepted ?? false,
            transportResumed: link.handshake?.resumed ?? false, link: link.link?.kind ?? .quic,
            accessPoint: link.accessPoint, localAddress: link.mobile?.localAddress.map(describe),
            remoteAddress: link.link?.remoteAddress ?? "", observedAddress: connected.observedAddress,
            handshakeTime: Duration(link.handshake?.duration ?? .zero),
            connectTime: Duration(clock.now() - link.startedAt), channels: connected.channels)
        link.info = info
        link.announced = info
        outlets.lastFailure.set(nil)
        if isErasureOpen {
            // A service that keeps a session up has not erased its user.
            _ = schedule(in: .minutes(1)) { driver in
                if driver.current === link, driver.erasure == nil { driver.isErasureOpen = false }
            }
        }
        publish(.connected(info))
        resolveConnectWaiters(nil)
        scheduleRefresh(expiry: connected.credentialExpiry)
        presenceConnected()
        for id in roomRequests.keys { roomRequests[id]?.isSent = false }
        sendRoomRequests()
        sendReads()
    }

    private func sessionEnded(_ end: SessionEnd, link: DriverLink) {
        link.farewell = end.close
        endCurrent(farewell: end.close)
        if link.connectedAt == nil { statistics.failedAttempts += 1 }
        if needsNewProducer { return linkEnded(.renewed, link: link) }
        if end.byServer { return linkEnded(.closed(end.close), link: link) }
        // What was found then counts: the app may have read since.
        if let awayForUnread { return linkEnded(.unread(awayForUnread), link: link) }
        switch end.close.code {
        case .idle: linkEnded(.unanswered("the path stopped to answer"), link: link)
        case .connectTimeout:
            linkEnded(.failed(ClientError(.connectFailed, message: "the service did not answer in time")), link: link)
        default: linkEnded(.closed(end.close), link: link)
        }
    }

    // MARK: Delivery

    private func delivered(_ channel: ChannelID, _ epoch: Epoch, _ deliver: Deliver) {
        let entry = deliver.entry
        let position = Position(epoch: epoch, offset: entry.offset)
        noteChange(entry, at: position, in: channel)
        noteStay(entry, at: position, in: channel)
        if entry.kind == .request || entry.kind == .reply {
            if !wasHandedOver(position, in: channel) { requestDelivered(entry, at: position) }
            return passed(position, in: channel)
        }
        let isOwn = isOwn(entry)
        if isOwn, isHidden(entry, in: channel) { return passed(position, in: channel) }
        let delivery = ledger.delivered(position, in: channel)
        statistics.delivered += 1
        outlets.messages.append(
            Message(
                entry, in: channel, epoch: epoch, redelivered: deliver.redelivered, isOwn: isOwn,
                gapBefore: gapsBefore.removeValue(forKey: channel),
                confirmer: MessageConfirmer(inbox: outlets.confirmations, delivery: delivery)))
        if awayForUnread == nil, let reason = tooMuchUnread {
            awayForUnread = reason
            session.close(Close(code: .normal, reason: reason), now: clock.now())
        }
    }

    /// Whether one of this device's own messages goes by unseen, and leaves the gap before it to the next message of somebody else.
    ///
    /// It stays unconfirmed until the app confirms the gap, and the service sends no more than a window of those: where too much would
    /// wait, it is delivered, as the message that tells of the gap might never come.
    private func isHidden(_ entry: Entry, in channel: ChannelID) -> Bool {
        guard configuration.ownMessages == .hidden else { return false }
        guard gapsBefore[channel] != nil else { return true }
        let hidden = hiddenBehindGaps[channel, default: 0] + entry.payload.readableBytes + 128
        guard hidden <= hiddenLimit else { return false }
        hiddenBehindGaps[channel] = hidden
        return true
    }

    /// Why no more may come before the app has read; nil: more may.
    private var tooMuchUnread: String? {
        outlets.messages.weight <= unreadLimit
            ? nil : "over \(unreadLimit) bytes of messages wait for the app to read them"
    }

    /// Up to here the app has to read before a client that stays away comes back: with less room it would leave again.
    var unreadMark: Int { unreadLimit / 2 }

    /// Looks whether the app has read.
    /// - Returns: why the client stays away all the same.
    func stillAwayForUnread() -> String? {
        if outlets.messages.weight <= unreadMark { awayForUnread = nil }
        awayForUnread = awayForUnread ?? tooMuchUnread
        return awayForUnread
    }

    /// The app has read as much as a client waits for that stays away.
    func appHasRead() {
        noticeTime()
        if awayForUnread != nil { connectNow() }
    }

    /// Whether this very outbox sent it.
    func isOwn(_ entry: Entry) -> Bool {
        entry.producer == outbox.producer && entry.publishID != 0
    }

    private func passed(_ position: Position, in channel: ChannelID) {
        if let reached = ledger.passed(position, in: channel) { confirm(reached, in: channel) }
    }

    /// Nothing that the app has in hand is up to here.
    func confirm(_ position: Position, in channel: ChannelID) {
        session.confirm(channel: channel, position: position, now: clock.now())
        // A message that stands where the log ends now says nothing of what is lost behind it.
        if gapsBefore[channel] != nil, !ledger.owesGap(in: channel) { gapsBefore[channel] = nil }
        keepCursor(of: channel)
    }

    /// Makes durable what the session holds for confirmed, which alone knows the log's epoch and end.
    private func keepCursor(of channel: ChannelID) {
        guard let cursor = session.cursor(of: channel), !wasHandedOver(cursor, in: channel) else { return }
        pending.cursors[channel] = cursor
        pending.forgottenCursors.remove(channel)
    }

    /// Whether an earlier process was done with a place of the inbox, but for messages, of which the app keeps its own record.
    private func wasHandedOver(_ position: Position, in channel: ChannelID) -> Bool {
        guard let last = handedOver[channel], last.epoch == position.epoch else { return false }
        return position.offset <= last.offset
    }

    /// A log that ends before what this device keeps of it lost its end since. Where all that the session knows of is before that end,
    /// no gap tells of it.
    private func noteHeads(_ answers: [ChannelAnswer]) {
        for answer in answers { noteEnd(answer.head, of: answer.channel) }
    }

    /// What is entered beyond a log's end from now on was neither handed over nor read, and is no request of this device's.
    private func noteEnd(_ end: Position, of channel: ChannelID) {
        forgetReads(beyond: end, in: channel)
        forgetRequests(beyond: end, in: channel)
        forgetStay(beyond: end, in: channel)
        guard wasHandedOver(end, in: channel), handedOver[channel] != end else { return }
        handedOver[channel] = end
        pending.cursors[channel] = end
    }

    /// Takes in what the app confirmed.
    func drainConfirmations() {
        // They wait for the next driver.
        guard !isRetired else { return }
        noticeTime()
        for (channel, item) in outlets.confirmations.drain() {
            if let reached = ledger.confirmed(item, in: channel) { confirm(reached, in: channel) }
        }
        pump()
    }
}
