import Logging
import LonglineSession
import LonglineStore
import LonglineWire
import NIOCore
import Synchronization

/// What all event loops of a server share. Immutable, or guarded by a lock that is held for a table operation only.
final class ServerCore: Sendable {
    let limits: ServerLimits
    let store: any MessageStore
    let authenticator: Authenticator
    let registry: SessionRegistry
    let cursors: CursorWriter
    let log: EventLog
    let sessionConfiguration: ServerSessionConfiguration
    /// The wall clock, in milliseconds since 1970.
    let time: @Sendable () -> UInt64

    /// Grows with every revocation, after it is durable and before live sessions are ended: whoever verified a credential
    /// while it grew has to verify again.
    let revocations = Atomic<UInt64>(0)
    private let links = Atomic<Int>(0)
    private let unauthenticated = Atomic<Int>(0)
    private let lastLinkID = Atomic<UInt64>(0)
    private let storeFailures = Atomic<UInt64>(0)

    init(
        limits: ServerLimits, store: any MessageStore, verifier: TokenVerifier, tickets: ResumeTicketSealer,
        logger: Logger, time: @escaping @Sendable () -> UInt64
    ) {
        self.limits = limits
        self.store = store
        self.time = time
        registry = SessionRegistry(limits: limits)
        let log = EventLog(logger: logger, linesPerSecond: limits.logLinesPerSecond, now: .now())
        self.log = log
        authenticator = Authenticator(verifier: verifier, tickets: tickets, revocations: store, logger: log.limited)
        cursors = CursorWriter(cursors: store, delay: limits.cursorDelay) { error in
            log.log(.error, "cursors could not be written", ["error": "\(error)"])
        }
        var configuration = ServerSessionConfiguration()
        configuration.limits = limits.session
        configuration.connectTimeout = limits.connectTimeout
        sessionConfiguration = configuration
    }

    func nextLinkID() -> UInt64 { lastLinkID.wrappingAdd(1, ordering: .relaxed).newValue }

    /// Counts a link in. Every call is matched by ``releaseLink(wasAuthenticated:)``.
    /// - Returns: how to close it, when there is no room.
    func admitLink() -> Close? {
        let count = links.wrappingAdd(1, ordering: .relaxed).newValue
        let strangers = unauthenticated.wrappingAdd(1, ordering: .relaxed).newValue
        guard count > limits.maximumConnections || strangers > limits.maximumUnauthenticated else { return nil }
        return Close(code: .overloaded, reason: "no room", retryAfter: limits.retryAfter.wholeMilliseconds)
    }

    func linkAuthenticated() { unauthenticated.wrappingSubtract(1, ordering: .relaxed) }

    func releaseLink(wasAuthenticated: Bool) {
        links.wrappingSubtract(1, ordering: .relaxed)
        if !wasAuthenticated { unauthenticated.wrappingSubtract(1, ordering: .relaxed) }
    }

    /// Logs and counts what the store could not do.
    func note(_ error: StoreError, in operation: String) {
        storeFailures.wrappingAdd(1, ordering: .relaxed)
        log.log(.error, "the store failed", ["operation": "\(operation)", "error": "\(error)"])
    }

    func addStatistics(to statistics: inout ServerStatistics) {
        registry.addStatistics(to: &statistics)
        statistics.logLinesDropped = log.dropped
        statistics.storeFailures = storeFailures.load(ordering: .relaxed)
    }
}

extension Close {
    /// What a session is closed with when the store can't do what it needs.
    init(_ error: StoreError, limits: ServerLimits) {
        let retryAfter = limits.retryAfter.wholeMilliseconds
        switch error.code {
        case .overloaded, .storageFull:
            self.init(code: .overloaded, reason: "the store has no room now", retryAfter: retryAfter)
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
