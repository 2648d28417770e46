import Logging
import LonglineLinks
import LonglineSession
import LonglineWire
import NIOCore

extension ConnectionDriver {
    // MARK: Sending

    /// Puts a message into the outbox. `done` is called when it is on disk, or when it can't be.
    func send(
        _ submission: Submission, tracker: SendTracker, done: @escaping (Result<SendReceipt, ClientError>) -> Void
    ) {
        if let error = ending ?? otherUser(token: nil) { return done(.failure(error)) }
        guard let place = place(of: submission.destination) else {
            return afterUserIsKnown { [unowned self] error in
                if let error { done(.failure(error)) } else { send(submission, tracker: tracker, done: done) }
            }
        }
        do throws(ClientError) {
            let row = try add(submission, at: place)
            let receipt = SendReceipt(send: row.send, channel: row.channel, tracker: tracker)
            sends[row.id] = (receipt, done)
            trackers[row.id] = tracker
            scheduleFlush(isAsked: true)
        } catch {
            done(.failure(error))
        }
    }

    /// Where a message goes; nil for a direct one while it isn't known whose device this is.
    func place(of destination: Destination) -> (channel: ChannelID, recipient: UserID?)? {
        switch destination {
        case .room(let room): (.room(room), nil)
        case .all(let broadcast): (.all(broadcast), nil)
        // The sender's own inbox holds the record of a direct message.
        case .user(let other): user.map { (.user($0), other) }
        }
    }

    /// Puts a message into the outbox, to be written with the next flush.
    func add(
        _ submission: Submission, at place: (channel: ChannelID, recipient: UserID?)
    ) throws(ClientError) -> StoredPublish {
        let row = try outbox.add(
            channel: place.channel, recipient: place.recipient, kind: submission.kind,
            timeToLive: submission.timeToLive, queuedAt: submission.queuedAt, tag: random.next(),
            payload: submission.payload, send: submission.send, attempted: mayLeaveAtOnce)
        // The wall clock may have been set since the app sent it, while the storage opened or a token was asked for.
        let age = submission.seen.map { OutboxAge(seen: $0) } ?? OutboxAge(queuedAt: row.queuedAt, clock: clock)
        outbox.note(age, of: row.send)
        unwritten.insert(row.id)
        pending.inserts.append(row.id)
        pending.chains.insert(row.channel)
        statistics.sent += 1
        return row
    }

    func acknowledged(_ channel: ChannelID, _ published: Published) {
        guard let row = outbox.acknowledge(published.id) else { return }
        pending.removes.append(published.id)
        statistics.published += 1
        if trackers[row.id] == nil { outlets.notices.send(.published(channel, published)) }
        entered(row, published)
    }

    func refused(_ refused: Refused, in channel: ChannelID) {
        guard endUnentered(refused.id, as: SendState(refusal: refused.code)) else {
            return session.rowRemoved(refused.id, from: channel, now: clock.now())
        }
        refusedRows[refused.id] = channel
    }

    /// Rows that no frame can carry would end every link that they are sent on, and nothing behind them would ever leave.
    func giveUpUnrepresentable() {
        let rows = outbox.inOrder.filter { !$0.isRepresentable }
        guard !rows.isEmpty else { return }
        for row in rows { giveUpUnrepresentable(row) }
        scheduleFlush()
    }

    func giveUpUnrepresentable(_ row: StoredPublish) {
        giveUp(row, .invalidTarget, "a message that no frame can carry is given up")
    }

    /// The process that put it in allows its outbox more than this one.
    func giveUpTooLarge(_ row: StoredPublish) {
        giveUp(row, .payloadTooLarge, "a message that is larger than the outbox may be is given up")
    }

    /// The client itself refuses a message.
    private func giveUp(_ row: StoredPublish, _ refusal: RefusalCode, _ what: Logger.Message) {
        guard endUnentered(row.id, as: .refused(refusal), isNoticed: true) else { return }
        logger.error(what, metadata: ["send": "\(row.send)", "channel": "\(row.channel)"])
    }

    /// A row leaves the outbox and its channel's chain.
    func takeOut(_ id: PublishID) {
        guard let given = outbox.giveUp(id) else { return }
        pending.removes.append(id)
        if let rechained = given.rechained { pending.rechains[rechained.id] = rechained.after }
        if given.chain != nil { pending.chains.insert(given.row.channel) }
    }

    /// Everything that waits is numbered anew under a new producer.
    func renewProducer() {
        assert(!isFlushing && current == nil)
        needsNewProducer = false
        let producer = ProducerID(high: random.next(), low: random.next())
        logger.notice("the outbox takes a new producer", metadata: ["waiting": "\(outbox.count)"])
        let renumbered = outbox.renew(producer: producer, random: &random)
        func renumber<Value>(_ table: [PublishID: Value]) -> [PublishID: Value] {
            var result: [PublishID: Value] = [:]
            for (id, value) in table {
                if let renewed = renumbered[id] { result[renewed] = value }
            }
            return result
        }
        sends = renumber(sends)
        trackers = renumber(trackers)
        leftRows = Set(leftRows.compactMap { renumbered[$0] })
        unwritten = Set(unwritten.compactMap { renumbered[$0] })
        // The new producer's first batch holds every row with its mark, and none that was refused.
        unmarked = []
        refusedRows = [:]
        pending.producer = producer
        pending.inserts = pending.inserts.compactMap { renumbered[$0] }
        pending.removes = []
        pending.attempts = []
        pending.rechains = [:]
        pending.chains = []
        connectNumber = 0
        staleRefusals = 0
        reservedConnectNumber = 64
        durableConnectNumber = 0
        pending.connectNumber = reservedConnectNumber
        session.producerRenewed(producer)
    }

    /// The session's view of a durable row.
    func outboxRow(_ row: StoredPublish) -> OutboxRow {
        let age = outbox.age(of: row.send) ?? OutboxAge(queuedAt: row.queuedAt, clock: clock)
        return OutboxRow(
            channel: row.channel,
            publish: Publish(
                id: row.id, tag: row.tag, after: row.after, recipient: row.recipient, kind: row.kind,
                timeToLive: age.left(of: row.timeToLive), payload: row.payload),
            queuedAt: age.seen)
    }

    // MARK: Making it durable

    /// Writes what changed, at the end of this tick: everything that the tick changed shares a transaction.
    ///
    /// ```
    ///           changed                  the tick's end           written, and more changed meanwhile
    ///   idle -----------> flushScheduled --------------> isFlushing ---.
    ///    ^  ^                                             |     |  ^   |
    ///    |  '------------------- written -----------------'     |  '---'
    ///    |                                             not written |
    ///    |   shut down                                          v  | a second is over, or somebody waits for what is not written
    ///    '------------------------------------------------- retryTimer
    /// ```
    /// The second becomes two, four and so on, up to a minute, while nothing can be written.
    /// - Parameter isAsked: somebody waits for it, and is told at once when the disk takes nothing.
    func scheduleFlush(isAsked: Bool = false) {
        if session.cursorVersion != storedCursorVersion {
            storedCursorVersion = session.cursorVersion
            pending.cursorVersion = storedCursorVersion
        }
        guard !pending.isEmpty, !isFlushing, !flushScheduled, retryTimer == nil || isAsked else { return }
        flushScheduled = true
        hop { (driver: ConnectionDriver, _: Void) in
            driver.flushScheduled = false
            driver.flush()
        }(())
    }

    /// Calls `done` when everything that changed up to now is on disk, or could not be written.
    func afterDurable(_ done: @escaping (ClientError?) -> Void) {
        if let error = ending { return done(error) }
        if pending.isEmpty && !isFlushing { return done(nil) }
        if pending.isEmpty {
            afterFlush.append(done)
        } else if isFlushing {
            // The batch under way doesn't hold it all.
            afterFlush.append { [unowned self] _ in afterDurable(done) }
        } else {
            afterFlush.append(done)
            flush()
        }
    }

    /// Why nothing is written any more, and nothing is begun; nil: the driver goes on.
    var ending: ClientError? {
        if isRetired { return Self.retired }
        if logout.isOver { return Self.loggedOut }
        return isShutDown ? Self.shutDown : nil
    }

    func flush() {
        guard !isFlushing, !pending.isEmpty, ending == nil else { return }
        stopRetrying()
        isFlushing = true
        let batch = pending
        pending = PendingWrites()
        let changes = batch.changes(outbox: outbox)
        let storage = configuration.storage
        let written = hop { (driver: ConnectionDriver, result: (PendingWrites, ClientError?)) in
            driver.flushed(result.0, error: result.1)
        }
        LoopExecutor.start(on: storageExecutor) {
            do {
                try await storage.apply(changes)
                written((batch, nil))
            } catch let error as ClientError {
                written((batch, error))
            } catch {
                written((batch, ClientError(.storage, message: "the storage failed", cause: error)))
            }
        }
    }

    private func flushed(_ batch: PendingWrites, error: ClientError?) {
        isFlushing = false
        for send in batch.adopted { adopting.remove(send) }
        if let error {
            if error.code == .ownershipLost { onOwnershipLost?() }
            // They wait where they waited before.
            if !batch.adopted.isEmpty { core?.sharing?.takeInAgain() }
            writeFailed(batch, error)
        } else {
            retries = 0
            durableConnectNumber = batch.connectNumber ?? durableConnectNumber
            // What waits now may be the place that the cursor went back to, and what was written one from before.
            if !setBack.isEmpty { setBack = setBack.filter { pending.cursors[$0] != nil } }
            // A new producer's first batch holds every row.
            let marked = Set(batch.attempts)
            let written = Set(batch.inserts)
            // In their order: a row whose mark was written follows the ones before it.
            for id in written.union(marked).sorted() {
                if written.contains(id) { becameDurable(id) }
                if marked.contains(id) { unmarked.remove(id) }
                handToSession(id)
            }
            becameDurable(batch.outcomes)
            if !refusedRows.isEmpty { releaseChannels(batch.removes) }
        }
        let waiting = afterFlush
        afterFlush = []
        for waiter in waiting { waiter(error) }
        pump()
    }

    /// Rows are off the disk: what waits behind those that were refused may leave.
    private func releaseChannels(_ removed: [PublishID]) {
        for id in removed {
            guard let channel = refusedRows.removeValue(forKey: id) else { continue }
            session.rowRemoved(id, from: channel, now: clock.now())
        }
    }

    private func becameDurable(_ id: PublishID) {
        unwritten.remove(id)
        let sent = sends.removeValue(forKey: id)
        if let row = outbox.rows[id], sent != nil {
            outlets.sends.send(status(row).withoutPayload)
        }
        if let (receipt, done) = sent { done(.success(receipt)) }
    }

    /// Hands over a row that is durable, and durably marked as one that may leave.
    private func handToSession(_ id: PublishID) {
        guard let row = outbox.rows[id], row.attempted, !unwritten.contains(id), !unmarked.contains(id) else { return }
        // Without a link the row waits in the outbox; the next link gets all of them.
        guard current?.link != nil, !needsNewProducer else { return }
        let taken = session.enqueue(outboxRow(row), now: clock.now())
        assert(taken, "the outbox holds fewer rows per channel than the session takes")
    }

    private func writeFailed(_ batch: PendingWrites, _ error: ClientError) {
        if error.code == .ownershipLost {
            logger.info("another process owns the outbox now", metadata: ["error": "\(error)"])
        } else {
            logger.error("the durable state was not written", metadata: ["error": "\(error)"])
            outlets.notices.send(.storageFailed(error))
        }
        let adopted = Set(batch.adopted)
        for id in batch.inserts.reversed() {
            unwritten.remove(id)
            guard let given = outbox.giveUp(id) else { continue }
            if let rechained = given.rechained { pending.rechains[rechained.id] = rechained.after }
            let tracker = trackers.removeValue(forKey: id)
            if let tracker, adopted.contains(given.row.send) { core?.sharing?.follow([given.row.send: tracker]) }
            sends.removeValue(forKey: id)?.done(.failure(error))
        }
        if !batch.inserts.isEmpty { outlets.room.send(()) }
        pending.restore(batch)
        guard ending == nil else { return }
        // A disk that takes nothing is asked less and less often, but for those who wait.
        retryTimer = schedule(in: .seconds(min(Self.longestRetry, 1 << Int64(min(retries, 6))))) { driver in
            driver.retryTimer = nil
            driver.retries += 1
            driver.flush()
        }
        // Messages that came meanwhile were not tried; who sent them waits.
        if !pending.inserts.isEmpty { scheduleFlush(isAsked: true) }
    }

    /// In seconds.
    private static let longestRetry: Int64 = 60

    private func stopRetrying() {
        retryTimer?.cancel()
        retryTimer = nil
    }

    static var shutDown: ClientError {
        ClientError(.disconnected, message: "the client is gone", advice: "what waits in the outbox stays there")
    }

    /// The app let go of the client, and it said goodbye: what could not be written by now is not tried again.
    func shutDown() {
        isShutDown = true
        stopRetrying()
        // What is being written is told when that is over; what would have come behind it is not written.
        for id in pending.inserts { sends.removeValue(forKey: id)?.done(.failure(Self.shutDown)) }
        endTrackers(Self.shutDown)
        outlets.finish()
    }
}
