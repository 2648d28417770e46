import NIOCore

/// A server at a glance, for operators on its machine; ``ServerStatistics`` says more.
public struct ServerStatus: Hashable, Sendable, Codable {
    /// The version of the package.
    public var version: String
    /// For how long it has been running, in milliseconds.
    public var uptime: UInt64
    /// The addresses that it listens on, as `host:port`.
    public var addresses: [String]
    /// Connections open now.
    public var connections: Int
    /// Sessions established now.
    public var sessions: Int
    /// Publishes entered since the start.
    public var published: UInt64
    /// Entries sent to devices since the start.
    public var delivered: UInt64
    /// Clients moved away each second; nil while nothing is drained.
    public var drainRate: Int?
    /// Event loops that did not answer, if there are any: see ``ServerStatistics/loopsBehind``.
    public var loopsBehind: Int?
}

extension LonglineServer {
    /// The server at a glance. Visits each event loop once.
    /// - Throws: ``ServerError/Code/notRunning``.
    public func status() async throws(ServerError) -> ServerStatus {
        let statistics = try await statistics()
        let uptime = NIODeadline.now() - (try requireRuntime().startedAt)
        return ServerStatus(
            version: LonglineVersion.current, uptime: UInt64(max(0, uptime.nanoseconds / 1_000_000)),
            addresses: addresses.map { address in
                let host = address.ipAddress ?? ""
                return "\(host.contains(":") ? "[\(host)]" : host):\(address.port ?? 0)"
            },
            connections: statistics.connections, sessions: statistics.sessions, published: statistics.published,
            delivered: statistics.delivered, drainRate: nodeDrain.rate,
            loopsBehind: statistics.loopsBehind > 0 ? statistics.loopsBehind : nil)
    }
}
