/// Packets under way that carry the end of a stream together with bytes before it, although that end first left by itself;
/// in the order of their numbers. The newest two of each stream, and none of one whose end is known to be with the peer: the
/// copies before them are lost, and another proves the same. A peer that acknowledges none makes no more of them.
///
/// ngtcp2 doesn't tell of the acknowledgement of such an end: see stream_ends.c.
struct JoinedEnds {
    private var items: [(packet: UInt64, stream: QUICStreamID)] = []
    private var packets: [QUICStreamID: (older: UInt64?, newest: UInt64)] = [:]

    var isEmpty: Bool { items.isEmpty }
    var count: Int { items.count }

    /// Packets come in the order in which they are written.
    mutating func append(_ stream: QUICStreamID, in packet: UInt64) {
        assert(items.last.map { $0.packet <= packet } ?? true, "packet numbers grow")
        let known = packets[stream]
        guard known?.newest != packet else { return }
        if let oldest = known?.older { removeItem(stream, in: oldest) }
        packets[stream] = (known?.newest, packet)
        items.append((packet, stream))
    }

    /// The streams whose end the peer has, since it has acknowledged these packets.
    func streams(in packets: ClosedRange<UInt64>) -> [QUICStreamID] {
        guard let last = items.last, packets.lowerBound <= last.packet else { return [] }
        return items[index(of: packets.lowerBound)...].prefix { $0.packet <= packets.upperBound }.map(\.stream)
    }

    /// Nothing is awaited of the stream any more.
    mutating func remove(_ stream: QUICStreamID) {
        guard let known = packets.removeValue(forKey: stream) else { return }
        removeItem(stream, in: known.newest)
        if let older = known.older { removeItem(stream, in: older) }
    }

    private mutating func removeItem(_ stream: QUICStreamID, in packet: UInt64) {
        var index = index(of: packet)
        // A packet has the ends of a few streams at most.
        while index < items.count, items[index].stream != stream { index += 1 }
        if index < items.count { items.remove(at: index) }
    }

    /// Of the first item that isn't before a packet.
    private func index(of packet: UInt64) -> Int {
        var low = 0
        var high = items.count
        while low < high {
            let middle = (low + high) / 2
            if items[middle].packet < packet { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
