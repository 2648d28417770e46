import LonglineSession
import LonglineWire
import NIOCore

/// Watches what a service promises about messages, and writes down every promise that is broken.
///
/// It is told what apps publish, what they hear back and what they are given, and compares it with the ``Truth``. The rules:
/// an acknowledged publish is in the log, once, where the acknowledgement says; a refused one is nowhere; no answer
/// contradicts an earlier one; a publish that its
/// app forgot, because it was restored or lost everything, is there at most once (but for what an outbox renumbered that is then
/// restored to a state from before that, once more for each such restore); a producer's order is kept in each
/// channel; an app is given each entry it is entitled to, in order, once per life, marked when it was given it
/// before; nothing of one user leaves, or arrives, as another's; and what it is not given is skipped or reported lost, and
/// truly absent. Once a sweep took a ledger, what that knew may be entered once more.
public struct MessageChecker {
    /// An installation of an app; two can bear the name of one device.
    struct App: Hashable {
        let number: Int
        let user: UserID
        let device: DeviceID

        var name: DeviceName { DeviceName(user: user, device: device) }
    }

    private struct Origin {
        let app: App
        let channel: ChannelID
        let recipient: UserID?
        let time: NIODeadline
        let timeToLive: UInt64
        let payload: ByteBuffer
    }

    private struct Outbox: Hashable {
        let user: UserID
        let producer: ProducerID
        let era: Int
    }

    private struct Given: Hashable {
        let channel: ChannelID
        let position: Position
    }

    /// Broken promises, in the order in which they were seen.
    public private(set) var violations: [String] = []
    /// Entries given to apps.
    public private(set) var deliveries = 0
    /// Publishes that apps were told are entered.
    public var acknowledgements: Int { acknowledged.count }
    /// Publishes that apps were told are not.
    public var refusals: Int { refused.count }

    private var published: [UInt64: Origin] = [:]
    private var acknowledged: Set<UInt64> = []
    /// By the era of the ledgers that refused them.
    private var refused: [UInt64: LedgerEra] = [:]
    /// Nobody hears any more what became of them.
    private var forgotten: Set<UInt64> = []
    /// Entered, and gone with a store that was replaced by its backup.
    private var lostByStore: Set<UInt64> = []
    /// What waited in an outbox when that drew another producer, by the one before.
    private var leftBehind: [ProducerID: Set<UInt64>] = [:]
    /// How often a message may be entered, where that is more than once.
    private var mayRepeat: [UInt64: Int] = [:]
    /// What an outbox held that an older state of it replaced: a connection of its former life may still bring it.
    private var underWay: Set<UInt64> = []
    /// The producers that a message has been under in the present state of its outbox: by these it is entered once at most.
    private var producers: [UInt64: Set<ProducerID>] = [:]
    private var told: [App: [ChannelID: Position]] = [:]
    private var everGiven: [App: Set<Given>] = [:]
    private var givenInLife: [App: [ChannelID: Set<Position>]] = [:]
    private var processed: [App: [ChannelID: [Epoch: Offset]]] = [:]
    private var restored: Set<App> = []
    /// Installations whose account is being erased: what is still under way to them does not count, and the server's side is watched.
    private var erased: Set<App> = []
    /// What the app's own server is promised.
    var services = ServiceWatch()
    /// The highest place that a device ever said it was done with.
    private var confirmed: [DeviceName: [ChannelID: [Epoch: Offset]]] = [:]

    /// Nothing seen yet.
    public init() {}

    /// A message's number, in the first 8 bytes of its payload.
    static func number(of payload: ByteBuffer) -> UInt64? { payload.getInteger(at: payload.readerIndex) }

    /// Told each broken promise as it is seen.
    var report: (String) -> Void = { _ in }

    /// Writes down a broken promise.
    public mutating func violation(_ text: String) {
        violations.append(text)
        report(text)
    }

    // MARK: Publishing

    mutating func published(_ row: OutboxRow, by app: App, at time: NIODeadline) {
        guard let number = Self.number(of: row.publish.payload) else { return }
        published[number] = Origin(
            app: app, channel: row.channel, recipient: row.publish.recipient, time: time,
            timeToLive: row.publish.timeToLive, payload: row.publish.payload)
    }

    /// The app died before the row was written: it was never promised anything.
    mutating func withdrawn(_ number: UInt64) { published[number] = nil }

    /// A publish leaves a device.
    mutating func sent(_ publish: Publish, isStored: Bool, by app: App, at time: NIODeadline) {
        guard let number = Self.number(of: publish.payload) else { return }
        guard isStored, let origin = published[number] else {
            return violation("message \(number) left before it was on the disk")
        }
        if origin.app != app { violation("message \(number) of \(origin.app.user) leaves as one of \(app.user)") }
        guard origin.timeToLive > 0 else { return }
        let waited = UInt64(max(0, (time - origin.time).nanoseconds) / 1_000_000)
        let left = origin.timeToLive > waited ? origin.timeToLive - waited : 1
        if publish.timeToLive != left {
            violation("message \(number) left with \(publish.timeToLive) ms to live, not \(left)")
        }
    }

    mutating func acknowledged(_ number: UInt64, at position: Position, in channel: ChannelID, truth: Truth) {
        if refused[number] != nil { violation("message \(number) was acknowledged after it was refused") }
        acknowledged.insert(number)
        lostByStore.remove(number)
        let entry = truth.log(channel, of: position.epoch)?.entry(at: position.offset)
        if entry.flatMap({ Self.number(of: $0.payload) }) != number {
            violation("message \(number) was acknowledged at \(position) in \(channel), and is not there")
        }
    }

    /// - Parameter era: that of the ledgers which refused it; by default the first one.
    mutating func refused(_ number: UInt64, _ code: RefusalCode, in era: LedgerEra = LedgerEra()) {
        // Whatever was answered before, this denies nothing of it.
        if code == .outcomeUnknown {
            forgotten.insert(number)
            return
        }
        // Of what is gone with a store nothing is known any more, and the new one may judge otherwise.
        if acknowledged.contains(number), !lostByStore.contains(number) {
            violation("message \(number) was refused with \(code.rawValue) after it was acknowledged")
        }
        refused[number] = era
    }

    /// Messages that outboxes still hold, though their apps may have been told that they are entered: the ledgers that know them may be
    /// swept now, and then they are judged anew.
    mutating func mayBeJudgedAnew(_ numbers: Set<UInt64>) { acknowledged.subtract(numbers) }

    /// An app died before it was told what became of a message.
    mutating func forgot(_ number: UInt64) { forgotten.insert(number) }

    /// An outbox drew another producer, and gave these new IDs.
    mutating func renumbered(_ numbers: Set<UInt64>, from producer: ProducerID, to next: ProducerID) {
        leftBehind[producer, default: []].formUnion(numbers)
        for number in numbers { producers[number, default: [producer]].insert(next) }
    }

    /// An app forgot what became of these; the ones that it kept, under a producer, will be answered again. Those that an earlier life
    /// renumbered are known by their new IDs alone, and so entered once more.
    mutating func forgot(_ app: App, kept: Set<UInt64>, under producer: ProducerID) {
        for number in kept.intersection(leftBehind[producer] ?? []) { mayRepeat[number, default: 1] += 1 }
        leftBehind[producer]?.subtract(kept)
        underWay.formUnion(kept)
        for (number, origin) in published where origin.app == app {
            if kept.contains(number) {
                refused[number] = nil
                acknowledged.remove(number)
                forgotten.remove(number)
                producers[number] = [producer]
            } else if !acknowledged.contains(number), refused[number] == nil {
                forgotten.insert(number)
            }
        }
    }

    /// The server's store was replaced by an older one, in which these messages are missing.
    mutating func lost(_ numbers: Set<UInt64>, truth: Truth) {
        lostByStore.formUnion(numbers)
        services.storeReplaced()
        // What a device was told of the old lives says nothing of the new ones; of a life that goes on, only what is there.
        for (app, places) in told {
            for (channel, place) in places {
                guard let head = truth.logs[channel]?.head, head.epoch == place.epoch else { continue }
                told[app]?[channel] = Position(epoch: head.epoch, offset: min(place.offset, head.offset))
            }
        }
    }

    /// It is on the disk that a user's account is to be erased, with these installations.
    mutating func erasing(_ user: UserID, apps: [App]) {
        erased.formUnion(apps)
        services.erasureResolved(user)
    }

    func isErased(_ app: App) -> Bool { erased.contains(app) }

    // MARK: Receiving

    mutating func delivered(_ deliver: Deliver, epoch: Epoch, in channel: ChannelID, to app: App, truth: Truth) {
        guard !isErased(app) else { return }
        deliveries += 1
        let entry = deliver.entry
        let place = "\(channel) at \(entry.offset) for \(app.device)"
        guard let log = truth.readableLog(channel, of: epoch), log.entry(at: entry.offset) == entry else {
            return violation("\(place): given what is not in the log")
        }
        if !truth.mayRead(entry.offset, of: channel, app.user, app.device) {
            violation("\(place): given without a right to it")
        }
        let last = lastTold(app, channel, epoch: epoch)
        if entry.offset <= last { violation("\(place): given again, or out of order, after \(last)") }
        for missed in owed(after: last, before: entry.offset, in: log, channel, to: app, truth: truth) {
            violation("\(place): \(missed.offset) was missed silently")
        }
        let position = Position(epoch: epoch, offset: entry.offset)
        let isNews = everGiven[app, default: []].insert(Given(channel: channel, position: position)).inserted
        if !isNews, !deliver.redelivered { violation("\(place): given to a new life of the app without a mark") }
        givenInLife[app, default: [:]][channel, default: []].insert(position)
        told[app, default: [:]][channel] = Position(epoch: epoch, offset: max(last, entry.offset))
    }

    mutating func skipped(
        _ skip: Skip, epoch: Epoch, in channel: ChannelID, to app: App, truth: Truth, wall: WallTime
    ) {
        guard !isErased(app) else { return }
        guard let log = truth.readableLog(channel, of: epoch) else {
            return violation("\(channel) for \(app.device): a skip in another log")
        }
        let last = lastTold(app, channel, epoch: epoch)
        for entry in owed(after: last, before: skip.to + 1, in: log, channel, to: app, truth: truth)
        where !log.isOver(entry, wall) && entry.offset > log.first
            && !log.erased.contains(entry.offset)
        {
            violation("\(channel) for \(app.device): \(entry.offset) was skipped (\(skip.reason)), and is there")
        }
        told[app, default: [:]][channel] = Position(epoch: epoch, offset: max(last, skip.to))
    }

    mutating func lost(_ gap: Gap, epoch: Epoch, in channel: ChannelID, to app: App, truth: Truth) {
        guard !isErased(app) else { return }
        guard let log = truth.readableLog(channel, of: epoch) else {
            return violation("\(channel) for \(app.device): a gap in another log")
        }
        let last = lastTold(app, channel, epoch: epoch)
        for entry in owed(after: last, before: gap.first + 1, in: log, channel, to: app, truth: truth)
        where entry.offset > log.first {
            violation("\(channel) for \(app.device): \(entry.offset) was reported lost, and is there")
        }
        told[app, default: [:]][channel] = Position(epoch: epoch, offset: gap.first)
    }

    /// A join or leave was answered.
    mutating func changedRoom(at position: Position, in channel: ChannelID, by app: App, truth: Truth) {
        let entry = truth.logs[channel]?.entry(at: position.offset)
        if truth.logs[channel]?.epoch != position.epoch || entry?.member != app.user || entry?.publishID != 0 {
            violation("\(app.device)'s join or leave was answered at \(position), and is not there")
        }
    }

    /// The settings that came with the answer to a join. What they say can be looked at as long as the room's log ends where they were read.
    mutating func toldSettings(
        _ settings: RoomSettings, behind joined: Position, in channel: ChannelID, _ app: App, truth: Truth
    ) {
        let place = settings.position
        if channel != .room(settings.room) || place.epoch != joined.epoch || place.offset < joined.offset {
            violation("\(app.device) joined \(channel) at \(joined) and is told \(settings)")
        }
        guard truth.logs[channel]?.head == place, let room = truth.rooms[channel], room.members.contains(app.user)
        else { return }
        let role = room.owners.contains(app.user) ? RoomRole.owner : .member
        if (settings.joining, settings.publishing, settings.role) != (room.joining, room.publishing, role) {
            violation("\(app.device) is told \(settings), and \(channel) is \(room)")
        }
    }

    /// The app is done with everything up to a place.
    mutating func processed(_ position: Position, in channel: ChannelID, by app: App) {
        let known = processed[app]?[channel]?[position.epoch] ?? 0
        processed[app, default: [:]][channel, default: [:]][position.epoch] = max(known, position.offset)
    }

    /// A device tells the server what it is done with.
    mutating func acknowledges(_ position: Position, in channel: ChannelID, by app: App) {
        noteConfirmed(position, in: channel, by: app.name)
        checkDone(position, in: channel, by: app, "acknowledged")
    }

    /// A connect names the cursors that moved.
    mutating func connects(_ cursors: [ChannelPosition], by app: App) {
        for cursor in cursors {
            if case .user(let user) = cursor.channel, user != app.user {
                violation("\(app.device) of \(app.user) names a place in the inbox of \(user)")
            }
            noteConfirmed(cursor.position, in: cursor.channel, by: app.name)
        }
    }

    private mutating func noteConfirmed(_ position: Position, in channel: ChannelID, by device: DeviceName) {
        let known = confirmed[device]?[channel]?[position.epoch] ?? 0
        confirmed[device, default: [:]][channel, default: [:]][position.epoch] = max(known, position.offset)
    }

    private mutating func checkDone(_ cursor: Position, in channel: ChannelID, by app: App, _ what: String) {
        let done = processed[app]?[channel]?[cursor.epoch] ?? 0
        guard cursor.offset > done else { return }
        for given in givenInLife[app]?[channel] ?? []
        where given.epoch == cursor.epoch && given.offset > done && given.offset <= cursor.offset {
            violation("\(channel) at \(given.offset) is \(what) by \(app.device), and its app never was done with it")
        }
    }

    /// The server stores a cursor.
    mutating func storesCursor(_ position: Position, in channel: ChannelID, of device: DeviceName) {
        let said = confirmed[device]?[channel]?[position.epoch] ?? 0
        if position.offset > said {
            violation("\(channel): \(position) is stored, and \(device.device) confirmed \(said)")
        }
    }

    /// The server tells a sender that a device has a direct message.
    mutating func reached(
        _ origin: Position, from sender: UserID, in inbox: ChannelID, on device: DeviceName, truth: Truth
    ) {
        guard let log = truth.logs[inbox], let copy = log.entries.last(where: { $0.origin?.offset == origin.offset })
        else { return violation("\(sender) is told that \(origin) arrived, of which there is no copy in \(inbox)") }
        if copy.sender != sender { violation("\(sender) is told of \(copy.sender)'s message in \(inbox)") }
        if copy.offset > confirmed[device]?[inbox]?[log.epoch] ?? 0 {
            violation(
                "\(sender) is told that \(copy.offset) in \(inbox) arrived, and \(device.device) never confirmed it")
        }
    }

    /// A new life of the app goes on from the cursors it kept. `isOlder`: from an older state than its last.
    mutating func restarted(_ app: App, cursors: [ChannelID: Position], isOlder: Bool) {
        // Those of a backup were looked at when it was made: the life between may have begun with nothing.
        if !isOlder { checkCursors(cursors, by: app) }
        told[app] = cursors
        givenInLife[app] = [:]
        guard isOlder else { return }
        restored.insert(app)
        processed[app] = cursors.mapValues { [$0.epoch: $0.offset] }
    }

    /// Cursors that an app keeps have nothing behind them that it was not done with.
    mutating func checkCursors(_ cursors: [ChannelID: Position], by app: App) {
        for (channel, cursor) in cursors { checkDone(cursor, in: channel, by: app, "behind the cursor") }
    }

    /// Whether an app stands in a life of a log that a sweep took.
    func hasSweptPlace(_ app: App, truth: Truth) -> Bool {
        told[app]?.contains { truth.lives[$0.key] != nil && truth.logs[$0.key]?.epoch != $0.value.epoch } ?? false
    }

    private func lastTold(_ app: App, _ channel: ChannelID, epoch: Epoch) -> Offset {
        told[app]?[channel].flatMap { $0.epoch == epoch ? $0.offset : nil } ?? 0
    }

    private func owed(
        after last: Offset, before end: Offset, in log: Truth.Log, _ channel: ChannelID, to app: App, truth: Truth
    ) -> ArraySlice<Entry> {
        guard let stint = truth.stint(of: app.user, on: app.device, in: channel) else { return [] }
        return log.entries(above: max(last, stint.after)).prefix { $0.offset < end && $0.offset <= stint.upTo ?? .max }
    }

    // MARK: The end

    /// Once everything is quiet, nothing may be owed any more.
    /// - Parameters:
    ///   - apps: those that still take part.
    ///   - cursors: what the server stored of their devices.
    mutating func finish(apps: [App], cursors: [DeviceName: [ChannelID: Position]], truth: Truth) {
        checkPlaces(truth, apps)
        for problem in services.problems(truth: truth) { violation(problem) }
        for app in apps {
            for channel in truth.channels(of: app.user) {
                guard let log = truth.logs[channel] else { continue }
                let last = lastTold(app, channel, epoch: log.epoch)
                for entry in owed(after: last, before: .max, in: log, channel, to: app, truth: truth) {
                    violation("\(channel) at \(entry.offset) never reached \(app.device), which ends at \(last)")
                }
                let cursor = cursors[app.name]?[channel].flatMap { $0.epoch == log.epoch ? $0.offset : nil } ?? 0
                if cursor < last {
                    violation("\(channel): the server's cursor of \(app.device) is \(cursor), not \(last)")
                }
            }
        }
    }

    private mutating func checkPlaces(_ truth: Truth, _ apps: [App]) {
        var places = MessagePlaces()
        for (channel, log) in truth.allLogs {
            checkOrder(log, channel)
            for entry in log.entries where entry.publishID != 0 {
                guard let number = Self.number(of: entry.payload), !services.knows(number) else { continue }
                if let origin = published[number], origin.payload != entry.payload {
                    violation("message \(number) in \(channel) is not what was published")
                }
                if let user = published[number]?.app.user, user != entry.sender {
                    violation("message \(number) of \(user) is entered as one of \(entry.sender)")
                }
                places.add(entry, number, truth.era(of: entry, in: log))
                if entry.origin == nil {
                    if published[number]?.channel != channel { violation("message \(number) stands in \(channel)") }
                } else if published[number]?.recipient.map({ .user($0) }) != channel {
                    violation("message \(number) is no copy for \(channel)")
                }
            }
        }
        let running = Set(apps)
        for (number, origin) in published.sorted(by: { $0.key < $1.key }) {
            let count = places.count(of: number)
            let inOneEra = places.most(of: number)
            if inOneEra > mayRepeat[number] ?? 1 { violation("message \(number) was entered \(inOneEra) times") }
            let isDirect = origin.recipient.map { $0 != origin.app.user } ?? false
            // Of what was sent while it was blocked there is the record alone.
            let withheld = truth.withheld[number] ?? 0
            let copies = places.copies[number] ?? 0
            if copies != (isDirect ? count - withheld : 0) {
                violation("message \(number) has \(count) records and \(copies) copies")
            }
            if acknowledged.contains(number), count == 0, !lostByStore.contains(number) {
                violation("message \(number) was acknowledged and is gone")
            }
            // What earlier states of its outbox entered under other producers is not what the present one was answered.
            let present = producers[number]
            let byOne = present == nil ? 0 : places.most(of: number, by: present)
            if byOne > 1 { violation("message \(number) was entered \(byOne) times by one outbox") }
            // Who refused it knows nothing of what was entered before a sweep took the ledger, and a store that is restored to a time
            // before that sweep has it again.
            let isJudgedOnce = !underWay.contains(number)
            if isJudgedOnce, let era = refused[number], places.count(of: number, by: present, in: era) > 0 {
                violation("message \(number) was refused and entered")
            }
            let isAnswered =
                refused[number] != nil || acknowledged.contains(number) || forgotten.contains(number)
            if !isAnswered, running.contains(origin.app) {
                violation("message \(number) of \(origin.app.device) in \(origin.channel) never got an answer")
            }
        }
    }

    private mutating func checkOrder(_ log: Truth.Log, _ channel: ChannelID) {
        // The app's own server has one outbox, for whomever it publishes. What a sweep took is forgotten, and may be entered again.
        var lastID: [Outbox: PublishID] = [:]
        var lastNumber: [App: [Int: UInt64]] = [:]
        for entry in log.entries where entry.publishID != 0 && entry.origin == nil {
            let era = log.eras[entry.offset] ?? 0
            let outbox = Outbox(user: entry.sender, producer: entry.producer, era: era)
            if entry.publishID <= lastID[outbox] ?? 0 {
                violation("\(channel) at \(entry.offset): \(entry.device)'s publish \(entry.publishID) is out of order")
            }
            lastID[outbox] = entry.publishID
            guard let number = Self.number(of: entry.payload), let app = published[number]?.app,
                !restored.contains(app)
            else { continue }
            if number <= lastNumber[app]?[era] ?? 0 {
                violation("\(channel) at \(entry.offset): \(entry.device)'s message \(number) is out of order")
            }
            lastNumber[app, default: [:]][era] = number
        }
    }
}
