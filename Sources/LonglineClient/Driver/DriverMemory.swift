import LonglineSession
import LonglineWire

/// What a driver leaves to the next one of its client, when its process gave a shared outbox up and may own it again: what the app
/// has in hand, and what it asked for "from now on".
struct DriverMemory: Sendable {
    /// What arrived, and how the app is to be served.
    var session: SessionMemory
    /// What the app has and did not confirm.
    var ledger: ConfirmationLedger
    var gapsBefore: [ChannelID: MessageGap]
    /// What the app confirmed and no disk has.
    var cursors: [ChannelID: Position]
    /// Channels among these whose log lost its end since a disk had a place of them.
    var setBack: Set<ChannelID>
    /// How long messages had waited when this process saw them first, and when that was.
    var ages: [SendID: OutboxAge]
    /// Rooms that the user left, and that are named until the service has their places.
    var endedStays: [ChannelID: StoredStay]
    /// The places in rooms that no disk has forgotten yet.
    var forgotten: [ChannelID: Position]
    var watched: Set<UserID>
    var visibility: PresenceVisibility?
    /// The network's name as the app gave it.
    var network: String?
    /// What the user read and the service may not have.
    var reads: [ChannelID: Position]
    var statistics: ClientStatistics
    /// The account's erasure was asked for, and may be done.
    var isErasureOpen: Bool
    /// Tests and demonstrations only.
    var isInOutage: Bool
}

extension ConnectionDriver {
    /// Of a driver that has ended.
    var memory: DriverMemory {
        DriverMemory(
            session: session.memory, ledger: ledger, gapsBefore: gapsBefore,
            // Not a log's end that was noted for the requests alone: the next driver finds that itself.
            cursors: pending.cursors.filter { session.cursor(of: $0.key) == $0.value }, setBack: setBack,
            ages: outbox.ages, endedStays: endedStays,
            forgotten: pending.forgottenCursors.reduce(into: [:]) { $0[$1] = session.cursor(of: $1) },
            watched: presence.accepted, visibility: presence.visibility, network: appNetwork, reads: reads.places,
            statistics: statistics, isErasureOpen: isErasureOpen, isInOutage: isInOutage)
    }

    /// Goes on with what the app has and wants. Before anything else.
    func goOn(from memory: DriverMemory) {
        session.goOn(from: memory.session)
        outbox.goOn(with: memory.ages)
        // Another process may have confirmed some of it, or found that the log is another one.
        ledger = memory.ledger
        let reached = ledger.keep { [session] position, channel in session.isUnconfirmed(position, in: channel) }
        gapsBefore = memory.gapsBefore.filter { session.isUnconfirmed($0.value.upTo, in: $0.key) }
        pending.cursors = memory.cursors.filter { session.cursor(of: $0.key) == $0.value }
        setBack = memory.setBack.intersection(pending.cursors.keys)
        goOnToForget(memory.endedStays)
        pending.forgottenCursors = Set(memory.forgotten.filter { session.cursor(of: $0.key) == $0.value }.keys)
        presence.accepted = memory.watched
        presence.visibility = memory.visibility
        appNetwork = memory.network
        reads.places = memory.reads
        statistics = memory.statistics
        isErasureOpen = memory.isErasureOpen
        isInOutage = memory.isInOutage
        for (channel, position) in reached { confirm(position, in: channel) }
    }
}

extension StoredClientState {
    /// Where the app's record is behind what an earlier driver of this process had confirmed, and the client's own still says the same,
    /// nobody took a log back: what lies between was confirmed for the app, which doesn't see it (its own echo, a request). So it goes
    /// on from there, and what waits for the app behind that stays. An app that was further by its own word lost some of its record,
    /// and gets that again.
    /// - Parameter own: the client's own record.
    mutating func keepConfirmed(_ own: [ChannelID: Position], from memory: DriverMemory) {
        for (channel, position) in memory.session.cursors where own[channel] == position {
            let start = Position(epoch: position.epoch, offset: 0)
            let (known, told) = (cursors[channel] ?? start, memory.ledger.byApp[channel] ?? start)
            guard known.epoch == position.epoch, told.epoch == position.epoch else { continue }
            if told.offset <= known.offset, known.offset < position.offset { cursors[channel] = position }
        }
    }

    /// Moves the cursors to where an earlier driver of this process had them and could not write any more: forward, and back where a log
    /// lost its end. What another process was done with meanwhile comes once more then; what came in place of the end would not at all.
    mutating func goOn(from memory: DriverMemory) {
        for (channel, position) in memory.cursors {
            let known = cursors[channel] ?? Position(epoch: position.epoch, offset: 0)
            guard known.epoch == position.epoch else { continue }
            if known.offset < position.offset || memory.setBack.contains(channel) { cursors[channel] = position }
        }
    }
}
