internal import NIOCore
internal import QUICEngine

extension LoopDriver {
    /// Removes a port once the connection that sent by it is closed, has said so, and has no answer to expect any more. What
    /// was written before a close goes out ahead of its CONNECTION_CLOSE, over some round trips if need be.
    func remove(_ port: UDPPort, whenQuiet engine: QUICEngineConnection) {
        guard port.state != .closed else { return }
        let now = QUICInstant.now()
        let wait: UInt64
        if let end = engine.quietAfter {
            guard end > now else { return remove(port) }
            wait = end.nanoseconds - now.nanoseconds
        } else {
            wait = engine.probeTimeout?.nanoseconds ?? 0
        }
        eventLoop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(clamping: wait))) {
            self.remove(port, whenQuiet: engine)
        }
    }
}
