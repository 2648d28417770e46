public import LonglineKeys
import LonglineSession
public import LonglineStore
public import LonglineWire

/// Who is connected, for operators.
extension LonglineServer {
    /// The sessions of a user that are up now, oldest first.
    /// - Throws: ``ServerError/Code/notRunning``.
    public func sessions(of user: UserID, in tenant: TenantID) async throws(ServerError) -> [SessionInfo] {
        let key = UserKey(tenant: tenant, user: user)
        let found = try await requireRuntime().loops.submit { $0.sessionInfo(of: key) }.flatMap { $0 }
        return found.sorted { ($0.connectedAt, $0.session) < ($1.connectedAt, $1.session) }
    }

    /// Ends sessions of a user with a close code, by whose range the client decides what to do next. Nothing is revoked: where
    /// the code says so, the device comes back. Returns when every event loop has done it.
    /// - Parameters:
    ///   - user: whose sessions.
    ///   - device: one device's; nil for all.
    ///   - tenant: the user's tenant.
    ///   - close: what the devices are told.
    /// - Returns: how many sessions there were.
    /// - Throws: ``ServerError/Code/notRunning``.
    @discardableResult
    public func disconnect(
        user: UserID, device: DeviceID? = nil, in tenant: TenantID, close: Close
    ) async throws(ServerError) -> Int {
        let target: RevocationTarget =
            device.map { .device(DeviceKey(tenant: tenant, user: user, device: $0)) }
            ?? .user(UserKey(tenant: tenant, user: user))
        let loops = try requireRuntime().loops
        return await loops.submit { $0.end(target, close) }.reduce(0, +)
    }

    /// Checks a client's token as a connect does: key, times, tenant, and that it, its device and user were not revoked.
    /// - Parameter token: as the client sent it.
    /// - Returns: whose it is, and until when, in milliseconds since 1970.
    /// - Throws: ``/LonglineKeys/AuthenticationError``; ``/LonglineKeys/AuthenticationError/Code/storeUnavailable`` when the
    ///   server isn't running.
    public func holder(ofToken token: String) async throws(AuthenticationError) -> (device: DeviceKey, expiry: UInt64) {
        let core: ServerCore
        do { core = try requireRuntime().core } catch {
            throw AuthenticationError(.storeUnavailable, "the server isn't running")
        }
        let identity = try await core.authenticator.authenticate(.token(token), now: core.time()).identity
        return (DeviceKey(tenant: identity.tenant, user: identity.user, device: identity.device), identity.expiry)
    }

    /// How long each event loop lets work wait, as of now. Waits for each, however long that is.
    /// - Throws: ``ServerError/Code/notRunning``.
    public func loopDelays() async throws(ServerError) -> [Duration] {
        var delays: [Duration] = []
        for loop in try requireRuntime().loops {
            let start = ContinuousClock.now
            guard let ran = try? await loop.submit({ _ in ContinuousClock.now }) else { continue }
            delays.append(ran - start)
        }
        return delays
    }
}
