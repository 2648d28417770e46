public import LonglineWire
public import NIOCore

/// The heartbeat that learns, and what the app is to its user.
extension ClientSession {
    /// How long the present network keeps a quiet path open, as far as is known; nil where the interval is fixed.
    public var heartbeatKnowledge: HeartbeatKnowledge? { learner?.knowledge }

    /// How long a quiet link waits for its next proof of life, by what is known now; nil where the interval is fixed.
    public var learnedInterval: TimeAmount? { learner?.interval }

    /// When the next link is asked for proof of life.
    public var heartbeatPolicy: HeartbeatPolicy { configuration.heartbeat }

    /// The service names other times: they count from the next link on. What was learned of the network stays.
    public mutating func setHeartbeat(_ policy: HeartbeatPolicy) {
        let isOtherSearch = policy.search != configuration.heartbeat.search
        configuration.heartbeat = policy
        guard isOtherSearch else { return }
        let knowledge = learner?.knowledge ?? HeartbeatKnowledge()
        // A link that learns goes on as it is: without a learner nobody would ask when its time comes, nor move that time on.
        if policy.search == nil, heartbeat != nil { return }
        learner = policy.search.map { HeartbeatLearner(search: $0, knowledge: knowledge) }
        learner?.mode = mode
        if let limits { learner?.bound(minimum: limits.minimumHeartbeat, idleTimeout: limits.idleTimeout) }
    }

    /// The device is in another network.
    /// - Parameter knowledge: what ``ClientAction/heartbeatLearned(_:)`` told of it last; nil for one that nobody knows.
    public mutating func networkChanged(_ knowledge: HeartbeatKnowledge?, now: NIODeadline) {
        guard let search = configuration.heartbeat.search else { return }
        var fresh = HeartbeatLearner(search: search, knowledge: knowledge ?? HeartbeatKnowledge())
        fresh.mode = mode
        if let limits { fresh.bound(minimum: limits.minimumHeartbeat, idleTimeout: limits.idleTimeout) }
        learner = fresh
        heartbeat?.networkChanged(now: now)
    }

    /// The app is something else to its user from now on: the server is told, on this link and on those to come. On the
    /// way to the foreground the path is asked whether it lives, and each time that is said again: the device may have slept.
    public mutating func setMode(_ mode: SessionMode, now: NIODeadline) {
        let isOther = mode != self.mode
        self.mode = mode
        learner?.mode = mode
        guard phase == .connecting || phase == .connected else { return }
        if isOther { send(.mode(mode), lane: .control, owed: false, now: now) }
        if mode == .foreground { askPath(now: now) }
    }

    /// Asks the path whether it lives: something happened that it may not have outlived. Without an answer it is dead as after a beat.
    public mutating func askPath(now: NIODeadline) {
        if phase == .connected { ping(now: now) }
    }

    /// Asks the server to answer after the next silence that is to be tried.
    mutating func askForSilence(now: NIODeadline, random: inout some RandomNumberGenerator) {
        heartbeatDraw = Double.random(in: 0...1, using: &random)
        askForSilence(now: now)
    }

    private mutating func askForSilence(now: NIODeadline) {
        guard let learner, let heartbeat else { return }
        let next = learner.next(isFirst: heartbeat.asksFirst, draw: heartbeatDraw)
        let milliseconds = max(1, next.nanoseconds / 1_000_000)
        let ping = Ping(nonce: nextNonce, answerAfter: UInt64(milliseconds))
        nextNonce &+= 1
        actions.append(.send(.ping(ping), lane: .control))
        self.heartbeat?.asked(.milliseconds(milliseconds), nonce: ping.nonce, address: observedAddress, now: now)
    }

    mutating func answered(_ pong: Pong, now: NIODeadline) {
        switch heartbeat?.answered(nonce: pong.nonce, address: pong.observedAddress, now: now) {
        case .lived(let silence): learn { $0.lived(silence) }
        case .died(let silence, let confirmed): learn { $0.died(silence, confirmed: confirmed) }
        case .some(.none), nil: return
        }
        finishIdleLanes(now: now)
        // The next question leaves in the packet that acknowledges this answer. There is no random source at hand: an
        // interval like the last one is as unlike those of other clients.
        if phase == .connected, heartbeat?.asksNow(now: now) == true { askForSilence(now: now) }
    }

    /// Where a path can't change, a link that dies in a silence may say something about the silence; where it can, the
    /// other path did not answer either, so that the network itself was away.
    mutating func learnFromDeadLink() {
        guard !supportsPathChange, let silence = heartbeat?.doubtedSilence else { return }
        learn { $0.died(silence, confirmed: false) }
    }

    mutating func learn(_ change: (inout HeartbeatLearner) -> Void) {
        guard let before = learner?.knowledge else { return }
        if var changed = learner {
            change(&changed)
            learner = changed
        }
        if let knowledge = learner?.knowledge, knowledge != before { actions.append(.heartbeatLearned(knowledge)) }
    }
}
