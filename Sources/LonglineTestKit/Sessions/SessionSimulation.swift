import LonglineSession
import LonglineWire
public import NIOCore

/// A server, five devices of three users and everything that can go wrong between them, in one thread and from one seed.
///
/// For a while apps publish, confirm, join, leave and crash; links die in one direction or both, with or without a word;
/// the server is killed and comes back with its store; early flights are sent again by somebody else; devices are restored
/// from a backup. Then everything heals, and what is owed has to arrive. The ``checker`` has watched.
public final class SessionSimulation {
    /// The seed that makes this run.
    public let seed: UInt64
    /// What was seen.
    public internal(set) var checker = MessageChecker()
    /// The truth.
    public let store: ModelStore
    /// Rules broken on purpose.
    let faults: Set<SimulatedFault>
    let tenant: TenantID

    /// How often things happened, to see that a run is not empty.
    public struct Counts: Sendable {
        /// Links opened.
        public var links = 0
        /// Connects accepted.
        public var connects = 0
        /// Of these, in a link's first flight.
        public var early = 0
        /// Early flights sent again by somebody else.
        public var replays = 0
        /// The server killed.
        public var serverRestarts = 0
        /// A device's app killed.
        public var deviceRestarts = 0
        /// A device restored from a backup.
        public var restores = 0
    }
    /// How often things happened.
    public private(set) var counts = Counts()
    /// Producers given up because an ID was used twice.
    public internal(set) var renewals = 0

    /// Some twenty times what a run takes.
    private static let maximumEvents: UInt64 = 400_000

    private let scheduler = VirtualScheduler()
    private var random: SeededRandom
    private var server: ModelServer!
    private var devices: [ModelDevice] = []
    private var links: [SimulatedLink] = []
    private let room: RoomID
    private var nextMessage: UInt64 = 1
    private var isCalm = false

    /// A simulation that has not run.
    /// - Throws: ``LonglineWire/IdentifierError``, which it never does with the names it uses.
    public init(seed: UInt64, faults: Set<SimulatedFault> = []) throws {
        self.seed = seed
        self.faults = faults
        random = SeededRandom(seed: seed)
        tenant = try TenantID("tenant")
        room = try RoomID("room")
        store = ModelStore(random: SeededRandom(seed: random.next()), faults: faults)
        server = ModelServer(
            store: store, simulation: self, scheduler: scheduler, random: SeededRandom(seed: random.next()))
        for (user, device) in [
            ("alice", "phone"), ("alice", "tablet"), ("bob", "bob-phone"), ("carol", "carol-phone"),
            ("carol", "laptop"),
        ] {
            devices.append(
                ModelDevice(
                    user: try UserID(user), device: try DeviceID(device), simulation: self, scheduler: scheduler,
                    random: SeededRandom(seed: random.next())))
        }
        for device in devices.prefix(3) {
            _ = store.join(room, user: device.user, device: device.device, time: scheduler.milliseconds)
        }
    }

    /// Events that happened in the run.
    public var events: UInt64 { scheduler.count }

    /// Runs it to its end.
    /// - Parameter time: how long things go wrong, in virtual time.
    public func run(for time: TimeAmount = .seconds(3)) {
        for device in devices { device.connect() }
        let end = scheduler.now + time
        chaos(until: end)
        scheduler.run(until: end, limit: Self.maximumEvents)
        isCalm = true
        server.refusesAppends = 0
        if !scheduler.run(until: end + .seconds(60), limit: Self.maximumEvents) {
            checker.violation("the sessions don't come to rest")
        }
        checker.finish(devices: devices.map { ($0.device, $0.user) }, store: store)
    }

    // MARK: What goes wrong

    private func chaos(until end: NIODeadline) {
        repeatedly(1...30) { $0.publish() }
        repeatedly(50...800) { $0.cut() }
        repeatedly(300...3_000) { $0.anyDevice().goOffline(for: .milliseconds($0.pick(50...2_500))) }
        repeatedly(500...4_000) { simulation in
            simulation.counts.deviceRestarts += 1
            simulation.anyDevice().restart(fromBackup: false)
        }
        repeatedly(1_000...5_000) { simulation in
            simulation.counts.serverRestarts += 1
            simulation.server.restart()
        }
        repeatedly(50...500) { $0.replay() }
        repeatedly(50...700) { $0.devices[Int($0.pick(3...4))].changeRoom($0.room, joins: $0.random.happens(0.6)) }
        repeatedly(500...3_000) { $0.anyDevice().refresh() }
        repeatedly(1_500...8_000) { $0.trim() }
        if random.happens(0.3) {
            let device = anyDevice()
            scheduler.after(.milliseconds(pick(100...1_000))) { device.takeBackup() }
            scheduler.after(.milliseconds(pick(1_200...2_500))) { [weak self] in
                self?.counts.restores += 1
                device.restart(fromBackup: true)
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
        let channel: ChannelID = random.happens(0.6) ? .room(room) : .user(device.user)
        // Some are over the payload limit, some are worth little time.
        let bytes = random.happens(0.03) ? 3_500 : Int(pick(0...(random.happens(0.2) ? 2_500 : 60)))
        let lifetime = random.happens(0.1) ? UInt64(pick(1...400)) : 0
        for _ in 0..<(random.happens(0.05) ? pick(5...30) : 1) {
            device.publish(nextMessage, in: channel, bytes: bytes, timeToLive: lifetime)
            nextMessage += 1
        }
    }

    private func cut() {
        let device = anyDevice()
        device.link?.cut(
            tellClient: random.happens(0.5), tellServer: random.happens(0.5), losesToServer: random.happens(0.6),
            losesToClient: random.happens(0.8))
    }

    private func trim() {
        let channel = random.happens(0.5) ? ChannelID.room(room) : .user(anyDevice().user)
        let entries = store.log(channel).entries
        guard !entries.isEmpty else { return }
        store.trim(channel, to: entries[Int(pick(0...Int64(entries.count - 1)))].offset)
    }

    // MARK: Links

    func openLink(isEarly: Bool) -> SimulatedLink? {
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
        server.accept(link)
        for (frame, lane) in flight { link.send(frame, lane: lane, from: .client) }
        scheduler.after(.seconds(2)) {
            link.cut(tellClient: false, tellServer: true, losesToServer: true, losesToClient: true)
        }
    }

    func noteConnected(resumed: Bool) {
        counts.connects += 1
        if resumed { counts.early += 1 }
    }

    // MARK: Credentials

    func credential(for device: DeviceID, ticket: Bool) -> Credential {
        ticket ? .ticket(ByteBuffer(string: device.description)) : .token(device.description)
    }

    func ticket(for device: DeviceID) -> Ticket {
        Ticket(ticket: ByteBuffer(string: device.description), expiry: scheduler.milliseconds + 3_600_000)
    }

    func owner(of credential: Credential) -> (UserID, DeviceID)? {
        let name =
            switch credential {
            case .token(let token): token
            case .ticket(let ticket): String(buffer: ticket)
            }
        return devices.first { $0.device.description == name }.map { ($0.user, $0.device) }
    }
}
