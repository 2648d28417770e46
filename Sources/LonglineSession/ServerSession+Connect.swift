public import LonglineWire
public import NIOCore

/// From `CONNECT` to a session that is up, and the life of its credential.
extension ServerSession {
    mutating func connectReceived(_ connect: Connect, early: Bool, now: NIODeadline) {
        let connect = withNamedCursors(connect)
        // A token's CONNECT is not ours to take from a flight that may be a replay: it waits for the handshake.
        if early, !handshakeComplete, case .token = connect.credential {
            phase = .deferred(connect)
        } else {
            authenticate(connect, now: now)
        }
    }

    mutating func authenticate(_ connect: Connect, now: NIODeadline) {
        guard let version = configuration.versions.first(where: connect.versions.contains) else {
            return violated(.versionUnsupported, "no protocol version in common", now: now)
        }
        producer = connect.producer
        connectNumber = connect.connectNumber
        phase = .authenticating(connect, version: version)
        actions.append(.authenticate(connect))
    }

    /// Answers ``ServerAction/authenticate(_:)``.
    /// - Parameters:
    ///   - grant: who it is, and what it may read.
    ///   - time: the server's wall clock, in milliseconds since 1970.
    ///   - now: the time of this call.
    public mutating func authenticated(_ grant: SessionGrant, time: UInt64, now: NIODeadline) {
        guard case .authenticating(let connect, let version) = phase else { return }
        phase = .up
        connectBy = nil
        identity = grant.identity
        if let own = grant.limits {
            limits.maximumPayload = own.maximumPayload
            limits.maximumUnacknowledged = own.maximumUnacknowledged
        }
        setExpiry(grant.identity, time: time, now: now)
        var answers: [ChannelAnswer] = []
        var ahead: [ChannelPosition] = []
        let claimed = Dictionary(
            connect.cursors.map { ($0.channel, $0.position) }, uniquingKeysWith: { first, _ in first })
        for var channel in grant.channels {
            let record = channel.cursor
            let start = start(in: channel, claim: claimed[channel.channel])
            channel.cursor = start.place
            if let record, let place = start.place, place.epoch == record.epoch, place.offset < record.offset {
                ahead.append(ChannelPosition(channel: channel.channel, position: record))
            }
            let sender = ChannelSender(channel)
            var state = newChannel(channel.channel)
            (state.sender, state.isMember) = (sender, channel.upTo == nil)
            state.readable = ReadableRange(channel)
            state.mayReceive = grant.identity.may(.receive, channel.channel)
            if state.mayReceive, answers.count < configuration.maximumAnswers {
                let recovery = start.isAnew && sender.recovery == .recovered ? .fresh : sender.recovery
                answers.append(ChannelAnswer(channel: channel.channel, head: channel.head, recovery: recovery))
            }
            channels[channel.channel] = state
        }
        keepPlacesElsewhere(claimed)
        let connected = Connected(
            version: version, session: grant.session, resumed: grant.resumed, serverTime: time,
            observedAddress: observedAddress, credentialExpiry: grant.identity.expiry, limits: limits,
            cursorVersion: grant.cursorVersion, channels: answers)
        tell(ahead: ahead)
        actions.append(.send(.connected(connected), lane: .control))
        if let ticket = grant.ticket { actions.append(.send(.ticket(ticket), lane: .control)) }
        establish(now: now)
        for channel in grant.channels { advance(channel.channel, now: now) }
        processHeld(now: now)
    }

    /// Answers ``ServerAction/authenticate(_:)`` or ``ServerAction/refresh(token:)`` with a refusal, which closes.
    public mutating func rejected(_ close: Close, now: NIODeadline) { end(close, tellPeer: true) }

    /// From here on the session has effects on others, once both CONNECT is accepted and the handshake complete.
    mutating func establish(now: NIODeadline) {
        guard case .up = phase, handshakeComplete, !isEstablished else { return }
        isEstablished = true
        actions.append(.established)
        while case .up = phase, let frame = deferredRequests.popFirst() {
            processControl(frame, now: now)
        }
    }

    /// Answers ``ServerAction/refresh(token:)``.
    /// - Parameters:
    ///   - identity: what the new token says.
    ///   - time: the server's wall clock, in milliseconds since 1970.
    ///   - now: the time of this call.
    public mutating func refreshed(_ identity: SessionIdentity, time: UInt64, now: NIODeadline) {
        guard case .up = phase, isRefreshing else { return }
        isRefreshing = false
        guard let old = self.identity, old.tenant == identity.tenant, old.user == identity.user,
            old.device == identity.device
        else { return violated(.forbidden, "the token names somebody else", now: now) }
        self.identity = identity
        setExpiry(identity, time: time, now: now)
        actions.append(.send(.refreshed(Refreshed(credentialExpiry: identity.expiry)), lane: .control))
        rightsChanged(now: now)
        presenceRightsChanged()
    }

    private mutating func setExpiry(_ identity: SessionIdentity, time: UInt64, now: NIODeadline) {
        // A year is as good as for ever, and can't overflow.
        let year: UInt64 = 366 * 24 * 3_600_000
        let left = identity.expiry > time ? min(identity.expiry - time, year) : 0
        expiresAt = now + .milliseconds(Int64(left)) + configuration.credentialGrace
    }
}
