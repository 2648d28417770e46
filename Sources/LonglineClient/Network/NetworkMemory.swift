import LonglineSession
import NIOCore

/// What was learned about the networks that this device is in now and then.
struct NetworkMemory {
    private var networks: [String: StoredNetwork] = [:]

    init(_ stored: [StoredNetwork]) {
        for network in stored where network.isSound { networks[network.name] = network }
    }

    /// What is known of a network.
    func knowledge(of name: String) -> HeartbeatKnowledge? {
        networks[name].map { network in
            HeartbeatKnowledge(
                lived: network.lived.map { .milliseconds(Int64($0)) },
                died: network.died.map { .milliseconds(Int64($0)) })
        }
    }

    /// Something was learned, or the network is in use again. The one not used for longest makes room.
    /// - Returns: what to keep on disk; nil for what no storage takes.
    mutating func note(_ knowledge: HeartbeatKnowledge, of name: String, at time: UInt64) -> StoredNetwork? {
        let network = StoredNetwork(
            name: name, lived: knowledge.lived.map(\.wholeMilliseconds), died: knowledge.died.map(\.wholeMilliseconds),
            lastUse: time)
        guard network.isSound else { return nil }
        networks[name] = network
        if networks.count > StoredNetwork.limit,
            let oldest = networks.values.min(by: { ($0.lastUse, $0.name) < ($1.lastUse, $1.name) })
        {
            networks[oldest.name] = nil
        }
        return network
    }
}

extension TimeAmount {
    fileprivate var wholeMilliseconds: UInt64 { UInt64(max(0, nanoseconds / 1_000_000)) }
}
