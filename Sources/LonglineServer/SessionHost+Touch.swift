import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// Who blocks whom ends signals and presence between the two, in both directions, as it ends direct messages and receipts.
extension SessionHost {
    /// Users beside the watched ones of whom a session keeps whether they are in touch.
    private static let maximumContacts = 64

    /// Finds out about watched users, and then tells what they show.
    func findTouch(with users: [UserID]) {
        guard let device, !users.isEmpty else { return }
        let number = touch.ask(about: users)
        findOutOfTouch(device, with: users) { host, result in
            guard host.phase != .ended else { return }
            switch result {
            case .success(let outOfTouch):
                for user in host.touch.answered(number, about: users, outOfTouch: outOfTouch) {
                    host.tellPresence(of: user)
                }
            case .failure(let error):
                host.core.note(error, in: "blocks")
                host.loop.eventLoop.assumeIsolated().scheduleTask(in: host.core.limits.retryAfter) {
                    guard host.phase != .ended else { return }
                    host.findTouch(with: host.touch.waiting(for: number, of: users))
                }
            }
        }
    }

    /// Passes a signal on to another user's devices, unless the two are out of touch. What can't be found out is dropped.
    func signal(_ signal: SignalInFlight, to recipient: UserID) {
        // A session that is over hears of no block any more: the store is asked.
        if phase != .ended, let isInTouch = touch.isInTouch(with: recipient) {
            return isInTouch ? passOn(signal) : dropped(.blocked)
        }
        guard let device else { return dropped(.early) }
        if touch.count >= watched.count + Self.maximumContacts { touch.forget(allBut: watched) }
        // A watched user's own question is on its way, and keeps its number.
        let number = touch.contains(recipient) ? nil : touch.ask(about: [recipient])
        // Few wait so: the rate of signals bounds them.
        findOutOfTouch(device, with: [recipient]) { host, result in
            guard case .success(let outOfTouch) = result else {
                if number != nil, !host.watched.contains(recipient) { host.touch.forget([recipient]) }
                return host.dropped(.failed)
            }
            if let number { _ = host.touch.answered(number, about: [recipient], outOfTouch: outOfTouch) }
            guard outOfTouch.isEmpty else { return host.dropped(.blocked) }
            // Who said something and left, as one that is about to sleep does, has said it.
            guard signal.until > host.now else { return host.dropped(.expired) }
            host.passOn(signal)
        }
    }

    private func findOutOfTouch(
        _ device: DeviceKey, with users: [UserID],
        then: @escaping @Sendable (SessionHost, Result<Set<UserID>, StoreError>) -> Void
    ) {
        let core = core
        offLoop(
            {
                await Result { () async throws(StoreError) in
                    try await core.store.outOfTouch(device.user, with: users, in: device.tenant)
                }
            }, then: then)
    }

    /// One of the two blocked the other, or does so no more.
    func touchChanged(with other: UserID) {
        guard phase != .ended, touch.contains(other) else { return }
        if watched.contains(other) { findTouch(with: [other]) } else { touch.forget([other]) }
    }
}

extension ServerLoop {
    /// Tells all loops' sessions of two users that one of them blocked the other, or does so no more.
    func touchChanged(between one: UserKey, and other: UserKey) {
        for sibling in siblings { sibling.execute { $0.forgetTouch(between: one, and: other) } }
        forgetTouch(between: one, and: other)
    }

    private func forgetTouch(between one: UserKey, and other: UserKey) {
        for host in sessions(of: .user(one)) { host.touchChanged(with: other.user) }
        for host in sessions(of: .user(other)) { host.touchChanged(with: one.user) }
        drainDirty()
    }
}
