public import Logging
public import LonglineKeys
public import LonglineStore
public import LonglineWire
public import NIOCore
public import QUICEngine
internal import QUICTransport

extension LonglineServer {
    /// How a server is set up. Everything has a default but the store, the certificate and the keys of the tokens.
    public struct Configuration: Sendable {
        /// Reads certificate and key; called at the start and by ``LonglineServer/reloadCertificate()``.
        public typealias CertificateProvider = @Sendable () throws -> TLSServerCredentials

        /// Where messages are kept.
        public enum Store: Sendable {
            /// An SQLite store in this folder, which the server opens and closes.
            case directory(String)
            /// An SQLite store that is set up in detail, which the server opens and closes.
            case sqlite(SQLiteStoreConfiguration)
            /// A store that somebody else opened and closes.
            case shared(any MessageStore)
        }

        /// Where messages are kept.
        public var store: Store
        /// The server's TLS identity.
        public var certificate: CertificateProvider
        /// Public keys that tokens are verified with, as long as the server runs. While a key is being replaced, the old and
        /// the new one.
        public var tokenKeys: [VerificationKey]
        /// Where more keys come from, which may change while the server runs: a JWKS file (``KeySetFile``), for example. A
        /// source that fails at the start fails the start; later its last keys stay.
        public var tokenKeySources: [any TokenKeySource] = []
        /// How often every source is asked for changes, 1 second at least; nil: each as often as it says
        /// (``TokenKeySource/interval``), files every 5 seconds and addresses every 60.
        public var tokenKeyInterval: Duration?
        /// How long one of them may take to answer; then its last keys stay.
        public var tokenKeyDeadline = Duration.seconds(10)
        /// How far the clock of the tokens' signer may be from ours, up to an hour: a token is good so long before its
        /// `nbf` and `iat`, and so long after its `exp`.
        public var tokenClockSkew = TimeAmount.seconds(30)
        /// Tenants that are served; nil for every tenant that a token names.
        public var tenants: Set<TenantID>?
        /// UDP addresses to listen on; a wildcard stands for every address of the host, port 0 for a free one.
        public var addresses: [SocketAddress] = []
        /// The server's own secrets: what seals resume tickets, TLS tickets and stateless resets. Kept in files, they
        /// let clients come back quickly after a restart; nil draws new ones at each start.
        public var secrets: ServerSecrets?
        /// Where operators' processes reach the server while it runs (``ServerControl``): a Unix domain socket, made with
        /// mode 0600, its path at most 107 bytes; nil: nowhere.
        public var controlSocketPath: String?
        /// The app's own decision about publishes and joins, beyond the tokens' scopes; nil: the scopes decide.
        public var authorization: AuthorizationSettings?
        /// How many devices of a user may be logged in at a time; by default all.
        public var devicePolicies = DevicePolicies()
        /// Where apps are told of messages to users who have no connection; nil: nowhere.
        public var webhooks: WebhookConfiguration?
        /// Whether tokens that were issued before the store was restored from a backup are good, and the tickets that came from
        /// them. The store does not know what was revoked since the backup, logouts among it; without this it does not matter,
        /// and every device needs a fresh token once.
        public var acceptsCredentialsFromBeforeRestore = false
        /// What peers, users and tenants may take.
        public var limits = ServerLimits()
        /// What of the messages is kept; by default everything. A shared store has to implement
        /// ``LonglineStore/StoreMaintenance`` for any other.
        public var retention = RetentionPolicy()
        /// Event loops, each with its own sockets and connections; at least 1.
        public var eventLoops = System.coreCount
        /// How long an event loop that has nothing to do looks into its sockets before it sleeps, where packets come one soon after
        /// the other: up to 500 µs; zero: it sleeps at once. See `QUICSocketOptions.busyPoll`.
        public var busyPoll = QUICSocketOptions().busyPoll
        /// Receives TLS secrets for debugging, in SSLKEYLOGFILE's format; nil: nobody does.
        public var keyLog: ClientConfiguration.KeyLog?
        /// Receives the server's log lines, none of which holds a token, a ticket or a payload.
        public var logger = Logger(label: "longline.server")

        /// A configuration.
        public init(
            store: Store, certificate: @escaping CertificateProvider, tokenKeys: [VerificationKey],
            addresses: [SocketAddress]
        ) {
            self.store = store
            self.certificate = certificate
            self.tokenKeys = tokenKeys
            self.addresses = addresses
        }

        /// A server on a folder of its own, as `longline server` has it: with the folder's store and secrets, the keys that
        /// `longline token` signs with, which take each other's place while it runs (`longline keys`), and the socket that
        /// operators' commands reach it by. Keys of others are added in ``tokenKeys`` and ``tokenKeySources``.
        /// - Throws: ``/LonglineKeys/AuthenticationError``, `QUICError`: the secrets can't be read.
        public init(
            directory: ServerDirectory, certificate: @escaping CertificateProvider, addresses: [SocketAddress]
        ) throws {
            self.init(
                store: .directory(directory.storePath), certificate: certificate, tokenKeys: [], addresses: addresses)
            tokenKeySources = [directory.tokenKeySource]
            secrets = try directory.secrets()
            controlSocketPath = directory.controlSocketPath
        }

        func validate() throws(ServerError) {
            func check(_ holds: Bool, _ message: String) throws(ServerError) {
                if !holds { throw ServerError(.invalidConfiguration, message: message) }
            }
            try check(!addresses.isEmpty, "no address to listen on")
            try check(!tokenKeys.isEmpty || !tokenKeySources.isEmpty, "no key to verify tokens with")
            if let authorization {
                try check(
                    authorization.maximumInFlight >= 1 && authorization.deadline > .zero,
                    "the authorization policy needs a deadline, and one question in flight at least")
            }
            try webhooks?.validate()
            try check(
                tokenKeySources.allSatisfy { (tokenKeyInterval ?? $0.interval) >= .seconds(1) },
                "token keys are asked for every second at most")
            try check(tokenKeyDeadline > .zero, "sources of token keys need time to answer")
            try check(
                tokenClockSkew >= .zero && tokenClockSkew <= .milliseconds(Int64(StoreLimits.largestTokenSkew)),
                "clocks may differ by nothing to an hour")
            try check(eventLoops >= 1, "at least one event loop is needed")
            try check(
                busyPoll >= .zero && busyPoll <= QUICSocketOptions.longestBusyPoll,
                "a loop may look into its sockets for 0 to 500 µs")
            try check(
                (1...FrameLimits.maximumWholePayload).contains(limits.maximumPayload),
                "the largest payload has to be 1 to \(FrameLimits.maximumWholePayload) bytes")
            try check(
                [limits.arrivingPayloadBytes, limits.arrivingPayloadBytesPerUser, limits.appendBytesPerLoop]
                    .allSatisfy { $0 >= limits.maximumPayload },
                "the memory for payloads has to hold one of them")
            try check(
                limits.connectsPerSecond > 0 && limits.connectBurst >= 1,
                "a user's connects need a rate and a burst above 0")
            try check(
                limits.logLinesPerSecond > 0 && limits.logLinesPerSecond.isFinite,
                "log lines a second have to be above 0")
            try check(limits.minimumPartRate >= 1, "the least rate of a payload's parts has to be above 0")
            try check(
                (1...FrameLimits.maximumUnacknowledged).contains(limits.maximumUnacknowledged),
                "unanswered publishes have to be 1 to \(FrameLimits.maximumUnacknowledged)")
            try check(
                limits.channelWindow >= min(limits.maximumPayload, FrameLimits.maximumPayload),
                "a channel's window has to hold one frame's payload")
            try check(
                limits.channelWindow <= FrameLimits.maximumChannelWindow,
                "a channel's window has to be \(FrameLimits.maximumChannelWindow) bytes at most")
            try check(
                limits.unacknowledgedBytesPerSession >= 4 * FrameLimits.maximumBody,
                "a quarter of what a session may leave unacknowledged has to hold one frame")
            // Twice as much and four of the largest payloads stay below what a client keeps unread.
            try check(
                limits.unacknowledgedBytesPerSession <= FrameLimits.maximumChannelWindow,
                "what a session may leave unacknowledged has to be \(FrameLimits.maximumChannelWindow) bytes at most")
            let rates = [limits.publishRatePerUser, limits.publishRatePerTenant]
            try check(rates.allSatisfy { $0?.isValid ?? true }, "publish rates and bursts have to be above 0")
            for (tenant, own) in limits.tenants {
                try check(
                    [own.publishRatePerUser, own.publishRate].allSatisfy { $0?.isValid ?? true },
                    "publish rates and bursts of tenant \(tenant) have to be above 0")
                try check(
                    own.maximumPayload.map { (1...limits.maximumPayload).contains($0) } ?? true,
                    "the largest payload of tenant \(tenant) has to be 1 to \(limits.maximumPayload) bytes")
            }
            try retention.validate()
            if case .shared(let shared) = store, !retention.keepsAll, !(shared is any StoreMaintenance) {
                throw ServerError(
                    .invalidConfiguration, message: "the shared store can't remove entries",
                    advice: "keep everything (no retention), or share a store that implements StoreMaintenance")
            }
            try check(limits.appendBatch >= 1 && limits.concurrentReadsPerLoop >= 1, "batches need at least one")
        }
    }
}
