import Crypto
import LonglineWire

/// In which order a user's devices try nodes.
///
/// Nodes fall into bands by their utilization; what is draining or full is left out. Where that leaves nobody, of the full ones the
/// least loaded is there: it turns away whom it has no room for, and says when to come again. Within a band rendezvous hashing over
/// the user decides: all of a user's devices find the same order, users spread evenly, and when a node comes or goes only those move for
/// whom it was first. Bands are wide, so that a little more load changes no order.
enum NodeRanking {
    /// The utilization up to which a node belongs to each band.
    private static let bands = [0.7, 0.85]

    static func rank(_ nodes: [NodeStatus], tenant: TenantID, user: UserID) -> [NodeStatus] {
        let open = nodes.filter { !$0.isDraining && $0.addresses.contains(where: \.isUsable) }
        let free = open.filter { !$0.isFull }
        guard !free.isEmpty else {
            let least = open.min {
                ($0.utilization, $0.id.description) < ($1.utilization, $1.id.description)
            }
            return least.map { [$0] } ?? []
        }
        return
            free.map { (node: $0, band: band($0.utilization), score: score($0.id, tenant, user)) }
            .sorted { ($0.band, $1.score, $0.node.id.description) < ($1.band, $0.score, $1.node.id.description) }
            .map(\.node)
    }

    static func band(_ utilization: Double) -> Int { bands.firstIndex { utilization < $0 } ?? bands.count }

    /// The highest score goes first.
    static func score(_ node: NodeID, _ tenant: TenantID, _ user: UserID) -> UInt64 {
        var hash = SHA256()
        // No name has a slash, so that no two triples are one text.
        hash.update(data: Array("\(node)/\(tenant)/\(user)".utf8))
        return hash.finalize().prefix(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
}
