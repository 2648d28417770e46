import LonglineSession
import LonglineWire
import NIOCore

/// Presence of this session's user, and of others for this session.
extension SessionHost {
    /// The session found that its user may watch them, and has room.
    func watch(_ request: PresenceRequest) {
        guard let tenant = identity?.tenant else { return }
        let limits = core.limits
        let users = request.users.map { UserKey(tenant: tenant, user: $0) }
        let new = Set(request.users).subtracting(watched).count
        guard takes(.presence), loop.watch(users, new: new, for: self) else {
            loop.statistics.countRefusal(.overloaded)
            return session.watched(
                request, refusal: .overloaded, retryAfter: limits.retryAfter.wholeMilliseconds, now: now)
        }
        watched.formUnion(request.users)
        session.watched(request, refusal: nil, retryAfter: 0, now: now)
        // Who is in touch shows what is known already; the others first have to be asked about.
        let strangers = request.users.filter { touch.isInTouch(with: $0) == nil }
        for user in request.users { tellPresence(of: user) }
        findTouch(with: strangers)
    }

    /// Tells the device what a watched user shows, as far as that is known by now.
    func tellPresence(of user: UserID) {
        guard phase != .ended, let tenant = identity?.tenant, watched.contains(user) else { return }
        switch touch.isInTouch(with: user) {
        case true?:
            let known = loop.presence.watchers.known(of: UserKey(tenant: tenant, user: user))
            if let known { session.presenceChanged(known, now: now) }
        case false?: session.presenceChanged(PresenceUpdate(user: user, state: .offline, lastSeen: 0), now: now)
        case nil: break
        }
    }

    func unwatch(_ users: Set<UserID>) {
        guard let tenant = identity?.tenant else { return }
        let left = watched.intersection(users)
        watched.subtract(left)
        touch.forget(left)
        loop.unwatch(left.map { UserKey(tenant: tenant, user: $0) }, for: self)
    }

    /// What the client said last counts: each is work for the loop that is the user's home, and nobody is answered.
    func setVisibility(_ visibility: PresenceVisibility) {
        switch phase {
        // Of one that is granted its client has been told that it is connected; the place among the user's devices comes later.
        case .granted, .established: askedVisibility = visibility
        case .new, .open, .connecting, .ended: break
        }
    }

    /// Does what ``setVisibility(_:)`` asked for last, now or when the rate allows.
    func applyVisibility() {
        guard phase == .established, !waitsForVisibility, let visibility = askedVisibility, let user = device?.userKey
        else { return }
        guard takes(.presence) else {
            waitsForVisibility = true
            loop.eventLoop.assumeIsolated().scheduleTask(in: core.limits.retryAfter) { [self] in
                waitsForVisibility = false
                applyVisibility()
            }
            return
        }
        askedVisibility = nil
        loop.set(visibility, of: user)
    }

    /// The session is established: what was asked and told while it was not is made up for.
    func catchUpOnPresence() {
        applyVisibility()
        for user in watched { tellPresence(of: user) }
    }

    /// A user's state, at first and after each change. Who is out of touch shows nothing.
    func presenceChanged(_ update: PresenceUpdate) {
        guard phase == .established, touch.isInTouch(with: update.user) == true else { return }
        session.presenceChanged(update, now: now)
        wake()
    }

    /// Tells the user's home of this session, once it is established and when its mode changed. After a drain, so that a
    /// client that says right behind CONNECT that it is in the background was never in the foreground.
    func reportPresence(_ mode: SessionMode) {
        let state: PresenceState = mode == .foreground ? .online : .away
        guard phase == .established, state != reportedPresence, let user = device?.userKey else { return }
        reportedPresence = state
        loop.report(user, link: id, state: state)
    }

    /// The session is over.
    func endPresence() {
        unwatch(watched)
        guard reportedPresence != nil, let user = device?.userKey else { return }
        reportedPresence = nil
        loop.report(user, link: id, state: nil)
    }
}
