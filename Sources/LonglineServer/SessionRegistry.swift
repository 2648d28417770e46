import DequeModule
import LonglineSession
import LonglineStore
package import LonglineWire
import NIOCore
import Synchronization

/// A user within a tenant.
package struct UserKey: Hashable, Sendable {
    package let tenant: TenantID
    package let user: UserID

    package init(tenant: TenantID, user: UserID) {
        self.tenant = tenant
        self.user = user
    }
}

extension UserKey {
    init(_ identity: SessionIdentity) { self.init(tenant: identity.tenant, user: identity.user) }
}

/// Reaches a session from anywhere; the session's host does the work on its own loop.
protocol SessionHandle: Sendable {
    /// Ends the session with this.
    func end(_ close: Close)
    /// The highest place sent to the device, per channel; nil where the session's loop takes longer to say it.
    func sentPositions(within patience: Duration) async -> [ChannelPosition]?
}

/// What a device's earlier session leaves to the next.
enum EarlierSession: Sendable {
    /// Its link is still up.
    case attached(session: UInt64, any SessionHandle)
    /// Its link ended; `sent` is what was sent to the device, or nil when that was too much to remember.
    case detached(session: UInt64, sent: [ChannelPosition]?)
}

/// One link's claim to be its device's session.
struct SessionClaim: Sendable {
    var device: DeviceKey
    /// The link: unique for the life of the server.
    var link: UInt64
    /// The session's name in logs; a resumed session keeps it.
    var session: UInt64
    /// The deliberate login that the credential descends from.
    var loginEpoch: UInt64
    var producer: ProducerID
    var connectNumber: UInt64
    var handle: any SessionHandle
}

/// Which link is a device's session, apart from the links themselves.
///
/// A session here outlives its link: when the link ends, the session is *detached* and remembered for a while, so that
/// the device goes on with it.
/// ```
///            claim                  claim by another link
///   (none) ────────▶ attached ─────────────────────────────▶ attached (the link before is ended: replaced)
///      ▲                │ ▲
///      │ window over    │ │ claim
///      │           release│
///      │                ▼ │
///      └───────────── detached
/// ```
/// Invariant: `attachedOfUser` names what is in `attached`, `detachedOfUser` what is in `detached`; `perTenant` counts `attached`; a
/// device is never attached and detached at once; `early` names links that have claimed nothing yet.
final class SessionRegistry: Sendable {
    enum ClaimResult: Sendable {
        /// The link is the session now; the one before it, if there was one, has to be ended.
        case accepted(replaced: (any SessionHandle)?)
        /// The link has to be closed with this.
        case refused(Close)
    }

    /// Channels of a detached session whose sent place is remembered; with more, none is, and what is delivered again
    /// is marked as such more often than needed.
    private static let rememberedChannels = 64

    private struct Detached {
        var session: UInt64
        var sent: [ChannelPosition]?
        /// The login, the outbox and the connect number of the session's last link.
        var loginEpoch: UInt64
        var producer: ProducerID
        var connectNumber: UInt64
        var stamp: UInt64
        var until: NIODeadline
    }

    private struct State {
        private(set) var attached: [DeviceKey: SessionClaim] = [:]
        private(set) var attachedOfUser: [UserKey: Set<DeviceID>] = [:]
        private(set) var detached: [DeviceKey: Detached] = [:]
        private(set) var detachedOfUser: [UserKey: Set<DeviceID>] = [:]
        /// Detached sessions, oldest first; an entry whose stamp is not the device's is a leftover.
        var detachedOrder: Deque<(device: DeviceKey, stamp: UInt64)> = []
        var stamp: UInt64 = 0
        private(set) var perTenant: [TenantID: Int] = [:]
        var early = EarlyLinks()
        /// Attached devices whose app is in the background or in low power.
        var background: Set<DeviceKey> = []
        var backgroundPerUser: [UserKey: Int] = [:]
        var takeovers: UInt64 = 0
        var limits: ServerLimits

        init(limits: ServerLimits) { self.limits = limits }

        mutating func attach(_ claim: SessionClaim) {
            guard attached.updateValue(claim, forKey: claim.device) == nil else { return }
            attachedOfUser[claim.device.userKey, default: []].insert(claim.device.device)
            perTenant[claim.device.tenant, default: 0] += 1
        }

        /// Takes a session away whose link ended.
        mutating func release(_ device: DeviceKey) {
            guard attached.removeValue(forKey: device) != nil else { return }
            remove(device, from: &attachedOfUser)
            decrement(&perTenant, device.tenant)
        }

        /// How many sessions a user has.
        func count(of user: UserKey) -> Int { attachedOfUser[user]?.count ?? 0 }

        mutating func detach(_ device: DeviceKey, _ session: Detached) {
            if detached.updateValue(session, forKey: device) == nil {
                detachedOfUser[device.userKey, default: []].insert(device.device)
            }
        }

        mutating func forget(_ device: DeviceKey) {
            guard detached.removeValue(forKey: device) != nil else { return }
            remove(device, from: &detachedOfUser)
        }

        mutating func forget(_ user: UserKey) {
            for device in detachedOfUser.removeValue(forKey: user) ?? [] {
                detached[DeviceKey(tenant: user.tenant, user: user.user, device: device)] = nil
            }
        }
    }

    private let state: Mutex<State>

    init(limits: ServerLimits) { state = Mutex(State(limits: limits)) }

    /// Goes by other limits from now on. Nobody who has a session loses it.
    func update(_ limits: ServerLimits) { state.withLock { $0.limits = limits } }

    /// Whether a device would find room now: asked before its channels are loaded. ``claim(_:)`` decides.
    /// - Parameter evicts: whether sessions of the user may end for this one before it claims its place.
    func refusal(for device: DeviceKey, evicts: Bool = false) -> Close? {
        state.withLock { refusal(for: device, evicts: evicts, in: $0) }
    }

    /// The session that a device goes on with, if it left one.
    func earlierSession(of device: DeviceKey, now: NIODeadline) -> EarlierSession? {
        state.withLock { state in
            if let claim = state.attached[device] { return .attached(session: claim.session, claim.handle) }
            guard let detached = state.detached[device], detached.until > now else { return nil }
            return .detached(session: detached.session, sent: detached.sent)
        }
    }

    /// Finds room for a link that is to be granted before its handshake is complete. ``claim(_:)`` gives it back, or
    /// ``giveBack(_:)``.
    ///
    /// Such a link costs as much as a session and may never become one. So these links have the room that sessions leave, and take
    /// none of theirs; the first one of a device that has a session has that one's.
    /// - Returns: false when there is none: the link has to complete its handshake first. A link that has room keeps it.
    func reserve(_ device: DeviceKey, link: UInt64) -> Bool {
        state.withLock { state in
            if state.early.contains(link) { return true }
            let isReturn = state.attached[device] != nil && state.early.count(of: device) == 0
            guard isReturn || hasRoom(for: device, in: state) else { return false }
            state.early.insert(link, device)
            return true
        }
    }

    private func hasRoom(for device: DeviceKey, in state: borrowing State) -> Bool {
        let (user, tenant) = (device.userKey, device.tenant)
        return state.count(of: user) + state.early.count(of: user) < state.limits.maximumSessionsPerUser
            && state.perTenant[tenant, default: 0] + state.early.count(of: tenant)
                < state.limits.maximumSessions(in: tenant)
            && state.attached.count + state.early.count < state.limits.maximumSessions
    }

    /// A link ended that claimed nothing: it gives back the room that it found by ``reserve(_:link:)``, if it did.
    func giveBack(_ link: UInt64) { state.withLock { $0.early.remove(link) } }

    /// Links that have room without a claim, for tests.
    var earlyLinks: Int { state.withLock { $0.early.count } }

    /// Makes a link its device's session, once its handshake is complete.
    ///
    /// A newer login evicts an older one and never the other way round, so that two automatic reconnects can't evict
    /// each other in turn. Within one login and outbox the higher connect number wins; at equal numbers, and between
    /// outboxes, the link that comes later does. That holds against a link that has ended since, too: of two connects
    /// that race, the older one's handshake may be complete only after the newer one came and went.
    func claim(_ claim: SessionClaim, now: NIODeadline = .now()) -> ClaimResult {
        state.withLock { state in
            state.early.remove(claim.link)
            if let current = state.attached[claim.device], current.link != claim.link {
                if claim.loginEpoch < current.loginEpoch {
                    return .refused(Close(code: .replaced, reason: "a newer login of this device is connected"))
                }
                let sameOutbox = claim.loginEpoch == current.loginEpoch && claim.producer == current.producer
                if sameOutbox && claim.connectNumber < current.connectNumber {
                    return .refused(Close(code: .stale, reason: "a later connect of this device is up"))
                }
                state.attach(claim)
                // The new link says itself what its app is to its user.
                setBackground(false, claim.device, in: &state)
                state.takeovers += 1
                return .accepted(replaced: current.handle)
            }
            if state.attached[claim.device] == nil {
                if let last = state.detached[claim.device], now < last.until, claim.loginEpoch <= last.loginEpoch {
                    if last.producer == claim.producer, claim.connectNumber < last.connectNumber {
                        return .refused(Close(code: .stale, reason: "a later connect of this outbox was up"))
                    }
                    // The same outbox may have refreshed its login, and lost the answer with the new ticket.
                    if last.producer != claim.producer, claim.loginEpoch < last.loginEpoch {
                        return .refused(Close(code: .replaced, reason: "a newer login of this device has a session"))
                    }
                }
                if let close = refusal(for: claim.device, evicts: false, in: state) { return .refused(close) }
                state.forget(claim.device)
            }
            state.attach(claim)
            return .accepted(replaced: nil)
        }
    }

    /// A link's session goes on with a later login.
    /// - Returns: false when another link took its place meanwhile: the link's end is on its way to it.
    func renew(_ claim: SessionClaim) -> Bool {
        state.withLock { state in
            guard state.attached[claim.device]?.link == claim.link else { return false }
            state.attach(claim)
            return true
        }
    }

    /// A link ended. If it was its device's session, the session is detached.
    func release(_ device: DeviceKey, link: UInt64, sent: [ChannelPosition], now: NIODeadline) {
        state.withLock { state in
            guard let claim = state.attached[device], claim.link == link else { return }
            state.release(device)
            setBackground(false, device, in: &state)
            guard state.limits.maximumDetachedSessions > 0 else { return }
            state.stamp += 1
            let session = Detached(
                session: claim.session, sent: sent.count <= Self.rememberedChannels ? sent : nil,
                loginEpoch: claim.loginEpoch, producer: claim.producer, connectNumber: claim.connectNumber,
                stamp: state.stamp,
                until: now + state.limits.resumeWindow)
            state.detach(device, session)
            state.detachedOrder.append((device, state.stamp))
            forgetDetached(&state, now: now)
        }
    }

    /// Forgets a device's ended session: after a revocation or a logout nothing goes on.
    func forget(_ device: DeviceKey) {
        state.withLock { $0.forget(device) }
    }

    /// Forgets the ended sessions of all of a user's devices.
    func forget(_ user: UserKey) { state.withLock { $0.forget(user) } }

    /// Users of whom ended sessions are remembered, for tests.
    var detachedUsers: Int { state.withLock { $0.detachedOfUser.count } }

    /// The devices of a user that have a session now.
    func devices(of user: UserKey) -> [DeviceID] {
        state.withLock { Array($0.attachedOfUser[user] ?? []) }
    }

    /// The app of an attached device went to the background, or came back.
    func noteBackground(_ isInBackground: Bool, _ device: DeviceKey, link: UInt64) {
        state.withLock { state in
            guard state.attached[device]?.link == link else { return }
            setBackground(isInBackground, device, in: &state)
        }
    }

    private func setBackground(_ isInBackground: Bool, _ device: DeviceKey, in state: inout State) {
        if isInBackground {
            if state.background.insert(device).inserted { state.backgroundPerUser[device.userKey, default: 0] += 1 }
        } else if state.background.remove(device) != nil {
            decrement(&state.backgroundPerUser, device.userKey)
        }
    }

    /// Whether a user has a session now.
    /// - Parameter inBackground: whether one counts whose app is in the background.
    func isReachable(_ user: UserKey, inBackground: Bool) -> Bool {
        state.withLock { state in
            let all = state.count(of: user)
            return inBackground ? all > 0 : all > state.backgroundPerUser[user] ?? 0
        }
    }

    /// Whether a user has a session now.
    func isOnline(_ user: UserKey) -> Bool { state.withLock { $0.attachedOfUser[user] != nil } }

    /// Adds the registry's figures to a snapshot.
    func addStatistics(to statistics: inout ServerStatistics) {
        state.withLock { state in
            statistics.sessions += state.attached.count
            statistics.detachedSessions += state.detached.count
            statistics.takeovers += state.takeovers
        }
    }

    private func refusal(for device: DeviceKey, evicts: Bool, in state: borrowing State) -> Close? {
        // A device that is attached keeps its place.
        guard state.attached[device] == nil else { return nil }
        if !evicts, state.count(of: device.userKey) >= state.limits.maximumSessionsPerUser {
            return Close(code: .limitExceeded, reason: "too many devices of this user are connected")
        }
        let full =
            state.attached.count >= state.limits.maximumSessions
            || state.perTenant[device.tenant, default: 0] >= state.limits.maximumSessions(in: device.tenant)
        guard full else { return nil }
        return Close(
            code: .overloaded, reason: "no room for another session",
            retryAfter: state.limits.retryAfter.wholeMilliseconds)
    }

    /// Forgets what is over, and the oldest beyond the limit. Each call does work in proportion to what it removes.
    private func forgetDetached(_ state: inout State, now: NIODeadline) {
        while let oldest = state.detachedOrder.first {
            if let detached = state.detached[oldest.device], detached.stamp == oldest.stamp {
                guard detached.until <= now || state.detached.count > state.limits.maximumDetachedSessions else {
                    break
                }
                state.forget(oldest.device)
            }
            state.detachedOrder.removeFirst()
        }
        // Leftovers behind a session that stays: a device that came and went again and again.
        if state.detachedOrder.count > 2 * state.detached.count + 64 {
            let detached = state.detached
            state.detachedOrder.removeAll { detached[$0.device]?.stamp != $0.stamp }
        }
    }
}

/// Links that were granted and whose handshakes are not complete, counted by whose they are.
private struct EarlyLinks {
    private var devices: [UInt64: DeviceKey] = [:]
    private var perDevice: [DeviceKey: Int] = [:]
    private var perUser: [UserKey: Int] = [:]
    private var perTenant: [TenantID: Int] = [:]

    var count: Int { devices.count }
    func contains(_ link: UInt64) -> Bool { devices[link] != nil }
    func count(of device: DeviceKey) -> Int { perDevice[device] ?? 0 }
    func count(of user: UserKey) -> Int { perUser[user] ?? 0 }
    func count(of tenant: TenantID) -> Int { perTenant[tenant] ?? 0 }

    mutating func insert(_ link: UInt64, _ device: DeviceKey) {
        guard devices.updateValue(device, forKey: link) == nil else { return }
        perDevice[device, default: 0] += 1
        perUser[device.userKey, default: 0] += 1
        perTenant[device.tenant, default: 0] += 1
    }

    mutating func remove(_ link: UInt64) {
        guard let device = devices.removeValue(forKey: link) else { return }
        decrement(&perDevice, device)
        decrement(&perUser, device.userKey)
        decrement(&perTenant, device.tenant)
    }
}

private func decrement<Key: Hashable>(_ counts: inout [Key: Int], _ key: Key) {
    guard let count = counts[key], count > 1 else {
        counts[key] = nil
        return
    }
    counts[key] = count - 1
}

private func remove(_ device: DeviceKey, from devices: inout [UserKey: Set<DeviceID>]) {
    let user = device.userKey
    devices[user]?.remove(device.device)
    if devices[user]?.isEmpty == true { devices[user] = nil }
}

extension DeviceKey {
    /// The user whose device it is.
    var userKey: UserKey { UserKey(tenant: tenant, user: user) }
}
