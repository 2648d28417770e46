import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// A signal between the sessions of a server.
struct SignalInFlight: Sendable {
    let channel: ChannelKey
    /// With its sender.
    let signal: Signal
    let until: NIODeadline
    /// The link it came on.
    let from: UInt64

    /// What a newer one takes the place of.
    struct Key: Hashable {
        let tenant: TenantID
        let signal: SignalKey
    }

    var key: Key { Key(tenant: channel.tenant, signal: SignalKey(signal)) }
}

/// Signals that came within one turn of a loop and leave it together: one hop to each of the other loops.
struct SignalRelay {
    private var waiting: LatestQueue<SignalInFlight.Key, SignalInFlight>
    private(set) var isScheduled = false

    init(limit: Int) { waiting = LatestQueue(limit: limit) }

    /// - Returns: whether a flush has to be scheduled, and how many were dropped.
    mutating func put(_ signal: SignalInFlight) -> (schedule: Bool, dropped: Int) {
        let dropped = waiting.put(signal, for: signal.key)
        defer { isScheduled = true }
        return (!isScheduled, dropped)
    }

    mutating func takeAll() -> [SignalInFlight] {
        isScheduled = false
        return waiting.takeAll()
    }
}

extension ServerLoop {
    /// Passes a signal on at the end of this turn, to every loop.
    func relay(_ signal: SignalInFlight) {
        let (schedule, dropped) = signals.put(signal)
        if dropped > 0 { statistics.signalsDropped[.replaced, default: 0] += UInt64(dropped) }
        if schedule { reference.execute { $0.flushSignals() } }
    }

    private func flushSignals() {
        let batch = signals.takeAll()
        statistics.signalsRelayed += UInt64(batch.count)
        for sibling in siblings { sibling.execute { $0.deliver(batch) } }
        deliver(batch)
    }

    /// Gives signals to this loop's sessions.
    private func deliver(_ batch: [SignalInFlight]) {
        for signal in batch { forEachSubscriber(of: signal.channel) { $0.deliver(signal) } }
        drainDirty()
    }
}

/// Signals of this session for others, and of others for this one.
///
/// One that the session may send is passed on also where the session ends before the store or the app has answered: as a publish
/// on its way is entered. Nothing is passed on of who was shut out meanwhile.
extension SessionHost {
    /// The session found that its user may send it.
    func relay(_ signal: Signal, until: NIODeadline) {
        // Established, not only granted: another link of the device may have taken over.
        guard phase == .established, let tenant = identity?.tenant else { return dropped(.early) }
        guard takes(.signal) else { return dropped(.rate) }
        let channel = ChannelKey(tenant: tenant, channel: signal.channel)
        guard core.audiences.count(of: channel) <= core.limits.signalAudience else { return dropped(.audience) }
        let inFlight = SignalInFlight(channel: channel, signal: signal, until: until, from: id)
        guard case .room(let room) = signal.channel, !signal.isAboutOneself else { return decide(inFlight) }
        judge(inFlight, in: room)
    }

    /// Goes on with a signal if the room lets the user publish. While that is not known, it waits, and those behind it.
    private func judge(_ signal: SignalInFlight, in room: RoomID) {
        let core = core
        if let mayPublish = voices.mayPublish(
            in: room, now: now, isCurrent: { core.roomRules.isCurrent(signal.channel, asOf: $0) })
        {
            return mayPublish ? decide(signal) : dropped(.forbidden)
        }
        guard let device else { return dropped(.early) }
        let (asks, replaced) = voices.wait(signal, in: room)
        if replaced > 0 { dropped(.replaced) }
        guard asks else { return }
        let asOf = core.roomRules.count
        offLoop {
            await Result { () async throws(StoreError) in
                try await core.store.members(
                    of: room, in: device.tenant, for: device.user, after: nil, limit: 1)
            }
        } then: { host, result in
            host.judged(room, asOf: asOf, result)
        }
    }

    private func judged(_ room: RoomID, asOf: UInt64, _ result: Result<MemberList?, StoreError>) {
        let waiting = voices.takeWaiting(in: room)
        var mayPublish = false
        switch result {
        case .failure(let error):
            core.note(error, in: "room settings")
            for _ in waiting { dropped(.failed) }
            return
        case .success(let list):
            // Of who is no member nothing is kept: another device of the user may join.
            if let settings = list?.settings {
                mayPublish = settings.mayPublish
                voices.learn(mayPublish, in: room, asOf: asOf, now: now)
            }
        }
        for signal in waiting {
            if !mayPublish {
                dropped(.forbidden)
            } else if signal.until > now {
                decide(signal)
            } else {
                dropped(.expired)
            }
        }
    }

    /// Passes a signal on if the app allows to publish there, where it wants to be asked.
    private func decide(_ signal: SignalInFlight) {
        guard let gate = core.authorization, let device, signal.channel.channel != .user(device.user) else {
            return direct(signal)
        }
        let question = AuthorizationQuestion(.publish, by: device, in: signal.channel.channel)
        if let known = gate.known(question) {
            return known == nil ? direct(signal) : dropped(.forbidden)
        }
        // Few wait so: the rate bounds them, and the gate's deadline.
        offLoop {
            await gate.refusal(of: question)
        } then: { host, refusal in
            guard refusal == nil else { return host.dropped(.forbidden) }
            guard signal.until > host.now else { return host.dropped(.expired) }
            host.direct(signal)
        }
    }

    /// Passes a signal on, to another user only where neither of the two blocks the other. A room hears all its members.
    private func direct(_ signal: SignalInFlight) {
        guard case .user(let recipient) = signal.channel.channel, recipient != identity?.user else {
            return passOn(signal)
        }
        self.signal(signal, to: recipient)
    }

    /// The last step, behind what had to be found out.
    func passOn(_ signal: SignalInFlight) {
        // Whom a revocation names has no session by now.
        if phase == .ended, let identity, core.revocations.mayName(identity, since: revocationsKnown) {
            return dropped(.forbidden)
        }
        loop.relay(signal)
    }

    /// A signal came for a channel that this session listens to.
    ///
    /// It goes to the others in the room, or to the user whose inbox it is. The sender's own other devices get none but what
    /// is sent to the own inbox: nobody wants to see oneself typing.
    func deliver(_ signal: SignalInFlight) {
        guard phase == .established, signal.from != id, let identity, let sender = signal.signal.sender else { return }
        if sender.user == identity.user {
            guard signal.signal.channel == .user(identity.user), sender.device != identity.device else { return }
        }
        session.relay(signal.signal, until: signal.until, now: now)
        wake()
    }

    /// Sends a signal to the device.
    func send(_ signal: Signal, until: NIODeadline) {
        switch link?.sendSignal(signal, until: until) ?? .dropped {
        case .datagram: loop.statistics.signalDatagrams += 1
        case .lane: loop.statistics.signalsOnLane += 1
        case .dropped: dropped(.link)
        }
    }

    func dropped(_ reason: SignalDrop) { loop.statistics.signalsDropped[reason, default: 0] += 1 }
}

extension Signal {
    /// The longest payload with which a signal is about oneself: a place in a log, or a word. More is content.
    private static let longestAboutOneself = 64

    /// Whether it says only what the sender's own state is, which a member may tell who may not publish: how far one has read, that
    /// one is there.
    fileprivate var isAboutOneself: Bool {
        (kind == .readPosition || kind == .presenceHint) && payload.readableBytes <= Self.longestAboutOneself
    }
}
