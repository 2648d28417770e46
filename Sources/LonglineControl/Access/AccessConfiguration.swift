import LonglineKeys
import LonglineServer
import LonglineStore
import LonglineWire
import NIOCore

/// What a client is told before it connects: where to go, how to keep the connection, what it may take.
///
/// It names nobody unless it is to be bound to a question, so that the same bytes with the same signature serve all for whom the order
/// of nodes is the same.
struct AccessConfiguration: Hashable, Sendable, Codable {
    struct Point: Hashable, Sendable, Codable {
        var host: String
        var port: Int
        var transports: [String]
        var serverId: String
        var migrationSafe: Bool
    }

    /// Times in milliseconds.
    struct Heartbeat: Hashable, Sendable, Codable {
        var initial: UInt64
        var answerTimeout: UInt64
        var minimum: UInt64
        var idleTimeout: UInt64
    }

    /// Times in milliseconds.
    struct BackOff: Hashable, Sendable, Codable {
        var base: UInt64
        var maximum: UInt64
        var resetAfter: UInt64
    }

    /// Sizes in bytes.
    struct Limits: Hashable, Sendable, Codable {
        var maximumPayload: Int
        var channelWindow: Int
        var maximumUnacknowledged: Int
    }

    /// What it answers, for a client that wants to see that nobody gave it another's answer, or an old one.
    struct Question: Hashable, Sendable, Codable {
        /// As the client drew it.
        var nonce: String
        /// Whose token the question came with.
        var tenant: String
        var user: String
        var device: String

        init(nonce: String, device: DeviceKey) {
            self.nonce = nonce
            tenant = device.tenant.description
            user = device.user.description
            self.device = device.device.description
        }
    }

    var version = 1
    var question: Question?
    /// In milliseconds since 1970, as the next.
    var issuedAt: UInt64
    var expiresAt: UInt64
    /// Best first.
    var accessPoints: [Point]
    var heartbeat: Heartbeat
    var backOff: BackOff
    var limits: Limits

    init(
        nodes: [NodeStatus], policy: AccessPolicy, limits: ServerLimits, tenant: TenantID, question: Question?,
        now: UInt64
    ) {
        self.question = question
        // Whole seconds: answers within one are equal.
        issuedAt = now / 1_000 * 1_000
        expiresAt = issuedAt + policy.lifetime.wholeMilliseconds
        let points = nodes.flatMap { node in
            node.addresses.filter(\.isUsable).map { address in
                Point(
                    host: address.host, port: address.port, transports: address.transports.map(\.rawValue),
                    serverId: node.id.description, migrationSafe: address.isMigrationSafe)
            }
        }
        // An answer with all of a large service's nodes no client would take.
        accessPoints = Array(points.prefix(AccessStatement.maximumPoints))
        heartbeat = Heartbeat(
            initial: policy.heartbeat.wholeMilliseconds, answerTimeout: policy.heartbeatAnswer.wholeMilliseconds,
            minimum: UInt64(max(limits.minimumHeartbeat.nanoseconds / 1_000_000, 0)),
            idleTimeout: UInt64(max(limits.idleTimeout.nanoseconds / 1_000_000, 0)))
        backOff = BackOff(
            base: policy.backOffBase.wholeMilliseconds, maximum: policy.backOffMaximum.wholeMilliseconds,
            resetAfter: policy.backOffReset.wholeMilliseconds)
        self.limits = Limits(
            maximumPayload: limits.maximumPayload(in: tenant), channelWindow: limits.channelWindow,
            maximumUnacknowledged: limits.maximumUnacknowledged)
    }
}

extension Duration {
    /// Rounded down; 0 for a negative one.
    var wholeMilliseconds: UInt64 { UInt64(max(self / .milliseconds(1), 0)) }
}
