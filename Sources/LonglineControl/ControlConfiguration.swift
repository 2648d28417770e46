public import Logging
public import LonglineServer
import LonglineStore
import LonglineWire
public import NIOCore

/// What callers of the control layer may take. No timeout is longer than a day.
public struct ControlLimits: Sendable {
    /// Connections of one listener at a time; more wait in the backlog. From seven eighths on, who comes takes the place of the
    /// connection for which nothing has been done for longest.
    public var connections = 4_096
    /// Requests that a client may have open at a time on one connection over HTTP/3.
    public var openRequests = 100
    /// Bytes of a request's headers; 8 KiB to 1 MiB. Over HTTP/3 more than 64 KiB count as 64 KiB.
    public var headerBytes = 32 * 1024
    /// Header fields of a request. Beyond: 431.
    public var headerFields = 100
    /// How long a TCP connection may take until its TLS handshake is done. Beyond: it is closed.
    public var handshakeTimeout = Duration.seconds(10)
    /// How long a connection may say nothing, and how long nothing may leave of an answer that was written.
    public var idleTimeout = Duration.seconds(60)
    /// How long a connection may go on after it was told that it, or the listener, ends. Then it is closed.
    public var closeTimeout = Duration.seconds(5)
    /// How long a request's body may take to come. Beyond: 408.
    public var bodyTimeout = Duration.seconds(15)
    /// How long a request may take altogether. Beyond: 503; what waits for the store goes on to its end.
    public var requestTimeout = Duration.seconds(30)
    /// Requests whose work goes on although their time was over. Beyond, clients and app servers get 503 at once.
    public var overdueRequests = 1_024
    /// The longest life of a token that is issued; more than a century counts as one.
    public var tokenLifetime = Duration.seconds(30 * 24 * 3_600)
    /// Idempotency keys of one API key that are remembered, each for a day. Beyond, a request with another one gets 503 and `Retry-After`.
    public var idempotencyKeys = 10_000_000
    /// Log lines a second about requests that fail, errors and others each; what is more is counted.
    public var logLinesPerSecond = 50.0

    /// The default limits.
    public init() {}
}

/// What clients are told by the access configuration, besides where to connect.
public struct AccessPolicy: Hashable, Sendable {
    /// How long a client may use an answer without asking again.
    public var lifetime = Duration.seconds(300)
    /// The first wait between two heartbeats, from which a client learns.
    public var heartbeat = Duration.seconds(30)
    /// How long an answer to a heartbeat may take.
    public var heartbeatAnswer = Duration.seconds(5)
    /// The upper bound of the first wait before a client connects again; it doubles with each try.
    public var backOffBase = Duration.milliseconds(250)
    /// The upper bound of every wait.
    public var backOffMaximum = Duration.seconds(60)
    /// A session that was up for so long counts as a success: the waits begin anew.
    public var backOffReset = Duration.seconds(5)

    /// The default policy.
    public init() {}
}

extension LonglineControl {
    /// How a control layer is set up.
    public struct Configuration: Sendable {
        /// The certificate of both listeners; asked at the start and by ``LonglineControl/reloadCertificate()``.
        public var certificate: LonglineServer.Configuration.CertificateProvider
        /// What signs tokens and access configurations.
        public var keys: any ControlKeySource
        /// API keys, logins and idempotency keys.
        public var database: ControlDatabase
        /// The nodes of the service; nil: this one is all there is.
        public var nodes: (any NodeDirectory)?
        /// What clients are told of this node, and when it is full; ``LonglineControl/reload(_:)`` changes it.
        public var access = AccessSettings()
        /// TCP addresses for clients and app servers; none: nowhere but where ``LonglineControl/responder`` is asked.
        public var addresses: [SocketAddress] = []
        /// TCP addresses for operators, who reach every route; none: nowhere. Nothing listens on an address that is not named
        /// here.
        public var adminAddresses: [SocketAddress] = []
        /// Whether the routes of ``addresses`` answer over HTTP/3 as well, on the server's QUIC ports: clients reach it with one
        /// handshake less, and `Alt-Svc` tells them. Needs a server that was not started yet.
        public var servesHTTP3 = true
        /// What callers may take.
        public var limits = ControlLimits()
        /// How often the keys are looked at again, besides each ``/LonglineServer/LonglineServer/reloadTokenKeys()``.
        public var keyInterval = Duration.seconds(5)
        /// How often figures are taken, for the dashboard and for how busy this node is.
        public var sampleInterval = Duration.seconds(2)
        /// What was recorded through swift-metrics, as Prometheus reads it; nil: `/metrics` has the server's own figures only.
        public var metrics: PrometheusMetrics?
        /// Receives log lines, none of which holds a key, a token or a message.
        public var logger = Logger(label: "longline.control")
        /// The wall clock, in milliseconds since 1970.
        public var time: @Sendable () -> UInt64 = WallClock.milliseconds

        /// A configuration.
        public init(
            certificate: @escaping LonglineServer.Configuration.CertificateProvider, keys: any ControlKeySource,
            database: ControlDatabase
        ) {
            self.certificate = certificate
            self.keys = keys
            self.database = database
        }

        func validate() throws(ControlError) {
            try access.validate()
            guard limits.connections >= 1, limits.openRequests >= 1,
                (8 * 1024...1024 * 1024).contains(limits.headerBytes),
                limits.headerFields >= 16, limits.overdueRequests >= 1, limits.idempotencyKeys >= 1,
                limits.tokenLifetime >= .seconds(1),
                limits.logLinesPerSecond > 0, limits.logLinesPerSecond.isFinite
            else {
                throw ControlError(
                    .invalidConfiguration, message: "a limit is below its least value, or above its largest")
            }
            let times = [
                limits.handshakeTimeout, limits.idleTimeout, limits.bodyTimeout, limits.requestTimeout, sampleInterval,
            ]
            guard times.allSatisfy({ $0 > .zero && $0 <= .seconds(86_400) }),
                [limits.closeTimeout, keyInterval].allSatisfy({ $0 >= .zero && $0 <= .seconds(86_400) })
            else {
                throw ControlError(
                    .invalidConfiguration,
                    message: "a timeout or an interval of the control layer is not above 0, or longer than a day")
            }
        }
    }
}
