import LonglineSession
public import LonglineStore
public import LonglineWire

/// How many devices of a user may be logged in at a time, by tenant.
///
/// Logins are compared by their number (``TokenClaims/loginEpoch``), which the tokens' signer has to count over all of a user's
/// devices. A newer login takes the place of an older one, durably, and the older one's credentials are void from then on; an
/// equal one, as of tokens that have no number, takes nobody's place.
public struct DevicePolicies: Hashable, Sendable {
    /// What holds for a tenant that isn't named.
    public var standard: DevicePolicy
    /// What holds for single tenants.
    public var tenants: [TenantID: DevicePolicy]

    /// Policies.
    public init(standard: DevicePolicy = .all, tenants: [TenantID: DevicePolicy] = [:]) {
        self.standard = standard
        self.tenants = tenants
    }

    /// What holds for a tenant.
    public func policy(of tenant: TenantID) -> DevicePolicy { tenants[tenant] ?? standard }
}

extension DeviceLogin {
    /// The login that a session's credential descends from.
    init(_ identity: SessionIdentity) {
        self.init(
            device: DeviceKey(tenant: identity.tenant, user: identity.user, device: identity.device),
            platform: identity.platform, number: identity.loginEpoch)
    }
}

extension Close {
    /// What a device is told that lost its place, when it happens and at each later connect: the same.
    /// - Parameter holder: who has the place; the device itself when it is its own newer login.
    init(evictedBy policy: DevicePolicy, _ identity: SessionIdentity, holder: DeviceID) {
        guard holder != identity.device else {
            self.init(code: .replaced, reason: "this device has a newer login")
            return
        }
        let places =
            switch policy {
            case .all, .one: "one device for each user"
            case .onePerPlatform: "one device for each platform; this one's is \(identity.platform)"
            }
        self.init(code: .evicted, reason: "another device has a newer login, and the app's policy is \(places)")
    }
}

extension ServerCore {
    /// Takes the place for a session whose handshake is complete, and ends the sessions that lose it: on return they have ended,
    /// but for those of a loop that does not come to it within ``ServerLimits/loopPatience``.
    ///
    /// A session that comes up meanwhile with an older login is either in its loop's table, as it asks for its place only after
    /// it was put there, or finds the place taken.
    /// - Returns: how to close the session, if the place isn't its.
    func takePlace(
        _ identity: SessionIdentity, _ policy: DevicePolicy, on loops: [LoopReference]
    ) async throws(StoreError) -> Close? {
        let login = DeviceLogin(identity)
        // Most connects are of a login that has the place: they write nothing, and need no room on the disk.
        var answer = try await store.place(of: login, policy: policy)
        if answer == .taken { answer = try await store.takePlace(of: login, policy: policy) }
        switch answer {
        case .held: return nil
        case .refused(let holder, _): return Close(evictedBy: policy, identity, holder: holder)
        case .taken: break
        }
        // One that is stuck does it once it goes on, and keeps nobody from logging in.
        await loops.run(waitingAtMost: limits.loopPatience) { $0.evict(olderThan: login, policy) }
        return nil
    }
}

extension ServerLoop {
    /// Ends the sessions that a login took the place of.
    func evict(olderThan login: DeviceLogin, _ policy: DevicePolicy) {
        for host in sessions(of: .user(login.device.userKey)) {
            guard let identity = host.identity, identity.device != login.device.device,
                identity.loginEpoch <= login.number, policy == .one || identity.platform == login.platform
            else { continue }
            host.end(Close(evictedBy: policy, identity, holder: login.device.device))
        }
    }
}

extension SessionHost {
    /// Asks for the place of the session's login, then goes on if it got it.
    func takePlace(
        _ identity: SessionIdentity, _ policy: DevicePolicy, then: @escaping @Sendable (SessionHost) -> Void
    ) {
        let core = self.core
        let loops = loop.siblings + [loop.reference]
        offLoop {
            await Result { () async throws(StoreError) in try await core.takePlace(identity, policy, on: loops) }
        } then: { host, result in
            guard host.phase != .ended else { return }
            switch result {
            case .success(nil): then(host)
            case .success(let close?): host.end(close)
            case .failure(let error):
                core.note(error, in: "device place")
                host.end(Close(error, limits: core.limits))
            }
        }
    }
}
