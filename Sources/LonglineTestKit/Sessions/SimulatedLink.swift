import LonglineSession
import LonglineWire
import NIOCore

/// One link between a simulated device and the server. Frames of a lane keep their order, lanes overtake each other (on a
/// link like QUIC), and the link can die at any time, in one direction or both, with or without a word.
final class SimulatedLink {
    enum Side { case client, server }

    private struct LaneKey: Hashable {
        let side: Side
        let lane: LaneID
    }

    let number: Int
    /// Whether lanes overtake each other; a link like TCP has one order for all.
    let hasStreams: Bool
    /// Whether the client's first flight leaves before the handshake is complete.
    let isEarly: Bool
    private let scheduler: VirtualScheduler
    private var random: SeededRandom
    private let latency: ClosedRange<Int64>

    /// What the sides do with what arrives.
    var toServer: (Frame, LaneID, Bool) -> Void = { _, _, _ in }
    var toClient: (Frame, LaneID) -> Void = { _, _ in }
    var finishedAtServer: (LaneID) -> Void = { _ in }
    var finishedAtClient: (LaneID) -> Void = { _ in }
    var handshakeAtServer: () -> Void = {}
    var closedAtServer: () -> Void = {}
    var closedAtClient: () -> Void = {}

    private(set) var isHandshakeComplete = false
    private var passes: [Side: Bool] = [.client: true, .server: true]
    private var isOpen: [Side: Bool] = [.client: true, .server: true]
    private var latest: [LaneKey: NIODeadline] = [:]
    private var deliveryQuestions: [LaneKey: Int] = [:]
    /// What the client sent before it heard from the server: what an attacker could send again.
    private(set) var firstFlight: [(Frame, LaneID)] = []
    private var heardFromServer = false

    init(
        number: Int, hasStreams: Bool, isEarly: Bool, latency: ClosedRange<Int64>, scheduler: VirtualScheduler,
        random: SeededRandom
    ) {
        self.number = number
        self.hasStreams = hasStreams
        self.isEarly = isEarly
        self.latency = latency
        self.scheduler = scheduler
        self.random = random
    }

    /// The handshake's last flight leaves: at once when it was awaited, later when early data goes before it.
    func start() {
        deliver(from: .client, lane: .control, extra: isEarly ? .milliseconds(2 * latency.upperBound) : .zero) {
            [weak self] in
            self?.isHandshakeComplete = true
            self?.handshakeAtServer()
        }
        if isEarly { latest[LaneKey(side: .client, lane: .control)] = nil }
    }

    func send(_ frame: Frame, lane: LaneID, from side: Side) {
        switch side {
        case .client:
            if !heardFromServer { firstFlight.append((frame, lane)) }
            deliver(from: .client, lane: lane) { [weak self] in
                guard let self else { return }
                toServer(frame, lane, !isHandshakeComplete)
            }
        case .server:
            deliver(from: .server, lane: lane) { [weak self] in
                self?.heardFromServer = true
                self?.toClient(frame, lane)
            }
        }
    }

    func finish(_ lane: LaneID, from side: Side) {
        deliver(from: side, lane: lane) { [weak self] in
            if side == .client { self?.finishedAtServer(lane) } else { self?.finishedAtClient(lane) }
        }
    }

    /// Does something when the sender's transport knows that the peer has all that was sent on the lane so far. Asked again before
    /// that, it is what was sent until then.
    func whenDelivered(_ lane: LaneID, from side: Side, _ body: @escaping () -> Void) {
        let key = LaneKey(side: side, lane: hasStreams ? lane : .control)
        let asked = LaneKey(side: side, lane: lane)
        let number = (deliveryQuestions[asked] ?? 0) + 1
        deliveryQuestions[asked] = number
        let back = TimeAmount.milliseconds(Int64.random(in: latency, using: &random))
        scheduler.at(max(scheduler.now, latest[key] ?? scheduler.now) + back) { [weak self] in
            guard let self, passes[side] == true, isOpen[side] == true, deliveryQuestions[asked] == number else {
                return
            }
            body()
        }
    }

    /// One side closes; the other hears of it behind everything that is under way.
    func close(from side: Side) {
        guard isOpen[side] == true else { return }
        isOpen[side] = false
        let last = latest.filter { $0.key.side == side }.values.max() ?? scheduler.now
        scheduler.at(max(last, scheduler.now) + .milliseconds(latency.lowerBound)) { [weak self] in
            guard let self, passes[side] == true else { return }
            tell(side == .client ? .server : .client)
        }
    }

    /// The link dies. What is under way is lost, or in one direction arrives later all the same.
    func cut(tellClient: Bool, tellServer: Bool, losesToServer: Bool, losesToClient: Bool) {
        if losesToServer { passes[.client] = false }
        if losesToClient { passes[.server] = false }
        if tellClient { scheduler.after(.milliseconds(latency.lowerBound)) { [weak self] in self?.tell(.client) } }
        if tellServer { scheduler.after(.milliseconds(latency.lowerBound)) { [weak self] in self?.tell(.server) } }
    }

    /// Whether what is under way to the client still arrives.
    var reachesClient: Bool { passes[.server] == true }

    /// A side is gone without a word (its process ended).
    func abandon(_ side: Side) { isOpen[side] = false }

    private func tell(_ side: Side) {
        guard isOpen[side] == true else { return }
        isOpen[side] = false
        if side == .server { closedAtServer() } else { closedAtClient() }
    }

    private func deliver(from side: Side, lane: LaneID, extra: TimeAmount = .zero, _ body: @escaping () -> Void) {
        guard passes[side] == true else { return }
        let key = LaneKey(side: side, lane: hasStreams ? lane : .control)
        // A late packet now and then: a retransmission on that lane.
        let slow: Int64 = random.happens(0.03) ? 10 : 1
        let delay = TimeAmount.milliseconds(slow * Int64.random(in: latency, using: &random)) + extra
        let time = max(scheduler.now + delay, latest[key] ?? scheduler.now)
        latest[key] = time
        scheduler.at(time) { [weak self] in
            guard let self, passes[side] == true, isOpen[side == .client ? .server : .client] == true else { return }
            body()
        }
    }
}
