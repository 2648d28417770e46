/// Datagrams that were sent and of which nothing is known yet, in the order of their packets. Their number is bounded by the
/// congestion window.
///
/// ngtcp2 tells nothing of a datagram that was lost with a packet whose other frames it had sent again by then, so each is
/// counted as lost by the rule that ngtcp2 goes by, too: when something sent later was acknowledged and a time has passed
/// (RFC 9002 section 6.1).
struct DatagramsInFlight {
    private struct Item {
        /// The application's.
        var id: UInt64
        var packet: UInt64
        var sentAt: QUICInstant
        var isTold = false
    }

    private var items = FIFO<Item>()
    /// How ngtcp2 knows the first of them; the others follow.
    private var firstNumber: UInt64 = 0

    var isEmpty: Bool { items.isEmpty }

    /// How ngtcp2 will know the next one.
    var nextNumber: UInt64 { firstNumber + UInt64(items.count) }

    /// The one that is `nextNumber` was sent.
    mutating func append(id: UInt64, packet: UInt64, at now: QUICInstant) {
        items.append(Item(id: id, packet: packet, sentAt: now))
    }

    /// ngtcp2 has told of one.
    /// - Returns: the application's ID; nil if its end was told before.
    mutating func end(_ number: UInt64) -> UInt64? {
        guard number >= firstNumber, number < nextNumber else { return nil }
        let offset = Int(number - firstNumber)
        guard !items[offset].isTold else { return nil }
        items[offset].isTold = true
        let id = items[offset].id
        dropTold()
        return id
    }

    private mutating func dropTold() {
        while let first = items.first, first.isTold { dropFirst() }
    }

    private mutating func dropFirst() {
        _ = items.popFirst()
        firstNumber += 1
    }

    /// When the first that can be lost counts as lost.
    /// - Parameters:
    ///   - acknowledgedTo: one more than the largest packet number acknowledged.
    ///   - delay: after which a packet counts as lost, in nanoseconds.
    func deadline(acknowledgedTo: UInt64, delay: UInt64) -> QUICInstant? {
        guard let first = items.first, first.packet + 1 < acknowledgedTo else { return nil }
        return first.sentAt.advanced(byNanoseconds: delay)
    }

    /// Takes out those that count as lost.
    /// - Returns: the application's IDs.
    mutating func removeLost(acknowledgedTo: UInt64, delay: UInt64, now: QUICInstant) -> [UInt64] {
        var lost: [UInt64] = []
        while let deadline = deadline(acknowledgedTo: acknowledgedTo, delay: delay), deadline <= now,
            let first = items.first
        {
            if !first.isTold { lost.append(first.id) }
            dropFirst()
        }
        return lost
    }

    /// All are lost.
    /// - Returns: the application's IDs.
    mutating func removeAll() -> [UInt64] {
        var lost: [UInt64] = []
        while let first = items.first {
            if !first.isTold { lost.append(first.id) }
            dropFirst()
        }
        return lost
    }
}
