public import QUICEngine

/// What an application does with one connection, on the connection's event loop.
///
/// The calls come from the loop's driver after it took in a batch of datagrams, never from inside the engine; the
/// handler may call the connection freely.
public protocol QUICConnectionHandler: AnyObject {
    /// Something happened on the connection. ``/QUICEngine/QUICConnectionEvent/closed(_:)`` is the last event of every
    /// connection, of those that never came to be as well, and comes exactly once.
    func handle(_ event: QUICConnectionEvent, on connection: QUICLoopConnection)
    /// The events of one loop tick for this connection were delivered: work off what they caused.
    func batchEnded(on connection: QUICLoopConnection)
    /// Client only: packets that the peer's keys authenticated came in this tick: the path lives.
    func packetsReceived(on connection: QUICLoopConnection)
}

extension QUICConnectionHandler {
    public func packetsReceived(on connection: QUICLoopConnection) {}
}
