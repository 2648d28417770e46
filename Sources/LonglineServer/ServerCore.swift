import Logging
import LonglineKeys
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// What all event loops of a server share. Immutable, or guarded by a lock that is held for a table operation only.
final class ServerCore: Sendable {
    /// What the server started with. What may change since is in ``admissionLimits``.
    let limits: ServerLimits
    let store: any MessageStore
    let authenticator: Authenticator
    let registry: SessionRegistry
    let cursors: CursorWriter
    let presence: PresenceWriter
    let log: EventLog
    let sessionConfiguration: ServerSessionConfiguration
    /// How many devices listen to each room, on all loops.
    let audiences = RoomAudiences()
    /// When it changed who may publish in rooms.
    let roomRules = RoomRuleLog()
    /// The app's own decision, where it has one.
    let authorization: AuthorizationGate?
    /// How fast users and tenants may publish.
    let publishMeter: PublishMeter
    /// How fast users may connect, and ask for what else their sessions do.
    let requestMeter: RequestMeter
    /// How many devices of a user may be logged in at a time.
    let devicePolicies: DevicePolicies
    /// Accounts that are being erased.
    let erasures = Erasures()
    /// When each takes a step.
    let erasureTurns = UpkeepTurns()
    /// Who keeps something of users beside the store.
    let erasureHooks: ErasureHooks
    /// How erasures and sweeps leave the store to others.
    let upkeep: UpkeepPace
    /// Who is told of messages to users without a connection.
    let webhooks: WebhookDispatcher?
    /// The wall clock, in milliseconds since 1970.
    let time: @Sendable () -> UInt64

    /// The last revocations.
    let revocations = RevocationLog()
    private let links = Atomic<Int>(0)
    private let unauthenticated = Atomic<Int>(0)
    private let strangers = StrangerTable()
    private let overAddressLimit = Atomic<UInt64>(0)
    private let lastLinkID = Atomic<UInt64>(0)
    private let storeFailures = Atomic<UInt64>(0)
    private let currentLimits: Mutex<ServerLimits>
    private let retention = Mutex((sweeps: UInt64(0), removed: RetentionReport()))

    init(
        limits: ServerLimits, store: any MessageStore, verifier: TokenVerifier, tickets: ResumeTicketSealer,
        logger: Logger, authorization: AuthorizationSettings? = nil, devicePolicies: DevicePolicies = DevicePolicies(),
        webhooks: WebhookConfiguration? = nil, credentialsIssuedSince: UInt64 = 0,
        upkeep: UpkeepPace = UpkeepPace(), erasureHooks: ErasureHooks = ErasureHooks(),
        time: @escaping @Sendable () -> UInt64
    ) async throws(ServerError) {
        self.erasureHooks = erasureHooks
        self.limits = limits
        self.store = store
        self.time = time
        self.upkeep = upkeep
        self.devicePolicies = devicePolicies
        let registry = SessionRegistry(limits: limits)
        self.registry = registry
        publishMeter = PublishMeter(limits: limits)
        requestMeter = RequestMeter(limits: limits)
        currentLimits = Mutex(limits)
        let log = EventLog(logger: logger, linesPerSecond: limits.logLinesPerSecond, now: .now())
        self.log = log
        self.authorization = authorization.map { AuthorizationGate($0, log: log) }
        authenticator = Authenticator(
            verifier: verifier, tickets: tickets, revocations: store, logger: log.limited,
            issuedSince: credentialsIssuedSince)
        cursors = CursorWriter(cursors: store, delay: limits.cursorDelay) { error in
            log.log(.error, "cursors could not be written", ["error": "\(error)"])
        }
        presence = PresenceWriter(records: store, delay: limits.presenceDelay) { error in
            log.log(.error, "presence could not be written", ["error": "\(error)"])
        }
        var configuration = ServerSessionConfiguration()
        configuration.maximumPresenceUsers = limits.presencePerSession
        configuration.versions = limits.protocolVersions
        configuration.limits = limits.session
        configuration.deliveryBudget = limits.unacknowledgedBytesPerSession
        configuration.connectTimeout = limits.connectTimeout
        configuration.backgroundHold = limits.backgroundHold
        configuration.lowPowerHold = limits.lowPowerHold
        configuration.lagNoticeTime = limits.lagNoticeTime
        configuration.payloadBudget = PayloadBudget(
            limit: limits.arrivingPayloadBytes, limitPerUser: limits.arrivingPayloadBytesPerUser)
        configuration.partTimeout = limits.partTimeout
        configuration.compresses = limits.compressesCatchUps
        configuration.minimumPartRate = limits.minimumPartRate
        sessionConfiguration = configuration
        guard let webhooks else {
            self.webhooks = nil
            return
        }
        self.webhooks = try await WebhookDispatcher(
            webhooks, store: store, cursors: cursors, registry: registry, log: log,
            clock: WebhookClock(wall: time))
    }

    /// What holds for who comes now.
    var admissionLimits: ServerLimits { currentLimits.withLock { $0 } }

    /// Goes by the ``ServerLimits/reloadable(from:)`` part of other limits from now on.
    func update(_ other: ServerLimits) {
        // All of it under one lock: of two calls at once, the later one wins everywhere.
        currentLimits.withLock { current in
            current = current.reloadable(from: other)
            registry.update(current)
            publishMeter.update(current)
            requestMeter.update(current)
        }
    }

    func nextLinkID() -> UInt64 { lastLinkID.wrappingAdd(1, ordering: .relaxed).newValue }

    /// Links that are up, those included that were turned away or only wait for their last bytes to arrive.
    var linkCount: Int { links.load(ordering: .relaxed) }

    /// Counts a link in. What it answers goes to ``linkAuthenticated(_:)`` and ``releaseLink(_:)``, to the latter once.
    ///
    /// A link that is turned away counts as a connection until it is closed, and takes no stranger's room.
    func admitLink(from remote: String) -> LinkAdmission {
        let count = links.wrappingAdd(1, ordering: .relaxed).newValue
        let all = unauthenticated.wrappingAdd(1, ordering: .relaxed).newValue
        if count > admissionLimits.maximumConnections || all > limits.maximumUnauthenticated {
            return refuseLink("no room")
        }
        let address = StrangerTable.address(of: remote)
        guard strangers.add(address, limit: limitPerAddress(left: limits.maximumUnauthenticated - all)) else {
            // Else it is the server that is nearly full.
            guard strangers.count(of: address) >= limits.maximumUnauthenticatedPerAddress else {
                return refuseLink("no room")
            }
            overAddressLimit.wrappingAdd(1, ordering: .relaxed)
            log.log(.notice, "too many connects from one address", ["address": "\(address)"])
            return refuseLink("too many connects from this address")
        }
        return LinkAdmission(address: address)
    }

    /// How many strangers of one address there may be with this one. No more than would be left for others: else a few addresses that
    /// keep to their limit would take all the room. Where an address may have all of it, it may.
    private func limitPerAddress(left: Int) -> Int {
        let most = limits.maximumUnauthenticatedPerAddress
        return most < limits.maximumUnauthenticated ? min(most, left + 1) : most
    }

    private func refuseLink(_ reason: String) -> LinkAdmission {
        unauthenticated.wrappingSubtract(1, ordering: .relaxed)
        return LinkAdmission(
            refusal: Close(code: .overloaded, reason: reason, retryAfter: limits.retryAfter.wholeMilliseconds))
    }

    /// The link's session is granted: it is no stranger any more.
    func linkAuthenticated(_ admission: inout LinkAdmission) {
        guard let address = admission.address else { return }
        admission.address = nil
        unauthenticated.wrappingSubtract(1, ordering: .relaxed)
        strangers.remove(address)
    }

    /// The link is gone.
    func releaseLink(_ admission: inout LinkAdmission) {
        linkAuthenticated(&admission)
        links.wrappingSubtract(1, ordering: .relaxed)
    }

    /// Logs and counts what the store could not do.
    func note(_ error: StoreError, in operation: String) {
        storeFailures.wrappingAdd(1, ordering: .relaxed)
        log.log(.error, "the store failed", ["operation": "\(operation)", "error": "\(error)"])
    }

    /// Removes what the policy does not keep, counts it and logs one line.
    /// - Parameters:
    ///   - logger: the operator's, which no peer can fill.
    ///   - goesByAge: asked before anything is removed: whether the clock can be believed.
    /// - Returns: what this sweep did, as far as it came when its task is cancelled.
    func apply(
        _ policy: RetentionPolicy, to store: any StoreMaintenance, logger: Logger, goesByAge: () -> Bool = { true }
    ) async throws(StoreError) -> RetentionReport {
        let start = ContinuousClock.now
        var report = RetentionReport()
        retention.withLock { $0.sweeps += 1 }
        do {
            let sweep = RetentionSweep(store: store, policy: policy, time: time, pace: upkeep)
            try await sweep.run(
                { turn in
                    report.add(turn)
                    retention.withLock { $0.removed.add(turn) }
                }, goesByAge: goesByAge)
        } catch {
            note(error, in: "retention")
            throw error
        }
        logger.info(
            "retention applied",
            metadata: [
                "channels": "\(report.channels)", "trimmed": "\(report.trimmed)", "entries": "\(report.entries)",
                "bytes": "\(report.bytes)", "seconds": "\((ContinuousClock.now - start).components.seconds)",
            ])
        return report
    }

    func addStatistics(to statistics: inout ServerStatistics) {
        registry.addStatistics(to: &statistics)
        statistics.logLinesDropped = log.dropped
        statistics.storeFailures = storeFailures.load(ordering: .relaxed)
        let (sweeps, removed) = retention.withLock { $0 }
        statistics.retentionSweeps = sweeps
        statistics.channelsTrimmed = UInt64(removed.trimmed)
        statistics.entriesTrimmed = UInt64(removed.entries)
        statistics.bytesTrimmed = UInt64(removed.bytes)
        if let webhooks { statistics.webhooks = webhooks.statistics }
        if let authorization { statistics.authorization = authorization.statistics }
        statistics.connectionsOverAddressLimit = overAddressLimit.load(ordering: .relaxed)
    }
}

/// How a link was counted in.
struct LinkAdmission {
    /// How to close the link, when there is no room for it.
    let refusal: Close?
    /// Where it is counted as a stranger, while it is.
    fileprivate var address: String?

    fileprivate init(refusal: Close? = nil, address: String? = nil) {
        self.refusal = refusal
        self.address = address
    }
}

extension Close {
    /// What a session is closed with when the store can't do what it needs.
    init(_ error: StoreError, limits: ServerLimits) {
        let retryAfter = limits.retryAfter.wholeMilliseconds
        switch error.code {
        case _ where error.isPassing:
            self.init(code: .overloaded, reason: "the store has no room now", retryAfter: retryAfter)
        case .limitExceeded:
            // The device has as many outboxes as it may: another try would find the same.
            self.init(code: .limitExceeded, reason: error.message)
        default:
            self.init(code: .internalError, reason: "the store is not available", retryAfter: retryAfter)
        }
    }

    /// What a session is closed with when its credential is not accepted.
    init(_ error: AuthenticationError, limits: ServerLimits) {
        let code = error.closeCode
        self.init(
            code: code, reason: error.message,
            retryAfter: code.policy == .backOff ? limits.retryAfter.wholeMilliseconds : 0)
    }
}
