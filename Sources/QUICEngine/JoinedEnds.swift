/// Packets under way that carry the end of a stream together with bytes before it, although that end first left by itself;
/// in the order of their numbers. There are as many as times such an end was sent again, and none of a stream whose end is
/// known to be with the peer.
///
/// ngtcp2 doesn't tell of the acknowledgement of such an end: see stream_ends.c.
struct JoinedEnds {
    private var items: [(packet: UInt64, stream: QUICStreamID)] = []

    var isEmpty: Bool { items.isEmpty }

    /// Packets come in the order in which they are written.
    mutating func append(_ stream: QUICStreamID, in packet: UInt64) {
        assert(items.last.map { $0.packet <= packet } ?? true, "packet numbers grow")
        items.append((packet, stream))
    }

    /// The streams whose end the peer has, since it has acknowledged these packets.
    func streams(in packets: ClosedRange<UInt64>) -> [QUICStreamID] {
        guard let first = items.first, let last = items.last, packets.lowerBound <= last.packet,
            packets.upperBound >= first.packet
        else { return [] }
        return items.filter { packets.contains($0.packet) }.map(\.stream)
    }

    /// Nothing is awaited of the stream any more.
    mutating func remove(_ stream: QUICStreamID) { items.removeAll { $0.stream == stream } }
}
