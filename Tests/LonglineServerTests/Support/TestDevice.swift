import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Testing

@testable import LonglineServer

/// The far end of a link, as a ``TestDevice`` uses it.
protocol DeviceWire: Sendable {
    /// Frames that leave together.
    func send(_ frames: [(Frame, LaneID)], early: Bool) async throws
    /// The handshake of an early link completes, and frames come together with its end.
    func completeHandshake(behind frames: [(Frame, LaneID)]) async throws
    /// The link dies without a word.
    func drop() async throws
    /// Bytes that are no frame.
    func sendInvalid(_ error: FrameError) async throws
}

/// A device that speaks frames, as any client would. Used by one test task.
final class TestDevice {
    struct LinkEnded: Error {
        let code: CloseCode
        let reason: String
    }

    let user: UserID
    let device: DeviceID
    private let issuer: TokenIssuer
    private let wire: any DeviceWire
    private var said: AsyncStream<ServerSaid>.Iterator
    private var backlog: [ServerSaid] = []

    var producer: ProducerID
    var connectNumber: UInt64 = 1
    private(set) var ticket: Ticket?
    private var nextLane: UInt64 = 1
    private var lanes: [ChannelID: LaneID] = [:]
    private var serverLanes: [LaneID: LaneHeader] = [:]
    private var lastID: PublishID = 0
    private var lastHistory: UInt64 = 0
    private var lastInChannel: [ChannelID: PublishID] = [:]

    init(user: UserID, device: DeviceID, issuer: TokenIssuer, wire: any DeviceWire, said: AsyncStream<ServerSaid>) {
        self.user = user
        self.device = device
        self.issuer = issuer
        self.wire = wire
        self.said = said.makeAsyncIterator()
        var random = SystemRandomNumberGenerator()
        producer = ProducerID.random(using: &random)
    }

    // MARK: Speaking

    func send(_ frames: [(Frame, LaneID)], early: Bool = false) async throws {
        try await wire.send(frames, early: early)
    }
    func completeHandshake(behind frames: [(Frame, LaneID)] = []) async throws {
        try await wire.completeHandshake(behind: frames)
    }
    func drop() async throws { try await wire.drop() }
    func sendInvalid(_ error: FrameError) async throws { try await wire.sendInvalid(error) }

    func connectFrame(_ credential: Credential, cursors: [ChannelPosition] = []) -> Frame {
        .connect(
            Connect(
                versions: [1], credential: credential, producer: producer, connectNumber: connectNumber,
                cursorVersion: 0, cursors: cursors, agent: "test"))
    }

    /// Connects and waits for the answer and, unless the link is early, the ticket.
    func connect(
        login: UInt64 = 1, credential: Credential? = nil, cursors: [ChannelPosition] = [], early: Bool = false,
        with more: [(Frame, LaneID)] = []
    ) async throws -> Connected {
        var proof = credential
        if proof == nil {
            proof = .token(try await issuer.token(user.description, device.description, login: login))
        }
        let frame = connectFrame(try #require(proof), cursors: cursors)
        try await send([(frame, .control)] + more, early: early)
        let connected = try await next { if case .connected(let connected) = $0 { connected } else { nil } }
        ticket = try await next { if case .ticket(let ticket) = $0 { ticket } else { nil } }
        return connected
    }

    /// The frames of a publish, its lane opened when there is none.
    func publishFrames(
        _ text: String, to channel: ChannelID, recipient: UserID? = nil, timeToLive: UInt64 = 0
    ) -> [(Frame, LaneID)] {
        var frames: [(Frame, LaneID)] = []
        let lane: LaneID
        if let open = lanes[channel] {
            lane = open
        } else {
            lane = LaneID(rawValue: nextLane)
            nextLane += 1
            lanes[channel] = lane
            frames.append((.lane(LaneHeader(channel: channel, epoch: 0)), lane))
        }
        lastID += 1
        let publish = Publish(
            id: lastID, tag: lastID &* 7919, after: lastInChannel[channel] ?? 0, recipient: recipient,
            timeToLive: timeToLive, payload: ByteBuffer(string: text))
        lastInChannel[channel] = lastID
        frames.append((.publish(publish), lane))
        return frames
    }

    /// Publishes and waits for the answer.
    @discardableResult
    func publish(_ text: String, to channel: ChannelID, recipient: UserID? = nil) async throws -> PublishOutcome {
        let before = lastInChannel[channel]
        try await send(publishFrames(text, to: channel, recipient: recipient))
        let id = lastID
        let outcome = try await next { frame -> PublishOutcome? in
            switch frame {
            case .published(let published) where published.id == id: .published(published)
            case .refused(let refused) where refused.id == id: .refused(refused)
            default: nil
            }
        }
        // What is refused for good is given up: the next one comes after the one before it.
        if case .refused(let refused) = outcome, !refused.code.isTemporary { lastInChannel[channel] = before }
        return outcome
    }

    /// A direct message: it goes through the sender's inbox.
    @discardableResult
    func message(_ text: String, to recipient: UserID) async throws -> PublishOutcome {
        try await publish(text, to: .user(user), recipient: recipient)
    }

    func request(_ room: RoomID, number: UInt64, leave: Bool = false) async throws -> RoomAnswer {
        let request = RoomRequest(request: number, room: room)
        try await send([(leave ? .leave(request) : .join(request), .control)])
        return try await next { frame in
            if case .roomAnswer(let answer) = frame, answer.request == number { answer } else { nil }
        }
    }

    func change(_ number: UInt64, _ conversation: ChannelID, _ setting: ConversationSetting) async throws
        -> ConversationState
    {
        let change = ConversationChange(request: number, conversation: conversation, setting: setting)
        try await send([(.conversationSet(change), .control)])
        return try await settings(number)
    }

    func settings(_ number: UInt64) async throws -> ConversationState {
        try await next { if case .conversation(let state) = $0, state.request == number { state } else { nil } }
    }

    /// Asks for a page of history and waits for all of it. One at a time.
    func history(
        _ channel: ChannelID, epoch: Epoch = 0, from: Offset = FrameLimits.maximumNumber,
        _ direction: HistoryDirection = .older, limit: UInt64 = 100
    ) async throws -> (head: HistoryAnswer, items: [Frame]) {
        lastHistory += 1
        let number = lastHistory
        let request = HistoryRequest(
            request: number, channel: channel, epoch: epoch, from: from, direction: direction, limit: limit)
        try await send([(.history(request), .control)])
        var page: (head: HistoryAnswer, lane: LaneID)?
        var items: [Frame] = []
        while let event = await said.next() {
            note(event)
            switch event {
            case .frame(.historyPage(let head), let lane) where head.request == number: page = (head, lane)
            case .frame(let frame, let lane) where page?.lane == lane: items.append(frame)
            case .closed(let code, let reason): throw LinkEnded(code: code, reason: reason)
            default: backlog.append(event)
            }
            if let page, items.count == page.head.items { return (page.head, items) }
        }
        throw CancellationError()
    }

    func acknowledge(_ channel: ChannelID, epoch: Epoch, offset: Offset) async throws {
        let lane = LaneID(rawValue: nextLane)
        nextLane += 1
        try await send([
            (.lane(LaneHeader(channel: channel, epoch: epoch)), lane),
            (.acknowledge(Acknowledge(offset: offset)), lane),
        ])
    }

    // MARK: Listening

    /// The next frame that `pick` wants; what it does not want stays for later calls, in order.
    func next<Value>(_ pick: (Frame) -> Value?) async throws -> Value {
        for (index, event) in backlog.enumerated() {
            guard case .frame(let frame, _) = event, let value = pick(frame) else { continue }
            backlog.remove(at: index)
            return value
        }
        while let event = await said.next() {
            note(event)
            if case .frame(let frame, _) = event, let value = pick(frame) { return value }
            backlog.append(event)
            if case .closed(let code, let reason) = event { throw LinkEnded(code: code, reason: reason) }
        }
        throw CancellationError()
    }

    /// The next message of a kind that arrives on a channel.
    func delivered(_ channel: ChannelID, kind: EntryKind = .message) async throws -> Deliver {
        while true {
            let deliver = try await nextDeliver(on: channel)
            if deliver.entry.kind == kind { return deliver }
        }
    }

    private func nextDeliver(on channel: ChannelID) async throws -> Deliver {
        for (index, event) in backlog.enumerated() {
            guard case .frame(.deliver(let deliver), let lane) = event, serverLanes[lane]?.channel == channel else {
                continue
            }
            backlog.remove(at: index)
            return deliver
        }
        while let event = await said.next() {
            note(event)
            if case .frame(.deliver(let deliver), let lane) = event, serverLanes[lane]?.channel == channel {
                return deliver
            }
            backlog.append(event)
            if case .closed(let code, let reason) = event { throw LinkEnded(code: code, reason: reason) }
        }
        throw CancellationError()
    }

    /// Text of the next message on a channel.
    func text(_ channel: ChannelID) async throws -> String {
        String(buffer: try await delivered(channel).entry.payload)
    }

    /// The next urgency that the server gives a lane.
    func prioritized() async throws -> Urgency {
        for (index, event) in backlog.enumerated() {
            guard case .prioritized(_, let urgency) = event else { continue }
            backlog.remove(at: index)
            return urgency
        }
        while let event = await said.next() {
            note(event)
            if case .prioritized(_, let urgency) = event { return urgency }
            backlog.append(event)
            if case .closed(let code, let reason) = event { throw LinkEnded(code: code, reason: reason) }
        }
        throw CancellationError()
    }

    /// How the server closed the link.
    func closed() async throws -> CloseCode {
        if let code = closeCode { return code }
        while let event = await said.next() {
            note(event)
            backlog.append(event)
            if case .closed(let code, _) = event { return code }
        }
        throw CancellationError()
    }

    /// Deliveries seen so far and not taken, per channel.
    func untaken(_ channel: ChannelID) -> [Deliver] {
        backlog.compactMap { event in
            guard case .frame(.deliver(let deliver), let lane) = event, serverLanes[lane]?.channel == channel else {
                return nil
            }
            return deliver
        }
    }

    /// How often the server asked its link to look at sockets, as far as was seen.
    var polls: Int { backlog.count { if case .polled = $0 { true } else { false } } }

    private var closeCode: CloseCode? {
        for case .closed(let code, _) in backlog { return code }
        return nil
    }

    private func note(_ event: ServerSaid) {
        if case .frame(.lane(let header), let lane) = event { serverLanes[lane] = header }
    }
}
