import LonglineSession
import LonglineStore
import LonglineWire

/// Connects, takeovers and the places that logins hold.
extension ModelServer {
    func authenticate(_ connect: Connect, _ hosted: Hosted) {
        guard let holder = simulation.device(of: connect.credential) else {
            return input(hosted) { $0.rejected(Close(code: .credentialInvalid), now: $1) }
        }
        let (user, device, login) = (holder.user, holder.device, holder.login)
        let name = holder.app.name
        guard holder.generation >= store.generation(of: user) || has(.trustErasedCredentials) else {
            return input(hosted) { $0.rejected(Close(code: .credentialRevoked), now: $1) }
        }
        guard !holder.isRevoked else {
            return input(hosted) { $0.rejected(Close(code: .credentialRevoked), now: $1) }
        }
        if let close = refusal(of: user, device, login) { return input(hosted) { $0.rejected(close, now: $1) } }
        guard !isDiskFull else {
            return input(hosted) { $0.rejected(Close(code: .overloaded, retryAfter: 30), now: $1) }
        }
        let admission = write {
            store.admit(user, device, producer: connect.producer, connectNumber: connect.connectNumber)
        }
        guard let admission else { return }
        guard admission != .stale else { return input(hosted) { $0.rejected(Close(code: .stale), now: $1) } }
        guard admission != .erasing else { return input(hosted) { $0.rejected(Close(code: .loggedOut), now: $1) } }
        if holder.isErased || store.isErasing(user) {
            simulation.violation("\(device) is let in, and the account of \(user) is or was erased")
        }
        guard let record = write({ store.advance(user, device, to: connect.cursors) }) else { return }
        for other in sessions.values where other.name == name { noteSent(other) }
        hosted.device = device
        hosted.user = user
        hosted.producer = connect.producer
        hosted.connectNumber = connect.connectNumber
        hosted.login = login
        hosted.generation = holder.generation
        hosted.isFresh = admission == .returning || admission == .firstOfDevice
        let isResumed = sent[name] != nil
        let tenant = simulation.tenant
        let channels = store.channels(of: user, device).map { channel in
            var channel = channel
            channel.cursor = record.cursors[channel.channel]
            channel.sent = sent(channel.channel, epoch: channel.head.epoch, to: name)
            return channel
        }
        hosted.wakes = []
        let rights = Rights(of: user, in: simulation)
        var identity = SessionIdentity(
            tenant: tenant, user: user, device: device, loginEpoch: login, tokenID: "1", expiry: 1 << 52,
            mayPublish: true, mayReceive: true, mayJoin: true, mayManage: true)
        identity.mayErase = true
        rights.apply(to: &identity)
        hosted.watch.stopped = rights.stopped
        hosted.recoveries = recoveries(channels, connect, hosted, rights)
        if has(.takeOverEarly) { establish(hosted) }
        if has(.evictEarly) { _ = takePlace(hosted, user, device) }
        later(hosted, within: slowestLoad) { [weak self, identity] in
            self?.grant(
                SessionGrant(
                    identity: identity, session: UInt64(hosted.link.number), resumed: isResumed,
                    cursorVersion: record.version,
                    channels: channels, ticket: self?.simulation.ticket(for: connect.credential)), hosted)
        }
    }

    private func grant(_ grant: SessionGrant, _ hosted: Hosted) {
        input(hosted) { $0.authenticated(grant, time: simulation.wall.milliseconds, now: $1) }
        let wakes = hosted.wakes ?? []
        hosted.wakes = nil
        simulation.noteConnected(early: hosted.link.isEarly)
        guard !has(.forgetWakesWhileLoading) else { return }
        for channel in wakes.sorted(by: { $0.description < $1.description }) { wake(hosted, channel) }
        // A join or leave of another device may have come in between, too.
        guard let user = hosted.user, let device = hosted.device, let name = hosted.name else { return }
        let known = Dictionary(uniqueKeysWithValues: grant.channels.map { ($0.channel, $0) })
        hosted.broadcasts = Set(known.keys)
        for var channel in store.channels(of: user, device) {
            hosted.broadcasts.insert(channel.channel)
            let old = known[channel.channel]
            guard old?.after != channel.after || old?.upTo != channel.upTo else { continue }
            channel.sent = sent(channel.channel, epoch: channel.head.epoch, to: name)
            input(hosted) { $0.channelChanged(channel, now: $1) }
        }
    }

    /// Makes a device's credentials void, and ends its sessions.
    func logOut(_ hosted: Hosted) {
        guard let name = hosted.name else { return }
        guard !isDiskFull else {
            return input(hosted) { $0.close(Close(code: .overloaded, retryAfter: 30), now: $1) }
        }
        guard write({ simulation.revoke(name, upTo: hosted.login) }) != nil else { return }
        for other in inOrder where other.name == name && other.login <= hosted.login {
            input(other) { $0.close(Close(code: .loggedOut, reason: "logged out"), now: $1) }
        }
        sent[name] = nil
    }

    func sent(_ channel: ChannelID, epoch: Epoch, to device: DeviceName) -> Offset? {
        sent[device]?[channel].flatMap { $0.epoch == epoch ? $0.offset : nil }
    }

    // MARK: Places

    private func place(of user: UserID, _ device: DeviceID, _ number: UInt64, takes: Bool) -> PlaceAnswer? {
        let login = DeviceLogin(
            device: store.key(user, device), platform: simulation.platform(of: device), number: number)
        return store.place(of: login, policy: simulation.policy(of: user), takes: takes)
    }

    /// Why a login is refused at once whose place another one has.
    private func refusal(of user: UserID, _ device: DeviceID, _ login: UInt64) -> Close? {
        guard simulation.policy(of: user) != .all, !has(.ignorePlace),
            case .refused(let holder, _) = place(of: user, device, login, takes: false)
        else { return nil }
        return Close(code: holder == device ? .replaced : .evicted)
    }

    /// Takes the place of a session's login, and ends the sessions that lose it.
    /// - Returns: whether the session goes on.
    private func takePlace(_ hosted: Hosted, _ user: UserID, _ device: DeviceID) -> Bool {
        guard simulation.policy(of: user) != .all, !has(.ignorePlace) else { return true }
        if !hosted.link.isHandshakeComplete {
            simulation.violation("\(device) took a place before its handshake was complete")
        }
        guard !isDiskFull else {
            input(hosted) { $0.close(Close(code: .overloaded, retryAfter: 30), now: $1) }
            return false
        }
        let written = write { place(of: user, device, hosted.login, takes: true) }
        guard let answer = written ?? nil else { return false }
        if case .refused(let holder, _) = answer {
            let close = Close(code: holder == device ? .replaced : .evicted)
            input(hosted) { $0.close(close, now: $1) }
            return false
        }
        for other in inOrder where other.user == user && other.login <= hosted.login {
            guard let name = other.device, name != device, simulation.compete(name, device, of: user) else { continue }
            input(other) { $0.close(Close(code: .evicted), now: $1) }
        }
        return true
    }

    func establish(_ hosted: Hosted) {
        guard let name = hosted.name, takePlace(hosted, name.user, name.device) else { return }
        let (user, device) = (name.user, name.device)
        simulation.established(user, device, login: hosted.login)
        if !hosted.link.isHandshakeComplete {
            simulation.violation("a session took effect before its handshake was complete")
        }
        if let newer = current[name] {
            if newer.login > hosted.login {
                guard has(.ignoreLogin) else {
                    return input(hosted) { $0.claimRefused(Close(code: .replaced), now: $1) }
                }
                simulation.violation("\(device)'s login \(newer.login) was ended for its login \(hosted.login)")
            }
            if newer.producer == hosted.producer, newer.connectNumber > hosted.connectNumber {
                // Its handshake took so long that a later connect was established meanwhile.
                guard has(.ignoreConnectNumber) else {
                    return input(hosted) { $0.claimRefused(Close(code: .stale), now: $1) }
                }
                simulation.violation("\(device)'s connect \(hosted.connectNumber) took over from a later one")
            }
        }
        let old = current.updateValue(hosted, forKey: name)
        if let old, old !== hosted {
            old.isReplaced = true
            if !has(.keepOldSession) { input(old) { $0.close(Close(code: .replaced), now: $1) } }
        }
        hosted.isEstablished = true
        for append in hosted.unsettled { self.append(append) }
        hosted.unsettled = []
    }
}
