/// What is left of a connection while the peer may still send to it (RFC 9000 section 10.2): its IDs, and the
/// CONNECTION_CLOSE to repeat if we closed, less and less often. It ends after three probe timeouts.
final class ClosedConnection: DeadlineOwner {
    let ids: [ConnectionID]
    /// It stands for one retired ID of this connection, which may live.
    let isRetiredID: Bool
    weak var connection: QUICEngineConnection?
    let packet: (bytes: [UInt8], path: QUICPath, ecn: ECNCodepoint)?
    private var received = 0
    private var nextAnswer = 1

    init(ids: [ConnectionID], packet: (bytes: [UInt8], path: QUICPath, ecn: ECNCodepoint)?) {
        self.ids = ids
        self.packet = packet
        isRetiredID = false
        super.init()
    }

    init(retired id: ConnectionID, of connection: QUICEngineConnection) {
        ids = [id]
        packet = nil
        isRetiredID = true
        self.connection = connection
        super.init()
    }

    /// Whether the packet that came in is to be answered with the CONNECTION_CLOSE: the first, second, fourth, eighth.
    func shouldAnswer() -> Bool {
        received += 1
        guard received >= nextAnswer, packet != nil else { return false }
        nextAnswer *= 2
        return true
    }
}
