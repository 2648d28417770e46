import LonglineSession
import LonglineStore
import LonglineTestKit
import LonglineWire
import NIOCore
import Synchronization
import Testing

@testable import LonglineServer

/// The server's loops, queues and hosts under devices that do anything in any order, over a store that fails at any time: in the end
/// each message has one outcome, stands in the log once if it is acknowledged, and reached every device that it is for, once and in
/// order.
@Suite("Sessions that do anything", .timeLimit(.minutes(5)))
struct RandomSessionsTests {
    @Test(
        "What is acknowledged is entered once, and reaches every device once, in order",
        arguments: 0..<6 as Range<UInt64>)
    func anything(part: UInt64) async throws {
        for seed in seeds(1 + part * 20..<21 + part * 20) {
            let problems = try await run(seed)
            #expect(problems.isEmpty, "seed \(seed): \(problems)")
        }
    }

    private func run(_ seed: UInt64) async throws -> [String] {
        var random = SeededRandom(seed: seed)
        let store = FaultyStore()
        let room = try RoomID("hall")
        var devices: [RandomDevice] = []
        for (user, name) in [("ann", "phone"), ("ann", "tablet"), ("bob", "phone"), ("eve", "phone")] {
            devices.append(try RandomDevice(user, name, room: room, random: SeededRandom(seed: random.next())))
        }
        for device in devices {
            _ = try await store.inner.change(room, .join(create: true), by: device.key)
        }
        var problems: [String] = []
        var limits = ServerLimits()
        limits.connectBurst = 1_000_000
        try await withServer(store: store, limits: limits) { server in
            for number in 0..<120 {
                let device = devices[Int.random(in: 0..<devices.count, using: &random)]
                switch Int.random(in: 0..<24, using: &random) {
                case 0..<10: try await device.publish("\(number)")
                case 10..<14: try await device.connect(server)
                case 14..<16: try await device.drop()
                case 16: store.set { $0.isFull = random.happens(0.4) }
                case 17: store.set { $0.reads = random.happens(0.2) ? StoreError(.overloaded, message: "busy") : nil }
                default: for device in devices { try await device.pump() }
                }
            }
            store.set {
                $0.isFull = false
                $0.reads = nil
            }
            problems += try await settle(devices, store, server)
        }
        return problems
    }

    /// Lets everything come to its end, and compares it.
    private func settle(_ devices: [RandomDevice], _ store: FaultyStore, _ server: TestServer) async throws -> [String]
    {
        // What a session tries again in a second is not waited for: the next link begins anew.
        for device in devices { try await device.drop() }
        while !devices.allSatisfy({ $0.isAnswered }) { try await turn(devices, server) }
        var problems: [String] = []
        for device in devices {
            for channel in [device.inbox, device.hall] {
                let page = try await store.inner.read(
                    ChannelKey(tenant: TokenIssuer.tenant, channel: channel), after: 0, upTo: nil,
                    maximumBytes: 1 << 24, now: 0)
                let entries = page.items.compactMap { item in
                    if case .entry(let entry) = item, entry.kind == .message { entry } else { nil }
                }
                while device.received[channel, default: []].count < entries.count { try await turn(devices, server) }
                if device.received[channel, default: []] != entries.map(\.offset) {
                    problems.append("\(device.key.device) received \(device.received[channel] ?? []) in \(channel)")
                }
                let own = entries.filter { $0.sender == device.key.user && $0.device == device.key.device }
                    .map { String(buffer: $0.payload) }
                let acknowledged = device.acknowledged[channel] ?? []
                if own != acknowledged { problems.append("\(channel): \(own), told \(acknowledged)") }
            }
            problems += device.problems
        }
        return problems
    }

    private func turn(_ devices: [RandomDevice], _ server: TestServer) async throws {
        for device in devices {
            try await device.connect(server)
            try await device.pump()
        }
        await Task.yield()
    }
}

/// A device with the real session of a client, and an outbox in memory. Its clock is ahead of time: what waits is tried again at once.
private final class RandomDevice {
    /// What a server said and nobody took.
    private final class Mailbox: Sendable {
        private let events = Mutex<[ServerSaid]>([])
        func put(_ event: ServerSaid) { events.withLock { $0.append(event) } }
        func take() -> [ServerSaid] {
            events.withLock { events in
                defer { events = [] }
                return events
            }
        }
    }

    private struct Connection {
        let wire: FakeWire
        let mailbox: Mailbox
        let listener: Task<Void, Never>
    }

    let key: DeviceKey
    let inbox: ChannelID
    let hall: ChannelID
    private var random: SeededRandom
    private var session: ClientSession
    private var connection: Connection?
    private var rows: [OutboxRow] = []
    private var nextID: PublishID = 1
    private var lastID: [ChannelID: PublishID] = [:]
    private var connectNumber: UInt64 = 0
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    /// Messages given to the app, by channel.
    private(set) var received: [ChannelID: [Offset]] = [:]
    /// Messages that the app was told are entered.
    private(set) var acknowledged: [ChannelID: [String]] = [:]
    private(set) var problems: [String] = []

    init(_ user: String, _ name: String, room: RoomID, random: SeededRandom) throws {
        key = DeviceKey(tenant: TokenIssuer.tenant, user: try UserID(user), device: try DeviceID(name))
        inbox = .user(key.user)
        hall = .room(room)
        self.random = random
        var configuration = ClientSessionConfiguration()
        configuration.retryDelay = .milliseconds(1)
        session = ClientSession(
            configuration: configuration, producer: .random(using: &self.random), cursors: [:], cursorVersion: 0)
    }

    var isAnswered: Bool { rows.isEmpty }

    // MARK: The app

    func publish(_ text: String) async throws {
        let channel = random.happens(0.6) ? hall : inbox
        let others = try ["ann", "bob", "eve"].map { try UserID($0) }.filter { $0 != key.user }
        let publish = Publish(
            id: nextID, tag: random.next(), after: lastID[channel] ?? 0,
            recipient: channel == inbox && random.happens(0.8) ? others.randomElement(using: &random) : nil,
            timeToLive: 0, payload: ByteBuffer(string: text))
        nextID += 1
        lastID[channel] = publish.id
        let row = OutboxRow(channel: channel, publish: publish, queuedAt: now)
        rows.append(row)
        if !session.enqueue(row, now: now) { problems.append("\(text) was not taken") }
        try await pump()
    }

    func connect(_ server: TestServer) async throws {
        guard connection == nil else { return }
        let (said, continuation) = AsyncStream.makeStream(of: ServerSaid.self)
        let loops = server.runtime.loops
        let wire = try await FakeWire(
            runtime: server.runtime, loop: loops[Int.random(in: 0..<loops.count, using: &random)], early: false,
            remoteAddress: "192.0.2.1:4242", said: continuation)
        let mailbox = Mailbox()
        let listener = Task { for await event in said { mailbox.put(event) } }
        connection = Connection(wire: wire, mailbox: mailbox, listener: listener)
        connectNumber += 1
        let token = try await server.issuer.token(key.user.description, key.device.description)
        session.linkOpened(
            credential: .token(token), connectNumber: connectNumber, supportsPathChange: false, outbox: rows, now: now)
        try await pump()
    }

    /// The link is lost; what was said on it may never have arrived.
    func drop() async throws {
        guard let connection else { return }
        self.connection = nil
        connection.listener.cancel()
        session.linkClosed(now: now)
        try await connection.wire.drop()
    }

    /// Takes what came, and says what is to be said, until there is nothing of either.
    func pump() async throws {
        while true {
            now = now + .milliseconds(20)
            if let due = session.nextDeadline, due <= now, !isConnecting {
                session.deadlineReached(now: now, random: &random)
            }
            let events = connection?.mailbox.take() ?? []
            for event in events { take(event) }
            var frames: [(Frame, LaneID)] = []
            var isOver = false
            while let action = session.nextAction() { perform(action, &frames, &isOver) }
            if !frames.isEmpty { try await connection?.wire.send(frames, early: false) }
            if isOver { try await drop() }
            if events.isEmpty, frames.isEmpty { return }
        }
    }

    /// Its clock runs far ahead of the server's: how long a connect takes, says nothing.
    private var isConnecting: Bool { !session.isConnected }

    private func take(_ event: ServerSaid) {
        switch event {
        case .frame(let frame, let lane): session.received(frame, lane: lane, now: now)
        case .finished(let lane): session.laneFinished(lane, now: now)
        case .prioritized, .polled: break
        case .closed:
            connection?.listener.cancel()
            connection = nil
            session.linkClosed(now: now)
        }
    }

    private func perform(_ action: ClientAction, _ frames: inout [(Frame, LaneID)], _ isOver: inout Bool) {
        switch action {
        case .send(let frame, let lane): frames.append((frame, lane))
        case .awaitRoom(let lane): session.laneWritable(lane, true, now: now)
        case .published(let channel, let published):
            guard let index = rows.firstIndex(where: { $0.publish.id == published.id }) else {
                return problems.append("\(published.id) was answered twice")
            }
            acknowledged[channel, default: []].append(String(buffer: rows.remove(at: index).publish.payload))
        case .refused(_, let refused):
            rows.removeAll { $0.publish.id == refused.id }
            problems.append("\(refused.id) was refused with \(refused.code)")
        case .renewProducer: problems.append("the producer is spent")
        case .deliver(let channel, let epoch, let deliver):
            let position = Position(epoch: epoch, offset: deliver.entry.offset)
            if deliver.entry.kind == .message { received[channel, default: []].append(position.offset) }
            session.confirm(channel: channel, position: position, now: now)
        case .gap(let channel, _, let gap): problems.append("a gap in \(channel): \(gap)")
        case .end(let end):
            if end.close.code == .malformedFrame || end.close.code == .unexpectedFrame {
                problems.append("ended by \(end.close)")
            }
            isOver = true
        default: break
        }
    }
}
