import Logging
public import LonglineServer
public import NIOCore
import NIOPosix
public import ServiceLifecycle
import Synchronization

/// The control layer beside a server: tokens, access configurations, an app server's and operators' routes, figures.
///
/// ```
///   init ──run()──▶ listening ──graceful shutdown──▶ stopped
///                └── an address can't be had ──────────▲
/// ```
/// As a `Service` it runs until a graceful shutdown: then listeners take nobody new, and requests under way are answered, for
/// ``ControlLimits/closeTimeout`` at most. List it behind its server, so that it stops first. ``responder`` answers from the start on, for other listeners.
public final class LonglineControl: Service {
    /// Answers requests, whatever HTTP they came by.
    public let responder: ControlResponder
    /// This node's name.
    public let nodeID: NodeID
    private let listeners: [HTTPSListener]
    private let front: HTTP3Front?
    private let certificate: ServingCertificate
    private let alternative: AlternativeService
    private let access: CurrentAccess
    private let sampler: StatisticsSampler
    let janitor: ControlJanitor
    private let logger: Logger
    private let hasRun = Mutex(false)

    /// A control layer that listens nowhere yet.
    /// - Parameters:
    ///   - server: the server that it is for, not started yet where ``Configuration/servesHTTP3`` is on.
    ///   - configuration: how it is set up.
    /// - Throws: ``ControlError``.
    public init(server: LonglineServer, configuration: Configuration) throws(ControlError) {
        try configuration.validate()
        nodeID = try configuration.database.nodeID()
        certificate = try ServingCertificate(configuration.certificate)
        logger = configuration.logger
        let access = CurrentAccess(configuration.access)
        self.access = access
        let metrics = configuration.metrics ?? PrometheusMetrics()
        let log = EventLog(
            logger: configuration.logger, linesPerSecond: configuration.limits.logLinesPerSecond, now: .now())
        sampler = StatisticsSampler(server, log: log, interval: configuration.sampleInterval, metrics: metrics)
        let idempotency = IdempotencyKeys(
            configuration.database, time: configuration.time, logger: configuration.logger,
            limit: configuration.limits.idempotencyKeys)
        janitor = ControlJanitor(
            keys: idempotency, logins: LoginEpochs(database: configuration.database), time: configuration.time,
            tokenLifetime: configuration.limits.tokenLifetime, logger: configuration.logger,
            unseen: server.unseenLimit)
        configuration.database.isErased(with: server)
        let routes = ControlRoutes(
            server: server, configuration: configuration, node: nodeID, access: access, sampler: sampler,
            metrics: metrics, idempotency: idempotency)
        let limited = log.limited
        let responder = ControlResponder(
            table: routes.table, logger: limited, audit: configuration.logger, limits: configuration.limits,
            requests: RequestCounters(factory: metrics))
        self.responder = responder
        if configuration.servesHTTP3, !configuration.addresses.isEmpty {
            front = try HTTP3Front(
                server, responder: responder, configuration: configuration, metrics: metrics)
            alternative = AlternativeService {
                // HTTP/3 is where the sessions over QUIC are.
                let points = access.value.accessPoints
                let port = points.first { $0.transports.contains(.quic) }?.port
                return points.isEmpty ? server.addresses.first?.port : port
            }
        } else {
            front = nil
            alternative = AlternativeService { nil }
        }
        let (certificate, alternative) = (certificate, alternative)
        func listener(_ kind: ControlListener, _ address: SocketAddress) -> HTTPSListener {
            HTTPSListener(
                kind, address, responder: responder, certificate: certificate, limits: configuration.limits,
                alternative: alternative, group: MultiThreadedEventLoopGroup.singleton, logger: limited)
        }
        listeners =
            configuration.addresses.map { listener(.service, $0) }
            + configuration.adminAddresses.map { listener(.admin, $0) }
    }

    /// Listens, and serves until a graceful shutdown or the task's cancellation.
    /// - Throws: ``ControlError`` when an address can't be had.
    public func run() async throws {
        let isFirst = hasRun.withLock { hasRun in
            defer { hasRun = true }
            return !hasRun
        }
        guard isFirst else { throw ControlError(.alreadyStarted, message: "the control layer ran before") }
        let services: [any Service] = [sampler, janitor] + listeners + [front].compactMap { $0 }
        try await ServiceGroup(configuration: ServiceGroupConfiguration(services: services, logger: logger)).run()
    }

    /// Waits until every address is listened on.
    /// - Returns: where, with the ports that the system chose.
    /// - Throws: ``ControlError/Code/addressUnavailable``.
    public func localAddresses(_ listener: ControlListener) async throws(ControlError) -> [SocketAddress] {
        var addresses: [SocketAddress] = []
        for one in listeners where one.kind == listener { addresses.append(try await one.localAddress()) }
        return addresses
    }

    /// Has answers to clients and app servers say by `Alt-Svc` where the same routes answer over HTTP/3, if that is not the port of
    /// the first of ``AccessSettings/accessPoints`` over QUIC, or of the server itself.
    /// - Parameter port: the UDP port; nil: nowhere.
    public func announceHTTP3(onPort port: Int?) { alternative.set(port) }

    /// What `Alt-Svc` says; nil: nothing.
    var alternativeService: String? { alternative.header }

    /// Takes other settings from now on. Clients learn of them with their next answer.
    /// - Throws: ``ControlError/Code/invalidConfiguration``; the old ones then stay.
    public func reload(_ settings: AccessSettings) throws(ControlError) {
        try settings.validate()
        access.value = settings
    }

    /// Asks for certificate and key again; new connections get them.
    /// - Throws: ``ControlError/Code/certificate``; the old ones then stay.
    public func reloadCertificate() throws(ControlError) { try certificate.reload() }
}
