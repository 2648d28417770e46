import LonglineServer
import LonglineWire
import NIOCore

/// A service of one node: this one.
struct LocalNode: NodeDirectory {
    let id: NodeID
    let server: LonglineServer
    let sampler: StatisticsSampler
    let access: CurrentAccess

    func nodes() async -> [NodeStatus] {
        guard server.isRunning else { return [] }
        let settings = access.value
        return [
            NodeStatus(
                id: id, addresses: addresses(settings.accessPoints), load: await sampler.load,
                capacity: capacity(settings.capacity),
                isDraining: server.isDraining)
        ]
    }

    /// A device that is let in takes a connection and a session.
    private func capacity(_ wanted: NodeCapacity) -> NodeCapacity {
        let limits = server.currentLimits
        var capacity = wanted
        capacity.connections = min(wanted.connections, limits.maximumConnections, limits.maximumSessions)
        return capacity
    }

    private func addresses(_ accessPoints: [NodeAddress]) -> [NodeAddress] {
        guard accessPoints.isEmpty else { return accessPoints }
        return Self.told(server.addresses, configured: server.configuration.addresses).compactMap { address in
            guard let host = address.ipAddress, let port = address.port else { return nil }
            return NodeAddress(host: host, port: port)
        }
    }

    /// Those of the addresses that are listened on which clients are told. A wildcard stands for loopback as well, where clients
    /// elsewhere would find themselves: unless it was named, it is left out as long as there is anything else.
    static func told(_ listening: [SocketAddress], configured: [SocketAddress]) -> [SocketAddress] {
        let named = configured.map(\.ipAddress)
        let others = listening.filter { !$0.isLoopback || named.contains($0.ipAddress) }
        return others.isEmpty ? listening : others
    }

    func drain(_ node: NodeID, rate: Int) async throws -> NodeDrainStatus? {
        guard node == id else { return nil }
        let progress = try await server.drain(rate: rate)
        return NodeDrainStatus(rate: progress.rate, remaining: progress.remaining)
    }
}
