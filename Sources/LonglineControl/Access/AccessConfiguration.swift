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
        accessPoints = Self.points(of: nodes)
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

    /// The usable addresses, node by node, of as many as clients take: those that each node names first before any that it names
    /// behind, as one with many addresses would leave no place to go to when it is down.
    private static func points(of nodes: [NodeStatus]) -> [Point] {
        let usable = nodes.map { $0.addresses.filter(\.isUsable) }
        // The place of each in its node's list.
        let places = usable.flatMap { $0.prefix(AccessStatement.maximumPoints).indices }.sorted()
        let taken = places.prefix(AccessStatement.maximumPoints)
        guard let last = taken.last else { return [] }
        // In the last place not all nodes may have room.
        var left = taken.count(where: { $0 == last })
        var points: [Point] = []
        for (node, addresses) in zip(nodes, usable) {
            var count = min(addresses.count, last)
            if addresses.count > last, left > 0 { (count, left) = (count + 1, left - 1) }
            points += addresses.prefix(count).map { address in
                Point(
                    host: address.host, port: address.port, transports: address.transports.map(\.rawValue),
                    serverId: node.id.description, migrationSafe: address.isMigrationSafe)
            }
        }
        return points
    }
}
