import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// The store of a simulation: the rules of the real stores over tables in memory, the truth that is written down beside
/// them, and the rules that are broken on purpose.
///
/// A change is durable when it returns, unless ``delaySync()`` was called: then a crash goes back to what was there.
final class SimulatedStore {
    private struct LedgerKey: Hashable {
        let producer: ProducerID
        let channel: ChannelID
    }

    var truth = Truth()
    var real: SingleThreadedStore
    /// What a crash goes back to.
    private var synced: (real: SingleThreadedStore, truth: Truth)?
    private var backup: (real: SingleThreadedStore, truth: Truth)?
    let tenant: TenantID
    let wall: WallTime
    private var random: SeededRandom
    let faults: Set<SimulatedFault>
    /// Told what a store must never do.
    var violation: (String) -> Void = { _ in }
    /// Told when it is on the disk that an account is to be erased, and when nothing is left of it.
    var erasureResolved: (UserID) -> Void = { _ in }
    var accountErased: (UserID) -> Void = { _ in }
    /// Users whose account is or was erased.
    var erasedUsers: Set<UserID> = []

    // What the broken rules need.
    private var tags: [LedgerKey: [PublishID: PublishTag]] = [:]
    private var aliases: [LedgerKey: ProducerID] = [:]
    private var hiddenCopies: Set<Position> = []
    private var lastCopies: [Position] = []
    private var wallTimes: [Position: UInt64] = [:]
    private var lateCursors: [DeviceKey: [ChannelID: Position]] = [:]
    /// Far above every ID and connect number of a simulation.
    private var neighbourID: UInt64 = 1 << 40

    /// Acknowledgements that a ledger remembers: few, so that forgetting them comes up.
    static let remembered = 24
    /// What one frame carries of a payload: little, so that many go in parts.
    static let partBytes = 500
    /// What one step of an erasure does: little, so that there are some.
    private static let stepRows = 40

    init(tenant: TenantID, wall: WallTime, random: SeededRandom, faults: Set<SimulatedFault>) {
        self.tenant = tenant
        self.wall = wall
        self.random = random
        self.faults = faults
        var limits = StoreLimits()
        limits.headBytes = Self.partBytes
        limits.trimEntries = Self.stepRows
        real = SingleThreadedStore(
            limits: limits, remembered: Self.remembered, clock: { wall.milliseconds },
            random: SeededRandom(seed: self.random.next()))
    }

    func key(_ channel: ChannelID) -> ChannelKey { ChannelKey(tenant: tenant, channel: channel) }

    func key(_ user: UserID, _ device: DeviceID) -> DeviceKey { DeviceKey(tenant: tenant, user: user, device: device) }

    /// What is on the disk whatever happens now.
    var durable: Truth { synced?.truth ?? truth }
    var isSynced: Bool { synced == nil }

    // MARK: Crashes and backups

    /// From here on a crash loses everything, until ``sync()``.
    func delaySync() { if synced == nil { synced = (real.copy(), truth) } }

    func sync() { synced = nil }

    func crash() {
        if let synced { (real, truth) = synced }
        synced = nil
        if faults.contains(.forgetLastIDs) { for channel in truth.logs.keys { forgetLedger(of: channel) } }
        if faults.contains(.copyApart) { hiddenCopies.formUnion(lastCopies) }
        lastCopies = []
    }

    /// A transaction that ends without a trace, and what it would have answered.
    func undone<Value>(_ body: () -> Value) -> Value {
        let before = (real.copy(), truth)
        defer { (real, truth) = before }
        return body()
    }

    func takeBackup() { if backup == nil { backup = (real.copy(), truth) } }

    /// Puts the backup back, if there is one.
    /// - Returns: whether there was one.
    func restore() -> Bool {
        guard let backup else { return false }
        (real, truth) = (backup.real.copy(), backup.truth)
        self.backup = nil
        if !faults.contains(.keepEpoch) { real.startNewEpochs(random: SeededRandom(seed: random.next())) }
        truth.changeEpochs { head($0)?.position.epoch }
        return true
    }

    // MARK: Places

    /// What a login gets, asked for or taken.
    func place(of login: DeviceLogin, policy: DevicePolicy, takes: Bool) -> PlaceAnswer? {
        let policy = faults.contains(.mixPlatforms) ? .one : policy
        return takes ? try? real.takePlace(of: login, policy: policy) : try? real.place(of: login, policy: policy)
    }

    // MARK: The log

    func head(_ channel: ChannelID) -> ChannelHead? { (try? real.head(of: key(channel))) ?? nil }

    func append(
        _ publish: Publish, channel: ChannelID, user: UserID, device: DeviceID, producer: ProducerID,
        refusal: RefusalCode? = nil, isService: Bool = false
    ) -> (outcome: PublishOutcome, woken: Set<ChannelID>) {
        if faults.contains(.refuseToErased), let recipient = publish.recipient, erasedUsers.contains(recipient) {
            return (.refused(Refused(id: publish.id, code: .unknownRecipient)), [])
        }
        var request = AppendRequest(
            device: key(user, device), producer: producer, channel: channel, publish: publish, refusal: refusal,
            isService: isService)
        let key = LedgerKey(producer: producer, channel: channel)
        if let alias = aliases[key] { request.producer = alias }
        if faults.contains(.ignoreAfter) { request.publish.after = 0 }
        if faults.contains(.ignoreTag), let known = tags[key]?[publish.id] { request.publish.tag = known }
        let judged = truth.refusal(of: publish, by: user, in: channel, at: wall.milliseconds)
        let outcome = real.append(request)
        noteUse(of: request, outcome)
        checkForgotten(request, outcome)
        switch outcome {
        case .entered(let published, let previous, _, let copy):
            if let refusal { violation("publish \(publish.id) is entered, and was to be refused with \(refusal)") }
            if faults.contains(.ignoreTag) { tags[key, default: [:]][publish.id] = publish.tag }
            let woken = record(published, previous: previous, copy: copy, request)
            return (.published(published), woken)
        case .duplicate(let published):
            if faults.contains(.refuseEntered) { return (.refused(Refused(id: publish.id, code: .forbidden)), []) }
            guard faults.contains(.enterTwice) else { return (.published(published), []) }
            return (.published(published), enterAnew(request).woken)
        case .refused(let refused):
            if [.unknownTarget, .invalidTarget].contains(refused.code), refused.code != judged {
                violation("\(channel): \(publish.kind) by \(user) is refused with \(refused.code)")
            }
            if refused.code == .blocked, !isBlocking(user, publish.recipient) {
                violation("\(channel): a publish by \(user) is refused, and nobody is blocked")
            }
            if refused.code == .invalidTarget, faults.contains(.editByAnyone) {
                let (published, woken) = enterAsAuthor(request)
                return (published.map { .published($0) } ?? .refused(refused), woken)
            }
            if refused.code == .outcomeUnknown, faults.contains(.passOverForgotten) {
                return (.refused(Refused(id: refused.id, code: .idReused)), [])
            }
            let enters =
                refused.code == .outcomeUnknown && faults.contains(.enterUnknown)
                || refused.code == .unknownChannel && faults.contains(.publishAfterLeave)
                || refused.code == .forbidden && faults.contains(.publishAgainstSettings)
            guard enters else { return (.refused(refused), []) }
            let (published, woken) = enterAnew(request)
            return (published.map { .published($0) } ?? .refused(refused), woken)
        }
    }

    /// Enters a publish where the ledger does not know it, for rules that are broken: whatever the room's members are.
    @discardableResult
    func enterAnew(_ request: AppendRequest) -> (published: Published?, woken: Set<ChannelID>) {
        var anew = request
        anew.producer = .random(using: &random)
        anew.publish.after = 0
        if faults.contains(.publishAfterLeave), let member = member(of: request.channel) { anew.device = member }
        if faults.contains(.publishAgainstSettings),
            let owner = truth.rooms[request.channel]?.owners.min(by: { $0.description < $1.description })
        {
            anew.device = key(owner, anew.device.device)
        }
        guard case .entered(let published, let previous, _, let copy) = real.append(anew) else { return (nil, []) }
        return (published, record(published, previous: previous, copy: copy, request))
    }

    private func enterAsAuthor(_ request: AppendRequest) -> (published: Published?, woken: Set<ChannelID>) {
        guard case .room = request.channel, let author = truth.named(by: request.publish, in: request.channel) else {
            return (nil, [])
        }
        var anew = request
        anew.producer = .random(using: &random)
        anew.publish.after = 0
        anew.device = key(author.sender, author.device)
        guard case .entered(let published, let previous, _, let copy) = real.append(anew) else { return (nil, []) }
        return (published, record(published, previous: previous, copy: copy, request))
    }

    private func member(of channel: ChannelID) -> DeviceKey? {
        truth.logs[channel]?.entries.last { truth.isMember($0.sender, of: channel) }.map { key($0.sender, $0.device) }
    }

    /// Writes an entry down, as it has to be by the rules.
    private func record(_ published: Published, previous: Offset, copy: InboxCopy?, _ request: AppendRequest)
        -> Set<ChannelID>
    {
        let publish = request.publish
        let user = request.device.user
        if published.id != publish.id { violation("publish \(publish.id) was answered as \(published.id)") }
        if truth.logs[request.channel]?.head.offset ?? 0 != previous {
            violation("\(request.channel) at \(published.position): the entry before is not at \(previous)")
        }
        if published.time != max(wall.milliseconds, truth.logs[request.channel]?.entries.last?.time ?? 0) {
            violation("\(request.channel) at \(published.position): its time is \(published.time)")
        }
        let takesBack = publish.kind.entryKind == .retracted
        if !request.isService, !truth.mayPublish(user, in: request.channel, takingBack: takesBack) {
            violation("\(request.channel) at \(published.position): \(user) may not publish")
        }
        if truth.partlyErased.contains(user) {
            violation("\(request.channel) at \(published.position): the account of \(user) is being erased")
        }
        let named = truth.named(by: publish, in: request.channel)
        if let refusal = truth.refusal(of: publish, by: user, in: request.channel, at: wall.milliseconds) {
            violation("\(request.channel) at \(published.position): \(publish.kind) may not be entered (\(refusal))")
        }
        if !takesBack, isBlocking(user, publish.recipient) {
            violation("\(request.channel) at \(published.position): \(user) blocks the recipient")
        }
        var entry = Entry(
            offset: 0, previous: 0, kind: publish.kind.entryKind, sender: user, device: request.device.device,
            producer: request.producer, publishID: publish.id, recipient: publish.recipient, origin: nil,
            target: named?.offset, time: published.time, expiry: Self.expiry(of: publish, named, wall.milliseconds),
            payload: publish.payload)
        enter(entry, at: published.position, in: request.channel)
        guard let recipient = publish.recipient, recipient != user else {
            if copy != nil { violation("a copy of what is no direct message") }
            return [request.channel]
        }
        if truth.isWithheld(entry, from: recipient, naming: named) {
            if copy != nil { violation("\(request.channel) at \(published.position): a copy for \(recipient)") }
            truth.withhold(copyOf: entry, at: published.position)
            return [request.channel]
        }
        guard let copy, copy.channel == .user(recipient) else {
            violation("\(request.channel) at \(published.position): no copy for \(recipient)")
            return [request.channel]
        }
        if truth.isBlocked(user, by: recipient) || isBlocking(user, recipient) {
            truth.withholdNumber(of: entry)
            entry.payload = ByteBuffer()
        }
        entry.recipient = nil
        entry.origin = published.position
        if let named { entry.target = truth.counterpart(of: named, in: copy.channel) }
        // The copy's time is its inbox's affair; never decreasing is checked on the way out.
        entry.time = max(wall.milliseconds, truth.logs[copy.channel]?.entries.last?.time ?? 0)
        enter(entry, at: copy.position, in: copy.channel)
        lastCopies.append(copy.position)
        return [request.channel, copy.channel]
    }

    private static func expiry(of publish: Publish, _ named: Entry?, _ time: UInt64) -> UInt64 {
        switch publish.kind {
        case .edit, .reply: named?.expiry ?? 0
        case .retract: 0
        case .message, .react, .request: publish.timeToLive == 0 ? 0 : time + publish.timeToLive
        }
    }

    private func enter(_ entry: Entry, at position: Position, in channel: ChannelID) {
        if faults.contains(.timeGoesBack) { wallTimes[position] = wall.milliseconds }
        if let problem = truth.enter(entry, at: position, in: channel, made: wall.moment) { violation(problem) }
    }

    /// Marks the end of a transaction.
    func transactionEnded() { lastCopies = [] }

    /// Throws ``StoreError`` of code ``StoreError/Code/unknownChannel`` where there is no such log any more.
    func read(_ channel: ChannelID, after: Offset, upTo: Offset?, maximumBytes: Int) throws -> SessionPage {
        let ahead: UInt64 = faults.contains(.expireEarly) ? 60_000 : 0
        let time = faults.contains(.deliverExpired) ? 0 : wall.milliseconds + ahead
        let upTo = faults.contains(.readAfterLeave) ? nil : upTo
        let page = try real.read(key(channel), after: after, upTo: upTo, maximumBytes: maximumBytes, now: time)
        return shown(page, of: channel)
    }

    /// Rules whose breach would not show in history if the page told of the user's stay.
    private static let hidesStays: Set<SimulatedFault> = [
        .readAfterLeave, .readAfterDeletion, .readBeforeJoin, .historyBeforeJoin,
    ]

    /// A page of history.
    func page(_ read: HistoryRead, for user: UserID?) -> SessionPage? {
        var range = LogRange(
            after: read.after, upTo: read.upTo, direction: read.direction, maximumEntries: read.maximumEntries,
            maximumBytes: read.maximumBytes, reader: faults.isDisjoint(with: Self.hidesStays) ? user : nil)
        if faults.contains(.historyBeforeJoin) { range.after = 0 }
        guard let page = try? real.page(key(read.channel), range, now: wall.milliseconds) else { return nil }
        var shown = shown(page, of: read.channel)
        if faults.contains(.holeInHistory), shown.items.count > 2 { shown.items.remove(at: 1) }
        return shown
    }

    /// What a page looks like, with the rules that are broken.
    private func shown(_ page: LogPage, of channel: ChannelID) -> SessionPage {
        let items = page.items.flatMap { item -> [SessionPage.Item] in
            switch item {
            case .skip(let skip) where skip.reason == .retracted && faults.contains(.readRetracted):
                let log = truth.logs[channel]?.entries(above: skip.previous) ?? []
                return log.prefix { $0.offset <= skip.to }.map { .entry($0) }
            case .skip(let skip): return [.skip(skip)]
            case .entry(var entry):
                let position = Position(epoch: page.epoch, offset: entry.offset)
                if hiddenCopies.contains(position) {
                    return [.skip(Skip(previous: entry.previous, to: entry.offset, reason: .retracted))]
                }
                if faults.contains(.loseWhatErasedSent), erasedUsers.contains(entry.sender) {
                    return [.skip(Skip(previous: entry.previous, to: entry.offset, reason: .retracted))]
                }
                if let time = wallTimes[position] { entry.time = time }
                if faults.contains(.copyWrongOrigin) { entry.origin?.offset += 1 }
                return [.entry(entry)]
            }
        }
        return SessionPage(
            epoch: page.epoch, items: items, head: page.head, first: faults.contains(.hideTrim) ? 0 : page.first,
            stay: page.stay.map { SessionPage.Stay(after: $0.after, upTo: $0.upTo) })
    }

    func payload(of offset: Offset, in channel: ChannelID, from: UInt64, maximumBytes: Int) -> ByteBuffer? {
        real.payload(of: offset, in: key(channel), from: from, maximumBytes: maximumBytes)
    }

    func trim(_ channel: ChannelID, keep: Retention) {
        var asked = keep
        if faults.contains(.trimYoung) { asked.age = keep.age.map { $0 / 2 } }
        while let report = try? real.trim(key(channel), keep: asked), report.more {}
        if let problem = truth.trim(channel, keep: keep, upTo: head(channel)?.first ?? 0, wall) { violation(problem) }
        if faults.contains(.trimLedger) { forgetLedger(of: channel) }
    }

    /// For rules that are broken: of what was entered so far nothing is known any more.
    private func forgetLedger(of channel: ChannelID) {
        for entry in truth.logs[channel]?.entries ?? [] where entry.publishID != 0 {
            aliases[LedgerKey(producer: entry.producer, channel: channel)] = .random(using: &random)
        }
    }

    // MARK: Blocks

    private func isBlocking(_ user: UserID, _ other: UserID?) -> Bool {
        other.map { truth.isBlocked($0, by: user) } ?? false
    }

    func block(_ other: UserID, by user: UserID, _ isBlocked: Bool) {
        if isBlocked { truth.blocks[user, default: []].insert(other) } else { truth.blocks[user]?.remove(other) }
        guard !faults.contains(.deliverThroughBlock) else { return }
        let settings = try? real.set(.block(isBlocked), of: .user(other), for: user, in: tenant)
        if settings?.isBlocked != isBlocked { violation("\(user) can't set a block of \(other)") }
    }

    // MARK: Rooms and devices

    /// What is delivered to a device, as a session takes it.
    func channels(of user: UserID, _ device: DeviceID) -> [SessionChannel] {
        let entitlements = (try? real.channels(of: key(user, device))) ?? []
        if Set(entitlements.map(\.channel)) != Set(truth.channels(of: user)) {
            violation("\(user) has not these channels")
        }
        return entitlements.map { entitlement in
            SessionChannel(
                channel: entitlement.channel, head: entitlement.head.position,
                first: faults.contains(.hideTrim) ? 0 : entitlement.head.first,
                after: begin(of: entitlement),
                upTo: hidesEnd(of: entitlement) ? nil : entitlement.upTo, cursor: nil)
        }
    }

    /// Where delivery begins, unless that rule is broken.
    private func begin(of entitlement: Entitlement) -> Offset {
        if faults.contains(.readBeforeJoin) { return 0 }
        guard case .all = entitlement.channel else { return entitlement.after }
        if faults.contains(.broadcastFromTheStart) { return 0 }
        return faults.contains(.broadcastFromNow) ? entitlement.head.position.offset : entitlement.after
    }

    /// For rules that are broken: whether a stay seems to go on.
    private func hidesEnd(of entitlement: Entitlement) -> Bool {
        guard let upTo = entitlement.upTo else { return false }
        if faults.contains(.readAfterLeave) { return true }
        let last = truth.logs[entitlement.channel]?.entry(at: upTo)
        return faults.contains(.readAfterDeletion) && last?.change == .delete
    }

    func change(_ room: RoomID, _ change: RoomChange, user: UserID, device: DeviceID) -> RoomOutcome {
        let channel = ChannelID.room(room)
        let expected = truth.refusal(of: change, in: channel, by: user)
        guard let outcome = try? real.change(room, change, by: key(user, device)) else {
            violation("\(user)'s \(change) failed")
            return .refused(.overloaded)
        }
        switch outcome {
        case .refused(let code):
            if code != expected { violation("\(user)'s \(change) was refused with \(code.rawValue)") }
        case .done(let receipt):
            if expected != nil { violation("\(user)'s \(change) was not refused") }
            if receipt.isNew { record(change, receipt, user, device, in: channel) }
            if !truth.tellsSettings(receipt, in: channel) {
                violation("\(change) tells \(String(describing: receipt.settings))")
            }
        }
        return outcome
    }

    /// Writes the entries down that a change has to make.
    func record(
        _ change: RoomChange, _ receipt: RoomReceipt, _ user: UserID, _ device: DeviceID, in channel: ChannelID
    ) {
        var entry = Entry(
            offset: 0, previous: 0, kind: .changed, sender: user, device: device,
            producer: ProducerID(high: 0, low: 0), publishID: 0, recipient: nil, origin: nil,
            time: max(wall.milliseconds, truth.logs[channel]?.entries.last?.time ?? 0), expiry: 0,
            payload: ByteBuffer())
        switch change {
        case .appoint(let role?) where truth.rooms[channel]?.members.contains(user) ?? false:
            entry.recipient = user
            entry.payload = Entry.payload(of: .setRole(role, of: user))
        case .join, .appoint: entry.kind = .joined
        case .dissolve: entry.payload = Entry.payload(of: .delete)
        case .leave: entry.kind = .left
        case .act(.add(let other)):
            entry.kind = .joined
            entry.recipient = other == user ? nil : other
        case .act(.remove(let other)):
            entry.kind = .left
            entry.recipient = other == user ? nil : other
        case .act(let action):
            entry.recipient = action.user
            entry.payload = Entry.payload(of: action)
        }
        enter(entry, at: receipt.position, in: channel)
        let isWithoutOwner = truth.rooms[channel]?.owners.isEmpty ?? true
        if isWithoutOwner, let heir = truth.oldestMember(of: channel) {
            entry.kind = .changed
            entry.recipient = heir
            entry.payload = Entry.payload(of: .setRole(.owner, of: heir))
            enter(entry, at: receipt.head, in: channel)
        } else if receipt.head != receipt.position {
            violation("\(channel) has more entries than \(change) makes")
        }
    }

    /// Another tenant has users, devices, rooms and even outboxes of the same names, and is far ahead with all of them: nothing of
    /// that may count or show here.
    func neighbour(_ user: UserID, _ device: DeviceID, producer: ProducerID, in room: RoomID, bytes: ByteBuffer) {
        guard let other = try? TenantID(faults.contains(.mixTenants) ? tenant.description : "neighbour") else { return }
        let device = DeviceKey(tenant: other, user: user, device: device)
        neighbourID += 1
        _ = try? real.admit(device, producer: producer, connectNumber: neighbourID)
        _ = try? real.change(room, .join(create: true), by: device)
        for channel in [ChannelID.room(room), .user(user)] {
            let publish = Publish(
                id: neighbourID, tag: random.next(), after: 0, recipient: nil, timeToLive: 0, payload: bytes)
            let outcome = real.append(
                AppendRequest(device: device, producer: producer, channel: channel, publish: publish))
            guard case .entered(let published, _, _, _) = outcome else {
                violation("another tenant's publish into \(channel) got \(outcome)")
                continue
            }
            let cursor = ChannelPosition(channel: channel, position: published.position)
            _ = try? real.advance(device, to: [cursor])
        }
    }

    func admit(_ user: UserID, _ device: DeviceID, producer: ProducerID, connectNumber: UInt64) -> ConnectAdmission {
        let answer = try? real.admit(key(user, device), producer: producer, connectNumber: connectNumber)
        noteUse(of: key(user, device), producer, answer)
        if answer == .erasing, !faults.contains(.admitErasing) { return .erasing }
        truth.connects(DeviceName(user: user, device: device))
        let trusts =
            answer == .erasing || answer == .stale && faults.contains(.ignoreConnectNumber)
            || answer == .repeated && !faults.isDisjoint(with: [.trustRepeatedConnect, .ignoreConnectNumber])
        return trusts ? .returning : answer ?? .stale
    }

    /// Moves cursors, and answers the record as it is then.
    func advance(_ user: UserID, _ device: DeviceID, to cursors: [ChannelPosition]) -> CursorRecord {
        let device = key(user, device)
        for cursor in cursors { lateCursors[device, default: [:]][cursor.channel] = cursor.position }
        if !cursors.isEmpty { truth.use(device, nil, at: wall.milliseconds) }
        var record =
            (try? real.advance(device, to: cursors)) ?? CursorRecord(version: 0, cursors: [:])
        if faults.contains(.cursorGoesBack), let late = lateCursors[device] {
            record.cursors.merge(late) { $1.epoch == $0.epoch ? $1 : $0 }
        }
        return record
    }
}
