import LonglineSession
import LonglineTestKit
import LonglineWire
import NIOCore

/// A server says what it likes to a ``ClientSession`` whose app publishes and confirms.
///
/// The session never traps; a publish is answered once; the app is given each channel in order; it keeps to the server's
/// limits, and once a link ended it says nothing more on it. Nothing leaves behind a refused publish that is still on the disk.
final class ClientSessionFuzzing {
    private enum Step: UInt8, CaseIterable {
        case frame, frameAgain, datagram, signal, subscribe, open, bytes, finish, time, writable, publish, confirm,
            request, refresh, link, gone,
            accept
    }

    private static let maximumSteps = 400

    private var choices: SessionChoices
    private var session: ClientSession
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    private var random = SeededRandom(seed: 1)
    private var lastLane = LaneID.control

    private var rows: [OutboxRow] = []
    private var nextID: PublishID = 1
    private var lastID: [ChannelID: PublishID] = [:]
    private var connectNumber: UInt64 = 0
    private var isOpen = false
    private var lanes: [LaneID: LaneHeader] = [:]
    private var given: [ChannelID: Position] = [:]
    private var confirmed: [ChannelID: Position] = [:]
    private var mayConfirm: [(ChannelID, Position)] = []
    private var lanesInUse: Set<LaneID> = []
    /// Refused, and still on the disk.
    private var unremoved: [(channel: ChannelID, id: PublishID)] = []

    static func run(_ choices: SessionChoices) throws { try ClientSessionFuzzing(choices).run() }

    private init(_ choices: SessionChoices) {
        self.choices = choices
        var configuration = ClientSessionConfiguration()
        configuration.maximumLanes = 8
        configuration.maximumHeldBytes = 20_000
        configuration.maximumOutbox = 20
        configuration.acceptsBatches = true
        configuration.plainChannels = [self.choices.channels[1]]
        configuration.acknowledgeEvery = 2
        configuration.laneIdleTime = .milliseconds(500)
        session = ClientSession(
            configuration: configuration, producer: ProducerID(high: 1, low: 1),
            cursors: [choices.channels[0]: Position(epoch: 7, offset: 3)], cursorVersion: 2)
        given[choices.channels[0]] = Position(epoch: 7, offset: 3)
    }

    private func run() throws {
        for _ in 0..<Self.maximumSteps where !choices.input.isEmpty {
            guard let step = Step(rawValue: choices.input.byte() % UInt8(Step.allCases.count)) else { continue }
            try take(step)
            try drain()
        }
        session.linkClosed(now: now)
        isOpen = false
        try drain()
        guard session.nextDeadline == nil else { throw FuzzFinding("a session without a link waits") }
    }

    private func take(_ step: Step) throws {
        switch step {
        case .frame: receive(choices.frame(), choices.lane())
        case .frameAgain: receive(choices.frame(), lastLane)
        case .datagram: session.receivedDatagram(choices.frame(), now: now)
        case .signal: _ = session.signal(choices.signal(isFromServer: false), now: now)
        case .subscribe:
            _ = session.subscribe(
                PresenceRequest(request: choices.number(), users: [choices.users[0]]), now: now)
            session.unsubscribe([], now: now)
            _ = session.setVisibility(.nothing, now: now)
        case .open: receive(.lane(LaneHeader(channel: choices.channel(), epoch: choices.epoch())), choices.lane())
        case .accept: receive(.connected(choices.connected()), .control)
        case .bytes:
            let lane = choices.lane()
            let (frames, error) = choices.bytes()
            for frame in frames { receive(frame, lane) }
            if let error { session.receivedInvalid(error.close, lane: lane, now: now) }
        case .finish: session.laneFinished(choices.lane(), now: now)
        case .time:
            now = now + choices.time()
            for (channel, id) in unremoved { session.rowRemoved(id, from: channel, now: now) }
            unremoved = []
            session.deadlineReached(now: now, random: &random)
            if let next = session.nextDeadline, next <= now { throw FuzzFinding("a deadline that stays due") }
        case .writable: session.laneWritable(choices.lane(), choices.input.byte() & 1 == 0, now: now)
        case .publish: publish()
        case .confirm:
            guard !mayConfirm.isEmpty else { return }
            let (channel, position) = mayConfirm.remove(at: Int(choices.input.byte()) % mayConfirm.count)
            let known = confirmed[channel]
            if known?.epoch != position.epoch || (known?.offset ?? 0) < position.offset {
                confirmed[channel] = position
            }
            session.confirm(channel: channel, position: position, now: now)
        case .request:
            _ = session.join(choices.rooms[0], request: choices.number(), now: now)
        case .refresh: _ = session.refresh(token: "token", now: now)
        case .link: openLink()
        case .gone:
            session.linkClosed(now: now)
            isOpen = false
        }
    }

    private func receive(_ frame: Frame, _ lane: LaneID) {
        lastLane = lane
        session.received(frame, lane: lane, now: now)
    }

    private func publish() {
        let channel = choices.channel()
        var publish = choices.publish()
        publish.id = nextID
        publish.after = lastID[channel] ?? 0
        let row = OutboxRow(channel: channel, publish: publish, queuedAt: now)
        guard session.enqueue(row, now: now) else { return }
        nextID += 1
        lastID[channel] = publish.id
        rows.append(row)
    }

    private func openLink() {
        connectNumber += 1
        isOpen = true
        lanes = [:]
        lanesInUse = []
        let ticket = choices.input.byte() & 1 == 0
        session.linkOpened(
            credential: ticket ? .ticket(ByteBuffer(string: "t")) : .token("token"), connectNumber: connectNumber,
            supportsPathChange: choices.input.byte() & 1 == 0, outbox: rows, now: now)
    }

    // MARK: What it does

    private func drain() throws {
        var count = 0
        while let action = session.nextAction() {
            count += 1
            try check(action)
        }
        guard count < 5_000 else { throw FuzzFinding("\(count) actions for one input") }
    }

    private func check(_ action: ClientAction) throws {
        switch action {
        case .send(let frame, let lane): try check(frame, lane)
        case .openLane(let lane):
            guard isOpen, lanesInUse.insert(lane).inserted else { throw FuzzFinding("lane \(lane.rawValue) again") }
        case .finishLane(let lane): lanes[lane] = nil
        case .end:
            guard isOpen else { throw FuzzFinding("a link ends twice") }
            isOpen = false
        case .published(let channel, let published): try answered(channel, published.id)
        case .refused(let channel, let refused):
            try answered(channel, refused.id)
            unremoved.append((channel, refused.id))
        case .renewProducer: renew()
        case .deliver(let channel, let epoch, let deliver):
            let entry = deliver.entry
            guard entry.following == 0 else { throw FuzzFinding("\(channel): half of \(entry.offset) is given") }
            if let last = given[channel], last.epoch == epoch, entry.offset <= last.offset {
                throw FuzzFinding("\(channel): \(entry.offset) is given after \(last.offset)")
            }
            give(channel, Position(epoch: epoch, offset: entry.offset))
        case .skipped(let channel, let epoch, let skip):
            given[channel] = Position(epoch: epoch, offset: skip.to)
        case .gap(let channel, let epoch, let gap): give(channel, Position(epoch: epoch, offset: gap.first))
        case .sendSignal(let signal, let until):
            guard isOpen, until > now, signal.sender == nil else { throw FuzzFinding("a signal without a link") }
        case .signal(let signal, let until):
            guard signal.sender != nil, until > now else { throw FuzzFinding("a signal that is too late is told") }
        case .presence, .presenceAnswered, .erasureRefused: break
        case .connected, .storeTicket, .roomAnswered, .members, .history, .refreshed, .stopped, .behind,
            .observedAddress, .heartbeatLearned, .probePath, .conversations, .conversationState, .receipt,
            .prioritize, .awaitRoom:
            break
        }
    }

    private func give(_ channel: ChannelID, _ position: Position) {
        given[channel] = position
        if mayConfirm.count < 200 { mayConfirm.append((channel, position)) }
    }

    private func answered(_ channel: ChannelID, _ id: PublishID) throws {
        guard let index = rows.firstIndex(where: { $0.channel == channel && $0.publish.id == id }) else {
            throw FuzzFinding("publish \(id) is answered twice")
        }
        rows.remove(at: index)
    }

    private func renew() {
        var last: [ChannelID: PublishID] = [:]
        for index in rows.indices {
            rows[index].publish.id = PublishID(index) + 1
            rows[index].publish.after = last[rows[index].channel] ?? 0
            last[rows[index].channel] = PublishID(index) + 1
        }
        nextID = PublishID(rows.count) + 1
        lastID = last
        unremoved = []
        session.producerRenewed(ProducerID(high: 2, low: connectNumber))
    }

    private func check(_ frame: Frame, _ lane: LaneID) throws {
        guard isOpen else { throw FuzzFinding("\(frame.name) after the link's end") }
        var buffer = ByteBuffer()
        do { try FrameEncoder.encode(frame, into: &buffer) } catch {
            throw FuzzFinding("\(frame) can't be sent: \(error)")
        }
        guard lane != .control else { return }
        if case .lane(let header) = frame {
            lanes[lane] = header
            return
        }
        guard let header = lanes[lane] else { throw FuzzFinding("\(frame.name) on a lane that isn't open") }
        switch frame {
        case .publish(let publish):
            guard rows.contains(where: { $0.channel == header.channel && $0.publish.id == publish.id }) else {
                throw FuzzFinding("\(publish.id) is sent, and no row of \(header.channel)")
            }
            if let before = unremoved.first(where: { $0.channel == header.channel }) {
                throw FuzzFinding("\(publish.id) is sent while \(before.id) may be found again")
            }
        case .acknowledge: break
        default: throw FuzzFinding("\(frame.name) on a channel's lane")
        }
    }
}
