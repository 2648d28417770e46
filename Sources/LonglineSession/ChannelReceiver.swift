import LonglineWire

/// What this device received and confirmed in one channel. Drops what came before, accepts what continues the last entry,
/// and reports everything else: nothing is missed silently, on any link.
///
/// Invariant: within an epoch `confirmed <= last` and `told <= last`.
struct ChannelReceiver {
    /// The end of what was received: given to the app, skipped on purpose, or reported lost. nil: nothing yet.
    private(set) var last: Position?
    /// What the app confirmed.
    private(set) var confirmed: Position?
    /// The last place that the app was told of and has to confirm; what follows it up to ``last`` is absent on purpose. nil: none. That
    /// another log took the place of one is told with offset 0 where nothing of the new one is gone.
    private var told: Position?
    /// The place at which the chain broke on an earlier link. A second break there is reported to the app as a loss.
    private var brokenAt: Position?

    init(confirmed: Position?) {
        self.confirmed = confirmed
        last = confirmed
        told = confirmed
    }

    /// Takes over what an earlier session of this process received beyond the cursor.
    ///
    /// A cursor that went back tells of a log that lost its end, and one of another epoch of another log: what was received of the
    /// old one means nothing then.
    mutating func goOn(from earlier: ChannelReceiver) {
        guard let received = earlier.last, confirmed?.epoch ?? received.epoch == received.epoch else { return }
        let cursor = confirmed?.offset ?? 0
        guard cursor >= earlier.confirmedOffset(in: received.epoch) ?? 0, received.offset > cursor else { return }
        last = received
        if let place = earlier.told, place.epoch == received.epoch, place.offset >= cursor { told = place }
    }

    /// Whether this place arrived and is not confirmed.
    func isUnconfirmed(_ position: Position) -> Bool {
        guard let last, position.epoch == last.epoch else { return false }
        return position.offset <= last.offset && confirmedOffset(in: last.epoch).map { position.offset > $0 } ?? true
    }

    enum Result: Equatable {
        /// Give it to the app.
        case accept
        /// It came before; `confirmed`: and the app was done with it.
        case duplicate(confirmed: Bool)
        /// Give it to the app after telling it that this was lost.
        case lost(Gap)
        /// Not a continuation: leave the link and resume from the cursor.
        case broken
    }

    /// The server names the log's epoch. Only an epoch that nothing is known of is taken over silently.
    mutating func opened(epoch: Epoch) {
        if last == nil { last = Position(epoch: epoch, offset: 0) }
    }

    mutating func receive(_ deliver: Deliver, epoch: Epoch) -> Result {
        let entry = deliver.entry
        let result = receive(previous: entry.previous, offset: entry.offset, mayOverlap: false, epoch: epoch)
        switch result {
        case .accept, .lost: told = Position(epoch: epoch, offset: entry.offset)
        case .duplicate, .broken: break
        }
        return result
    }

    /// A range may begin before what was received: entries that were here may be absent by now.
    mutating func receive(_ skip: Skip, epoch: Epoch) -> Result {
        let result = receive(previous: skip.previous, offset: skip.to, mayOverlap: true, epoch: epoch)
        switch result {
        case .lost(let gap): told = Position(epoch: epoch, offset: gap.first)
        case .accept, .duplicate, .broken: break
        }
        return result
    }

    /// Takes a range that is absent on purpose as confirmed, when all that the app was told of is.
    /// - Returns: whether the cursor moved.
    mutating func confirmAbsent() -> Bool {
        guard let last, !owes(behind: confirmedOffset(in: last.epoch), in: last.epoch) else { return false }
        return confirm(last)
    }

    /// Whether the app has to confirm something that it was told of in a log's life behind an offset; nil: anything.
    private func owes(behind offset: Offset?, in epoch: Epoch) -> Bool {
        guard let told, told.epoch == epoch else { return false }
        return offset.map { $0 < told.offset } ?? true
    }

    /// The end of what was received, for what comes in a log's life.
    private func place(in epoch: Epoch) -> Position {
        // Who received nothing of the old log lost nothing with it.
        guard let last, last.offset > 0 else { return Position(epoch: epoch, offset: 0) }
        return last
    }

    private mutating func receive(previous: Offset, offset: Offset, mayOverlap: Bool, epoch: Epoch) -> Result {
        let last = place(in: epoch)
        if last.epoch == epoch {
            if offset <= last.offset { return .duplicate(confirmed: offset <= (confirmedOffset(in: epoch) ?? 0)) }
            if previous == last.offset || (mayOverlap && previous < last.offset) {
                self.last = Position(epoch: epoch, offset: offset)
                return .accept
            }
        }
        guard brokenAt == last else {
            brokenAt = last
            return .broken
        }
        brokenAt = nil
        self.last = Position(epoch: epoch, offset: offset)
        return .lost(Gap(from: last, first: previous))
    }

    /// The server says that something is gone.
    /// - Returns: what the app is told, or nil when this device has it already.
    mutating func receive(_ gap: Gap, epoch: Epoch) -> Gap? {
        let last = place(in: epoch)
        // Told once: a device that stands at the log's end has lost nothing more.
        let shrank = gap.from.epoch == epoch && gap.first < gap.from.offset && gap.first < last.offset
        if last.epoch == epoch, last.offset >= gap.first, !shrank {
            self.last = last
            return nil
        }
        self.last = Position(epoch: epoch, offset: gap.first)
        told = self.last
        if shrank, let confirmed, confirmed.epoch == epoch, confirmed.offset > gap.first { self.confirmed = self.last }
        return Gap(from: last, first: gap.first)
    }

    /// The server names the log's last entry. Where that lies before what came, the log lost its end, as with a gap that says so.
    /// - Returns: what the app is told, or nil when the log goes as far as what came.
    mutating func logEnds(at head: Position) -> Gap? {
        guard let last, last.epoch == head.epoch, head.offset < last.offset else { return nil }
        return receive(Gap(from: last, first: head.offset), epoch: head.epoch)
    }

    /// The app is done with everything up to `position`.
    /// - Returns: whether the cursor moved. What was never received, or belongs to another epoch, moves nothing.
    mutating func confirm(_ position: Position) -> Bool {
        guard let last, position.epoch == last.epoch, position.offset <= last.offset else { return false }
        if let confirmed, confirmed.epoch == position.epoch, position.offset <= confirmed.offset { return false }
        // Nothing but absences follows what the app was told last: it is done with them too.
        confirmed = owes(behind: position.offset, in: position.epoch) ? position : last
        return true
    }

    /// Where this device wants to go on: the confirmed place, or the start of a log of which nothing was confirmed.
    var claim: Position? { confirmed ?? last.map { Position(epoch: $0.epoch, offset: 0) } }

    /// The offset confirmed in an epoch, or nil.
    func confirmedOffset(in epoch: Epoch) -> Offset? {
        confirmed.flatMap { $0.epoch == epoch ? $0.offset : nil }
    }
}
