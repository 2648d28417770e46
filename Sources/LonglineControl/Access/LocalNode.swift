import LonglineServer
import LonglineWire
import NIOCore

/// A service of one node: this one.
struct LocalNode: NodeDirectory {
    let id: NodeID
    let server: LonglineServer
    let sampler: StatisticsSampler
    /// Where clients reach it; empty: where the server listens.
    let accessPoints: [NodeAddress]
    let capacity: NodeCapacity

    func nodes() async -> [NodeStatus] {
        guard server.isRunning else { return [] }
        return [
            NodeStatus(
                id: id, addresses: addresses, load: await sampler.load, capacity: capacity,
                isDraining: server.isDraining)
        ]
    }

    private var addresses: [NodeAddress] {
        guard accessPoints.isEmpty else { return accessPoints }
        return server.addresses.compactMap { address in
            guard let host = address.ipAddress, let port = address.port else { return nil }
            return NodeAddress(host: host, port: port)
        }
    }

    func drain(_ node: NodeID, rate: Int) async throws -> NodeDrainStatus? {
        guard node == id else { return nil }
        let progress = try await server.drain(rate: rate)
        return NodeDrainStatus(rate: progress.rate, remaining: progress.remaining)
    }
}
