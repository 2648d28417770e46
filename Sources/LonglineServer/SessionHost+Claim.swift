import Logging
import LonglineLinks
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore

/// How a granted link becomes its device's session.
extension SessionHost {
    func establish() {
        guard phase == .granted, let identity else { return }
        switch core.devicePolicies.policy(of: identity.tenant) {
        case .all: claimSession()
        case let policy: takePlace(identity, policy) { $0.claimSession() }
        }
    }

    /// Becomes the device's session, in place of an older one.
    private func claimSession() {
        guard phase == .granted, let claim else { return }
        switch core.registry.claim(claim) {
        case .refused(let close): session.claimRefused(close, now: now)
        case .accepted(let replaced):
            phase = .established
            catchUpOnPresence()
            replaced?.end(Self.replaced)
            enterAudiences()
            performHeld()
            settleRefusals()
            if let late { tellSenders(of: late) }
            late = nil
            core.log.log(.debug, "session established", metadata())
        }
    }

    /// From now on this device is one of those that hear its rooms: what never completes its handshake silences nobody there.
    private func enterAudiences() {
        guard let device else { return }
        isInAudience = true
        for (room, stint) in rooms where stint.upTo == nil {
            core.audiences.add(1, to: ChannelKey(tenant: device.tenant, channel: .room(room)))
        }
    }

    private static let replaced = Close(code: .replaced, reason: "this device connected anew")

    /// What this link claims of the registry.
    private var claim: SessionClaim? {
        guard let device, let identity, let connect else { return nil }
        return SessionClaim(
            device: device, link: id, session: sessionNumber, loginEpoch: identity.loginEpoch,
            producer: connect.producer, connectNumber: connect.connectNumber, handle: reference)
    }

    /// A refresh brought a later login: the registry compares with that from now on.
    func renewClaim() {
        guard phase == .established, let claim else { return }
        guard core.registry.renew(claim) else { return session.close(Self.replaced, now: now) }
        guard let identity else { return }
        let policy = core.devicePolicies.policy(of: identity.tenant)
        if policy != .all { takePlace(identity, policy) { _ in } }
    }
}
