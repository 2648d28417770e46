import Logging
import LonglineLinks
public import LonglineStore
public import LonglineWire
public import NIOCore
import NIOPosix
public import QUICTransport
public import ServiceLifecycle
import Synchronization

/// The access layer: accepts connections, authenticates them, and carries sessions between devices and the store.
///
/// ```
///   idle ──start()──▶ starting ──▶ running ──shutdown()──▶ stopping ──▶ stopped
///                        └── a failure ───────────────────────────────────▲
/// ```
/// As a `Service` it runs until a graceful shutdown: then clients are told to come back elsewhere or later, what devices
/// confirmed is written, and the sockets close. All methods may be called from anywhere.
public final class LonglineServer: Service {
    private struct Running: Sendable {
        var runtime: ServerRuntime
        var listeners: [any LinkListener]
        var group: MultiThreadedEventLoopGroup
        var maintenance: Task<Void, Never>
        var store: OpenedStore
        var control: ControlSocket?
        var keyring: TokenKeyring
        var keyTask: Task<Void, Never>
    }

    private enum State {
        case idle, starting
        case running(Running)
        case stopping, stopped
    }

    /// What the server was set up with.
    public let configuration: Configuration
    private let state = Mutex(State.idle)
    private let others = Mutex<QUICProtocolHandlers>([:])
    /// A store that was opened before the start.
    private let opened = Mutex<OpenedStore?>(nil)
    private let erasureHooks = ErasureHooks()
    private let tokenKeyHooks = TokenKeyHooks()
    private let certificates: CertificateWatch
    /// Moves clients away while the server runs on.
    let nodeDrain = NodeDrain()

    /// A server that does nothing yet.
    public init(configuration: Configuration) {
        self.configuration = configuration
        certificates = CertificateWatch(logger: configuration.logger)
    }

    /// Serves another protocol on the server's QUIC ports, to connections that agree on it by ALPN (RFC 7301): they share sockets,
    /// certificate, 0-RTT and the limits for connections, and have nothing to do with sessions.
    /// - Parameters:
    ///   - applicationProtocol: its name, `h3` for instance.
    ///   - handler: makes the handler of a connection, nil to close it; called on its loop, before any of its events.
    /// - Throws: ``ServerError/Code/alreadyStarted``: what is offered is decided at the start.
    public func serve(
        _ applicationProtocol: String,
        with handler: @escaping @Sendable (QUICLoopConnection) -> (any QUICConnectionHandler)?
    ) throws(ServerError) {
        let isInTime = state.withLock { state in
            guard case .idle = state else { return false }
            others.withLock { $0[applicationProtocol] = handler }
            return true
        }
        guard isInTime else {
            throw ServerError(
                .alreadyStarted, message: "\(applicationProtocol) can't be added to a server that was started",
                advice: "add it before the start")
        }
    }

    /// Has something else forget users whose account is erased, as the store does: whatever is kept of them elsewhere.
    ///
    /// An erasure is at its end only when this returned. Where it throws, or the process ends meanwhile, it is called again: so call
    /// this before the start, and let it be of no consequence to forget somebody twice.
    /// - Parameter forget: forgets a user, durably.
    public func alsoErase(_ forget: @escaping @Sendable (UserID, TenantID) async throws -> Void) {
        erasureHooks.add(forget)
    }

    /// Has something else read its keys again whenever the server does by ``reloadTokenKeys()``: whoever signs tokens beside it.
    /// - Parameter reload: reads them; what it throws, ``reloadTokenKeys()`` throws.
    public func alsoReloadTokenKeys(_ reload: @escaping @Sendable () async throws -> Void) {
        tokenKeyHooks.add(reload)
    }

    /// Starts, and serves until a graceful shutdown or the task's cancellation.
    /// - Throws: ``ServerError``, when it can't start.
    public func run() async throws {
        if !isRunning { try await start() }
        // Cancelled or asked to: both end in the same orderly way.
        try? await gracefulShutdown()
        await shutdown()
    }

    /// Opens the store ahead of ``start()``, which does so otherwise, and brings it to this version: for who must know that it can be
    /// used before something beside it is changed. Blocks on the disk. ``shutdown()`` gives it back, also where no start follows.
    /// - Throws: ``ServerError/Code/alreadyStarted``, ``ServerError/Code/storeUnavailable``.
    public func prepareStore() throws(ServerError) {
        let isIdle = state.withLock { if case .idle = $0 { true } else { false } }
        guard isIdle, opened.withLock({ $0 == nil }) else {
            throw ServerError(.alreadyStarted, message: "the store is open already")
        }
        let store = try OpenedStore(configuration)
        opened.withLock { $0 = store }
    }

    /// Opens the store, binds the sockets and serves. Returns when clients can connect.
    /// - Throws: ``ServerError``; the server is then stopped, and another one has to be made.
    public func start() async throws(ServerError) {
        let mayStart = state.withLock { state in
            guard case .idle = state else { return false }
            state = .starting
            return true
        }
        guard mayStart else { throw ServerError(.alreadyStarted, message: "the server was started before") }
        do {
            try configuration.validate()
            let running = try await launch()
            state.withLock { $0 = .running(running) }
            configuration.logger.info(
                "server started", metadata: ["addresses": "\(running.listeners.flatMap(\.localAddresses))"])
        } catch {
            try? await takeStore()?.close()
            state.withLock { $0 = .stopped }
            throw error
        }
    }

    private func takeStore() -> OpenedStore? {
        opened.withLock { store in
            defer { store = nil }
            return store
        }
    }

    /// Ends every session with ``/LonglineWire/CloseCode/shuttingDown``, writes what is pending, closes the sockets and the store.
    /// Returns when all is done; does nothing when the server isn't running.
    public func shutdown() async {
        let running: Running? = state.withLock { state in
            guard case .running(let running) = state else { return nil }
            state = .stopping
            return running
        }
        guard let running else {
            try? await takeStore()?.close()
            return
        }
        nodeDrain.stop()
        await running.control?.shutDown()
        // Sessions first: this waits for no loop. A link that comes behind it is refused.
        running.runtime.drain()
        for listener in running.listeners { await listener.stopAccepting() }
        let patience = ShutdownPatience(configuration.limits.drainTimeout, now: .now())
        let left = await running.runtime.waitUntilIdle(until: patience.forLinks)
        if left > 0 { configuration.logger.notice("links did not close in time", metadata: ["links": "\(left)"]) }
        for listener in running.listeners { await listener.close(timeout: patience.left(now: .now())) }
        _ = await running.runtime.waitUntilIdle(until: patience.forAll)
        running.keyTask.cancel()
        running.runtime.core.presence.stop()
        running.maintenance.cancel()
        running.runtime.core.erasures.stop()
        running.runtime.core.cursors.stop()
        await running.maintenance.value
        do { try await running.store.close() } catch {
            configuration.logger.error("the store was not closed in order", metadata: ["error": "\(error)"])
        }
        try? await running.group.shutdownGracefully()
        state.withLock { $0 = .stopped }
        configuration.logger.info("server stopped")
    }

    // MARK: While it runs

    /// Whether clients can connect.
    public var isRunning: Bool { running != nil }

    /// Where it listens, with the ports that the system chose; empty when it isn't running.
    public var addresses: [SocketAddress] { running?.listeners.flatMap(\.localAddresses) ?? [] }

    /// What it has done since it started, and what it holds now. Waits a second for an event loop that doesn't answer:
    /// ``ServerStatistics/loopsBehind``.
    /// - Throws: ``ServerError/Code/notRunning``.
    public func statistics() async throws(ServerError) -> ServerStatistics {
        let running = try requireRunning()
        var statistics = await running.runtime.statistics()
        statistics.tokenKeyFailures = await running.keyring.failed
        statistics.tokenKeySourcesFailing = await running.keyring.failing
        statistics.certificateExpiry = certificates.end
        statistics.disk = running.store.own?.diskUse
        return statistics
    }

    /// The devices of a user that have a session now.
    public func devices(of user: UserID, in tenant: TenantID) -> [DeviceID] {
        running?.runtime.core.registry.devices(of: UserKey(tenant: tenant, user: user)) ?? []
    }

    /// Shuts a user out: every credential issued so far is void, durably, and live sessions end at once. Returns when they have, on every
    /// event loop.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable`` when it can't be stored.
    public func revoke(user: UserID, in tenant: TenantID) async throws(ServerError) {
        try await revoke(.user(UserKey(tenant: tenant, user: user)))
    }

    /// Shuts a device out, as ``revoke(user:in:)`` does a user.
    public func revoke(device: DeviceKey) async throws(ServerError) {
        try await revoke(.device(device))
    }

    /// Shuts out one token and the tickets that came from it.
    /// - Parameters:
    ///   - token: its ID, not its text.
    ///   - tenant: the tenant it was issued for.
    ///   - until: when it would expire by itself, in milliseconds since 1970.
    public func revoke(token: String, in tenant: TenantID, until: UInt64) async throws(ServerError) {
        try await revoke(.token(token, tenant), until: until)
    }

    /// Applies ``Configuration/retention`` now, beside its schedule, and by the clock as it is now. Publishing goes on meanwhile.
    /// - Returns: what was removed; as far as it came when the task is cancelled.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``; what was removed until then stays
    ///   removed.
    @discardableResult
    public func applyRetention() async throws(ServerError) -> RetentionReport {
        let running = try requireRunning()
        guard let maintenance = running.store.maintenance else { return RetentionReport() }
        do {
            return try await running.runtime.core.apply(
                configuration.retention, to: maintenance, logger: configuration.logger)
        } catch {
            throw ServerError(
                .storeUnavailable, message: "retention was not applied to all channels", cause: error,
                advice: error.advice)
        }
    }

    /// Erases a user's account: shuts the user out as ``revoke(user:in:)`` does, though sessions end with 5007, then forgets
    /// inbox, memberships, devices, outboxes and cursors. Messages that the user sent to others stay theirs.
    ///
    /// Returns when nothing is left. It is resolved durably first: what a crash or a full store prevents goes on by itself,
    /// at the next start or within minutes.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    public func erase(user: UserID, in tenant: TenantID) async throws(ServerError) {
        let erasure = try await beginErasure(of: user, in: tenant)
        do { try await erasure.finished() } catch { throw Self.notErased(error) }
    }

    /// Erases an account as ``erase(user:in:)`` does, and waits no longer than a while once it is resolved durably: it goes on in any
    /// case, also where it failed meanwhile.
    /// - Returns: whether nothing is left.
    package func erase(
        user: UserID, in tenant: TenantID, waiting: Duration
    ) async throws(ServerError) -> Bool {
        let erasure = try await beginErasure(of: user, in: tenant)
        // What goes wrong is in the log, and is tried again.
        return (try? await erasure.isDone(within: waiting)) ?? false
    }

    /// The erasure of an account, which goes on whoever waits for it.
    func beginErasure(of user: UserID, in tenant: TenantID) async throws(ServerError) -> Erasure {
        let runtime = try requireRunning().runtime
        do {
            return try await runtime.core.beginErasure(UserKey(tenant: tenant, user: user), on: runtime.loops)
        } catch {
            throw Self.notErased(error)
        }
    }

    static func notErased(_ error: any Error) -> ServerError {
        ServerError(
            .storeUnavailable, message: "the account was not erased to the end", cause: error,
            advice: "find out what the store lacks; it goes on by itself then")
    }

    /// How often a user and one of its devices were revoked: what a new token of theirs has to carry.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/storeUnavailable``.
    public func generations(of device: DeviceKey) async throws(ServerError) -> RevocationGenerations {
        let core = try requireRunning().runtime.core
        do { return try await core.store.generations(of: device) } catch {
            throw ServerError(.storeUnavailable, message: "the store could not be asked", cause: error)
        }
    }

    /// Reads certificate and key again; new connections get them, and those that live keep theirs. A certificate that is not good
    /// now takes the place of none that is.
    /// - Throws: ``ServerError``; the old certificate then stays.
    public func reloadCertificate() throws(ServerError) {
        let running = try requireRunning()
        do {
            let credentials = try configuration.certificate()
            try certificates.check(credentials)
            for listener in running.listeners { try listener.reloadCertificate(credentials) }
            certificates.use(credentials)
        } catch {
            throw ServerError(
                .certificate, message: "the certificate was not reloaded", cause: error,
                advice: "the old one stays in use; correct the files and reload again")
        }
        configuration.logger.info("certificate reloaded")
    }

    /// Asks ``Configuration/tokenKeySources`` again, now. A key that is new is good for connects from now on; of one that is
    /// gone, new connects and refreshes are refused, while sessions that are up live on until their credential expires.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/tokenKeys`` when a source fails: its last keys stay.
    public func reloadTokenKeys() async throws(ServerError) {
        try await reloadTokenKeys(onlyFolder: false)
    }

    /// Has the keys of the server's own folder read again; those of other sources without being waited for: whoever replaces a key that
    /// was stolen must not depend on an address that does not answer.
    func reloadFolderKeys() async throws(ServerError) {
        let running = try requireRunning()
        guard running.keyring.hasFolder else { return try await reloadTokenKeys() }
        try await reloadTokenKeys(onlyFolder: true)
        // What goes wrong is in the log.
        Task { await running.keyring.reload(running.runtime.core.authenticator) }
    }

    private func reloadTokenKeys(onlyFolder: Bool) async throws(ServerError) {
        let running = try requireRunning()
        // Who signs goes first: nobody gets a token under a key that is about to be void.
        let unsigned = await tokenKeyHooks.run()
        let unverified = await running.keyring.reload(running.runtime.core.authenticator, onlyFolder: onlyFolder)
        guard let failure = unverified ?? unsigned else { return }
        throw ServerError(
            .tokenKeys, message: "token keys were not reloaded", cause: failure,
            advice: "the old ones stay in use; correct the source and reload again")
    }

    /// Takes other limits from now on: ``ServerLimits/maximumPayload``, connections, sessions, the rate of a user's connects,
    /// publish rates, and those of tenants. What else differs stays as it was at the start. Sessions that are up stay, with the
    /// largest payload that they were told; everybody's burst of publishes is full again.
    /// - Throws: ``ServerError/Code/notRunning``, or ``ServerError/Code/invalidConfiguration``: the old ones then stay.
    public func reload(limits: ServerLimits) throws(ServerError) {
        let core = try requireRunning().runtime.core
        var changed = configuration
        changed.limits = configuration.limits.reloadable(from: limits)
        try changed.validate()
        core.update(limits)
        configuration.logger.info("limits reloaded")
    }

    private func revoke(_ target: RevocationTarget, until: UInt64 = 0) async throws(ServerError) {
        let runtime = try requireRunning().runtime
        do { try await runtime.revoke(target, until: until) } catch {
            throw ServerError(.storeUnavailable, message: "the revocation could not be stored", cause: error)
        }
    }

    /// The limits that hold for who comes now: those of the start, and what ``reload(limits:)`` changed.
    package var currentLimits: ServerLimits { running?.runtime.core.admissionLimits ?? configuration.limits }

    private var running: Running? {
        state.withLock { state in
            guard case .running(let running) = state else { return nil }
            return running
        }
    }

    /// The sessions and the store, for what else a server is asked while it runs.
    func requireRuntime() throws(ServerError) -> ServerRuntime { try requireRunning().runtime }

    private func requireRunning() throws(ServerError) -> Running {
        guard let running else { throw ServerError(.notRunning, message: "the server isn't running") }
        return running
    }

    // MARK: Starting

    private func launch() async throws(ServerError) -> Running {
        let store = if let opened = takeStore() { opened } else { try OpenedStore(configuration) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.eventLoops)
        var control: ControlSocket?
        do {
            let secrets = configuration.secrets ?? ServerSecrets(now: WallClock.milliseconds())
            let keyring = makeKeyring()
            let verifier = try await Self.firstVerifier(keyring)
            let core = try await ServerCore(
                limits: configuration.limits, store: store.store, verifier: verifier,
                tickets: ResumeTicketSealer(keys: secrets.resumeTicketKeys), logger: configuration.logger,
                authorization: configuration.authorization, devicePolicies: configuration.devicePolicies,
                webhooks: configuration.webhooks, credentialsIssuedSince: credentialsIssuedSince(store),
                erasureHooks: erasureHooks, time: WallClock.milliseconds)
            let runtime = try await ServerRuntime(core: core, group: group)
            if let path = configuration.controlSocketPath {
                control = try await ControlSocket.bind(path, group: group, logger: configuration.logger) {
                    [weak self] in await self?.answer($0) ?? ControlAnswer(error: "the server is gone")
                }
            }
            let listener = try await QUICListener.bind(
                configuration, certificates: certificates, secrets: secrets, runtime: runtime,
                others: others.withLock { $0 }, group: group)
            let upkeep = Maintenance(
                core: core, loops: runtime.loops, secrets: secrets, certificates: certificates, store: store,
                retention: configuration.retention, logger: configuration.logger)
            let maintenance = Task { await upkeep.run() }
            let keyTask = Task { [interval = configuration.tokenKeyInterval] in
                await keyring.run(every: interval, core.authenticator)
            }
            return Running(
                runtime: runtime, listeners: [listener], group: group, maintenance: maintenance, store: store,
                control: control, keyring: keyring, keyTask: keyTask)
        } catch {
            await control?.shutDown()
            try? await group.shutdownGracefully()
            try? await store.close()
            throw (error as? ServerError) ?? ServerError(.invalidConfiguration, message: "can't start", cause: error)
        }
    }

    /// A restored store does not know what was revoked since its backup: credentials from before are void, also of a signer
    /// whose clock is ahead.
    private func credentialsIssuedSince(_ store: OpenedStore) -> UInt64 {
        guard let restoredAt = store.restoredAt else { return 0 }
        let isRefused = !configuration.acceptsCredentialsFromBeforeRestore
        configuration.logger.warning(
            isRefused
                ? "the store was restored: tokens issued before, and their tickets, are refused"
                : "the store was restored: what was revoked since its backup is good again",
            metadata: ["restored": "\(restoredAt)"])
        return isRefused ? restoredAt + configuration.tokenClockSkew.wholeMilliseconds : 0
    }

    private func makeKeyring() -> TokenKeyring {
        let (tenants, skew) = (configuration.tenants, configuration.tokenClockSkew.wholeMilliseconds)
        return TokenKeyring(
            fixed: configuration.tokenKeys, sources: configuration.tokenKeySources,
            deadline: configuration.tokenKeyDeadline, logger: configuration.logger
        ) { keys in
            await TokenVerifier(keys: keys, tenants: tenants, clockSkew: skew)
        }
    }

    private static func firstVerifier(_ keyring: TokenKeyring) async throws(ServerError) -> TokenVerifier {
        do { return try await keyring.start() } catch {
            throw ServerError(
                .tokenKeys, message: "the keys that tokens are verified with can't be read", cause: error,
                advice: "correct the source, then start again")
        }
    }
}
