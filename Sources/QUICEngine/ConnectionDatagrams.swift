import CQUICShim

/// Datagrams that wait to be sent, in order. Their number is bounded by `TransportSettings.datagramQueueLimit`.
struct DatagramQueue {
    struct Datagram {
        var id: UInt64
        var bytes: [UInt8]
        var deadline: QUICInstant?
    }

    private var items = FIFO<Datagram>()
    /// The earliest deadline of those queued, or earlier: one that left may have had it.
    private(set) var earliestDeadline: QUICInstant?
    private(set) var byteCount = 0

    var count: Int { items.count }
    var isEmpty: Bool { items.isEmpty }
    var first: Datagram? { items.first }

    mutating func append(_ datagram: Datagram) {
        items.append(datagram)
        byteCount += datagram.bytes.count
        if let deadline = datagram.deadline { earliestDeadline = min(deadline, earliestDeadline ?? deadline) }
    }

    mutating func popFirst() -> Datagram? {
        let first = items.popFirst()
        byteCount -= first?.bytes.count ?? 0
        if items.isEmpty { earliestDeadline = nil }
        return first
    }

    func contains(_ id: UInt64) -> Bool { size(of: id) != nil }

    /// Bytes of a datagram that is queued; nil: it isn't.
    func size(of id: UInt64) -> Int? {
        var size: Int?
        items.forEach { if $0.id == id { size = $0.bytes.count } }
        return size
    }

    /// Takes a datagram out.
    /// - Returns: whether it was there.
    mutating func remove(_ id: UInt64) -> Bool {
        let before = items.count
        removeAll { $0.id == id }
        if items.isEmpty { earliestDeadline = nil }
        return items.count < before
    }

    /// Takes out what is too late.
    /// - Returns: their IDs.
    mutating func removeExpired(now: QUICInstant) -> [UInt64] {
        guard let earliest = earliestDeadline, earliest <= now else { return [] }
        var expired: [UInt64] = []
        var next: QUICInstant?
        items.forEach { datagram in
            guard let deadline = datagram.deadline else { return }
            if deadline <= now {
                expired.append(datagram.id)
            } else {
                next = min(deadline, next ?? deadline)
            }
        }
        removeAll { $0.deadline.map { $0 <= now } ?? false }
        earliestDeadline = next
        return expired
    }

    private mutating func removeAll(where matches: (Datagram) -> Bool) {
        items.removeAll(where: matches)
        var left = 0
        items.forEach { left += $0.bytes.count }
        byteCount = left
    }
}

/// DATAGRAM frames (RFC 9221), which go before stream data.
extension QUICEngineConnection {
    /// Queues a DATAGRAM frame (RFC 9221).
    /// - Parameters:
    ///   - bytes: copied; at most ``maxDatagramSize``.
    ///   - id: returned in `datagramAcknowledged`, `datagramLost` or `datagramExpired`, one of which follows while the
    ///     connection lives.
    ///   - deadline: if it hasn't left by then it is dropped; nil: it waits as long as the connection lives.
    ///   - older: a datagram that is taken back for this one, as ``withdrawDatagram(_:)`` does, if it waits still; where this one is
    ///     refused it waits on.
    /// - Returns: false if ``TransportSettings/datagramQueueLimit`` are queued already, or if those of a server's connections from the
    ///   peer's address hold their share of ``EndpointConfiguration/maxBufferedBytes``, and this one 4 KiB; it was dropped then.
    /// - Throws: `datagramNotSupported`, `datagramTooLarge`, `closed`.
    public func sendDatagram(
        _ bytes: UnsafeRawBufferPointer, id: UInt64, deadline: QUICInstant? = nil, replacing older: UInt64? = nil
    ) throws(QUICError) -> Bool {
        _ = try alive()
        guard let limit = maxDatagramSize else {
            throw QUICError(
                .datagramNotSupported, "The peer takes no datagrams, or the handshake isn't far enough",
                advice: "Send on a stream.")
        }
        guard bytes.count <= limit else {
            throw QUICError(
                .datagramTooLarge, "A datagram of \(bytes.count) bytes doesn't fit; the path takes \(limit)",
                advice: "Send on a stream, or less.")
        }
        let replaced = older.flatMap { datagramsToSend.size(of: $0) }
        let others = datagramsToSend.count - (replaced == nil ? 0 : 1)
        guard others < settings.datagramQueueLimit else { return false }
        guard others == 0 || hasRoom(forDatagramOf: bytes.count, freeing: replaced ?? 0) else {
            endpoint.counters.writesWithheld += 1
            return false
        }
        if let older, replaced != nil { _ = datagramsToSend.remove(older) }
        datagramsToSend.append(DatagramQueue.Datagram(id: id, bytes: Array(bytes), deadline: deadline))
        countQueuedDatagrams()
        endpoint.schedule(self)
        return true
    }

    /// Whether a datagram waits to be sent. Costs a look at each that waits.
    public func isDatagramWaiting(_ id: UInt64) -> Bool { datagramsToSend.contains(id) }

    /// Takes a datagram back that was not sent yet, because there is newer news: nothing is reported of it then.
    /// - Returns: false if it has left, or was dropped.
    public func withdrawDatagram(_ id: UInt64) -> Bool {
        defer { countQueuedDatagrams() }
        return datagramsToSend.remove(id)
    }

    /// The largest datagram the peer accepts on the present path, in bytes; nil: none, or the handshake isn't far enough.
    /// It grows with the path MTU found and shrinks after a change of path, or where the path takes less than before:
    /// `maxDatagramSizeChanged` tells. A queued datagram for which the path has become too small is reported as lost.
    public var maxDatagramSize: Int? {
        guard let shim, !isClosed else { return nil }
        return datagramRoom(shim)
    }

    /// The same also while what was queued before a close goes out.
    /// - Parameter limit: bytes that a packet may have, where that is less than the path's.
    func datagramRoom(_ shim: OpaquePointer, within limit: Int = .max) -> Int? {
        let frame = llq_conn_peer_datagram_limit(shim)
        // An empty one has a type and a length.
        guard frame >= 2 else { return nil }
        // Short header with the longest connection ID and packet number, and the AEAD's tag; then type and length of the
        // frame, and what ngtcp2 has to put beside it.
        let overhead = 1 + Int(LLQ_MAX_CID_LENGTH) + 4 + 16
        let room = min(Int(llq_conn_path_max_payload(shim)), limit) - overhead - llq_datagram_overhead()
        return max(0, min(room, Int(min(frame, 65535)) - 3))
    }

    /// Drops the peer's datagrams from now on before anything is made of them: for a protocol without datagrams whose port has
    /// others with them. They are acknowledged, not reported, and counted in ``EndpointCounters/datagramFramesDropped``.
    public func refuseDatagrams() { context.refusesDatagrams = true }

    /// Whether another one may wait to be taken. No window holds its sender up, so that where all connections together hold too much,
    /// each keeps a few only.
    func hasRoom(forReceivedDatagramOf count: Int) -> Bool {
        guard endpoint.isFull else { return true }
        var waiting = bytesKeptByOwner
        receivedDatagrams.forEach { waiting += $0.bytes.count }
        return waiting == 0 || waiting + count <= Self.leastDatagramMemory
    }

    func reportDatagramSize() {
        guard handshake != nil, let size = maxDatagramSize, size != reportedDatagramSize else { return }
        reportedDatagramSize = size
        emit(.maxDatagramSizeChanged(size))
    }

    /// ngtcp2 told of a datagram in flight.
    func datagramEnded(_ number: UInt64, acknowledged: Bool) {
        guard let id = datagramsInFlight.end(number) else { return }
        emit(acknowledged ? .datagramAcknowledged(id: id) : .datagramLost(id: id))
    }

    /// Finds those lost that ngtcp2 said nothing of.
    func loseDatagrams(_ shim: OpaquePointer) {
        guard !datagramsInFlight.isEmpty else { return }
        let lost = datagramsInFlight.removeLost(
            acknowledgedTo: llq_conn_acked_to(shim), delay: llq_conn_loss_delay(shim), now: now)
        for id in lost { emit(.datagramLost(id: id)) }
    }

    /// When that is to be looked at again.
    func datagramLossDeadline(_ shim: OpaquePointer) -> QUICInstant? {
        guard !datagramsInFlight.isEmpty else { return nil }
        return datagramsInFlight.deadline(acknowledgedTo: llq_conn_acked_to(shim), delay: llq_conn_loss_delay(shim))
    }

    func expireDatagrams() {
        let expired = datagramsToSend.removeExpired(now: now)
        countQueuedDatagrams()
        for id in expired {
            endpoint.counters.datagramFramesExpired += 1
            emit(.datagramExpired(id: id))
        }
    }
}
