import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// What is entered, in groups, and what is read of it.
extension ModelServer {
    func take(_ append: Append) {
        if append.hosted.isFresh || append.hosted.link.isHandshakeComplete {
            self.append(append)
        } else {
            append.hosted.held.append(append)
        }
    }

    func append(_ append: Append) {
        var append = append
        if append.refusal == nil, let user = append.hosted.user, simulation.isDeniedByApp(user) {
            append.refusal = .forbidden
        }
        if let code = append.refusal, has(.refuseWithoutLedger) {
            let refused = Refused(id: append.publish.id, code: code, retryAfter: 0)
            return later(append.hosted) { [weak self] in self?.answer(append, .refused(refused)) }
        }
        if append.refusal != nil, !append.hosted.isEstablished { return append.hosted.unsettled.append(append) }
        guard !random.happens(refusesAppends) else {
            let refused = Refused(id: append.publish.id, code: .overloaded, retryAfter: 30)
            return later(append.hosted) { [weak self] in self?.answer(append, .refused(refused)) }
        }
        pending.append(append)
        if has(.surviveFailedSync), random.happens(0.05) { store.delaySync() }
        if has(.acknowledgeBeforeDurable) || has(.deliverBeforeDurable) {
            store.delaySync()
            let life = life
            scheduler.after(.milliseconds(200)) { [weak self] in if self?.life == life { self?.store.sync() } }
        }
        commitSoon()
    }

    /// What waits goes with the next transaction.
    func commitSoon() {
        guard !isCommitScheduled else { return }
        isCommitScheduled = true
        let life = life
        scheduler.after(.milliseconds(Int64.random(in: 1...12, using: &random))) { [weak self] in
            guard let self, self.life == life else { return }
            commit()
        }
    }

    private func answer(_ append: Append, _ outcome: PublishOutcome) {
        input(append.hosted) {
            $0.appended(channel: append.channel, id: append.publish.id, outcome: outcome, now: $1)
        }
    }

    /// One transaction for all publishes that wait; then the answers, between which the process may die as well.
    private func commit() {
        isCommitScheduled = false
        let batch = pending.filter { $0.hosted.device != nil }
        let orders = pendingService
        pending = []
        pendingService = []
        guard !isDiskFull else { return fail(batch, orders) }
        var outcomes: [(Append, PublishOutcome)] = []
        var replies: [(ServiceAppend, PublishOutcome)] = []
        var woken: Set<ChannelID> = []
        let isDone: Void? = write(torn: {
            for append in batch {
                guard let user = append.hosted.user, let device = append.hosted.device else { continue }
                store.enterAnew(
                    AppendRequest(
                        device: store.key(user, device), producer: append.producer, channel: append.channel,
                        publish: append.publish, refusal: append.refusal))
            }
        }) {
            for append in batch {
                guard let user = append.hosted.user, let device = append.hosted.device else { continue }
                let result = enter(append, user, device)
                outcomes.append((append, result.outcome))
                woken.formUnion(result.woken)
            }
            for order in orders {
                let result = enter(order)
                replies.append((order, result.outcome))
                woken.formUnion(result.woken)
            }
        }
        guard isDone != nil else { return }
        let life = life
        let isDurable = store.isSynced
        for (append, outcome) in outcomes where isDurable || !has(.deliverBeforeDurable) {
            answer(append, outcome)
            guard self.life == life else { return }
        }
        for (order, outcome) in replies {
            order.reply(outcome)
            guard self.life == life else { return }
        }
        if isDurable || !has(.acknowledgeBeforeDurable) { wake(woken) }
    }

    private func enter(_ append: Append, _ user: UserID, _ device: DeviceID) -> (
        outcome: PublishOutcome, woken: Set<ChannelID>
    ) {
        // The first step may have been the last one, and what it does may be why the publish is refused now.
        let isFirstStepTaken = store.truth.partlyErased.contains(user) || !store.isErasing(user)
        if append.hosted.generation < store.generation(of: user), isFirstStepTaken {
            simulation.violation("a publish of \(user) is taken behind the first step of the account's erasure")
        }
        return store.append(
            append.publish, channel: append.channel, user: user, device: device, producer: append.producer,
            refusal: append.refusal)
    }

    /// The disk takes nothing of a transaction: whatever it would have answered, all of its publishes are refused for now.
    private func fail(_ batch: [Append], _ orders: [ServiceAppend]) {
        let life = life
        let answers =
            has(.acknowledgeFailedWrite)
            ? store.undone { batch.map(outcomeIfEntered) }
            : batch.map { Self.withoutRoom($0.publish.id) }
        for (append, outcome) in zip(batch, answers) where self.life == life { answer(append, outcome) }
        for order in orders where self.life == life { order.reply(Self.withoutRoom(order.number)) }
    }

    private func outcomeIfEntered(_ append: Append) -> PublishOutcome {
        guard let user = append.hosted.user, let device = append.hosted.device else {
            return Self.withoutRoom(append.publish.id)
        }
        return enter(append, user, device).outcome
    }

    private static func withoutRoom(_ id: PublishID) -> PublishOutcome {
        .refused(Refused(id: id, code: .storageFull, retryAfter: 30))
    }

    func wake(_ channels: Set<ChannelID>) {
        guard !has(.forgetWakes) else { return }
        for channel in channels.sorted(by: { $0.description < $1.description }) {
            for hosted in inOrder { wake(hosted, channel) }
        }
    }

    func wake(_ hosted: Hosted, _ channel: ChannelID) {
        if hosted.wakes != nil {
            hosted.wakes?.insert(channel)
            return
        }
        guard let user = hosted.user, store.truth.stint(of: user, in: channel) != nil,
            let head = store.head(channel)?.position
        else { return }
        if has(.pushDirectly), let lane = hosted.lanes.first(where: { $0.value.channel == channel })?.key,
            let entry = store.truth.logs[channel]?.entries.last
        {
            send(.deliver(Deliver(entry: entry, redelivered: false)), lane: lane, hosted)
        }
        meet(hosted, channel, user)
        input(hosted) { $0.logAdvanced(channel, head: head, now: $1) }
    }

    /// A broadcast that is newer than the session.
    private func meet(_ hosted: Hosted, _ channel: ChannelID, _ user: UserID) {
        guard case .all = channel, let device = hosted.device, hosted.broadcasts.insert(channel).inserted,
            let news = store.channels(of: user, device).first(where: { $0.channel == channel })
        else { return }
        input(hosted) { $0.channelChanged(news, now: $1) }
    }

    func read(_ channel: ChannelID, after: Offset, upTo: Offset?, bytes: Int, _ hosted: Hosted) {
        guard !random.happens(0.01) else { return input(hosted) { $0.readFailed(channel, now: $1) } }
        do {
            let page = try store.read(channel, after: after, upTo: upTo, maximumBytes: bytes)
            input(hosted) { $0.pageRead(channel, page: page, now: $1) }
        } catch let error as StoreError where error.code == .unknownChannel {
            input(hosted) { $0.logGone(channel, now: $1) }
        } catch {
            simulation.violation("\(channel) can't be read: \(error)")
        }
    }
}
