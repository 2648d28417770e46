import LonglineLinks
import QUICEngine
import QUICTransport

/// The handler of a connection that has nothing to do with sessions, whose handshake counts all the same: it costs the node as much.
final class CountedHandler: QUICConnectionHandler {
    private let base: any QUICConnectionHandler
    private let completed: (HandshakeInfo) -> Void

    init(_ base: any QUICConnectionHandler, completed: @escaping (HandshakeInfo) -> Void) {
        self.base = base
        self.completed = completed
    }

    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection) {
        if case .handshakeCompleted(let info) = event { completed(info) }
        base.handle(event, on: connection)
    }

    func batchEnded(on connection: QUICLoopConnection) { base.batchEnded(on: connection) }

    func packetsReceived(on connection: QUICLoopConnection) { base.packetsReceived(on: connection) }
}
