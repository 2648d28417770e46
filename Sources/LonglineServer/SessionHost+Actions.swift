import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// What the session wants done, and when.
extension SessionHost {
    /// Has the loop drain this session before its tick ends, together with others.
    func wake() {
        guard !isDirty, !isDraining else { return }
        isDirty = true
        loop.markDirty(self)
    }

    /// Does what the session wants, until it wants nothing more.
    func drain() {
        isDirty = false
        guard !isDraining else { return }
        isDraining = true
        while phase != .ended, let action = session.nextAction() { perform(action) }
        isDraining = false
        if !confirmed.isEmpty, let device {
            core.cursors.put(device, confirmed)
            confirmed.removeAll(keepingCapacity: true)
        }
        let outlook = session.outlook()
        // First, so that who hides is not seen for a moment.
        applyVisibility()
        reportPresence(outlook.mode)
        note(outlook.mode)
        if phase != .ended { loop.setTimer(id, deadline: outlook.deadline) }
    }

    /// Has the registry know what the app is to its user now.
    private func note(_ mode: SessionMode) {
        let isInBackground = mode != .foreground
        guard phase == .established, isInBackground != isKnownInBackground, let device else { return }
        isKnownInBackground = isInBackground
        core.registry.noteBackground(isInBackground, device, link: id)
        if isInBackground { core.webhooks?.left(device.userKey) }
    }

    func perform(_ action: ServerAction) {
        // Of a link that is refused as its device's session nothing takes effect.
        if phase == .granted, action.takesEffect { return hold(action) }
        switch action {
        case .send(let frame, let lane): send(frame, lane: lane)
        case .openLane(let lane): link?.openLane(lane)
        case .prioritize(let lane, let urgency): link?.prioritize(lane, urgency)
        case .finishLane(let lane): link?.finishLane(lane)
        case .awaitDelivery(let lane, let question): link?.reportWhenDelivered(lane, question: question)
        case .append(let channel, let producer, let publish):
            guard let device else { return }
            let request = AppendRequest(device: device, producer: producer, channel: channel, publish: publish)
            if mustHold { hold(request) } else { submit(request) }
        case .refuse(let channel, let producer, let publish, let code):
            guard let device else { return }
            let request = AppendRequest(device: device, producer: producer, channel: channel, publish: publish)
            refuse(request, for: code)
        case .read(let channel, let after, let upTo, let maximumBytes):
            guard let tenant = identity?.tenant else { return }
            let key = ChannelKey(tenant: tenant, channel: channel)
            let stretch = ReadQueue.Stretch.next(after: after, upTo: upTo, maximumBytes: maximumBytes)
            loop.read(ReadQueue.Key(channel: key, stretch: stretch), for: self)
        case .readHistory(let read): readHistory(read)
        case .readPayload(let read): readPayload(read)
        case .storeCursor(let channel, let position):
            if let device { core.webhooks?.confirmed(device.userKey, channel, position) }
            confirmed.append(ChannelPosition(channel: channel, position: position))
        case .authenticate(let connect):
            if let link { session.lanesAllowed(link.laneLimit) }
            authenticate(connect)
        case .refresh(let token): refresh(token)
        case .join(let request): submit(RoomWork(request, .join(create: true)))
        case .leave(let request): submit(RoomWork(request, .leave))
        case .manage(let command): submit(RoomWork(command))
        case .listMembers(let request): listMembers(request)
        case .markRead(let mark): markRead(mark)
        case .delivered(let sender, let origin): delivered(sender: sender, origin: origin)
        case .listConversations(let request): listConversations(request)
        case .changeConversation(let change): changeConversation(change)
        case .signal(let signal, let until): relay(signal, until: until)
        case .signalDropped(let reason): dropped(reason)
        case .sendSignal(let signal, let until): send(signal, until: until)
        case .watch(let request): watch(request)
        case .unwatch(let users): unwatch(users)
        case .setVisibility(let visibility): setVisibility(visibility)
        case .forget(let channel): forgetStint(channel)
        case .logout: logOut()
        case .eraseAccount: eraseAccount()
        case .established: establish()
        case .close(let close): finish(close)
        }
    }

    private func send(_ frame: Frame, lane: LaneID) {
        loop.statistics.framesSent += 1
        switch frame {
        case .deliver(let deliver):
            loop.statistics.delivered += 1
            noteDelivery(of: deliver.entry)
        case .batch(let batch):
            loop.statistics.batches += 1
            loop.statistics.delivered += UInt64(session.takeBatchedEntries())
            loop.statistics.batchBytesSaved += UInt64(max(0, batch.saved))
        case .historyPage(let page): count(page)
        case .behind(let lag) where lag.isBehind: loop.statistics.slowConsumers += 1
        case .presence: loop.statistics.presenceSent += 1
        default: break
        }
        link?.send(frame, lane: lane)
    }

    /// Queues a publish for the store.
    func enqueue(_ request: AppendRequest) {
        if !loop.append(request, from: self) { refuseWithoutRoom(request) }
    }

    /// Early data publishes only with the first connect of its number, and not with an outbox's first: a replay could
    /// bring in what its sender was refused the first time, for a reason that is gone since. From the handshake on nothing goes
    /// before the device's session is this one: of a link that is refused then, nothing is entered.
    private var mustHold: Bool { phase != .established && (handshakeComplete || !isFresh) }
}
