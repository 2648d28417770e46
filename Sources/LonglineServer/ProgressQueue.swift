import LonglineStore
import LonglineWire
import NIOCore

/// What the users of one event loop read, and which of their devices got what: gathered for a moment, then stored and told.
///
/// ```
///            put                  receipt delay                    the store answered
///   empty --------> gathering -------------------> under way ---------------------------> empty, or gathering
///                                                     |  put: gathered for the next turn
///                                                     '--- no room: what was read is kept for the next turn
/// ```
/// Of each user and conversation the newest place counts, so that reading through a thousand messages is one write. Bounded:
/// beyond ``limit`` what comes new is dropped and counted; the places after it say the same and more.
struct ProgressQueue {
    fileprivate struct ReadKey: Hashable {
        let user: UserKey
        let conversation: ChannelID
        let isPrivate: Bool
    }
    fileprivate struct DeliveryKey: Hashable {
        let recipient: UserKey
        let sender: UserID
    }

    /// Places of each kind that are gathered.
    static let limit = 16_384
    /// Places that one write stores: what publishes wait for at most, and well below what the store's queue takes at once.
    static let writeSize = 500
    /// How many times longer the next turn waits after a write that failed.
    static let failureDelays: Int64 = 20

    fileprivate var reads: [ReadKey: ReadNote] = [:]
    fileprivate var deliveries: [DeliveryKey: DeliveryNote] = [:]
    fileprivate var isScheduled = false
    fileprivate var isUnderWay = false

    var isEmpty: Bool { reads.isEmpty && deliveries.isEmpty && !isUnderWay }

    /// - Returns: whether there was room.
    fileprivate mutating func put(_ note: ReadNote) -> Bool {
        let user = UserKey(tenant: note.tenant, user: note.user)
        let key = ReadKey(user: user, conversation: note.mark.conversation, isPrivate: note.mark.isPrivate)
        if let known = reads[key]?.mark.position, known.epoch == note.mark.position.epoch,
            known.offset >= note.mark.position.offset
        {
            return true
        }
        guard reads[key] != nil || reads.count < Self.limit else { return false }
        reads[key] = note
        return true
    }

    fileprivate mutating func put(_ note: DeliveryNote) -> Bool {
        let key = DeliveryKey(
            recipient: UserKey(tenant: note.tenant, user: note.recipient), sender: note.sender)
        guard deliveries[key] != nil || deliveries.count < Self.limit else { return false }
        // Offsets grow over epochs, too, and copies from before a restore name the epoch of then.
        if let known = deliveries[key]?.origin, known.offset >= note.origin.offset { return true }
        deliveries[key] = note
        return true
    }

    fileprivate mutating func take() -> (reads: [ReadNote], deliveries: [DeliveryNote]) {
        defer {
            reads = [:]
            deliveries = [:]
        }
        return (Array(reads.values), Array(deliveries.values))
    }
}

/// What one write of places came to.
private struct Reading: Sendable {
    let notes: [ReadNote]
    let result: Result<[ReadOutcome?], StoreError>
}

/// Who is told of a receipt.
struct ReceiptTold: Sendable {
    enum Audience: Hashable, Sendable {
        /// Every session of a user.
        case user(UserKey)
        /// Every session that follows a room.
        case room(ChannelKey)
    }

    let audience: Audience
    let receipt: Receipt
}

extension ServerLoop {
    /// Takes note of what a user read.
    func put(_ note: ReadNote) {
        if !progress.put(note) { statistics.readsDropped += 1 }
        scheduleProgress()
    }

    /// Takes note of a direct message that reached a device.
    func put(_ note: DeliveryNote) {
        // What is dropped is told with the next message, or by the list of conversations.
        _ = progress.put(note)
        scheduleProgress()
    }

    private func scheduleProgress(delays: Int64 = 1) {
        guard !progress.isScheduled, !progress.isUnderWay else { return }
        progress.isScheduled = true
        let reference = reference
        let delay = TimeAmount.nanoseconds(core.limits.receiptDelay.nanoseconds * delays)
        eventLoop.scheduleTask(in: delay) { reference.loop.value.flushProgress() }
    }

    private func flushProgress() {
        progress.isScheduled = false
        guard !progress.isUnderWay else { return }
        let (reads, deliveries) = progress.take()
        guard !reads.isEmpty || !deliveries.isEmpty else { return checkIdle() }
        progress.isUnderWay = true
        let (core, reference) = (core, reference)
        let number = beginWork()
        Task {
            var readings: [Reading] = []
            for start in stride(from: 0, to: reads.count, by: ProgressQueue.writeSize) {
                let notes = Array(reads[start..<min(start + ProgressQueue.writeSize, reads.count)])
                // What one write finds no room for, the next won't either.
                if case .failure(let error) = readings.last?.result, error.isPassing {
                    readings.append(Reading(notes: notes, result: .failure(error)))
                    continue
                }
                let result = await Result { () async throws(StoreError) in try await core.store.markRead(notes) }
                readings.append(Reading(notes: notes, result: result))
            }
            let reached = await Result { () async throws(StoreError) in
                deliveries.isEmpty ? [] : try await core.store.receipts(for: deliveries)
            }
            reference.execute { [readings] loop in
                loop.progressStored(readings, reached)
                loop.endWork(number)
            }
        }
    }

    private func progressStored(_ readings: [Reading], _ reached: Result<[DeliveryNote?], StoreError>) {
        progress.isUnderWay = false
        var told: [ReceiptTold] = []
        var failed = false
        for reading in readings {
            switch reading.result {
            case .success(let outcomes):
                for (note, outcome) in zip(reading.notes, outcomes) {
                    if let outcome { told += Self.told(note, outcome) }
                }
            case .failure(let error):
                if !failed { core.note(error, in: "read places") }
                failed = true
                // What came meanwhile is newer, and stays.
                if error.isPassing { for note in reading.notes { _ = progress.put(note) } }
            }
        }
        switch reached {
        case .success(let notes): for case let note? in notes { told.append(Self.told(note)) }
        case .failure(let error): core.note(error, in: "receipts")
        }
        if !told.isEmpty {
            for sibling in siblings { sibling.execute { [told] in $0.tell(told) } }
            tell(told)
        }
        // A full disk does not get room in a moment, and publishes need the writer.
        if !progress.isEmpty { scheduleProgress(delays: failed ? ProgressQueue.failureDelays : 1) }
    }

    private static func told(_ note: ReadNote, _ outcome: ReadOutcome) -> [ReceiptTold] {
        let user = UserKey(tenant: note.tenant, user: note.user)
        let receipt = Receipt(
            conversation: note.mark.conversation, user: note.user, kind: .read, position: outcome.position)
        // The reader's own sessions, the asking one among them: so it knows that the place is stored.
        var told = [ReceiptTold(audience: .user(user), receipt: receipt)]
        switch outcome.audience {
        case .nobody: break
        case .members:
            told.append(
                ReceiptTold(
                    audience: .room(ChannelKey(tenant: note.tenant, channel: note.mark.conversation)),
                    receipt: receipt))
        case .peer(let peer, let position):
            told.append(
                ReceiptTold(
                    audience: .user(UserKey(tenant: note.tenant, user: peer)),
                    receipt: Receipt(
                        conversation: .user(note.user), user: note.user, kind: .read, position: position)))
        }
        return told
    }

    private static func told(_ note: DeliveryNote) -> ReceiptTold {
        ReceiptTold(
            audience: .user(UserKey(tenant: note.tenant, user: note.sender)),
            receipt: Receipt(
                conversation: .user(note.recipient), user: note.recipient, kind: .delivered, position: note.origin))
    }

    /// Tells this loop's sessions.
    func tell(_ told: [ReceiptTold]) {
        for each in told {
            switch each.audience {
            case .user(let user): for host in sessions(of: .user(user)) { host.receiptCame(each.receipt) }
            case .room(let room): forEachSubscriber(of: room) { $0.receiptCame(each.receipt) }
            }
        }
        drainDirty()
    }
}
