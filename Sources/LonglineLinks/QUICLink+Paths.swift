public import NIOCore
internal import QUICTransport

/// What only QUIC can: a client's link goes on from another address.
extension QUICLink {
    /// Client: moves to another local address, or with nil to a new port of the present one.
    /// - Parameters:
    ///   - local: where to send from; nil: a new port of the present address.
    ///   - completed: called once, when the new path was validated or when that failed.
    public func migrate(to local: SocketAddress?, completed: @escaping (Result<Void, any Error>) -> Void) {
        eventLoop.preconditionInEventLoop()
        var target = local ?? connection?.localAddress
        if local == nil { target?.port = 0 }
        guard let connection, let target else {
            return completed(
                .failure(
                    QUICTransportError(.pathChangeFailed, "the link has no path yet", advice: "Wait for the handshake.")
                ))
        }
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete(completed)
        connection.migrate(toLocal: target, promise: promise)
    }

    /// Client: goes on from a new port without telling anyone: to the server it looks like a NAT that bound this client
    /// anew.
    public func rebind(completed: @escaping (Result<Void, any Error>) -> Void) {
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete(completed)
        guard let connection else {
            promise.fail(
                QUICTransportError(.pathChangeFailed, "the link is closed", advice: "Open another."))
            return
        }
        connection.rebind(promise: promise)
    }

    /// Client: from now on nothing leaves and what comes is dropped, without a word to anyone: an outage, for tests and
    /// demonstrations.
    public func goSilent() { connection?.goSilent() }
}
