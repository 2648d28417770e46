import Logging
import LonglineSession
import LonglineWire
import NIOCore

extension ConnectionDriver {
    // MARK: Sending

    /// Puts a message into the outbox. `done` is called when it is on disk, or when it can't be.
    func send(
        _ payload: ByteBuffer, _ kind: PublishKind = .message, to destination: Destination, timeToLive: UInt64,
        outcome: Outcome<Published>, done: @escaping (Result<SendReceipt, ClientError>) -> Void
    ) {
        let channel: ChannelID
        var recipient: UserID?
        switch destination {
        case .room(let room): channel = .room(room)
        case .all(let broadcast): channel = .all(broadcast)
        case .user(let other):
            // The sender's own inbox holds the record of a direct message.
            guard let user else {
                return done(
                    .failure(
                        ClientError(
                            .unknownUser, message: "the token has not told yet which user this is",
                            advice: "connect once, or name the user in the configuration")))
            }
            channel = .user(user)
            recipient = other
        }
        do throws(ClientError) {
            let row = try outbox.add(
                channel: channel, recipient: recipient, kind: kind, timeToLive: timeToLive, queuedAt: clock.wall(),
                tag: random.next(), payload: payload)
            let receipt = SendReceipt(channel: channel, outcome: outcome)
            sends[row.id] = (receipt, done)
            receipts[row.id] = outcome
            unwritten.insert(row.id)
            pending.inserts.append(row.id)
            pending.chains.insert(channel)
            statistics.sent += 1
            scheduleFlush()
        } catch {
            done(.failure(error))
        }
    }

    func acknowledged(_ channel: ChannelID, _ published: Published) {
        guard outbox.acknowledge(published.id) != nil else { return }
        pending.removes.append(published.id)
        statistics.published += 1
        if let outcome = receipts.removeValue(forKey: published.id) {
            requestEntered(outcome, at: published.position)
            outcome.resolve(.success(published))
        } else {
            outlets.notices.send(.published(channel, published))
        }
    }

    func refused(_ channel: ChannelID, _ refused: Refused) {
        guard giveUp(refused.id) else { return }
        statistics.refused += 1
        let error =
            refused.code == .outcomeUnknown
            ? ClientError(
                .outcomeUnknown, message: "the service forgot whether it entered the message",
                advice: "look whether the message is there before sending it again", refusal: refused.code)
            : ClientError(
                .refused, message: "the service refused the message: \(refused.code.explanation)",
                refusal: refused.code)
        if let outcome = receipts.removeValue(forKey: refused.id) {
            requestRefused(outcome, error)
            outcome.resolve(.failure(error))
        } else {
            outlets.notices.send(.refused(channel, error))
        }
    }

    /// A row leaves the outbox and its channel's chain.
    private func giveUp(_ id: PublishID) -> Bool {
        guard let given = outbox.giveUp(id) else { return false }
        pending.removes.append(id)
        if let rechained = given.rechained { pending.rechains[rechained.id] = rechained.after }
        if given.chain != nil { pending.chains.insert(given.row.channel) }
        return true
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
        receipts = renumber(receipts)
        unwritten = Set(unwritten.compactMap { renumbered[$0] })
        pending.producer = producer
        pending.inserts = pending.inserts.compactMap { renumbered[$0] }
        pending.removes = []
        pending.rechains = [:]
        pending.chains = []
        connectNumber = 0
        staleRefusals = 0
        reservedConnectNumber = 64
        pending.connectNumber = reservedConnectNumber
        session.producerRenewed(producer)
    }

    /// The session's view of a durable row.
    func outboxRow(_ row: StoredPublish) -> OutboxRow {
        // The wait is measured by the wall clock, the only one that outlives the process; a clock that was set back
        // counts as no wait.
        let wall = clock.wall()
        let waited = wall > row.queuedAt ? wall - row.queuedAt : 0
        let nanoseconds = Int64(clamping: waited).multipliedReportingOverflow(by: 1_000_000)
        let queuedAt = clock.now() - .nanoseconds(nanoseconds.overflow ? .max : nanoseconds.partialValue)
        return OutboxRow(
            channel: row.channel,
            publish: Publish(
                id: row.id, tag: row.tag, after: row.after, recipient: row.recipient, kind: row.kind,
                timeToLive: row.timeToLive, payload: row.payload),
            queuedAt: queuedAt)
    }

    // MARK: Making it durable

    /// Writes what changed, at the end of this tick: everything that the tick changed shares a transaction.
    func scheduleFlush() {
        if session.cursorVersion != storedCursorVersion {
            storedCursorVersion = session.cursorVersion
            pending.cursorVersion = storedCursorVersion
        }
        guard !pending.isEmpty, !isFlushing, !flushScheduled else { return }
        flushScheduled = true
        hop { (driver: ConnectionDriver, _: Void) in
            driver.flushScheduled = false
            driver.flush()
        }(())
    }

    /// Calls `done` when everything that changed up to now is on disk, or could not be written.
    func afterDurable(_ done: @escaping (ClientError?) -> Void) {
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

    func flush() {
        guard !isFlushing, !pending.isEmpty, !logout.isOver else { return }
        isFlushing = true
        let batch = pending
        pending = PendingWrites()
        let changes = batch.changes(outbox: outbox)
        let storage = configuration.storage
        let written = hop { (driver: ConnectionDriver, result: (PendingWrites, ClientError?)) in
            driver.flushed(result.0, error: result.1)
        }
        Task(executorPreference: storageExecutor) {
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
        if let error {
            writeFailed(batch, error)
        } else {
            // A new producer's first batch holds every row.
            let rows = batch.producer == nil ? batch.inserts : batch.inserts.sorted()
            for id in rows { becameDurable(id) }
        }
        let waiting = afterFlush
        afterFlush = []
        for waiter in waiting { waiter(error) }
        pump()
        finishDisconnect()
    }

    private func becameDurable(_ id: PublishID) {
        unwritten.remove(id)
        if let (receipt, done) = sends.removeValue(forKey: id) { done(.success(receipt)) }
        guard let row = outbox.rows[id] else { return }
        // Without a link the row waits in the outbox; the next link gets all of them.
        guard current?.link != nil, !needsNewProducer else { return }
        let taken = session.enqueue(outboxRow(row), now: clock.now())
        assert(taken, "the outbox holds fewer rows per channel than the session takes")
    }

    private func writeFailed(_ batch: PendingWrites, _ error: ClientError) {
        logger.error("the durable state was not written", metadata: ["error": "\(error)"])
        outlets.notices.send(.storageFailed(error))
        for id in batch.inserts.reversed() {
            unwritten.remove(id)
            guard let given = outbox.giveUp(id) else { continue }
            if let rechained = given.rechained { pending.rechains[rechained.id] = rechained.after }
            receipts.removeValue(forKey: id)
            sends.removeValue(forKey: id)?.done(.failure(error))
        }
        pending.restore(batch)
        _ = schedule(in: .seconds(1)) { driver in driver.flush() }
    }

    // MARK: Small durable facts

    func keepResumeTicket(_ ticket: StoredSecret?) {
        resumeTicket = ticket
        pending.resumeTicket = .some(ticket)
    }

    func keepTransportTicket(_ ticket: [UInt8], for accessPoint: AccessPoint) {
        let key = accessPoint.description
        let secret = StoredSecret(bytes: ticket, expiry: clock.wall() + Self.transportTicketLife)
        transportTickets[key] = secret
        pending.transportTickets[key] = .some(secret)
        scheduleFlush()
    }

    /// TLS 1.3 caps a ticket at seven days (RFC 8446 section 4.6.1).
    private static let transportTicketLife: UInt64 = 7 * 86_400_000

    func keepAddressToken(_ token: [UInt8], for accessPoint: AccessPoint) {
        addressTokens[accessPoint.description] = token
        pending.addressTokens[accessPoint.description] = .some(token)
        scheduleFlush()
    }

    func learnUser(fromToken token: String) {
        if user == nil, let subject = TokenSubject.read(from: token) { learn(subject) }
    }

    func learnUser(fromChannel channel: ChannelID) {
        if user == nil, case .user(let inbox) = channel { learn(inbox) }
    }

    private func learn(_ user: UserID) {
        self.user = user
        pending.user = user
    }
}

extension RefusalCode {
    /// What it means, for people.
    var explanation: String {
        switch self {
        case .unknownChannel: "no such channel, or not a member of it"
        case .forbidden: "the token does not allow it"
        case .payloadTooLarge: "the payload is over the service's limit"
        case .storageFull: "the service's store is full"
        case .expired: "its time to live was over"
        case .unknownRecipient: "the recipient isn't known"
        case .unknownTarget: "what it names is not there any more, or never was"
        case .invalidTarget: "what it names can't be named so by this user"
        case .blocked: "this user blocked the recipient"
        case .tooMany: "there are as many as there may be"
        default: "code \(rawValue)"
        }
    }
}
