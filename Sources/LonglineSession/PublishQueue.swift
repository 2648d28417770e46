import LonglineWire
import NIOCore

/// One channel's outbox rows: sent in ID order within a window, kept until the server answers, sent again on the next link.
///
/// ```
///  waiting --sent--> inFlight --PUBLISHED--> gone
///     ^                 |-------refused for good--> gone, and the next row's `after` skips it; nothing leaves until
///     |                 |                           the host removed its row from the disk
///     |                 |-------id-reused--> spent (waits for a new producer)
///     '-----------------'  out-of-order, refused for now, link closed
/// ```
///
/// After a refusal that sends rows back to `waiting`, nothing leaves until every answer under way has come (each publish
/// gets exactly one per link); then all leave again in order. So a refusal can never reorder the channel; nor can a process that
/// ends before a refusal is on the disk, and whose next life finds the row again.
struct PublishQueue {
    private enum State { case waiting, inFlight, spent }

    private struct Slot {
        var row: OutboxRow
        var state: State = .waiting
        var cost: Int { FrameCost.of(row.publish) }
    }

    private var slots = CircularBuffer<Slot>()
    /// Every slot before it is in flight or spent.
    private var next = 0
    private(set) var inFlight = 0
    private var inFlightBytes = 0
    /// Whether answers under way are waited for before sending goes on.
    private var isDraining = false
    private(set) var retryAt: NIODeadline?
    /// IDs up to here may have reached the server on some link.
    private var highestSent: PublishID = 0
    /// The last row given up at the end of the queue: a later row that names it continues from its `after`.
    private var givenUp: (id: PublishID, after: PublishID)?
    /// Rows given up that are still on the host's disk.
    private var unremoved: Set<PublishID> = []
    /// A rewind since which no row was answered for good is followed by a pause, so that no refusal can be answered for ever at full speed.
    private var rewound = false
    /// Set while the lane has to be changed: nothing new leaves.
    var isPaused = false

    var count: Int { slots.count }
    var isEmpty: Bool { slots.isEmpty }
    /// Rows whose ID was used with another tag.
    private(set) var spent = 0

    /// Whether rows that may have reached the server still wait for an answer.
    var hasUnresolved: Bool {
        inFlight > 0 || slots.contains { $0.state == .waiting && $0.row.publish.id <= highestSent }
    }

    /// Whether rows wait, and nothing but the window holds them back.
    var isReady: Bool {
        !isDraining && !isPaused && unremoved.isEmpty && retryAt == nil && next < slots.count
    }

    /// The oldest row's ID.
    var firstID: PublishID? { slots.first?.row.publish.id }
    /// What the next publish weighs.
    var nextCost: Int? { next < slots.count ? slots[offset: next].cost : nil }

    // MARK: Rows

    /// Starts a link with every row that waits, in ID order.
    /// - Parameter maySent: whether an earlier process may have sent them.
    mutating func reset(_ rows: [OutboxRow], maySent: Bool) {
        let highest = maySent ? max(highestSent, rows.last?.publish.id ?? 0) : highestSent
        let (givenUp, unremoved) = (givenUp, unremoved)
        self = PublishQueue()
        highestSent = highest
        self.givenUp = givenUp
        self.unremoved = unremoved
        for row in rows { append(row) }
    }

    /// Rows come in ID order; a row that doesn't is the host's mistake and is not taken.
    @discardableResult
    mutating func append(_ row: OutboxRow) -> Bool {
        guard row.publish.id > (slots.last?.row.publish.id ?? 0) else { return false }
        var row = row
        if let givenUp, row.publish.after == givenUp.id { row.publish.after = givenUp.after }
        slots.append(Slot(row: row))
        return true
    }

    // MARK: Sending

    /// Forgets a pause that is over.
    mutating func timePassed(now: NIODeadline) {
        if let time = retryAt, now >= time { retryAt = nil }
    }

    /// The next publish to send, or nil when none may leave now.
    /// - Parameter onlyUnresolved: send only what may have reached the server before.
    mutating func take(
        window: Int, limit: Int, onlyUnresolved: Bool, now: NIODeadline
    ) -> Publish? {
        guard isReady, inFlight < limit else { return nil }
        let slot = slots[offset: next]
        guard inFlight == 0 || inFlightBytes + slot.cost <= window else { return nil }
        if onlyUnresolved, slot.row.publish.id > highestSent { return nil }
        var publish = slot.row.publish
        if next > 0 { publish.after = slots[offset: next - 1].row.publish.id }
        assert(publish.after < publish.id || publish.id == 0)
        if publish.timeToLive > 0 {
            let waited = UInt64(max(0, (now - slot.row.queuedAt).nanoseconds) / 1_000_000)
            // Never 0, which is for ever. A row whose time is over is still sent: only the server knows whether an
            // earlier copy was entered.
            publish.timeToLive = publish.timeToLive > waited ? publish.timeToLive - waited : 1
        }
        slots[offset: next].state = .inFlight
        inFlight += 1
        inFlightBytes += slot.cost
        highestSent = max(highestSent, publish.id)
        next += 1
        skipSpent()
        return publish
    }

    // MARK: Answers

    /// A publish was entered; false when nothing waits for it.
    mutating func published(_ id: PublishID) -> Bool {
        guard let index = index(of: id) else { return false }
        remove(index)
        rewound = false
        settle()
        return true
    }

    enum Refusal { case unknown, retry, givenUp, spent }

    mutating func refused(_ refused: Refused, retryDelay: TimeAmount, now: NIODeadline) -> Refusal {
        guard let index = index(of: refused.id), slots[offset: index].state == .inFlight else { return .unknown }
        defer { settle() }
        switch refused.code {
        case .outOfOrder:
            land(index)
            rewind(lastID: refused.lastID)
            if rewound { retryAt = max(retryAt ?? now, now + retryDelay) }
            return .retry
        case let code where code.isTemporary:
            land(index)
            isDraining = true
            let named = TimeAmount.milliseconds(Int64(clamping: min(refused.retryAfter, 1 << 40)))
            retryAt = max(retryAt ?? now, now + (refused.retryAfter > 0 ? named : retryDelay))
            return .retry
        case .idReused:
            land(index)
            slots[offset: index].state = .spent
            spent += 1
            return .spent
        default:
            giveUp(index)
            return .givenUp
        }
    }

    /// The link is gone: what was in flight waits again.
    mutating func linkClosed() {
        isDraining = false
        isPaused = false
        retryAt = nil
        rewound = false
        for index in 0..<slots.count where slots[offset: index].state == .inFlight { land(index) }
        next = 0
        skipSpent()
    }

    /// Continues behind the last ID that the ledger holds: rows given up in an earlier process are not waited for, nor those that a
    /// server restored from a backup acknowledged and does not have any more.
    private mutating func rewind(lastID: PublishID) {
        isDraining = true
        guard let first = slots.first, first.row.publish.id > lastID, first.row.publish.after > lastID else { return }
        slots[offset: 0].row.publish.after = lastID
    }

    /// A row that was given up is off the host's disk.
    mutating func removed(_ id: PublishID) { unremoved.remove(id) }

    private mutating func giveUp(_ index: Int) {
        rewound = false
        let publish = slots[offset: index].row.publish
        unremoved.insert(publish.id)
        let after = index > 0 ? slots[offset: index - 1].row.publish.id : publish.after
        if index + 1 < slots.count {
            slots[offset: index + 1].row.publish.after = after
        } else {
            givenUp = (publish.id, after)
        }
        remove(index)
    }

    // MARK: Slots

    private func index(of id: PublishID) -> Int? {
        // Answers come in order: it is nearly always the first.
        for index in 0..<next where slots[offset: index].row.publish.id == id { return index }
        return nil
    }

    /// Brings a slot back from flight.
    private mutating func land(_ index: Int) {
        guard slots[offset: index].state == .inFlight else { return }
        slots[offset: index].state = .waiting
        inFlight -= 1
        inFlightBytes -= slots[offset: index].cost
        assert(inFlight >= 0 && inFlightBytes >= 0)
    }

    private mutating func remove(_ index: Int) {
        land(index)
        slots.remove(at: slots.index(slots.startIndex, offsetBy: index))
        if index < next { next -= 1 }
    }

    /// When every answer has come after a refusal, sending starts over from the first row.
    private mutating func settle() {
        guard isDraining, inFlight == 0 else { return }
        isDraining = false
        rewound = true
        next = 0
        skipSpent()
    }

    private mutating func skipSpent() {
        while next < slots.count, slots[offset: next].state == .spent { next += 1 }
    }
}
