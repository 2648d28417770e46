public import Logging
public import LonglineKeys
public import LonglineSession
public import LonglineWire
public import NIOCore

/// Whom a client believes to be the service.
public enum Trust: Hashable, Sendable {
    /// The certificate authorities of the operating system.
    case systemRoots
    /// One authority, or several, in PEM.
    case certificateAuthority(pem: String)
    /// The certificate's public key is one of these: SHA-256 of the SubjectPublicKeyInfo in DER, 32 bytes each.
    case pinnedPublicKey([[UInt8]])
    /// Anyone: whoever is on the path can read and change everything. For experiments on one's own machine only.
    case insecureNoVerification
}

/// What becomes of the messages that this device itself sent, when they come back in the channel's order.
public enum OwnMessages: Hashable, Sendable {
    /// They are confirmed silently; the receipt is all the app sees. Only where so much of them follows a gap, with nobody else's between,
    /// that the service would send no more, one is delivered with ``Message/isOwn``, so that ``Message/gapBefore`` tells of the gap.
    case hidden
    /// They are delivered like others, with ``Message/isOwn`` set.
    case delivered
}

/// When a message counts as processed.
public enum Confirmation: Hashable, Sendable {
    /// Once the app asks for the one behind it.
    case whenNextIsAsked
    /// Once the app calls ``Message/confirm()``.
    case explicit
}

/// Whether the service may compress what a client missed: runs of small messages, which then are about half as large.
///
/// What is compressed together can be told from the length of the result. The service never compresses what different users wrote
/// together, nor tokens, tickets, requests and single messages. Who fears that one user's messages tell something of each other,
/// as those of a bot that repeats what strangers say to it, excepts the channel.
public enum Compression: Hashable, Sendable {
    /// Nothing is compressed.
    case off
    /// What is missed is compressed where that pays, in all channels but these; at most 64 of them.
    case on(except: Set<ChannelID> = [])
}

extension LonglineClient {
    /// Gets a signed token for this device, from the app's own backend as a rule. It is called again when a token is
    /// about to expire or was refused; an error counts as a failed attempt to connect.
    public typealias TokenProvider = @Sendable () async throws -> String

    /// How a client finds, proves and keeps its connection.
    public struct Configuration: Sendable {
        /// Where the service is, in the order they are tried; at least one, unless there is a ``control``: then they are the last
        /// resort, behind the access points that it names.
        public var accessPoints: [AccessPoint]
        /// Who is asked where to connect and how, in this order; at most 8. The answer is kept in ``storage`` for its lifetime, and
        /// for longer while no other comes.
        public var control: [ControlService] = []
        /// The public keys of which one has to have signed what ``control`` answers, as the service's `/.well-known/jwks.json` has
        /// them; kept in the app. nil believes what comes from a place that ``trust`` accepts.
        ///
        /// With keys, an answer that none of them signed, or that was signed for another device or an earlier question, counts for as
        /// little as none (``ClientError/Code/controlAnswerUntrusted``). While one key takes another's place: both. No clock decides.
        public var controlKeys: JSONWebKeySet?
        /// Whom to believe.
        public var trust: Trust
        /// The name the certificate must carry, when it isn't the access point's host.
        public var serverName: String?
        /// Where tokens come from. User and device are in the token. One that gives no answer in 60 seconds has failed: its task is
        /// cancelled then, and it is asked again with back-off. A call that goes on all the same keeps its place: with four of them under
        /// way no other is begun, and what the last one brings late is used.
        public var tokenProvider: TokenProvider
        /// Where the outbox, the cursors and the tickets are kept.
        public var storage: any ClientStorage
        /// The app's own record of what it has processed, for exactly once; nil keeps it in ``storage``.
        public var cursorStore: (any CursorStore)?
        /// Whether a token that the service refused ends the attempts, as nothing else would come from
        /// ``tokenProvider``. By default it is asked for another, with back-off.
        public var stopsOnRefusedToken = false
        /// The user, if the app knows it; otherwise it is read from the token. It names the inbox that carries direct
        /// messages. Another one than ``storage`` was used for before is ``ClientError/Code/otherUser``.
        public var user: UserID?
        /// The device, if the app knows it; otherwise it is read from the token. Another one than ``storage`` was used for before is
        /// ``ClientError/Code/otherDevice``.
        public var device: DeviceID?
        /// How long to wait before connecting again.
        /// Set, it counts for more than what the control layer says.
        public var backOff = BackOffPolicy() { didSet { setsBackOff = true } }
        /// From the start of an attempt to the service's answer.
        public var connectTimeout = Duration.seconds(10)
        /// How ``LonglineClient/LonglineClient/disconnect()`` bounds its farewell, and ``LonglineClient/LonglineClient/logout()`` its wait
        /// for the service.
        public var closeTimeout = Duration.seconds(2)
        /// When a quiet connection is asked for proof of life. By default the interval is learned for each network. Set, it counts
        /// for more than what the control layer says.
        public var heartbeat = HeartbeatPolicy.learned() { didSet { setsHeartbeat = true } }
        /// The name of the network that the device is in at first, see ``LonglineClient/LonglineClient/setNetwork(_:)``;
        /// nil derives one.
        public var network: String?
        /// What may wait in the outbox.
        public var outbox = OutboxLimits()
        /// What becomes of this device's own messages.
        public var ownMessages = OwnMessages.hidden
        /// When a message counts as processed.
        public var confirmation = Confirmation.whenNextIsAsked
        /// What of a catch-up the service may compress.
        public var compression = Compression.off
        /// Whether others are told how far this user read (``LonglineClient/LonglineClient/markRead(_:upTo:)``). When it is
        /// off only the user's own devices are; others' receipts come all the same.
        public var sharesReadReceipts = true
        /// Whether the client watches the machine's addresses and moves when its own is gone.
        public var watchesNetwork = true
        /// A local address to start from; nil lets the system choose.
        public var localAddress: SocketAddress?
        /// Receives TLS secrets in the format of SSLKEYLOGFILE: for reading one's own captures only.
        public var keyLog: (@Sendable (String) -> Void)?
        /// Where log lines go.
        public var logger = Logger(label: "longline.client")
        /// The loops to run on; nil takes the process's own.
        public var eventLoopGroup: (any EventLoopGroup)?
        /// The name and version told to the service, for its logs; at most 64 bytes.
        public var agent = "longline-swift"

        /// Whether the app decided itself.
        private(set) var setsBackOff = false
        private(set) var setsHeartbeat = false

        /// A configuration with the defaults above, for a service that is asked where to connect.
        /// - Parameters:
        ///   - control: who is asked, in this order; from 1 to 8.
        ///   - accessPoints: where to go when there is no answer at all, or nobody at the access points that it names.
        ///   - trust: whom to believe, the control layer and the access points alike.
        ///   - storage: keeps the last answer too.
        ///   - tokenProvider: where tokens come from.
        public init(
            control: [ControlService], accessPoints: [AccessPoint] = [], trust: Trust = .systemRoots,
            storage: any ClientStorage = InMemoryClientStorage(), tokenProvider: @escaping TokenProvider
        ) {
            self.init(accessPoints: accessPoints, trust: trust, storage: storage, tokenProvider: tokenProvider)
            self.control = control
        }

        /// A configuration with the defaults above.
        public init(
            accessPoints: [AccessPoint], trust: Trust = .systemRoots,
            storage: any ClientStorage = InMemoryClientStorage(), tokenProvider: @escaping TokenProvider
        ) {
            self.accessPoints = accessPoints
            self.trust = trust
            self.storage = storage
            self.tokenProvider = tokenProvider
        }

        func validate() throws(ClientError) {
            func require(_ condition: Bool, _ message: String) throws(ClientError) {
                if !condition { throw ClientError(.invalidConfiguration, message: message) }
            }
            try require(!accessPoints.isEmpty || !control.isEmpty, "no access point, and no control layer")
            try require(control.count <= 8, "more than 8 control layers")
            try require(controlKeys?.keys.isEmpty != true, "a set of the control layer's keys without a key")
            let endpoints = try controlEndpoints()
            try require(Set(endpoints.map(\.url)).count == endpoints.count, "a control layer is named twice")
            try require(
                accessPoints.allSatisfy { !$0.host.isEmpty && (1...65535).contains($0.port) },
                "an access point needs a host and a port from 1 to 65535")
            try require(backOff.base > .zero && backOff.maximum >= backOff.base, "back-off bounds are out of order")
            try require(connectTimeout > .zero && closeTimeout > .zero, "time-outs must be longer than nothing")
            try require(outbox.messages > 0 && outbox.bytes > 0 && outbox.messagesPerChannel > 0, "outbox limit of 0")
            if case .on(let plain) = compression {
                try require(
                    plain.count <= FrameLimits.maximumPlainChannels,
                    "more channels are excepted from compression than 64")
            }
            if let network { try LonglineClient.validate(network: network) }
            try require(agent.utf8.count <= FrameLimits.maximumAgent, "the agent's name is over 64 bytes")
        }

        func controlEndpoints() throws(ClientError) -> [ControlEndpoint] {
            var endpoints: [ControlEndpoint] = []
            for service in control { endpoints.append(try ControlEndpoint(service)) }
            return endpoints
        }
    }
}
