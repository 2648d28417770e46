internal import QUICEngine

extension QUICLoopConnection {
    /// Lets the peer have more bidirectional streams open at a time than
    /// ``/QUICEngine/TransportSettings/maxBidirectionalStreams`` said (RFC 9000 section 4.6): for a server whose port has several
    /// protocols, once the handshake is complete. A limit never falls.
    /// - Parameter limit: how many, at most 2^20.
    public func raiseBidirectionalStreamLimit(to limit: UInt64) {
        guard !isOver, let engine else { return }
        engine.raiseBidirectionalStreamLimit(to: limit)
        driver.needsTick()
    }

    /// Bidirectional streams that the peer may have opened by now, those that are over among them: it has been told of no more. nil
    /// before a client's first packet and after the end.
    public var peerBidirectionalStreamLimit: UInt64? { isOver ? nil : engine?.peerBidirectionalStreamLimit }
}
