import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// From CONNECT to the grant: see ``Admission``.
extension SessionHost {
    func authenticate(_ connect: Connect) {
        guard phase == .open else { return }
        phase = .connecting
        self.connect = ConnectSummary(connect)
        admit(Admission(core: core, connect: connect), attempts: Self.admissionAttempts)
    }

    static let admissionAttempts = 3

    /// Runs an admission: see ``Admission`` for its steps.
    private func admit(_ admission: Admission, attempts: Int) {
        let revocations = core.revocations.count
        offLoop {
            await Result { () async throws(Rejection) in try await admission.identify() }
        } then: { host, result in
            switch result {
            case .failure(let rejection): host.reject(rejection)
            case .success(let authenticated):
                guard host.phase == .connecting else { return }
                guard !host.core.revocations.mayName(authenticated.identity, since: revocations) else {
                    return host.retry(admission, attempts: attempts)
                }
                if let rejection = host.register(authenticated, knowing: revocations) { return host.reject(rejection) }
                guard host.mayBeGranted() else { return host.awaitHandshake(admission) }
                host.prepare(admission, authenticated, attempts: attempts)
            }
        }
    }

    /// Whether a session may be made of the link now. What comes in early data may never complete its handshake, and so is no
    /// session that the registry counts: it needs room of its own.
    private func mayBeGranted() -> Bool {
        guard !handshakeComplete, let device else { return true }
        return core.registry.reserve(device, link: id)
    }

    private func awaitHandshake(_ admission: Admission) {
        deferred = admission
        loop.statistics.earlyConnectsDeferred += 1
        core.log.log(.debug, "an early connect waits for its handshake", metadata())
    }

    /// Takes note of who it is, at the first attempt.
    /// - Returns: how to close it instead, when the user connects too fast: each connect is work for the store's one writer.
    private func register(_ authenticated: AuthenticatedIdentity, knowing revocations: UInt64) -> Rejection? {
        guard self.authenticated == nil else { return nil }
        let user = UserKey(authenticated.identity)
        if let wait = core.requestMeter.wait(for: .connect, of: user, now: now) {
            loop.statistics.connectsOverRate += 1
            core.log.log(
                .notice, "too many connects of one user",
                metadata(["tenant": "\(user.tenant)", "user": "\(user.user)"]))
            let retryAfter = max(1, wait.wholeMilliseconds)
            return Rejection(
                close: Close(code: .overloaded, reason: "this user connects too fast", retryAfter: retryAfter))
        }
        self.authenticated = authenticated
        revocationsKnown = revocations
        loop.register(self, authenticated.identity)
        return nil
    }

    func prepare(_ admission: Admission, _ authenticated: AuthenticatedIdentity, attempts: Int) {
        load = loop.history.beginLoad()
        offLoop {
            await Result { () async throws(Rejection) in try await admission.prepare(authenticated) }
        } then: { host, result in
            switch result {
            case .failure(let rejection): host.reject(rejection)
            case .success(let prepared): host.grant(prepared, admission, attempts: attempts)
            }
        }
    }

    private func retry(_ admission: Admission, attempts: Int) {
        guard attempts > 1 else {
            let retryAfter = core.limits.retryAfter.wholeMilliseconds
            return reject(Rejection(close: Close(code: .overloaded, reason: "try again", retryAfter: retryAfter)))
        }
        admit(admission, attempts: attempts - 1)
    }

    private func reject(_ rejection: Rejection) {
        endLoad()
        guard phase == .connecting else { return }
        session.rejected(rejection.close, now: now)
    }

    private func grant(_ prepared: PreparedGrant, _ admission: Admission, attempts: Int) {
        guard phase == .connecting, let load, let device else { return endLoad() }
        // A second attempt meets the number that the first one left.
        isFresh = isFresh || prepared.isFresh
        late = late ?? prepared.late
        let keys = prepared.channels.map { ChannelKey(tenant: device.tenant, channel: $0.channel) }
        guard let wakes = loop.history.wakes(since: load, of: keys) else {
            endLoad()
            return retry(admission, attempts: attempts)
        }
        let deletions = loop.history.deletions(since: load, of: keys)
        let news = loop.history.broadcasts(since: load, in: device.tenant)
        endLoad()
        phase = .granted
        if var admission = linkAdmission {
            core.linkAuthenticated(&admission)
            linkAdmission = admission
        }
        figures.grantedAt = core.time()
        loop.statistics.sessionsGranted += 1
        if prepared.earlier != nil { loop.statistics.sessionsResumed += 1 }
        sessionNumber = prepared.earlier ?? UInt64.random(in: 1...(1 << 53))
        subscribe(to: prepared.channels)
        // What the device had read while it was away.
        core.webhooks?.confirmed(
            device.userKey,
            prepared.channels.compactMap { channel in
                channel.cursor.map { ChannelPosition(channel: channel.channel, position: $0) }
            })
        let grant = SessionGrant(
            identity: prepared.authenticated.identity, session: sessionNumber, resumed: prepared.earlier != nil,
            cursorVersion: prepared.cursorVersion, channels: prepared.channels, ticket: prepared.ticket,
            limits: core.admissionLimits.session(in: device.tenant))
        session.authenticated(grant, time: core.time(), now: now)
        for (channel, head) in wakes { session.logAdvanced(channel.channel, head: head, now: now) }
        for (channel, head) in news {
            meet(channel.channel, head: head, now: now)
            session.logAdvanced(channel.channel, head: head, now: now)
        }
        for change in heldChanges where noteStint(change) { session.channelChanged(change, now: now) }
        heldChanges = []
        for (room, end) in deletions { roomDeleted(room, at: end) }
        core.log.log(
            .info, "session granted",
            metadata(["resumed": "\(prepared.earlier != nil)", "agent": "\(connect?.agent ?? "")"]))
    }

    private func subscribe(to channels: [SessionChannel]) {
        guard let device else { return }
        loop.enter(self, tenant: device.tenant)
        for channel in channels {
            switch channel.channel {
            case .room: _ = noteStint(channel)
            case .user: loop.subscribe(self, to: ChannelKey(tenant: device.tenant, channel: channel.channel))
            // Every session of the tenant hears of it.
            case .all: broadcasts.insert(channel.channel)
            }
            // Nothing known was sent beyond what is confirmed: nothing to inherit.
            let confirmed = channel.cursor.map { $0.epoch == channel.head.epoch ? $0.offset : 0 } ?? 0
            let sent = channel.sent ?? channel.head.offset
            guard sent > confirmed else { continue }
            inheritedSent.append(
                ChannelPosition(channel: channel.channel, position: Position(epoch: channel.head.epoch, offset: sent)))
        }
    }

    /// A broadcast that was made since the channels were loaded: all of it came after this device did.
    func meet(_ channel: ChannelID, head: Position, now: NIODeadline) {
        guard case .all = channel, broadcasts.insert(channel).inserted else { return }
        session.channelChanged(
            SessionChannel(channel: channel, head: head, first: 0, after: 0, upTo: nil, cursor: nil, sent: 0), now: now)
    }

    func endLoad() {
        guard let load else { return }
        self.load = nil
        loop.history.endLoad(load)
    }
}
