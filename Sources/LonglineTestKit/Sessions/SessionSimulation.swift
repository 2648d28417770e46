import LonglineSession
import LonglineStore
import LonglineWire
public import NIOCore

/// A server, five devices of three users and everything that can go wrong between them, in one thread and from one seed.
///
/// For a while apps publish, confirm, join, leave, dawdle and crash; links die in one direction or both, with or without a
/// word; the server is killed at any of its writes and comes back with its store, or with a backup of it; its clock is set
/// forward and back, by up to days; devices sleep, are restored from a backup, once or twice, or lose everything, or meet
/// a second one of their name; early flights are sent again by somebody else; the app's own server publishes, and has an account erased;
/// nobody is there for half a year, and what was unused is swept; a user logs out, and another one in on the same device.
/// Then everything heals, and what is owed has to arrive. The ``checker`` has watched.
public final class SessionSimulation {
    /// The seed that makes this run.
    public let seed: UInt64
    /// What was seen.
    public internal(set) var checker = MessageChecker()
    /// The rules of the real stores, and the truth.
    let store: SimulatedStore
    /// Rules broken on purpose.
    let faults: Set<SimulatedFault>
    let tenant: TenantID
    let wall = WallTime()

    /// How often things happened.
    public internal(set) var counts = Counts()
    /// Told everything that happens, with its time, where a seed is looked at.
    public var trace: ((String) -> Void)?

    /// Some twenty times what a run takes.
    private static let maximumEvents: UInt64 = 400_000

    let scheduler = VirtualScheduler()
    private var random: SeededRandom
    /// Draws what happens in few runs: of its own, so that nothing else becomes rarer by it, or changes in the other runs.
    var rare: SeededRandom
    /// Draws what the app's own server does, likewise.
    var extra: SeededRandom
    /// Draws what happens around a half year in which nobody is there, likewise.
    var idle: SeededRandom
    /// Draws who takes turns on a device, likewise.
    var turns: SeededRandom
    private(set) var server: ModelServer!
    private(set) var devices: [ModelDevice] = []
    private var links: [SimulatedLink] = []
    let rooms: [RoomID]
    let news: BroadcastID
    private var nextMessage: UInt64 = 1
    /// The highest login that ever had a place and a session, in this life of the store.
    var highestLogins: [LoginPlace: UInt64] = [:]
    let phone: DevicePlatform
    let desktop: DevicePlatform
    /// Carol's, where she has another one.
    let otherPhone: DeviceID
    /// Whom the app's own server publishes for, beside the users, and what it is called as a device.
    let shop: UserID
    let serviceDevice: DeviceID
    /// The number of its next message, far above those of devices, and the messages that it has an answer to.
    var nextOrder: UInt64 = 1 << 32
    var settledOrders: Set<UInt64> = []
    /// The first one whose key is not forgotten.
    var firstOrder: UInt64 = 0
    /// Whether it has published, or is just publishing, more than a ledger remembers.
    var hasOrderedMany = false
    var isOrderingMany = false
    /// Users whose credentials don't allow to publish now, and whom the app's backend doesn't.
    private var withoutScope: Set<UserID> = []
    private var deniedByApp: Set<UserID> = []
    /// Channels that users' credentials don't allow to receive now.
    private var stopped: [UserID: Set<ChannelID>] = [:]
    private(set) var isCalm = false
    /// What the wall clock is ahead of the scheduler, in milliseconds.
    private var wallOffset: Int64 = 1_000_000_000_000

    /// A simulation that has not run.
    /// - Throws: ``LonglineWire/IdentifierError``, which it never does with the names it uses.
    public init(seed: UInt64, faults: Set<SimulatedFault> = []) throws {
        self.seed = seed
        self.faults = faults
        random = SeededRandom(seed: seed)
        rare = SeededRandom(seed: ~seed)
        extra = SeededRandom(seed: seed &* 0x2545_F491_4F6C_DD1D &+ 1)
        idle = SeededRandom(seed: seed &* 0xD6E8_FEB8_6659_FD93 &+ 2)
        turns = SeededRandom(seed: seed &* 0xA076_1D64_78BD_642F &+ 1)
        tenant = try TenantID("tenant")
        rooms = [try RoomID("room"), try RoomID("hall")]
        news = try BroadcastID("news")
        phone = try DevicePlatform("phone")
        desktop = try DevicePlatform("desktop")
        otherPhone = try DeviceID("other-phone")
        shop = try UserID("shop")
        serviceDevice = try DeviceID("api-1")
        store = SimulatedStore(tenant: tenant, wall: wall, random: SeededRandom(seed: random.next()), faults: faults)
        scheduler.advanced = { [unowned self] in setWall() }
        store.violation = { [unowned self] in violation($0) }
        store.erasureResolved = { [unowned self] in erasureResolved($0) }
        store.accountErased = { [unowned self] in accountErased($0) }
        checker.report = { [unowned self] text in note { "VIOLATION \(text)" } }
        setWall()
        server = ModelServer(
            store: store, simulation: self, scheduler: scheduler, random: SeededRandom(seed: random.next()))
        for (user, device, login) in [
            ("alice", "phone", 1), ("alice", "tablet", 1), ("bob", "bob-phone", 1), ("carol", "carol-phone", 1),
            ("carol", "laptop", 2),
        ] as [(String, String, UInt64)] {
            addDevice(try UserID(user), try DeviceID(device), login: login)
        }
        for device in devices.prefix(3) {
            _ = store.change(rooms[0], .join(create: true), user: device.user, device: device.device)
        }
        for device in devices.suffix(3) {
            _ = store.change(rooms[1], .join(create: true), user: device.user, device: device.device)
        }
    }

    @discardableResult
    func addDevice(_ user: UserID, _ device: DeviceID, login: UInt64) -> ModelDevice {
        let device = ModelDevice(
            app: MessageChecker.App(number: devices.count, user: user, device: device), login: login,
            simulation: self, scheduler: scheduler, random: SeededRandom(seed: random.next()))
        device.generation = store.generation(of: user)
        devices.append(device)
        return device
    }

    /// The rules that are broken on purpose, by name.
    public var brokenRules: [String] { faults.map(\.rawValue).sorted() }

    /// Events that happened in the run.
    public var events: UInt64 { scheduler.count }

    /// Runs it to its end.
    /// - Parameter time: how long things go wrong, in virtual time.
    public func run(for time: TimeAmount = .milliseconds(2_000)) {
        for device in devices { device.connect() }
        let end = scheduler.now + time
        chaos(until: end)
        scheduler.run(until: end, limit: Self.maximumEvents)
        isCalm = true
        server.refusesAppends = 0
        server.diesAtWrites = 0
        for device in devices { device.diesAtWrites = 0 }
        note { "calm" }
        scheduler.after(.seconds(3)) { [weak self] in self?.lastMessages() }
        if !scheduler.run(until: end + .seconds(15), limit: Self.maximumEvents) {
            violation("the sessions don't come to rest")
        }
        checkPlaces()
        checkErasures()
        checkUnread()
        let apps = devices.filter { !$0.isOver }.map(\.app)
        var cursors: [DeviceName: [ChannelID: Position]] = [:]
        for app in apps { cursors[app.name] = store.advance(app.user, app.device, to: []).cursors }
        checker.finish(apps: apps, cursors: cursors, truth: store.durable)
    }

    /// The last messages come while all devices come back at once, and their channels load slowly: whoever misses one then is
    /// not woken by another.
    private func lastMessages() {
        server.slowestLoad = 300
        note { "all links are lost once more" }
        for link in links { link.cut(tellClient: true, tellServer: true, losesToServer: true, losesToClient: true) }
        for _ in 0..<30 { scheduler.after(.milliseconds(pick(0...400))) { [weak self] in self?.publish() } }
    }

    // MARK: What is seen

    func violation(_ text: String) { checker.violation(text) }

    func note(_ text: () -> String) {
        guard let trace else { return }
        let microseconds = scheduler.now.uptimeNanoseconds / 1_000
        trace("\(microseconds) \(text())")
    }

    func noteConnected(early: Bool) {
        counts.connects += 1
        if early { counts.early += 1 }
    }

    // MARK: What goes wrong

    /// Sets the server's clock forward or back.
    func setClock(by milliseconds: Int64) {
        wallOffset = max(10_000, wallOffset + milliseconds)
        setWall()
    }

    private func setWall() {
        wall.set(UInt64(max(1, Int64(scheduler.milliseconds) + wallOffset)))
    }

    private func chaos(until end: NIODeadline) {
        repeatedly(1...30) { $0.publish() }
        repeatedly(50...800) { $0.cut() }
        repeatedly(300...3_000) { $0.anyDevice().goOffline(for: .milliseconds($0.pick(50...2_500))) }
        repeatedly(300...2_500) { $0.anyDevice().sleep(for: .milliseconds($0.pick(50...1_500))) }
        repeatedly(500...3_000) { $0.anyDevice().becomeSlow(for: .milliseconds($0.pick(100...1_500))) }
        repeatedly(500...4_000) { simulation in
            simulation.counts.deviceRestarts += 1
            simulation.anyDevice().restart()
        }
        repeatedly(1_000...5_000) { simulation in
            simulation.counts.serverRestarts += 1
            simulation.note { "the server is killed" }
            simulation.server.restart()
        }
        repeatedly(50...500) { $0.replay() }
        repeatedly(50...700) { $0.devices[Int($0.pick(3...4))].changeRoom($0.anyRoom(), joins: $0.random.happens(0.6)) }
        repeatedly(50...500) { $0.askHistory() }
        repeatedly(300...2_500) { $0.stopChannel() }
        repeatedly(300...2_500) { simulation in
            simulation.counts.modes += 1
            simulation.anyDevice().setMode([.foreground, .background, .lowPower][Int(simulation.pick(0...2))])
        }
        repeatedly(300...2_500) { $0.neighbour() }
        repeatedly(40...500) { $0.manage() }
        repeatedly(500...3_000) { $0.anyDevice().refresh() }
        repeatedly(300...2_500) { $0.takeRight() }
        repeatedly(1_000...5_000) { $0.trim() }
        repeatedly(200...3_000) { $0.setClock(by: $0.pick(-3_000...3_000)) }
        restores()
        rareChaos()
        accountChaos()
        idleChaos()
        switchChaos()
    }

    /// What happens once in a run, if at all.
    private func restores() {
        if random.happens(0.3) {
            let device = anyDevice()
            scheduler.after(.milliseconds(pick(100...1_000))) { device.takeBackup() }
            let kind = random.happens(0.7) ? ModelDevice.Restart.fromBackup : .withNothing
            let time = pick(1_100...1_900)
            scheduler.after(.milliseconds(time)) { [weak self] in
                self?.counts.restores += 1
                device.restart(kind)
            }
            if rare.happens(0.5) { restoreAgain(device, since: time) }
        }
        if random.happens(0.25) {
            scheduler.after(.milliseconds(pick(100...1_500))) { [weak self] in self?.store.takeBackup() }
            scheduler.after(.milliseconds(pick(300...1_900))) { [weak self] in
                // Who was erased since would be there again, until the operator does it once more.
                guard let self, counts.erasures == 0 else { return }
                note { "the server is restored from a backup" }
                server.restart(fromBackup: true)
            }
        }
        if random.happens(0.25) {
            let device = anyDevice()
            scheduler.after(.milliseconds(pick(300...2_000))) { [weak self] in
                guard let self else { return }
                counts.twins += 1
                let login = nextLogin(of: device.user, after: device.login)
                addDevice(device.user, device.device, login: login).connect()
            }
        }
    }

    private func repeatedly(_ milliseconds: ClosedRange<Int64>, _ body: @escaping (SessionSimulation) -> Void) {
        scheduler.after(.milliseconds(pick(milliseconds))) { [weak self] in
            guard let self, !isCalm else { return }
            body(self)
            repeatedly(milliseconds, body)
        }
    }

    private func pick(_ range: ClosedRange<Int64>) -> Int64 { Int64.random(in: range, using: &random) }

    private func anyDevice() -> ModelDevice { devices[Int(pick(0...Int64(devices.count - 1)))] }

    private func publish() {
        let device = anyDevice()
        let isNews = random.happens(0.12)
        let channel: ChannelID = isNews ? .all(news) : random.happens(0.6) ? .room(anyRoom()) : .user(device.user)
        if !isNews, random.happens(0.15) { return remark(on: channel, by: device) }
        var recipient: UserID?
        if case .user = channel, random.happens(0.6) { recipient = anyDevice().user }
        // Some are over the payload limit, some are worth little time.
        let bytes = random.happens(0.03) ? 3_500 : Int(pick(0...(random.happens(0.2) ? 2_500 : 60)))
        let lifetime = random.happens(0.1) ? UInt64(pick(1...(random.happens(0.5) ? 400 : 3_000))) : 0
        var kind = PublishKind.message
        if let recipient, recipient != device.user, random.happens(0.2) {
            kind = .request
            counts.requests += 1
        }
        for _ in 0..<(random.happens(0.05) ? pick(5...30) : 1) {
            device.publish(nextMessage, kind, in: channel, to: recipient, bytes: bytes, timeToLive: lifetime)
            nextMessage += 1
        }
    }

    private func anyRoom() -> RoomID { rooms[random.happens(0.7) ? 0 : 1] }

    private func anyChannel(of user: UserID) -> ChannelID {
        random.happens(0.2) ? .all(news) : random.happens(0.5) ? .room(anyRoom()) : .user(user)
    }

    private func askHistory() {
        let device = anyDevice()
        let channel = anyChannel(of: device.user)
        let log = store.truth.logs[channel]
        let isOlder = random.happens(0.5)
        let ends = isOlder ? [FrameLimits.maximumNumber, 1] : [0, log?.head.offset ?? 0]
        let some = log?.entries.randomElement(using: &random)?.offset
        let from = random.happens(0.4) ? ends[random.happens(0.8) ? 0 : 1] : some ?? ends[0]
        device.askHistory(
            channel, from: from, epoch: random.happens(0.5) ? 0 : log?.epoch ?? 0, isOlder ? .older : .newer,
            limit: UInt64(pick(1...8)))
    }

    /// A fresh credential of a user does not allow a channel any more, for a while.
    private func stopChannel() {
        let user = anyDevice().user
        let channel = anyChannel(of: user)
        counts.channelsStopped += 1
        stopped[user, default: []].insert(channel)
        refresh(user)
        scheduler.after(.milliseconds(pick(50...800))) { [weak self] in
            self?.stopped[user]?.remove(channel)
            self?.refresh(user)
        }
    }

    private func neighbour() {
        counts.neighbours += 1
        let device = anyDevice()
        store.neighbour(
            device.user, device.device, producer: device.durable.producer, in: anyRoom(),
            bytes: ByteBuffer(integer: UInt64.max))
    }

    private func manage() {
        let user = anyDevice().user
        let role = random.happens(0.6) ? RoomRole.owner : .member
        let action: RoomAction =
            switch pick(0...24) {
            case 0..<9: .add(user)
            case 9..<13: .remove(user)
            case 13..<18: .setRole(role, of: user)
            case 18..<21: .setJoining(RoomJoining.allCases.randomElement(using: &random) ?? .anyone)
            case 21..<24: .setPublishing(random.happens(0.6) ? .members : .owners)
            default: .delete
            }
        counts.roomChanges += 1
        anyDevice().manage(anyRoom(), action)
    }

    /// Edits, retracts or reacts to one of a channel's last entries, whoever wrote it, or one of another life of the log.
    private func remark(on channel: ChannelID, by device: ModelDevice) {
        guard let log = store.truth.logs[channel], let named = log.entries.suffix(6).randomElement(using: &random)
        else { return }
        let isForeign = random.happens(0.05)
        let target = Position(epoch: isForeign ? log.epoch &+ 1 : log.epoch, offset: named.offset)
        var kinds: [PublishKind] = [.edit(target), .retract(target), .react(target)]
        if named.kind == .request || random.happens(0.03) {
            kinds = [.reply(target)]
            counts.replies += 1
        }
        var recipient: UserID?
        if case .user = channel { recipient = named.origin == nil ? named.recipient : named.sender }
        if random.happens(0.05) { recipient = anyDevice().user }
        if case .room = channel { recipient = nil }
        device.publish(
            nextMessage, kinds[Int(pick(0...Int64(kinds.count - 1)))], in: channel, to: recipient,
            bytes: Int(pick(0...50)), timeToLive: 0)
        nextMessage += 1
    }

    /// Takes the right to publish from a user, for a short time: what is under way may be entered, or not.
    private func takeRight() {
        let user = anyDevice().user
        let place = random.happens(0.5) ? \SessionSimulation.withoutScope : \.deniedByApp
        counts.rightsTaken += 1
        self[keyPath: place].insert(user)
        refresh(user)
        scheduler.after(.milliseconds(pick(50...500))) { [weak self] in
            self?[keyPath: place].remove(user)
            self?.refresh(user)
        }
    }

    private func refresh(_ user: UserID) { for device in devices where device.user == user { device.refresh() } }

    private func cut() {
        let device = anyDevice()
        device.link?.cut(
            tellClient: random.happens(0.5), tellServer: random.happens(0.5), losesToServer: random.happens(0.6),
            losesToClient: random.happens(0.8))
    }

    private func trim() {
        let channel: ChannelID =
            random.happens(0.2) ? .all(news) : random.happens(0.5) ? .room(anyRoom()) : .user(anyDevice().user)
        note { "\(channel) is trimmed" }
        store.trim(channel, keep: retention(entries: Int(pick(0...40))))
    }

    /// The server's store is an older one now, without these messages.
    func restored(lost: Set<UInt64>) {
        counts.storeRestores += 1
        highestLogins = [:]
        checker.lost(lost, truth: store.truth)
        // What the old life still had under way is lost, and its early data refused by the server's TLS, which started anew.
        loseLinks()
    }

    /// Nothing that is under way arrives, and nobody can send it again.
    func loseLinks() {
        for link in links { link.cut(tellClient: false, tellServer: false, losesToServer: true, losesToClient: true) }
        links = []
    }

    // MARK: Links

    func openLink(isEarly: Bool) -> SimulatedLink {
        let link = makeLink(isEarly: isEarly, hasStreams: random.happens(0.8))
        server.accept(link)
        return link
    }

    private func makeLink(isEarly: Bool, hasStreams: Bool) -> SimulatedLink {
        counts.links += 1
        let link = SimulatedLink(
            number: counts.links, hasStreams: hasStreams, isEarly: isEarly,
            latency: random.happens(0.2) ? 20...60 : 1...15, scheduler: scheduler,
            random: SeededRandom(seed: random.next()))
        links.append(link)
        return link
    }

    /// Somebody who heard an early flight sends it again. The handshake never completes, and no answer can be read.
    private func replay() {
        let heard = links.filter { $0.isEarly && !$0.firstFlight.isEmpty }
        guard !heard.isEmpty else { return }
        counts.replays += 1
        // What was heard last is the likeliest to do harm.
        let recent = heard.suffix(random.happens(0.7) ? 5 : heard.count)
        let flight = recent[recent.startIndex + Int(pick(0...Int64(recent.count - 1)))].firstFlight
        let link = makeLink(isEarly: true, hasStreams: true)
        note { "link \(link.number) replays an early flight" }
        server.accept(link)
        for (frame, lane) in flight { link.send(frame, lane: lane, from: .client) }
        scheduler.after(.seconds(2)) {
            link.cut(tellClient: false, tellServer: true, losesToServer: true, losesToClient: true)
        }
    }

    // MARK: Credentials

    func credential(for device: DeviceName, login: UInt64, ticket: Bool) -> Credential {
        let name = "\(device.user)/\(device.device)/\(login)"
        return ticket ? .ticket(ByteBuffer(string: name)) : .token(name)
    }

    func ticket(for credential: Credential) -> Ticket {
        Ticket(ticket: ByteBuffer(string: Self.name(credential)), expiry: wall.milliseconds + 3_600_000)
    }

    private static func name(_ credential: Credential) -> String {
        switch credential {
        case .token(let token): token
        case .ticket(let ticket): String(buffer: ticket)
        }
    }

    /// The device that a credential was issued to.
    func device(of credential: Credential) -> ModelDevice? {
        let name = Self.name(credential)
        let holder = devices.first { "\($0.user)/\($0.device)/\($0.login)" == name }
        guard faults.contains(.serveFormerUser) else { return holder }
        return holder.flatMap { holder in devices.first { $0.device == holder.device } }
    }

    // MARK: Rights

    func isWithoutScope(_ user: UserID) -> Bool { withoutScope.contains(user) }
    func stoppedChannels(of user: UserID) -> Set<ChannelID> { stopped[user] ?? [] }
    func isDeniedByApp(_ user: UserID) -> Bool { deniedByApp.contains(user) }
}
