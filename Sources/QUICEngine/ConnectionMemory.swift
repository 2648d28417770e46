import CQUICShim

/// What ngtcp2 holds of what the peer sent: mostly stream data behind a gap, of which the engine sees nothing before the gap is
/// filled. It lies there in pieces of 8 KiB however few of their bytes have come, so the windows alone don't bound it; and ngtcp2
/// 0.12 keeps such data even of a stream that was stopped, whose bytes count in no window any more.
extension QUICEngineConnection {
    /// Of each connection, and not counted among what the endpoint's connections hold: streams' records, keys, the handshake.
    static let ordinaryReadMemory = 64 << 10
    /// What data out of order costs a stream beyond its bytes: a piece that is begun, and where its gaps are. Measured: 15 kB.
    private static let memoryPerStream = 16 << 10
    /// Records of streams that are over (`maxPeerStreamRecords`), and what goes with packets.
    private static let memoryOfRecords = 1 << 20

    /// What an honest peer may come to, on the streams that it may open.
    static func readMemoryLimit(_ settings: TransportSettings) -> Int {
        let streams = Int(settings.maxBidirectionalStreams + settings.maxUnidirectionalStreams)
        return Int(settings.connectionWindow) + memoryOfRecords + memoryPerStream * streams
    }

    /// The same with the streams that there are besides.
    var allowedReadMemory: Int {
        readMemoryLimit + Self.memoryPerStream * (Int(raisedStreams) + openedStreams)
    }

    /// Counts it among what the endpoint's connections hold.
    /// - Returns: whether it is more than before.
    func countReadMemory(_ shim: OpaquePointer) -> Bool {
        let before = countedReadMemory
        setCounted(max(0, llq_conn_read_memory(shim) - Self.ordinaryReadMemory))
        return countedReadMemory > before
    }

    /// It is gone with the C connection.
    func forgetReadMemory() { setCounted(0) }

    private func setCounted(_ count: Int) {
        guard count != countedReadMemory else { return }
        context.storage.memory.held += count - countedReadMemory
        let difference = count - countedReadMemory
        countedReadMemory = count
        if isServer { endpoint.addReadMemory(difference, of: self) }
    }

    /// Whoever makes ngtcp2 hold more than that, or has most where its address has too much, is sent away with NO_ERROR: on 0.12 an
    /// honest peer can, by hundreds of unidirectional streams whose packets came out of order. One that is closed and only waits for
    /// what was written before goes at once, with the code of its close.
    func endForReadMemory() {
        guard shim != nil else { return }
        endpoint.counters.connectionsEndedForMemory += 1
        guard !isClosed else { return endpoint.retire(self, packet: writePendingClose()) }
        endWithoutError("The connection holds more data out of order than it may; connect again")
    }
}

/// With a thousand connections and a packet on each, one host would else take all that those of an endpoint may hold: nobody could
/// connect any more, and those that live could send no more than what their windows are.
extension QUICEndpoint {
    /// What the connections from one address may have out of order together: an eighth of what all may hold, and at least what the
    /// settings let one connection have. What further streams let that have besides (`allowedReadMemory`) is not added.
    static func readMemoryShare(of configuration: EndpointConfiguration) -> Int {
        let ofOne = configuration.server.map { QUICEngineConnection.readMemoryLimit($0.transport) } ?? 0
        return max(configuration.maxBufferedBytes / 8, leastReadMemoryShare, ofOne)
    }

    private static let leastReadMemoryShare = 16 << 20

    func addReadMemory(_ difference: Int, of connection: QUICEngineConnection) {
        let (address, handle) = (connection.handshakeAddressKey, connection.handle.rawValue)
        readMemoryByAddress[address, default: AddressReadMemory()].total += difference
        if connection.countedReadMemory > 0 {
            readMemoryByAddress[address]?.holders.insert(handle)
        } else {
            readMemoryByAddress[address]?.holders.remove(handle)
        }
        if readMemoryByAddress[address]?.holders.isEmpty == true { readMemoryByAddress[address] = nil }
    }

    /// Where those of an address have more, those go that have most: not that of an honest neighbour behind the same NAT, and not
    /// that of a host whose address somebody else writes on handshakes. An eighth becomes free, so that it takes as much data, and
    /// not one packet, to make this look at all of them again.
    func boundReadMemory(of address: UInt64, now: QUICInstant) {
        guard let held = readMemoryByAddress[address], held.total > maxReadMemoryPerAddress else { return }
        let rest = maxReadMemoryPerAddress - maxReadMemoryPerAddress / 8
        var total = held.total
        for connection in held.holders.compactMap({ connections[$0] }).sorted(by: hasMore) where total > rest {
            total -= connection.countedReadMemory
            // It may have been quiet for long, and its closing period begins now.
            connection.advance(to: now)
            connection.endForReadMemory()
        }
    }

    /// Of those that have as much, the older one first.
    private func hasMore(_ first: QUICEngineConnection, _ second: QUICEngineConnection) -> Bool {
        let (one, other) = (first.countedReadMemory, second.countedReadMemory)
        return one == other ? first.handle.rawValue < second.handle.rawValue : one > other
    }
}

/// What the connections from one address have out of order.
struct AddressReadMemory {
    var total = 0
    /// The numbers of those that have any, so that none of the others need be looked at.
    var holders: Set<UInt64> = []
}
