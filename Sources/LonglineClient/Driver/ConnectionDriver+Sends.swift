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
        for message in unentered.values { message.tracker?.end(error) }
        trackers = [:]
        unentered = [:]
    }

    /// A row left the outbox, as the service has the message.
    func entered(_ row: StoredPublish, _ published: Published) {
        leftRows.remove(row.id)
        let outcome = row.outcome(.acknowledged(published))
        pending.outcomes.append(outcome)
        outlets.room.send(())
        tell(outcome, trackers.removeValue(forKey: row.id))
    }

    /// A row leaves the outbox whose message will not be entered. A later process that finds it on the disk publishes it all the same,
    /// so nobody is told before it is gone from there: ``becameDurable(_:)``.
    /// - Parameter isNoticed: a notice tells it also where somebody follows the message.
    /// - Returns: false for a row that isn't there.
    @discardableResult
    func endUnentered(_ id: PublishID, as state: SendState, isNoticed: Bool = false) -> Bool {
        guard let row = outbox.rows[id] else { return false }
        var status = status(row)
        if state != .cancelled { status.isCancellable = false }
        takeOut(id)
        leftRows.remove(id)
        pending.outcomes.append(row.outcome(state))
        unentered[row.send] = UnenteredMessage(
            status: status, end: state, isNoticed: isNoticed, tracker: trackers.removeValue(forKey: id))
        outlets.room.send(())
        return true
    }

    /// It is on disk how these ended.
    func becameDurable(_ written: [StoredOutcome]) {
        for outcome in written {
            guard let message = unentered.removeValue(forKey: outcome.send) else { continue }
            if outcome.state == .cancelled {
                statistics.cancelled += 1
            } else {
                statistics.refused += 1
                if message.isNoticed || message.tracker == nil {
                    outlets.notices.send(.refused(outcome.channel, ClientError(finished: outcome.state)))
                }
            }
            tell(outcome, message.tracker)
        }
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

    var statuses: [SendStatus] {
        let rows = outbox.inOrder.filter { sends[$0.id] == nil }.map(status)
        if unentered.isEmpty { return rows }
        // By the wall clock is said only where those stand that are out of the outbox: it may have been set since.
        var all: [SendStatus] = []
        var others = unentered.values.map(\.status).sorted { $0.queuedAt < $1.queuedAt }[...]
        for row in rows {
            while let other = others.first, other.queuedAt <= row.queuedAt { all.append(others.removeFirst()) }
            all.append(row)
        }
        return all + others
    }

    func status(of send: SendID) -> SendStatus? {
        if let row = outbox.row(of: send) { return status(row) }
        return unentered[send]?.status ?? outcomes[send]?.status
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
        if let message = unentered[send] {
            let tracker = message.tracker ?? SendTracker(message.status.state)
            unentered[send]?.tracker = tracker
            return SendReceipt(send: send, channel: message.status.channel, tracker: tracker)
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
        if let message = unentered[send] {
            return message.end == .cancelled ? afterDurable(durable) : done(.success(.tooLate(message.status.state)))
        }
        guard let row = outbox.row(of: send) else {
            return done(.success(outcomes[send].map { .tooLate($0.state) } ?? .unknown))
        }
        guard !row.attempted, !unwritten.contains(row.id) else {
            return done(.success(.tooLate(leftRows.contains(row.id) ? .sent : .queued)))
        }
        endUnentered(row.id, as: .cancelled)
        afterDurable(durable)
    }
}

/// A message that was refused, given up or taken back: it is out of the outbox, and its row perhaps not off the disk.
///
/// There are never more than the outbox had rows on the disk: while that takes nothing, nothing comes into the outbox.
struct UnenteredMessage {
    /// What it is until then.
    var status: SendStatus
    /// What it is from then on.
    var end: SendState
    /// Whether a notice tells it also where somebody follows it.
    var isNoticed: Bool
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
