import LonglineSession
import LonglineWire
import NIOCore

/// A client says what it likes to a ``ServerSession`` whose host answers as it should, in any order and at any time.
///
/// The session never traps; it acts once it has a CONNECT, in the order of the protocol, within its limits; and once
/// closed it says and does nothing more.
final class ServerSessionFuzzing {
    private enum Step: UInt8, CaseIterable {
        case frame, frameAgain, datagram, relay, watched, presence, laneFrame, bytes, finish, time, handshake, writable,
            grant, append, read, wake, room,
            refresh, change, gone
    }

    private static let maximumSteps = 400

    private var choices: SessionChoices
    private var session: ServerSession
    private let configuration: ServerSessionConfiguration
    private var now = NIODeadline.uptimeNanoseconds(1_000_000_000)
    private var handshakeDone = false
    private var lastLane = LaneID.control

    // What the session asked for.
    private var connects: [Connect] = []
    private var appends: [(channel: ChannelID, publish: Publish)] = []
    private var reads: [(channel: ChannelID, after: Offset, upTo: Offset?)] = []
    private var roomRequests: [RoomRequest] = []
    private var refreshes = 0
    private var watches: [PresenceRequest] = []
    /// The read of history that is under way.
    private var historyRead: UInt64?
    private var membersRead: UInt64?

    // What it said.
    private var isGranted = false
    private var closes = 0
    private var closedByPeer = false
    private var lanes: [LaneID: LaneHeader] = [:]
    private var highestLane: UInt64 = 0
    private var chain: [ChannelID: Position] = [:]
    private var heldCost = 0
    private var payloads: [PayloadRead] = []
    private var asksForBatches = false
    /// The entries whose payloads go on in parts, by channel: the place before, and the bytes still to come.
    private var underWay: [ChannelID: (previous: Position, left: UInt64)] = [:]
    /// The lanes of which the session waits to hear that all of it arrived, and their channels.
    private var undelivered: [LaneID: (channel: ChannelID, question: UInt64)] = [:]

    static func run(_ choices: SessionChoices) throws { try ServerSessionFuzzing(choices).run() }

    private init(_ choices: SessionChoices) {
        self.choices = choices
        var configuration = ServerSessionConfiguration()
        configuration.limits = SessionLimits(
            maximumPayload: 1_000, channelWindow: 2_000, maximumUnacknowledged: 4, minimumHeartbeat: 100,
            idleTimeout: 60_000)
        configuration.maximumLanes = 8
        configuration.maximumRoomRequests = 2
        configuration.maximumReads = 2
        configuration.deliveryBudget = 2_500
        configuration.maximumEarlyBytes = 20_000
        configuration.laneIdleTime = .milliseconds(500)
        self.configuration = configuration
        session = ServerSession(configuration: configuration, observedAddress: "192.0.2.1:1", now: now)
    }

    private func run() throws {
        for _ in 0..<Self.maximumSteps where !choices.input.isEmpty {
            guard let step = Step(rawValue: choices.input.byte() % UInt8(Step.allCases.count)) else { continue }
            try take(step)
            try drain()
        }
        session.linkClosed()
        guard session.nextAction() == nil, session.isClosed, session.nextDeadline == nil else {
            throw FuzzFinding("a session without a link goes on")
        }
    }

    private func take(_ step: Step) throws {
        switch step {
        case .frame: receive(choices.frame(), choices.lane())
        case .frameAgain: receive(choices.frame(), lastLane)
        case .datagram: session.receivedDatagram(choices.frame(), now: now)
        case .relay: session.relay(choices.signal(isFromServer: true), until: now + choices.time(), now: now)
        case .watched:
            guard !watches.isEmpty else { return }
            let refusal: RefusalCode? = choices.input.byte() & 3 == 0 ? .overloaded : nil
            session.watched(watches.removeFirst(), refusal: refusal, retryAfter: choices.number(), now: now)
        case .presence: session.presenceChanged(choices.presence(), now: now)
        case .laneFrame:
            let lane = choices.lane()
            receive(.lane(LaneHeader(channel: choices.channel(), epoch: 7)), lane)
            receive(.publish(choices.publish()), lane)
        case .bytes:
            let lane = choices.lane()
            let (frames, error) = choices.bytes()
            for frame in frames { receive(frame, lane) }
            if let error { session.receivedInvalid(error.close, lane: lane, now: now) }
        case .finish: session.laneFinished(choices.lane(), now: now)
        case .time: try passTime()
        case .handshake:
            handshakeDone = true
            session.handshakeCompleted(now: now)
        case .writable:
            session.laneWritable(choices.lane(), choices.input.byte() & 1 == 0, now: now)
            // What was asked about is there by now.
            for lane in undelivered.keys.sorted() {
                guard let question = undelivered.removeValue(forKey: lane)?.question else { continue }
                session.laneDelivered(lane, question: question, now: now)
            }
        case .grant: grant()
        case .append: answerAppend()
        case .read: answerRead()
        case .wake: session.logAdvanced(choices.channel(), head: choices.position(), now: now)
        case .room: answerRoom()
        case .refresh: answerRefresh()
        case .change: session.channelChanged(channel(choices.channel()), now: now)
        case .gone:
            if choices.input.byte() & 7 == 0 { session.close(Close(code: .shuttingDown), now: now) }
        }
    }

    private func receive(_ frame: Frame, _ lane: LaneID) {
        lastLane = lane
        if case .encodings = frame { asksForBatches = true }
        if case .close = frame, lane == .control { closedByPeer = true }
        if !isGranted, lane != .control, !session.isClosed {
            var payload = 0
            if case .publish(let publish) = frame { payload = publish.payload.readableBytes }
            if case .deliver(let deliver) = frame { payload = deliver.entry.payload.readableBytes }
            if case .part(let part) = frame { payload = part.bytes.readableBytes }
            if case .batch(let batch) = frame { payload = batch.length }
            heldCost += payload + 128
        }
        session.received(frame, lane: lane, early: !handshakeDone, now: now)
    }

    private func passTime() throws {
        now = now + choices.time()
        session.deadlineReached(now: now)
        if let next = session.nextDeadline, next <= now { throw FuzzFinding("a deadline that stays due") }
    }

    // MARK: The host

    private func channel(_ channel: ChannelID) -> SessionChannel {
        let head = choices.number() % 100
        return SessionChannel(
            channel: channel, head: Position(epoch: choices.input.byte() & 7 == 0 ? 8 : 7, offset: head),
            first: choices.number() % (head + 1), after: choices.number() % (head + 1),
            upTo: choices.input.byte() & 3 == 0 ? head : nil,
            cursor: choices.input.byte() & 1 == 0 ? choices.position() : nil,
            sent: choices.input.byte() & 1 == 0 ? choices.number() : nil)
    }

    private func identity(may bits: UInt8) -> SessionIdentity {
        SessionIdentity(
            tenant: choices.tenant, user: choices.users[0], device: choices.device, loginEpoch: 1, tokenID: "t",
            expiry: choices.number(), mayPublish: bits & 1 == 0, mayReceive: bits & 2 == 0, mayJoin: bits & 4 == 0,
            mayManage: bits & 1 == 0)
    }

    private func grant() {
        guard !connects.isEmpty, !isGranted else { return }
        let bits = choices.input.byte()
        if bits & 0xf0 == 0xf0 { return session.rejected(Close(code: .credentialInvalid), now: now) }
        let channels = choices.channels.prefix(Int(bits >> 4) % 3).map { channel($0) }
        isGranted = true
        session.authenticated(
            SessionGrant(
                identity: identity(may: bits & 8 == 0 ? 0 : bits), session: 1, resumed: false,
                cursorVersion: choices.number(), channels: channels, ticket: nil),
            time: choices.number(), now: now)
    }

    private func answerAppend() {
        guard !appends.isEmpty else { return }
        let (channel, publish) = appends.remove(at: Int(choices.input.byte()) % appends.count)
        let outcome: PublishOutcome =
            choices.input.byte() & 3 == 0
            ? .refused(Refused(id: publish.id, code: .overloaded))
            : .published(Published(id: publish.id, position: choices.position(), time: 1))
        session.appended(channel: channel, id: publish.id, outcome: outcome, now: now)
    }

    private func answerPayload() {
        let read = payloads.remove(at: Int(choices.input.byte()) % payloads.count)
        switch choices.input.byte() & 7 {
        case 0: session.payloadRead(read, bytes: nil, now: now)
        case 1: session.payloadReadFailed(read, now: now)
        default:
            let bytes = ByteBuffer(repeating: 1, count: min(read.maximumBytes, 1 + Int(choices.input.byte())))
            session.payloadRead(read, bytes: bytes, now: now)
        }
    }

    private func answerRead() {
        if !payloads.isEmpty { answerPayload() }
        guard !reads.isEmpty else { return }
        let (channel, after, upTo) = reads.remove(at: Int(choices.input.byte()) % reads.count)
        let bits = choices.input.byte()
        if bits & 7 == 0 { return session.readFailed(channel, now: now) }
        let first = bits & 8 == 0 ? 0 : choices.number()
        var end = max(after, first)
        var items: [SessionPage.Item] = []
        for _ in 0..<(bits >> 4) {
            let offset = end + UInt64(choices.input.byte() % 3) + 1
            guard offset <= upTo ?? .max, offset < FrameLimits.maximumNumber else { break }
            if choices.input.byte() & 3 == 0 {
                items.append(.skip(Skip(previous: end, to: offset, reason: .expired)))
            } else {
                var entry = choices.entry()
                (entry.offset, entry.previous) = (offset, end)
                items.append(.entry(entry))
            }
            end = offset
        }
        let page = SessionPage(
            epoch: bits == 0xff ? 8 : 7, items: items, head: max(end, choices.number()), first: first)
        session.pageRead(channel, page: page, now: now)
    }

    private func answerRoom() {
        guard !roomRequests.isEmpty else { return }
        let request = roomRequests.removeFirst()
        let isDone = choices.input.byte() & 3 != 0
        let position = choices.position()
        let settings = RoomSettings(
            room: request.room, position: position, joining: .anyone, publishing: .members, role: .owner)
        session.roomAnswered(
            RoomAnswer(request: request.request, refusal: isDone ? nil : .unknownChannel, position: position),
            settings: isDone ? settings : nil, channel: isDone ? channel(.room(request.room)) : nil, now: now)
    }

    private func answerRefresh() {
        guard refreshes > 0 else { return }
        refreshes -= 1
        session.refreshed(identity(may: 0), time: choices.number(), now: now)
    }

    // MARK: What it does

    private func drain() throws {
        var count = 0
        let wasClosed = closes > 0
        while let action = session.nextAction() {
            count += 1
            guard !wasClosed, closes == 0 else { throw FuzzFinding("after its close: \(action)") }
            try check(action)
        }
        guard count < 2_000 else { throw FuzzFinding("\(count) actions for one input") }
        if let request = historyRead {
            historyRead = nil
            session.historyFailed(request, code: .overloaded, retryAfter: 0, now: now)
            return try drain()
        }
        if let request = membersRead {
            membersRead = nil
            session.membersRead(MembersPage(request: request, refusal: .overloaded), now: now)
            return try drain()
        }
        guard session.isClosed == (closes > 0) else { throw FuzzFinding("closed, and did not say so") }
        if !session.isClosed, !isGranted, heldCost > configuration.maximumEarlyBytes {
            throw FuzzFinding("\(heldCost) bytes are held before CONNECT is accepted")
        }
    }

    /// A publish that the store is asked about, to be answered later.
    private func note(_ publish: Publish, _ channel: ChannelID) throws {
        appends.append((channel, publish))
        guard appends.count(where: { $0.channel == channel }) <= 512 else { throw FuzzFinding("too many publishes") }
    }

    private func check(_ action: ServerAction) throws {
        switch action {
        case .authenticate(let connect):
            guard connects.isEmpty else { throw FuzzFinding("a second CONNECT is looked at") }
            connects.append(connect)
        case .close: closes += 1
        case .send(let frame, let lane): try check(frame, lane)
        case .openLane(let lane):
            guard lane.rawValue == highestLane + 1 else { throw FuzzFinding("lane \(lane.rawValue) is opened") }
            highestLane = lane.rawValue
        case .prioritize(let lane, _):
            guard lane.rawValue <= highestLane else { throw FuzzFinding("lane \(lane.rawValue) is not open") }
        case .awaitDelivery(let lane, let question):
            guard let header = lanes[lane] else { throw FuzzFinding("lane \(lane.rawValue) is not open") }
            undelivered[lane] = (header.channel, question)
        case .finishLane(let lane):
            guard lanes.removeValue(forKey: lane) != nil else {
                throw FuzzFinding("a lane is finished that isn't open")
            }
        case .refuse(let channel, _, let publish, let code):
            guard !code.isTemporary, publish.after < publish.id else {
                throw FuzzFinding("\(publish) is refused with \(code)")
            }
            try note(publish, channel)
        case .append(let channel, _, let publish):
            try note(publish, channel)
            guard publish.payload.readableBytes <= 1_000, publish.following == 0, publish.after < publish.id else {
                throw FuzzFinding("\(publish) reaches the store")
            }
        case .read(let channel, let after, let upTo, let bytes):
            guard !reads.contains(where: { $0.channel == channel }), bytes > 0, upTo.map({ $0 > after }) ?? true else {
                throw FuzzFinding("a read of \(channel) after \(after) up to \(String(describing: upTo))")
            }
            reads.append((channel, after, upTo))
            guard reads.count <= configuration.maximumReads else {
                throw FuzzFinding("too many reads")
            }
        case .join(let request), .leave(let request): try takeRoomRequest(request.request, request.room)
        case .manage(let command): try takeRoomRequest(command.request, command.room)
        case .listMembers(let request):
            guard handshakeDone, membersRead == nil else { throw FuzzFinding("a second read of members") }
            guard (1...100).contains(request.limit) else { throw FuzzFinding("\(request.limit) members are read") }
            membersRead = request.request
        case .readPayload(let read):
            guard read.from > 0, read.maximumBytes > 0, payloads.count < 4 * configuration.maximumReads else {
                throw FuzzFinding("a read of \(read)")
            }
            payloads.append(read)
        case .readHistory(let read):
            guard handshakeDone, historyRead == nil else { throw FuzzFinding("a second read of history") }
            historyRead = read.request
        case .eraseAccount:
            guard handshakeDone else { throw FuzzFinding("an erasure in early data") }
        case .logout:
            guard handshakeDone else { throw FuzzFinding("a logout in early data") }
        case .refresh:
            guard handshakeDone, refreshes == 0 else { throw FuzzFinding("a refresh out of place") }
            refreshes += 1
        case .established:
            guard handshakeDone else { throw FuzzFinding("established in early data") }
        case .signal(let signal, _):
            guard handshakeDone, signal.sender?.user == choices.users[0] else {
                throw FuzzFinding("a signal of nobody's, or in early data")
            }
        case .sendSignal(let signal, let until):
            guard signal.sender != nil, until > now else { throw FuzzFinding("a signal that is too late") }
        case .watch(let request):
            guard handshakeDone, request.users.allSatisfy(choices.users.contains) else {
                throw FuzzFinding("a watch of nobody, or in early data")
            }
            watches.append(request)
            guard watches.count <= 16 else { throw FuzzFinding("too many watches") }
        case .forget, .unwatch, .setVisibility:
            guard handshakeDone else { throw FuzzFinding("presence in early data") }
        case .storeCursor, .signalDropped, .markRead, .delivered, .listConversations, .changeConversation: break
        }
        guard isGranted || closes > 0 else {
            switch action {
            case .authenticate, .close, .send(.close, _), .signalDropped: return
            default: throw FuzzFinding("before the grant: \(action)")
            }
        }
    }

    private func takeRoomRequest(_ request: UInt64, _ room: RoomID) throws {
        guard handshakeDone else { throw FuzzFinding("a room changes in early data") }
        roomRequests.append(RoomRequest(request: request, room: room))
        guard roomRequests.count <= configuration.maximumRoomRequests else {
            throw FuzzFinding("too many requests")
        }
    }

    private func check(_ frame: Frame, _ lane: LaneID) throws {
        // Whatever the input brought about can be written.
        var buffer = ByteBuffer()
        do { try FrameEncoder.encode(frame, into: &buffer) } catch {
            throw FuzzFinding("\(frame) can't be sent: \(error)")
        }
        guard lane != .control else { return }
        if case .lane(let header) = frame {
            guard lane.rawValue == highestLane, lanes[lane] == nil else { throw FuzzFinding("LANE out of place") }
            lanes[lane] = header
            // A lane that takes the place of another ends what was under way there.
            underWay[header.channel] = nil
            return
        }
        guard let header = lanes[lane] else { throw FuzzFinding("\(frame.name) on a lane that isn't open") }
        switch frame {
        case .deliver(let deliver):
            let entry = deliver.entry
            try link(entry.previous, entry.offset, header)
            if entry.following > 0 {
                underWay[header.channel] = (Position(epoch: header.epoch, offset: entry.previous), entry.following)
                let places = Set(underWay.keys).union(undelivered.values.map { $0.channel })
                guard places.count <= FrameLimits.maximumPayloadsInParts else {
                    throw FuzzFinding("too many payloads")
                }
            }
        case .batch(let batch):
            guard asksForBatches else { throw FuzzFinding("a batch that nobody asked for") }
            for frame in try batch.frames() { try check(frame, lane) }
        case .part(let part):
            guard let (previous, left) = underWay.removeValue(forKey: header.channel),
                UInt64(part.bytes.readableBytes) <= left
            else { throw FuzzFinding("\(header.channel): a part of nothing") }
            if part.isEnd {
                chain[header.channel] = previous
            } else if UInt64(part.bytes.readableBytes) < left {
                underWay[header.channel] = (previous, left - UInt64(part.bytes.readableBytes))
            }
        case .skip(let skip): try link(skip.previous, skip.to, header)
        case .gap(let gap):
            guard underWay[header.channel] == nil else { throw FuzzFinding("a gap inside a payload") }
            chain[header.channel] = Position(epoch: header.epoch, offset: gap.first)
        case .published, .refused: break
        default: throw FuzzFinding("\(frame.name) on a channel's lane")
        }
    }

    private func link(_ previous: Offset, _ offset: Offset, _ header: LaneHeader) throws {
        guard underWay[header.channel] == nil else { throw FuzzFinding("\(offset) inside another's payload") }
        guard offset > previous else { throw FuzzFinding("\(offset) continues \(previous)") }
        if let end = chain[header.channel], end.epoch == header.epoch, previous < end.offset {
            throw FuzzFinding("\(header.channel): \(offset) continues \(previous), and \(end.offset) was sent")
        }
        chain[header.channel] = Position(epoch: header.epoch, offset: offset)
    }
}
