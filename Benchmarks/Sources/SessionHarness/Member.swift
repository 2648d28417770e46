public import LonglineLinks
public import LonglineSession
public import LonglineWire
public import NIOCore

/// A member's device: a session on a link, without an SDK around it. It is done with a message as soon as it has it.
///
/// Confined to its loop.
public final class Member: LinkHandler {
    private let loop: any EventLoop
    private let token: String
    private let delivered: (ByteBuffer) -> Void
    private var session: ClientSession
    private var link: QUICLink?
    private var timer: (deadline: NIODeadline, task: Scheduled<Void>)?
    private var random = SystemRandomNumberGenerator()
    private var lastID: PublishID = 0
    var whenConnected: EventLoopPromise<Void>?
    private var isEnding = false

    init(
        loop: any EventLoop, token: String, cursors: [ChannelID: Position], delivered: @escaping (ByteBuffer) -> Void
    ) {
        self.loop = loop
        self.token = token
        self.delivered = delivered
        session = ClientSession(
            configuration: ClientSessionConfiguration(), producer: .random(using: &random), cursors: cursors,
            cursorVersion: 0)
    }

    func open(_ connector: QUICLinkConnector, _ target: QUICLinkTarget) {
        link = connector.open(target, on: loop, handler: self)
    }

    /// Publishes to a channel.
    public func publish(_ payload: ByteBuffer, to channel: ChannelID) {
        lastID += 1
        let publish = Publish(
            id: lastID, tag: random.next(), after: lastID - 1, recipient: nil, timeToLive: 0, payload: payload)
        let isTaken = session.enqueue(OutboxRow(channel: channel, publish: publish, queuedAt: .now()), now: .now())
        precondition(isTaken, "the outbox is full")
        pump()
    }

    func end() {
        isEnding = true
        session.close(Close(code: .normal), now: .now())
        pump()
        link?.close(.normal, reason: "")
    }

    private func pump() {
        while let action = session.nextAction() {
            switch action {
            case .openLane(let lane): link?.openLane(lane)
            case .send(let frame, let lane): link?.send(frame, lane: lane)
            case .finishLane(let lane): link?.finishLane(lane)
            case .connected:
                whenConnected?.succeed()
                whenConnected = nil
            case .deliver(let channel, let epoch, let deliver):
                if deliver.entry.kind == .message { delivered(deliver.entry.payload) }
                session.confirm(
                    channel: channel, position: Position(epoch: epoch, offset: deliver.entry.offset), now: .now())
            case .gap(let channel, let epoch, let gap):
                session.confirm(channel: channel, position: Position(epoch: epoch, offset: gap.first), now: .now())
            case .refused(_, let refused): preconditionFailure("refused: \(refused)")
            case .end(let end): precondition(isEnding, "ended: \(end)")
            default: break
            }
        }
        arm()
    }

    private func arm() {
        guard !isEnding, let deadline = session.nextDeadline else { return }
        if let timer, timer.deadline <= deadline { return }
        timer?.task.cancel()
        timer = (
            deadline,
            loop.assumeIsolated().scheduleTask(deadline: deadline) { [self] in
                timer = nil
                session.deadlineReached(now: .now(), random: &random)
                pump()
            }
        )
    }

    // MARK: The link

    public func linkEstablished(_ link: any Link) {
        session.linkOpened(
            credential: .token(token), connectNumber: 1, supportsPathChange: false, outbox: [], now: .now())
    }

    public func handshakeCompleted(_ link: any Link, info: LinkHandshake) {}

    public func received(_ frame: Frame, lane: LaneID, early: Bool, link: any Link) {
        session.received(frame, lane: lane, now: .now())
    }

    public func receivedInvalid(_ error: FrameError, lane: LaneID, link: any Link) {
        preconditionFailure("no frame: \(error)")
    }

    public func laneFinished(_ lane: LaneID, link: any Link) { session.laneFinished(lane, now: .now()) }

    public func laneWritabilityChanged(_ lane: LaneID, writable: Bool, link: any Link) {
        session.laneWritable(lane, writable, now: .now())
    }

    public func packetReceived(_ link: any Link) { session.packetReceived(now: .now()) }

    public func batchEnded(_ link: any Link) { pump() }

    public func linkClosed(_ link: any Link, reason: LinkCloseReason) {
        precondition(isEnding, "the link is gone: \(reason)")
        self.link = nil
    }
}
