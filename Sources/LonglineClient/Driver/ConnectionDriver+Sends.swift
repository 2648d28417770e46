import LonglineWire
import NIOCore

/// How far each message is, and what the app may know and do about it.
///
/// A row is *attempted* from the moment when it may leave the device: that is durable before it does, so that no later process
/// takes back a message that the service may have.
///
/// Invariant: no row that is not attempted has an attempted one behind it. Batches are written one after the other, so whatever is
/// durably marked of a channel is the beginning of what waits there, and rows leave in their order.
extension ConnectionDriver {
    /// Whether a message that comes now may leave as soon as it is durable: every one before it was marked for this attempt.
    var mayLeaveAtOnce: Bool {
        switch phase {
        case .preparing, .connecting, .connected: attemptedIn == generation
        case .idle, .waiting, .stopped: false
        }
    }

    /// Marks every row as one that may leave, durably with the next flush; and those that come while this attempt lasts.
    func attemptAll() {
        attemptedIn = generation
        let fresh = outbox.attemptAll()
        unmarked.formUnion(fresh)
        pending.attempts += fresh
    }

    /// A publish was handed to a link.
    func left(_ id: PublishID) {
        guard leftRows.insert(id).inserted, let row = outbox.rows[id] else { return }
        trackers[id]?.change(to: .sent)
        outlets.sends.send(status(row).withoutPayload)
    }

    /// Nobody tells anything any more.
    func endTrackers(_ error: ClientError) {
        for tracker in trackers.values { tracker.end(error) }
        for cancelled in cancelling.values { cancelled.tracker?.end(error) }
        trackers = [:]
        cancelling = [:]
    }

    /// A row left the outbox for good.
    func finished(_ row: StoredPublish, _ state: SendState) {
        leftRows.remove(row.id)
        let outcome = row.outcome(state)
        pending.outcomes.append(outcome)
        outlets.room.send(())
        tell(outcome, trackers.removeValue(forKey: row.id))
    }

    /// Tells how a message ended.
    private func tell(_ outcome: StoredOutcome, _ tracker: SendTracker?) {
        let state = outcome.state
        outcomes.add(outcome)
        outlets.sends.send(outcome.status)
        guard let tracker else { return }
        if case .acknowledged(let published) = state {
            requestEntered(tracker, at: published.position)
        } else {
            requestFailed(tracker, ClientError(finished: state))
        }
        tracker.change(to: state)
    }

    // MARK: What the app asks

    var statuses: [SendStatus] { outbox.inOrder.filter { sends[$0.id] == nil }.map(status) }

    func status(of send: SendID) -> SendStatus? {
        if let row = outbox.row(of: send) ?? cancelling[send]?.row { return status(row) }
        return outcomes[send]?.status
    }

    func status(_ row: StoredPublish) -> SendStatus {
        SendStatus(
            send: row.send, channel: row.channel, recipient: row.recipient, queuedAt: row.queuedAt,
            state: leftRows.contains(row.id) ? .sent : .queued, isCancellable: !row.attempted, kind: row.kind,
            payload: row.payload)
    }

    func receipt(for send: SendID) -> SendReceipt? {
        if let row = outbox.row(of: send) {
            let tracker =
                trackers[row.id] ?? core?.sharing?.handOver(send)
                ?? SendTracker(leftRows.contains(row.id) ? .sent : .queued)
            trackers[row.id] = tracker
            return SendReceipt(send: send, channel: row.channel, tracker: tracker)
        }
        if let row = cancelling[send]?.row {
            let tracker = cancelling[send]?.tracker ?? SendTracker()
            cancelling[send]?.tracker = tracker
            return SendReceipt(send: send, channel: row.channel, tracker: tracker)
        }
        guard let outcome = outcomes[send] else { return nil }
        let tracker = SendTracker()
        tracker.change(to: outcome.state)
        return SendReceipt(send: send, channel: outcome.channel, tracker: tracker)
    }

    /// Takes a message out of the outbox before it leaves. `done` is called when that is durable.
    func cancelSend(_ send: SendID, done: @escaping (Result<CancelResult, any Error>) -> Void) {
        if isRetired { return done(.failure(Self.retired)) }
        let durable = { (error: ClientError?) in
            if let error { done(.failure(error)) } else { done(.success(.cancelled)) }
        }
        if cancelling[send] != nil { return afterDurable(durable) }
        guard let row = outbox.row(of: send) else {
            return done(.success(outcomes[send].map { .tooLate($0.state) } ?? .unknown))
        }
        guard !row.attempted, !unwritten.contains(row.id), let given = takeOut(row.id) else {
            return done(.success(.tooLate(leftRows.contains(row.id) ? .sent : .queued)))
        }
        pending.outcomes.append(given.outcome(.cancelled))
        cancelling[send] = Cancellation(row: given, tracker: trackers.removeValue(forKey: given.id))
        outlets.room.send(())
        afterDurable(durable)
    }

    /// It is on disk how these ended. Until then another process may find the row there and publish it, so nobody is told before.
    func becameDurable(_ written: [StoredOutcome]) {
        for outcome in written {
            guard let cancelled = cancelling.removeValue(forKey: outcome.send) else { continue }
            statistics.cancelled += 1
            tell(outcome, cancelled.tracker)
        }
    }
}

/// A message that the app takes back: it is out of the outbox, and not yet on disk.
struct Cancellation {
    var row: StoredPublish
    /// Who follows it.
    var tracker: SendTracker?
}

extension StoredPublish {
    fileprivate func outcome(_ state: SendState) -> StoredOutcome {
        StoredOutcome(send: send, channel: channel, recipient: recipient, queuedAt: queuedAt, state: state)
    }
}

/// The outcomes that are remembered.
struct OutcomeMemory {
    private var bySend: [SendID: StoredOutcome] = [:]
    /// Oldest first.
    private var order: [SendID] = []
    private var forgotten = 0

    init(_ outcomes: [StoredOutcome]) { for outcome in outcomes { add(outcome) } }

    subscript(send: SendID) -> StoredOutcome? { bySend[send] }

    mutating func add(_ outcome: StoredOutcome) {
        if bySend.updateValue(outcome, forKey: outcome.send) == nil { order.append(outcome.send) }
        while bySend.count > StoredOutcome.limit {
            bySend[order[forgotten]] = nil
            forgotten += 1
        }
        if forgotten > StoredOutcome.limit {
            order.removeFirst(forgotten)
            forgotten = 0
        }
    }

    mutating func removeAll() { self = OutcomeMemory([]) }
}
