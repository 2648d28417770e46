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
    func countReadMemory(_ shim: OpaquePointer) {
        setCounted(max(0, llq_conn_read_memory(shim) - Self.ordinaryReadMemory))
    }

    /// It is gone with the C connection.
    func forgetReadMemory() { setCounted(0) }

    private func setCounted(_ count: Int) {
        guard count != countedReadMemory else { return }
        context.storage.memory.held += count - countedReadMemory
        countedReadMemory = count
    }

    /// Whoever makes ngtcp2 hold more than that is sent away with NO_ERROR: on 0.12 an honest peer can, by hundreds of unidirectional
    /// streams whose packets came out of order.
    func endForReadMemory() {
        endpoint.counters.connectionsEndedForMemory += 1
        endWithoutError("The connection holds more data out of order than it may; connect again")
    }
}
